"""What was optimised is said wherever winners are shown."""

from sweep_fixtures import FACTS, by_lr, folder_of, plan_of, task_line

from study.sweep.conductor import Conductor
from study.sweep.execution import DEFAULT_DIRECTORY


def played(directory, **choices):
    folder = folder_of(directory, plan_of(methods=["sgd"], trials=3, **choices))
    conductor = Conductor(folder)
    while (history := conductor.propose()) is not None:
        conductor.started(history.key)
        for task in range(history.task_count):
            line = task_line(history, task, [0.5, 0.5])
            line["metrics"] |= {"loss/online": 1 - by_lr(history), "late_accuracy": by_lr(history)}
            conductor.result(history.key, line, FACTS)
        conductor.ended(history.key)
    return folder


def test_the_table_of_the_best_names_a_minimised_quantity(here, run):
    folder = played(here / DEFAULT_DIRECTORY, objectives=["loss/online:min"])
    code, out, _ = run("best", "made", "--top", "3")
    assert code == 0
    assert "class_pairs: best by loss/online" in out
    assert "loss/online:min" in out
    assert "Winners were chosen by the loss/online, minimised" in out
    assert "No test image was read for it." in out
    keys = [history.key for history in sorted(folder.histories(), key=by_lr, reverse=True)]
    assert [out.index(key) for key in keys] == sorted(out.index(key) for key in keys)


def test_two_objectives_have_two_columns(here, run):
    played(here / DEFAULT_DIRECTORY, sampler="nsga2", objectives=["late_accuracy", "loss/online:min"])
    code, out, _ = run("best", "made")
    assert code == 0
    assert "late_accuracy  loss/online:min" in " ".join(out.split()).replace(" loss", "  loss")
    assert "The search also optimised the loss/online, minimised." in out


def test_a_dry_run_shows_the_objective(here, run, monkeypatch):
    monkeypatch.setattr("study.cli.show._show_estimate", lambda *_: None)
    code, out, _ = run("run", "quickstart", "--dry-run", "--objective", "decline_after_warmup")
    assert code == 0
    assert "Objective: decline of validation accuracy after warm-up, minimised." in out
