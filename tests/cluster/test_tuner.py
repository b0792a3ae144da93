"""Real sweeps from the command line to MLflow.

They use Ray, Optuna, MLflow and real digits.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from faults import SLOW_TRIALS
from mlflow import MlflowClient
from real_study import SMALL, real_study
from sweep_fixtures import clean_environment, lines_of, records_of, study, tasks_of

from study import provenance, schema
from study.config import read_yaml
from study.sweep.folder import SweepFolder

pytestmark = pytest.mark.sweep

GROUPS = [f"{scenario}-{method}" for scenario in ("permuted_pixels", "class_pairs") for method in ("sgd", "sam", "gnp")]


def outcomes(sweep):
    """The outcome of each trial's last attempt."""
    return {key: lines[-1]["outcome"] for key, lines in records_of(sweep).items()}


def results(sweep):
    """The repeatable part of each trial: configuration and task results."""
    return {key: (lines[0]["config"], tasks_of(lines)) for key, lines in records_of(sweep).items()}


@pytest.fixture(scope="module")
def quick():
    """A small quickstart: its folder and its output."""
    return real_study()


def test_a_sweep_ends_with_a_table_and_the_commands_to_go_on_with(quick):
    out = quick.said["quickstart"]
    assert quick.complained["quickstart"] == ""
    assert "\x1b" not in out
    assert "Traceback" not in out
    lines = out.splitlines()
    assert lines[0] == "quickstart: 12 trials, 36 tasks, 2 at a time"
    assert len([line for line in lines if "; finished: " in line]) == 12
    for scenario in ("permuted_pixels", "class_pairs"):
        start = lines.index(f"{scenario}: best of each method by objective")
        header, *rows = lines[start + 1 : start + 5]
        assert re.split(r"  +", header) == [
            "method",
            "settings",
            "objective",
            "test accuracy",
            "test: first tenth",
            "last tenth",
            "diverged",
        ]
        assert [row.split()[0] for row in rows] == ["sgd", "sam", "gnp"]
        assert all(re.search(r"( +\d\.\d{4}){4} +0 of 2$", row) for row in rows)
    for command in (
        "study ui quickstart",
        "study trial study-results/quickstart/best/",
        "study best quickstart --top 3",
    ):
        assert command in out


def test_everything_is_kept_in_the_sweeps_folder(quick):
    place = quick.place
    assert sorted(path.name for path in place.iterdir()) == ["study-results"]
    sweep = place / "study-results" / "quickstart"
    assert outcomes(sweep) == {f"{label}-{number:03d}": "finished" for label in GROUPS for number in (0, 1)}
    for lines in records_of(sweep).values():
        assert [line["task"] for line in lines if line["kind"] == "task"] == [0, 1, 2]
        assert [line["kind"] for line in lines][-1] == "end"
        assert any(line["kind"] == "checkpoint" and (sweep / line["path"] / "state.pt").is_file() for line in lines)


def test_the_best_of_each_method_are_exported(quick):
    place = quick.place
    files = sorted((place / "study-results" / "quickstart" / "best").iterdir())
    assert sorted(path.stem[:-4] for path in files) == sorted(GROUPS)
    histories = {h.key: h for h in SweepFolder.open(place / "study-results", "quickstart").histories()}
    runs = {run.data.tags["trial"]: run.info.run_id for run in search_runs(place, "quickstart", "trial")}
    for path in files:
        assert f"exported {path.relative_to(place)}" in quick.said["quickstart"]
        provenance = read_yaml(path)["provenance"]
        rivals = [h for h in histories.values() if h.group == histories[path.stem].group]
        assert provenance["objective"] == max(h.summary["summary/objective"] for h in rivals)
        assert provenance["mlflow_run_id"] == runs[path.stem]
        assert re.fullmatch("[0-9a-f]{16}", provenance["data_fingerprint"])


def search_runs(place, name, role):
    mlflow.set_tracking_uri(f"sqlite:///{place / 'study-results' / 'mlflow.db'}")
    return mlflow.search_runs(experiment_names=[name], filter_string=f"tags.role = '{role}'", output_format="list")


