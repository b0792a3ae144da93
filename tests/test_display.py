"""What a person sees."""

import io

import pytest
from rich.console import Console
from sweep_fixtures import folder_of, plan_of, run_all, stop_early, task_line, train

from study import display, overview
from study.conductor import Conductor
from study.display import Progress, clock, describe, number, settings_words


@pytest.fixture
def piped(monkeypatch):
    """What is printed where the output is no terminal, as lines."""
    text = io.StringIO()
    monkeypatch.setattr(display, "console", Console(highlight=False, file=text))
    return lambda: text.getvalue().splitlines()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (61, "1 min 01 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_durations_are_for_people(seconds, words):
    assert clock(seconds) == words


def test_a_pipe_gets_a_plain_line_for_the_start_and_for_each_end(tmp_path, piped):
    folder = folder_of(tmp_path)
    with Progress(folder, 1) as progress:
        conductor = Conductor(folder, (progress,))
        while (history := conductor.propose()) is not None:
            train(conductor, history)
    lines = piped()
    assert lines[0] == "made: 4 trials, 12 tasks, 1 at a time"
    ends = [line for line in lines if "; finished: " in line]
    assert len(ends) == 4
    assert ends[0].startswith("trials 1/4 done, 0 running; tasks 3/12; ")
    assert ends[-1].startswith("trials 4/4 done, 0 running; tasks 12/12; ")
    assert "finished: class_pairs-sgd-000, sgd lr=0.01, objective 0.9174" in ends[0]
    assert not any("\x1b" in line for line in lines)


def test_a_failure_is_told_with_its_reason(tmp_path, piped):
    folder = folder_of(tmp_path)
    with Progress(folder, 1) as progress:
        conductor = Conductor(folder, (progress,))
        history = conductor.propose()
        conductor.started(history.key)
        conductor.failed(history.key, "OSError: no [space] left")
    assert "failed: class_pairs-sgd-000, sgd lr=0.01: OSError: no [space] left" in piped()[-1]


def test_a_stopped_trial_is_told_with_where_it_stopped(tmp_path):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    history = conductor.propose()
    train(conductor, history, lambda _: 0.5, tasks=1)
    stop_early(folder, history)
    assert describe(history) == "sgd lr=0.01, objective 0.5000, after 1 of 3 tasks"


def test_without_an_objective_the_test_accuracy_is_called_what_it_is(tmp_path):
    conductor = Conductor(folder_of(tmp_path))
    history = conductor.propose()
    conductor.started(history.key)
    conductor.result(history.key, task_line(history, 0), {})
    assert describe(history) == "sgd lr=0.01, test accuracy of the last task 0.6250"


def test_a_resumed_sweep_counts_what_was_done_before(tmp_path, piped):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    train(conductor, conductor.propose())
    with Progress(folder, 2) as progress:
        conductor = Conductor(folder, (progress,))
        train(conductor, conductor.propose())
    assert "trials 2/4 done, 0 running; tasks 6/12" in piped()[-1]


def test_a_terminal_gets_a_picture_with_the_best_of_each_method(tmp_path, monkeypatch):
    text = io.StringIO()
    console = Console(highlight=False, file=text, force_terminal=True, width=120)
    monkeypatch.setattr(display, "console", console)
    folder = folder_of(tmp_path)
    with Progress(folder, 1) as progress:
        conductor = Conductor(folder, (progress,))
        train(conductor, conductor.propose())
        train(conductor, conductor.propose(), tasks=1)
        with console.capture() as shown:
            console.print(progress._picture())
    assert "trials 1/4 done, 1 running; tasks 4/12" in shown.get()
    assert "best 0.9174  sgd lr=0.01" in shown.get()
    assert "finished" not in text.getvalue()  # no lines beside the picture


def test_tables_in_a_pipe_are_plain_and_keep_every_row_on_one_line(piped):
    display.show_table("A [title]", ["words", "number"], [("w" * 150, "1"), ("[bold]x", "22")], numeric=1)
    lines = piped()
    assert lines[:2] == ["", "A [title]"]
    assert lines[3].startswith("w" * 150)
    assert len(lines) == 5
    assert not any("\x1b" in line or line != line.rstrip() for line in lines)


def test_the_results_name_what_was_chosen_and_how(tmp_path, piped):
    folder = folder_of(tmp_path, plan_of(trials=3))
    run_all(folder)
    overview.show_results(folder)
    text = "\n".join(piped())
    assert "class_pairs: best of each method by objective" in text
    assert "too good by luck of the draw" in text


def test_numbers_that_are_not_there_are_dashes():
    assert number(0.5) == "0.5000"
    assert number(None) == "-"
    assert settings_words({"optimizer/lr": 0.012345, "optimizer/lambda": 1.0}) == "lr=0.0123 lambda=1"
