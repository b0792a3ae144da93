"""A search optimises what it was told to: in suggestions, stops, selection, confirmation, export and Optuna's database."""

import json

import optuna
import pytest
from sweep_fixtures import FACTS, by_lr, folder_of, plan_of, task_line

from search_spaces import Method, SearchSpace
from study.errors import StudyError
from study.sweep import export, optuna_storage, winners
from study.sweep.conductor import Conductor
from study.sweep.confirmation_plan import make_confirmation
from study.sweep.folder import SweepFolder
from study.sweep.plan import Plan
from study.sweep.search_plan import make_plan
from study.sweep.space_file import read


def play(folder, late=by_lr, online=by_lr, most=None):
    """Plays the workers of a sweep; every trial has the same mean validation accuracy."""
    conductor = Conductor(folder)
    while (most is None or len(conductor.histories) < most) and (history := conductor.propose()) is not None:
        conductor.started(history.key)
        for task in range(history.task_count):
            line = task_line(history, task, [0.5, 0.5])
            line["metrics"] |= {"late_accuracy": late(history), "loss/online": 1 - online(history)}
            line["metrics"] |= {"decline_after_warmup": -late(history), "accuracy/online": online(history) - 0.1 * task}
            if not conductor.result(history.key, line, FACTS):
                break
        conductor.ended(history.key)
    return {history.key: history for history in conductor.histories}


def best_of(folder):
    return winners.best_keys(folder.histories())


@pytest.mark.parametrize(
    "objective", ["late_accuracy", "decline_after_warmup", "online_accuracy", "loss/online:min", "loss/online:max"]
)
def test_the_best_trial_is_the_best_by_the_chosen_quantity(tmp_path, objective):
    folder = folder_of(tmp_path, plan_of(methods=["sgd"], trials=6, objectives=[objective]))
    histories = play(folder)
    ranked = sorted(histories.values(), key=by_lr, reverse=objective != "loss/online:max")
    assert best_of(folder) == [ranked[0].key]
    reopened = SweepFolder.open(tmp_path, "made")
    assert reopened.plan.objectives == (objective,)
    assert best_of(reopened) == [ranked[0].key]
    again = reopened.histories()[0]
    assert again.objective == histories[again.key].objective == again.summary["summary/chosen_objective"]
    if objective == "online_accuracy":
        assert again.objective == pytest.approx(by_lr(again) - 0.1)  # the mean over three tasks


def test_a_minimised_objective_is_climbed_downwards_and_repeats_when_cut(tmp_path):
    plan = plan_of(methods=["sgd"], trials=14, objectives="loss/online:min")
    whole = play(folder_of(tmp_path / "whole", plan))
    cut = folder_of(tmp_path / "cut", plan)
    play(cut, most=12)
    tried = [history.tried for history in play(SweepFolder.open(tmp_path / "cut", "made")).values()]
    assert tried == [history.tried for history in whole.values()]
    other = play(folder_of(tmp_path / "other", plan), online=lambda history: 1 - by_lr(history))
    assert [history.tried for history in other.values()] != tried


def test_asha_keeps_the_lowest_of_what_is_minimised(tmp_path):
    plan = plan_of(methods=["sgd"], trials=6, scheduler="asha", sampler="random", objectives=["loss/online:min"])
    histories = play(folder_of(tmp_path, plan))
    outcomes = {key: history.outcome for key, history in histories.items()}
    assert "stopped" in outcomes.values()
    highest, lowest = (pick(histories.values(), key=by_lr) for pick in (max, min))
    assert outcomes[highest.key] == "finished"
    assert outcomes[lowest.key] == "stopped" or lowest.number == 0
    assert best_of(SweepFolder.open(tmp_path, "made")) == [highest.key]


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"objectives": ["summary/objective:max"], "scheduler": "asha"}, "compares trials after a part of the tasks"),
        ({"objectives": ["rank/effective:max"], "scheduler": "asha"}, "compares trials after a part of the tasks"),
        (
            {"objectives": ["accuracy", "loss/online:min"], "sampler": "nsga2", "scheduler": "asha"},
            "cannot stop trials early",
        ),
        ({"objectives": ["accuracy/test:max"]}, "it is computed from test images"),
        ({"objectives": ["accuracy", "decline"]}, "need --sampler nsga2"),
        (
            {"objectives": ["hessian/trace:min"], "overrides": {"diagnostics/curvature_every": 0}},
            "diagnostics/curvature_every=0",
        ),
        ({"objectives": ["onset/hessian/trace:min"]}, "diagnostics/onset_every=0"),
        (
            {"objectives": ["units/dead:min"], "overrides": {"diagnostics/leave_out": ["units/dead"]}},
            "diagnostics/leave_out leaves it out",
        ),
        ({"objectives": ["late_accuracy"], "overrides": {"tasks/validation_fraction": 0.0}}, "held-out images"),
    ],
)
def test_what_cannot_be_optimised_so_is_refused_before_anything_starts(choices, told):
    with pytest.raises(StudyError, match=told) as refused:
        plan_of(**choices)
    assert len(str(refused.value)) <= 300