def test_plain_mlflow_finds_a_run_for_each_trial_with_one_value_for_each_task(quick):
    place = quick.place
    assert len(search_runs(place, "quickstart", "sweep")) == 1
    runs = search_runs(place, "quickstart", "trial")
    records = records_of(place / "study-results" / "quickstart")
    assert sorted(run.data.tags["trial"] for run in runs) == sorted(records)
    client = MlflowClient()
    for run in runs:
        assert run.info.status == "FINISHED"
        tasks = [line for line in records[run.data.tags["trial"]] if line["kind"] == "task"]
        for name in ("accuracy/test", "objective", "accuracy/test/lane_1"):
            history = client.get_metric_history(run.info.run_id, name)
            assert [metric.step for metric in history] == [0, 1, 2]
        values = [metric.value for metric in client.get_metric_history(run.info.run_id, "accuracy/test")]
        assert values == [line["metrics"]["accuracy/test"] for line in tasks]
        diagnosed = "|".join(quantity.name for quantity in schema.DIAGNOSTICS)
        known = re.compile(
            rf"(accuracy|loss|seconds|lanes|summary)/.+|objective|decline(_after_warmup)?|late_accuracy|gradient_evaluations|({diagnosed})(/layer_\w+)?"
        )
        assert [name for name in run.data.metrics if not known.fullmatch(name)] == []
    frame = mlflow.search_runs(experiment_names=["quickstart"])
    assert len(frame) == 13
    assert not [
        name for name in frame.columns if re.search(r"time_total|training_iteration|trial_id|hostname|pid$", name)
    ]


