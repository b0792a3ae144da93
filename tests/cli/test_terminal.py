"""What the terminal shows: progress, tables, durations, refusals."""

import builtins
import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from rich.console import Console
from sweep_fixtures import REPOSITORY, clean_environment, folder_of, plan_of, run_all, stop_early, task_line, train

from study.cli import overview, terminal
from study.cli.progress import Progress, describe
from study.cli.terminal import clock, number
from study.config import EARLIER_LABELS, settings_words
from study.sweep.conductor import Conductor


@pytest.fixture
def piped(monkeypatch):
    """Lines that are printed when the output is no terminal."""
    text = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(highlight=False, file=text))
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
    monkeypatch.setattr(terminal, "console", console)
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
    terminal.show_table("A [title]", ["words", "number"], [("w" * 150, "1"), ("[bold]x", "22")], numeric=1)
    lines = piped()
    assert lines[:2] == ["", "A [title]"]
    assert lines[3].startswith("w" * 150)
    assert len(lines) == 5
    assert not any("\x1b" in line or line != line.rstrip() for line in lines)


def lines_in_terminal(monkeypatch, columns):
    """Lines that are printed in a terminal, without styles."""
    text = io.StringIO()
    console = Console(highlight=False, file=text, force_terminal=True, color_system=None, width=columns)
    monkeypatch.setattr(terminal, "console", console)
    return lambda: text.getvalue().splitlines()


ROWS = [
    ("sgd", "lr=0.294", "0.6241", "0.5895"),
    ("a_longer_method", "lr=0.0731 lambda=0.00125 r=0.00324", "0.8336", "0.8259"),
]
COLUMNS = ("method", "settings", "objective", "test: first tenth")


@pytest.mark.parametrize("columns", [30, 47, 60, 80, 200])
def test_tables_in_a_terminal_fit_it_and_break_no_word(monkeypatch, columns):
    lines = lines_in_terminal(monkeypatch, columns)
    terminal.show_table("A title of some words that is long", COLUMNS, ROWS, numeric=2)
    assert max(map(len, lines())) <= columns
    words = " ".join(lines()).split()
    assert all(word in words for row in ROWS for cell in row for word in cell.split())
    assert words.count("lambda=0.00125") == 1


def test_numbers_stay_beside_their_method_as_long_as_there_is_room(monkeypatch):
    lines = lines_in_terminal(monkeypatch, 60)
    terminal.show_table("A title", COLUMNS, ROWS, numeric=2)
    assert any(
        line.split()[0] == "a_longer_method" and line.split()[-2:] == ["0.8336", "0.8259"] for line in lines()[2:]
    )


@pytest.mark.parametrize("columns", [40, 80])
def test_commands_are_never_broken_in_two(monkeypatch, columns):
    command = "study trial study-results/sweep/best/one.yaml"
    lines = lines_in_terminal(monkeypatch, columns)
    terminal.show_table("How to go on", ["command", "what it does"], [(command, "run it " * 9)], commands=True)
    assert sum(command in line for line in lines()) == 1
    assert " ".join(lines()).split().count("run") == 9


def said_in(columns, code, **environment):
    """What a process prints in a terminal.

    `columns` is the width of the terminal; 0: a pipe.
    """
    command = [sys.executable, "-c", code]
    environment = clean_environment(PYTHONPATH=str(REPOSITORY), TERM="xterm-256color", **environment)
    environment.pop("COLUMNS", None)  # it would overrule the terminal's own width
    if not columns:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 10_000):
                said += piece
        except OSError:  # how Linux reports the end
            pass
        os.close(ours)
        process.wait()
    return said.decode().replace("\r\n", "\n")


SHOW = "from study.cli import terminal; terminal.show_table('A title', ['words'], [('w ' * 60,)]); terminal.remark('r ' * 60)"


def test_a_terminal_gets_styles_and_wrapped_tables():
    said = said_in(80, SHOW)
    assert "\x1b[1m" in said
    assert max(map(len, said.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines())) < 100


@pytest.mark.parametrize(
    ("columns", "environment"),
    [
        (0, {}),
        (0, {"FORCE_COLOR": "1"}),
        (80, {"JPY_PARENT_PID": "1", "FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}),
        (80, {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}),
    ],
    ids=["a pipe", "a build server", "Jupyter", "another notebook"],
)
def test_where_nobody_sits_before_a_terminal_there_are_plain_lines_alone(columns, environment):
    said = said_in(columns, SHOW, **environment)
    assert "A title" in said
    assert "\x1b" not in said
    assert len(said.splitlines()) == 5, "no line is wrapped"


@pytest.mark.parametrize("columns", [40, 80])
def test_a_refusal_in_a_terminal_is_wrapped_between_words(columns):
    code = "import sys; sys.argv = ['study', 'run', 'quickstrat']; from study import cli; cli.main()"
    lines = said_in(columns, code).splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= columns
    assert "did you mean 'quickstart'?" in " ".join(lines)


def test_a_notebooks_way_to_draw_is_not_taken_over():
    """The notebook's package may be missing from the study's environment."""
    code = (
        "import sys; sys.argv = ['study', '--help']; from study import cli\n"
        "try: cli.main()\n"
        "except SystemExit: import matplotlib; print('draws with', matplotlib.get_backend())"
    )
    assert "draws with agg" in said_in(0, code, MPLBACKEND="module://not_installed_here.backend_inline").lower()


def test_the_results_name_what_was_chosen_and_how(tmp_path, piped):
    folder = folder_of(tmp_path, plan_of(trials=3))
    run_all(folder)
    overview.show_results(folder)
    text = "\n".join(piped())
    assert "class_pairs: best of each method by objective" in text
    assert "luck in the selection makes their objective too high" in text


def test_numbers_that_are_not_there_are_dashes():
    assert number(0.5) == "0.5000"
    assert number(None) == "-"
    assert settings_words({"optimizer/lr": 0.012345, "optimizer/lambda": 1.0}, EARLIER_LABELS) == "lr=0.0123 lambda=1"


def test_tables_are_lines_in_a_notebook_too(monkeypatch, capsys):
    """Where Rich would hand pictures of them to the notebook."""

    class ZMQInteractiveShell:
        """What Rich takes for a notebook's Python."""

        def run_line_magic(self, *_):
            raise AssertionError

    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    assert Console().is_jupyter
    monkeypatch.setattr(terminal, "console", terminal._console(sys.stdout, stderr=False))
    assert not terminal.console.is_jupyter
    terminal.show_table("Some", ["a", "b"], [("1", "2")])
    assert capsys.readouterr().out == "\nSome\na  b\n1  2\n"