def test_without_held_out_images_a_search_may_follow_the_training_images(tmp_path):
    overrides = {"tasks/validation_fraction": 0.0, "tasks/count": 3}
    plan = plan_of(methods=["sgd"], trials=3, objectives=["online_accuracy"], overrides=overrides)
    folder = folder_of(tmp_path, plan)
    play(folder)
    assert len(best_of(folder)) == 1
    with pytest.raises(StudyError, match="held-out images"):
        plan_of(methods=["sgd"], trials=3, overrides=overrides)


def test_two_objectives_are_both_told_and_the_first_selects(tmp_path):
    plan = plan_of(methods=["sgd"], trials=9, sampler="nsga2", objectives=["late_accuracy", "loss/online:min"])
    folder = folder_of(tmp_path, plan)
    histories = play(folder, online=lambda history: history.number / 10)
    (study,) = optuna.get_all_study_names(f"sqlite:///{optuna_storage.write(folder)}")
    study = optuna.load_study(study_name=study, storage=f"sqlite:///{folder.root / optuna_storage.FILE}")
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["late_accuracy", "loss/online"]
    for trial, history in zip(study.trials, histories.values(), strict=True):
        assert trial.values == pytest.approx([by_lr(history), 1 - history.number / 10])
        assert history.summary["summary/second_objective"] == pytest.approx(1 - history.number / 10)
    assert best_of(folder) == [max(histories.values(), key=by_lr).key]


def test_confirmation_and_export_name_what_was_optimised(tmp_path):
    folder = folder_of(tmp_path, plan_of(methods=["sgd"], trials=4, objectives=["decline_after_warmup"]))
    histories = play(folder)
    best = max(histories.values(), key=by_lr)
    confirmation = make_confirmation(folder, name="again")
    assert confirmation.objectives == ("decline_after_warmup",)
    assert confirmation.groups[0].origins[0].trial == best.key
    assert "by the objective (decline of validation accuracy after warm-up, minimised)" in confirmation.description
    (path,) = export.export_best(folder, tmp_path / "files", {})
    text = " ".join(path.read_text().split())
    assert "the lowest decline of validation accuracy after warm-up of its method and scenario" in text
    assert "objective_is: decline of validation accuracy after warm-up, minimised" in text
    assert f"objective: {best.objective}" in text


def test_a_sweep_from_before_objectives_could_be_chosen_is_read_and_goes_on_as_it_was(tmp_path):
    for sampler, told in (("tpe", ["objective"]), ("nsga2", ["objective", "decline"])):
        plan = plan_of(sampler, methods=["sgd"], trials=3, sampler=sampler)
        folder = folder_of(tmp_path, plan)
        log = folder.root / "sweep.jsonl"
        first, *rest = log.read_text().splitlines(keepends=True)
        line = json.loads(first)
        assert line["plan"].pop("objectives")
        log.write_text(json.dumps(line) + "\n" + "".join(rest))
        old = SweepFolder.open(tmp_path, sampler)
        assert old.plan.objectives == ()
        assert [goal.quantity for goal in old.plan.goals] == told
        play(old)
        assert best_of(old) == [old.histories()[0].key]
        assert "summary/chosen_objective" not in old.histories()[0].summary


def test_a_malformed_objective_in_a_plan_is_one_sentence():
    plain = plan_of().plain()
    for wrong in (["accuracy/test:max"], "accuracy", [3], ["accuracy", "decline"]):
        with pytest.raises(StudyError, match="is not the plan of a sweep"):
            Plan.from_plain(plain | {"objectives": wrong}, "a file")


def test_a_space_may_name_its_objective(tmp_path):
    space = SearchSpace(
        name="mine",
        description="",
        scenarios={"pairs": {"tasks/name": "class_pairs", "tasks/count": 2}},
        methods={"sgd": Method(distributions={"optimizer/lr": {"low": 0.1, "high": 1.0}})},
        settings={"tasks/validation_fraction": 0.2},
        trials=3,
        objectives=("late_accuracy",),
    )
    assert make_plan(space, name="mine").objectives == ("late_accuracy",)
    assert make_plan(space, name="mine", objectives=["decline"]).objectives == ("decline",)
    path = tmp_path / "mine.yaml"
    text = (
        "name: mine\ndescription: ''\nscenarios: {pairs: {tasks/name: class_pairs}}\nmethods: {sgd: {points: [{}]}}\n"
    )
    for given, made in (
        ("loss/online:min", ("loss/online:min",)),
        ("[late_accuracy, decline]", ("late_accuracy", "decline")),
    ):
        path.write_text(f"{text}objectives: {given}\n")
        assert read(path).objectives == made
    path.write_text(f"{text}objectives: 3\n")
    with pytest.raises(StudyError, match="objectives"):
        read(path)
