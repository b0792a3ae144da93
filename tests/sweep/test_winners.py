"""The best trials: by the objective, among finished ones."""

import pandas as pd
import pytest
from sweep_fixtures import folder_of, plan_of, run_all, stop_early, task_line, train

from study import selection
from study.errors import StudyError
from study.sweep import winners
from study.sweep.conductor import Conductor


def table(*rows):
    """Trials of (method, objective, test accuracy, outcome)."""
    records = [
        {
            "trial": f"t{number}",
            "number": number,
            "scenario": "s",
            "method": method,
            "outcome": outcome,
            "objective": objective,
            "accuracy_test": accuracy,
        }
        for number, (method, objective, accuracy, outcome) in enumerate(rows)
    ]
    return pd.DataFrame(records, columns=list(selection.TRIAL_COLUMNS)).astype({"objective": "float64"})


def best(*rows, count=1):
    return list(selection.best(table(*rows), count)["trial"])


def test_a_better_test_accuracy_does_not_win():
    assert best(("sgd", 0.5, 0.99, "finished"), ("sgd", 0.6, 0.10, "finished")) == ["t1"]


def test_test_accuracy_is_not_even_read():
    rows = table(("sgd", 0.5, 0.9, "finished"), ("sgd", 0.6, 0.1, "finished"), ("sam", 0.4, 0.2, "finished"))
    needed = ["trial", "outcome", "objective", "number", "scenario", "method"]
    assert list(selection.best(rows[needed])["trial"]) == list(selection.best(rows)["trial"]) == ["t1", "t2"]


@pytest.mark.parametrize("outcome", ["stopped", "failed", "running", "waiting"])
def test_only_finished_trials_are_chosen(outcome):
    assert best(("sgd", 0.9, 0.9, outcome), ("sgd", 0.1, 0.1, "finished")) == ["t1"]
    assert best(("sgd", 0.9, 0.9, outcome)) == []


def test_ties_go_to_the_earlier_trial():
    rows = table(("sgd", 0.5, 0.1, "finished"), ("sgd", 0.5, 0.9, "finished"), ("sgd", 0.5, 0.9, "finished"))
    assert list(selection.best(rows, 2)["trial"]) == ["t0", "t1"]
    assert list(selection.best(rows.iloc[::-1], 2)["trial"]) == ["t0", "t1"]


def test_without_objectives_nothing_is_chosen():
    assert best(("sgd", None, 0.9, "finished"), ("sam", None, 0.8, "finished")) == []
    assert best() == []


def test_every_method_of_every_scenario_has_its_best_in_the_order_of_the_table():
    rows = table(*[("sgd", 0.1, 0, "finished"), ("sam", 0.2, 0, "finished"), ("sgd", 0.3, 0, "finished")] * 2)
    rows.loc[3:, "scenario"] = "r"
    assert list(selection.best(rows)["trial"]) == ["t2", "t1", "t5", "t4"]


def test_as_many_as_asked_for_from_the_best_down():
    rows = [("sgd", value, 0, "finished") for value in (0.1, 0.4, 0.2, 0.3)]
    assert best(*rows, count=3) == ["t1", "t3", "t2"]
    assert best(*rows, count=9) == ["t1", "t3", "t2", "t0"]


def test_the_records_of_a_sweep_become_a_table(tmp_path):
    histories = run_all(folder_of(tmp_path, plan_of(trials=3)))
    made = winners.trials_table(histories)
    assert tuple(made.columns) == selection.TRIAL_COLUMNS
    assert set(made["trial"]) == {history.key for history in histories}
    assert made["objective"].notna().all()
    assert (made["seconds"] == 7.5).all()


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