@pytest.mark.parametrize("label", ["class_pairs-sam", "permuted_pixels-gnp"])
def test_an_exported_file_gives_the_same_numbers_without_ray(quick, label):
    place = quick.place
    (file,) = (place / "study-results" / "quickstart" / "best").glob(f"{label}-*.yaml")
    done = study("trial", file.relative_to(place), "--json", cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    here = [json.loads(line) for line in done.stdout.splitlines()]
    record = lines_of(place / "study-results" / "quickstart" / "trials" / file.stem / "record.jsonl")
    assert [{k: v for k, v in line.items() if k != "summary"} | {"metrics": None} for line in here] == [
        {k: v for k, v in line.items() if k not in ("kind", "at", "summary")} | {"metrics": None}
        for line in record
        if line["kind"] == "task"
    ]
    assert tasks_of([{**line, "kind": "task"} for line in here]) == tasks_of(record)
    assert here[-1]["summary"] == next(line["summary"] for line in record if "summary" in line)


def test_a_finished_sweep_can_be_looked_at_and_exported_again(quick, here, run):
    shutil.copytree(quick.place, here, dirs_exist_ok=True)
    code, out, err = run("best", "quickstart", "--top", 2)
    assert code == 0, err
    assert len(re.findall(r"^(?:permuted_pixels|class_pairs)-\w+-00[01] ", out, re.MULTILINE)) == 12
    code, out, err = run("export", "quickstart")
    assert code == 0, err
    assert len(out.splitlines()) == 6


SERIAL = ("--scenario", "class_pairs", "--method", "sam", "--workers", 1, *SMALL)


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """Two sweeps of one worker under two names.

    One runs five trials; the other runs three and is then extended to five.
    """
    place = tmp_path_factory.mktemp("serial")
    with ThreadPoolExecutor() as pool:  # side by side: two sweeps may share a folder and a store
        beside = pool.submit(study, "run", "quickstart", *SERIAL, "--name", "once", "--trials", 5, cwd=place)
        first = study("run", "quickstart", *SERIAL, "--name", "grown", "--trials", 3, cwd=place)
        once = beside.result()
    sweep = place / "study-results" / "grown"
    before = {path.relative_to(sweep): path.read_bytes() for path in sweep.glob("trials/*/record.jsonl")}
    second = study("resume", "grown", "--trials", 5, cwd=place)
    assert [once.returncode, first.returncode, second.returncode] == [0, 0, 0], second.stderr
    return place, before


def test_one_worker_is_repeatable(serial):
    place, before = serial
    once, grown = (results(place / "study-results" / name) for name in ("once", "grown"))
    assert len(before) == 3
    assert set(once) == {f"class_pairs-sam-{number:03d}" for number in range(5)}
    assert all(len(tasks) == 3 for _, tasks in once.values())
    assert len({json.dumps(config["optimizer"]) for config, _ in once.values()}) == 5
    assert grown == once


def test_growing_adds_exactly_the_missing_trials_and_touches_nothing_finished(serial):
    place, before = serial
    sweep = place / "study-results" / "grown"
    after = {path.relative_to(sweep): path.read_bytes() for path in sweep.glob("trials/*/record.jsonl")}
    assert len(after) == 5
    assert all(after[path] == content for path, content in before.items())
    runs = search_runs(place, "grown", "trial")
    assert sorted(run.data.tags["trial"] for run in runs) == sorted(path.parent.name for path in after)
    best = sorted((sweep / "best").glob("*.yaml"))
    histories = SweepFolder.open(place / "study-results", "grown").histories()
    winner = max(histories, key=lambda history: history.summary["summary/objective"])
    assert winner.key in [path.stem for path in best]


GRID = (
    *("run", "paper_grid", "--scenario", "class_pairs", "--workers", 1, "--seeds", 2, "--set", "data/name=mnist5k"),
    *("--set", "tasks/count=6", "--set", "tasks/images_per_task=600", "--set", "training/passes=5"),
)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A grid without validation images: its folder and its output."""
    place = tmp_path_factory.mktemp("grid")
    done = study(*GRID, "--name", "whole", cwd=place)
    assert done.returncode == 0, done.stderr
    return place, done


def test_a_grid_without_objective_shows_every_setting_and_says_there_is_no_best(grid, run, monkeypatch):
    place, done = grid
    assert "all settings (no images held out, so no objective)" in done.stdout
    for method, settings in (("sgd", ""), ("sam", " rho=0.05"), ("gnp", " lambda=0.1 r=0.05")):
        for lr in ("0.01", "0.001"):
            assert re.search(rf"^{method} +lr={lr}{settings} +- ", done.stdout, re.MULTILINE)
    assert "exported" not in done.stdout
    assert "study best" not in done.stdout
    assert not (place / "study-results" / "whole" / "best").exists()
    monkeypatch.chdir(place)
    for command in ("best", "export"):
        code, _, err = run(command, "whole")
        assert code == 2
        assert len(err.splitlines()) == 1
        assert "no images were held out" in err


def test_an_interrupted_sweep_that_is_resumed_equals_an_undisturbed_one(grid):
    place, _ = grid
    sweep = place / "study-results" / "cut"
    command = [sys.executable, "-m", "study", *map(str, GRID), "--name", "cut"]
    with subprocess.Popen(
        command, cwd=place, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and running.poll() is None:
            if any(lines[-1]["kind"] == "end" for lines in records_of(sweep).values()):
                break
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    assert "interrupted; continue with: study resume cut" in err
    assert "Traceback" not in out + err
    ended = [key for key, lines in records_of(sweep).items() if lines[-1]["kind"] == "end"]
    assert 1 <= len(ended) < 6
    before = {key: (sweep / "trials" / key / "record.jsonl").read_bytes() for key in records_of(sweep)}
    assert {run.info.status for run in search_runs(place, "cut", "sweep")} == {"KILLED"}

    resumed = study("resume", "cut", cwd=place)
    assert resumed.returncode == 0, resumed.stderr
    assert results(sweep) == results(place / "study-results" / "whole")
    for key, content in before.items():
        after = (sweep / "trials" / key / "record.jsonl").read_bytes()
        assert after.startswith(content)
        assert key not in ended or after == content
    assert len(search_runs(place, "cut", "trial")) == 6
    assert {run.info.status for role in ("trial", "sweep") for run in search_runs(place, "cut", role)} == {"FINISHED"}


OWN_SPACE = """
from optuna.distributions import FloatDistribution
from search_spaces import Method, SearchSpace

SPACE = SearchSpace(
    name="own",
    description="Learning rates from hopeless to good, and a trial that raises.",
    scenarios={"pairs": {"tasks/name": "class_pairs", "tasks/count": 9, "tasks/images_per_task": 320}},
    methods={
        "sgd": Method(
            points=({"optimizer/lr": 0.1}, {"optimizer/lr": 1e-6}, {"optimizer/lr": 2e-6}, {"optimizer/lr": 0.2}),
            distributions={"optimizer/lr": FloatDistribution(1e-6, 1.0, log=True)},
        ),
        "raising": Method(
            settings={"optimizer/name": "sgd", "model/name": "mlp"},
            points=({"optimizer/lr": 0.1, "training/passes": 13}, {"optimizer/lr": 0.1, "training/passes": 1}),
        ),
    },
    settings={"data/name": "mnist5k", "tasks/validation_fraction": 0.2},
    seeds=(0,),
    trials=6,
)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A user's own space, with failures and early stopping.

    One trial must fail, and hopeless ones are stopped early. Packages with the names of ours and of others lie beside it.
    """
    place = tmp_path_factory.mktemp("own")
    (place / "my_space.py").write_text(OWN_SPACE)
    for name in (
        "study",
        "torch",
        "json",
        "search_spaces",
        "analysis",
    ):  # Ray has workers search the current folder first
        (place / name).mkdir()
        (place / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    words = ("--scheduler", "asha", "--sampler", "random", "--workers", "1", "--dir", "elsewhere")
    command = [Path(sys.executable).with_name("study"), "run", "./my_space.py", *words]
    environment = clean_environment(
        PYTHONPATH=str(SLOW_TRIALS),  # for the trial that raises; the others are not slow
        STUDY_TEST_TASK_SECONDS="0",
        STUDY_TEST_CHANGES=str(tmp_path_factory.mktemp("changes")),
    )
    return place, subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, timeout=400, check=False
    )


def test_a_trial_that_fails_makes_exit_code_1_and_the_others_go_on(own):
    place, done = own
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    ended = outcomes(place / "elsewhere" / "own")
    assert len(ended) == 8
    assert [key for key, outcome in ended.items() if outcome == "failed"] == ["pairs-raising-000"]
    assert ended["pairs-raising-001"] == "finished"
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert "pairs-raising-000" in line
    assert "RuntimeError" in line
    (trace,) = re.findall("^its traceback: (.+)$", done.stderr, re.MULTILINE)
    assert (place / trace).read_text().startswith("Traceback (most recent call last)")
    assert len(done.stderr.splitlines()) == 2


def test_workers_train_with_the_installed_code_whatever_lies_in_the_current_folder(own):
    place, _ = own
    facts = [
        line["facts"] for lines in records_of(place / "elsewhere" / "own").values() for line in lines if "facts" in line
    ]
    assert len(facts) == 8  # the trial that fails has some too
    assert {fact["source_fingerprint"] for fact in facts} == {provenance.source_fingerprint()}


def test_hopeless_trials_are_stopped_early_and_the_best_is_among_the_finished(own):
    place, done = own
    records = records_of(place / "elsewhere" / "own")
    ended = outcomes(place / "elsewhere" / "own")
    assert ended["pairs-sgd-000"] == "finished"
    assert ended["pairs-sgd-001"] == ended["pairs-sgd-002"] == "stopped"
    for key, outcome in ended.items():
        tasks = [line for line in records[key] if line["kind"] == "task"]
        assert {"finished": len(tasks) == 9, "stopped": len(tasks) in (1, 3), "failed": tasks == []}[outcome]
    exported = {path.stem for path in (place / "elsewhere" / "own" / "best").iterdir()}
    assert len(exported) == 2
    assert all(ended[key] == "finished" for key in exported)
    assert "study resume own --dir elsewhere" in done.stdout


def test_a_failed_trial_is_told_to_mlflow(own):
    place, _ = own
    mlflow.set_tracking_uri(f"sqlite:///{place / 'elsewhere' / 'mlflow.db'}")
    runs = mlflow.search_runs(experiment_names=["own"], filter_string="tags.role = 'trial'", output_format="list")
    failed = [run for run in runs if run.info.status == "FAILED"]
    assert [run.data.tags["trial"] for run in failed] == ["pairs-raising-000"]
    assert "RuntimeError" in failed[0].data.tags["reason"]
    assert {run.data.tags["outcome"] for run in runs} == {"finished", "stopped", "failed"}
