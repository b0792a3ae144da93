"""The study from Python says and does what the command line does."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from report_fixtures import play
from sweep_fixtures import REPOSITORY, folder_of, plan_of

import study
from study.cli import launch

SMALL = {"tasks": {"name": "class_pairs", "count": 2, "images_per_task": 32}, "seeds": [3, 5]}


def test_every_public_name_is_there_and_typed():
    typed = re.findall(r"import (\w+) as \1$", (REPOSITORY / "study" / "__init__.pyi").read_text(), re.MULTILINE)
    assert sorted(typed) == sorted(study.__all__)
    assert all(getattr(study, name) is not None for name in study.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        assert study.nothing


def test_a_trial_is_that_of_the_command_line(here, run):
    (here / "one.yaml").write_text(json.dumps(SMALL), encoding="utf-8")
    code, out, _ = run("trial", "one.yaml", "--set", "optimizer/name=sam", "--json")
    assert code == 0
    printed = [json.loads(line) for line in out.splitlines()]
    settings = {"optimizer/name": "sam"}
    for config in ("one.yaml", here / "one.yaml", SMALL, {"optimizer": {"lr": 0.01}, **SMALL}):
        rows = pd.DataFrame(study.trial(config, settings=settings))
        assert rows["seed"].tolist() == [3, 5, 3, 5]
        assert rows["name"].tolist() == ["0-1", "0-1", "0-2", "0-2"]
        for task, lanes in rows.groupby("task"):
            assert lanes["accuracy/test"].tolist() == printed[task]["lanes"]["accuracy/test"]
            assert lanes["units/dead/layer_0"].tolist() == printed[task]["diagnostics"]["units/dead/layer_0"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: study.trial({"optimise/name": "sam"}), "unknown setting 'optimise'"),
        (lambda: study.trial({"optimizer/rho": 1}), "no setting 'optimizer/rho'"),
        (lambda: study.trial("none.yaml"), "Cannot read 'none.yaml'"),
        (lambda: study.trial({}, threads=0), "--threads"),
        (lambda: study.run("quickstar"), "did you mean 'quickstart'"),
        (lambda: study.run("quickstart", trials=0), "--trials must be at least 1"),
        (lambda: study.run("quickstart", workers=-1), "--workers must be above 0"),
        (lambda: study.run("quickstart", settings={"tasks/name": "class_pairs"}), "choose with --scenario"),
        (lambda: study.resume("nothing"), "There is no sweep 'nothing'"),
        (lambda: study.confirm("nothing"), "There is no sweep 'nothing'"),
        (lambda: study.report("nothing"), "There is no sweep 'nothing'"),
        (lambda: study.compare("nothing", "more"), "There is no sweep 'nothing'"),
        (lambda: study.load("nothing"), "There is no sweep 'nothing'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(call, said, here):
    with pytest.raises(study.StudyError, match=re.escape(said)):
        call()
    assert list(here.iterdir()) == []


@pytest.fixture
def made(here):
    """A sweep whose accuracies are made up."""
    folder = folder_of(here / "study-results", plan_of("made"))
    play(folder)
    return folder


def test_a_sweep_is_read_as_data_frames(made):
    sweep = study.load("made")
    assert sweep.complete
    histories = made.histories()
    assert sweep.trials["trial"].tolist() == [history.key for history in histories]
    assert sweep.trials["summary/objective"].tolist() == [history.summary["summary/objective"] for history in histories]
    assert len(sweep.lanes) == sum(len(history.tasks) * len(history.seeds) for history in histories)
    first = sweep.lanes[sweep.lanes["trial"] == histories[0].key]
    assert first["accuracy/test"].tolist() == [
        value for line in histories[0].tasks for value in line["lanes"]["accuracy/test"]
    ]
    best = sweep.best()
    assert best.groupby("method")["summary/objective"].max().to_dict() == {
        method: sweep.trials[sweep.trials["method"] == method]["summary/objective"].max() for method in ("sgd", "sam")
    }
    with pytest.raises(study.StudyError, match="top must be at least 1"):
        sweep.best(0)


def test_a_sweep_that_is_not_done_is_not_complete(here):
    folder_of(here / "study-results", plan_of("begun"))
    sweep = study.load("begun", directory=here / "study-results")
    assert not sweep.complete
    assert sweep.trials.empty


def test_a_space_of_plain_calls_is_planned_like_a_file(here, monkeypatch):
    begun = []

    def begin(plan, directory, execution, *_):
        begun.append((plan, directory, execution))
        return launch.Ended(folder_of(here / "done", plan), "nowhere", complete=False)

    monkeypatch.setattr(launch, "_begin", begin)
    space = study.SearchSpace(
        name="mine",
        description="Mine.",
        scenarios={"pairs": {"tasks/name": "class_pairs", "tasks/count": 2}},
        methods={"sgd": study.Method(points=({"optimizer/lr": 0.1},))},
    )
    sweep = study.run(space, "called", seeds=2, settings={"training": {"batch_size": 8}}, workers=1, directory="there")
    ((plan, directory, execution),) = begun
    assert (sweep.name, sweep.complete) == ("called", False)
    assert (plan.name, plan.seeds, plan.groups[0].settings["training/batch_size"]) == ("called", (0, 1), 8)
    assert (directory, execution.workers) == (Path("there"), 1)
