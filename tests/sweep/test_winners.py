"""The best trials: by the objective, among finished ones."""

import random
from dataclasses import fields

import pytest
from sweep_fixtures import folder_of, plan_of, stop_early, task_line, train

from study import selection
from study.errors import StudyError
from study.selection import Candidate
from study.sweep import winners
from study.sweep.conductor import Conductor


def candidates(*rows, scenario="s"):
    """Trials of (method, objective, outcome)."""
    return [
        Candidate(
            trial=f"t{number}", number=number, scenario=scenario, method=method, outcome=outcome, objective=objective
        )
        for number, (method, objective, outcome) in enumerate(rows)
    ]


def best(*rows, count=1):
    return [winner.trial for winner in selection.best(candidates(*rows), count)]


def test_a_selection_sees_no_test_accuracy():
    assert [field.name for field in fields(Candidate)] == [
        "trial",
        "number",
        "scenario",
        "method",
        "outcome",
        "objective",
    ]


@pytest.mark.parametrize("outcome", ["stopped", "failed", "running", "waiting"])
def test_only_finished_trials_are_chosen(outcome):
    assert best(("sgd", 0.9, outcome), ("sgd", 0.1, "finished")) == ["t1"]
    assert best(("sgd", 0.9, outcome)) == []


def test_ties_go_to_the_earlier_trial():
    rows = candidates(("sgd", 0.5, "finished"), ("sgd", 0.5, "finished"), ("sgd", 0.5, "finished"))
    assert [winner.trial for winner in selection.best(rows, 2)] == ["t0", "t1"]
    assert [winner.trial for winner in selection.best(rows[::-1], 2)] == ["t0", "t1"]


def incumbents(*rows, **choices):
    return [found.trial for found in selection.incumbents(candidates(*rows), **choices)]


def test_an_incumbent_is_better_than_every_finished_trial_before_it():
    rows = [
        ("sgd", None, "finished"),
        ("sgd", 0.9, "stopped"),
        ("sgd", 0.2, "finished"),
        ("sam", 0.8, "finished"),
        ("sgd", 0.2, "finished"),
        ("sgd", 0.1, "finished"),
        ("sgd", 0.5, "finished"),
        ("sgd", 0.7, "failed"),
        ("sgd", 0.6, "finished"),
    ]
    assert incumbents(*rows) == ["t2", "t6", "t8", "t3"]
    assert incumbents(*rows, is_maximised=False) == ["t2", "t5", "t3"]
    assert incumbents() == incumbents(("sgd", 0.9, "running")) == []


def test_the_last_incumbent_is_the_best_whatever_the_order_of_the_rows():
    draw = random.Random(0)
    for _ in range(50):
        rows = candidates(*(("sgd", draw.randrange(4), "finished") for _ in range(7)))
        found = selection.incumbents(draw.sample(rows, 7))
        assert found[-1:] == selection.best(rows)
        assert found == selection.incumbents(rows)
        assert [one.objective for one in found] == sorted({one.objective for one in found})


def test_without_objectives_nothing_is_chosen():
    assert best(("sgd", None, "finished"), ("sam", None, "finished")) == []
    assert best() == []


def test_every_method_of_every_scenario_has_its_best_in_the_order_of_the_table():
    rows = [("sgd", 0.1, "finished"), ("sam", 0.2, "finished"), ("sgd", 0.3, "finished")]
    both = candidates(*rows) + candidates(*rows, scenario="r")
    expected = [(scenario, trial) for scenario in "sr" for trial in ("t2", "t1")]
    assert [(winner.scenario, winner.trial) for winner in selection.best(both)] == expected


def test_a_group_keeps_its_place_though_its_first_trial_has_not_finished():
    assert best(("sgd", None, "running"), ("sam", 0.2, "finished"), ("sgd", 0.1, "finished")) == ["t2", "t1"]


def test_as_many_as_asked_for_from_the_best_down():
    rows = [("sgd", value, "finished") for value in (0.1, 0.4, 0.2, 0.3)]
    assert best(*rows, count=3) == ["t1", "t3", "t2"]
    assert best(*rows, count=9) == ["t1", "t3", "t2", "t0"]


def test_of_a_sweep_the_objective_chooses_and_not_the_test_accuracy(tmp_path):
    folder = folder_of(tmp_path, plan_of(methods=["sgd"], trials=3))
    conductor = Conductor(folder)
    for objective, accuracy in ((0.5, 0.9), (0.6, 0.2), (0.4, 0.99)):
        history = conductor.propose()
        conductor.started(history.key)
        for task in range(3):
            line = task_line(history, task, [objective] * 2, [accuracy] * 2)
            conductor.result(history.key, line, {})
        conductor.ended(history.key)
    assert winners.best_keys(folder.histories()) == ["class_pairs-sgd-001"]


def test_a_trial_that_was_stopped_at_a_high_objective_is_not_chosen(tmp_path):
    folder = folder_of(tmp_path, plan_of(methods=["sgd"], trials=2))
    conductor = Conductor(folder)
    train(conductor, conductor.propose(), lambda _: 0.3)
    high = conductor.propose()
    train(conductor, high, lambda _: 0.99, tasks=1)
    stop_early(folder, high)
    assert {h.number: h.outcome for h in folder.histories()} == {0: "finished", 1: "stopped"}
    assert winners.best_keys(folder.histories(), 5) == ["class_pairs-sgd-000"]


def test_choosing_from_nothing_is_refused(tmp_path):
    folder = folder_of(tmp_path)
    with pytest.raises(StudyError, match="No trial of 'made' has finished yet"):
        winners.check_selectable(folder)
    conductor = Conductor(folder)
    history = conductor.propose()
    conductor.started(history.key)
    for task in range(3):
        conductor.result(history.key, task_line(history, task), {})
    conductor.ended(history.key)
    with pytest.raises(StudyError, match="no images were held out"):
        winners.check_selectable(folder)
