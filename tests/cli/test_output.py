"""Output that cannot be written stops no work and is told."""

import errno
import io
import subprocess
import sys
from pathlib import Path

import pytest
from shared import lay_database
from store_faults import played
from sweep_fixtures import clean_environment

from study.cli import output
from study.cli.output import Output
from study.sweep.folder import SweepFolder


class Full(io.StringIO):
    """A stream on a disk that is full after some characters."""

    def __init__(self, room, number=errno.ENOSPC):
        super().__init__()
        self.room, self.number = room, number

    def write(self, text):
        if self.tell() + len(text) > self.room:
            raise OSError(self.number, "No space left on device")
        return super().write(text)


def test_what_does_not_fit_is_dropped_and_remembered():
    stream = Full(8)
    shown = Output(stream)
    print("one", file=shown)
    print("two and more", file=shown)
    print("4", file=shown)
    shown.flush()
    assert stream.getvalue() == "one\n"
    assert shown.fault.errno == errno.ENOSPC
    assert not shown.is_closed_pipe


def test_a_closed_pipe_is_known_as_one():
    shown = Output(Full(0, errno.EPIPE))
    print("x", file=shown)
    assert shown.is_closed_pipe


@pytest.mark.parametrize("words", [["list"], ["--help"]])
def test_a_full_disk_behind_the_output_is_told_in_a_sentence(tmp_path, words):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "study", *words],
            cwd=tmp_path,
            env=clean_environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "study: standard output could not be written (No space left on device); the command itself has done its work.\n"
    )


def test_a_refusal_keeps_its_exit_code_where_nothing_can_be_said(tmp_path):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "study", "best", "nosuch"]
        done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), stdout=full, stderr=full, check=False)
    assert done.returncode == 2


def test_a_reader_that_has_read_enough_is_told_nothing(tmp_path):
    script = f"{sys.executable} -m study list | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1)  # whether the pipe was closed in time is chance
    assert done.stderr == ""


@pytest.mark.parametrize("room", [0, 300])
def test_a_sweep_goes_on_to_its_end_though_its_output_cannot_be_written(here, run, monkeypatch, room):
    lay_database(here / "study-results")
    played(monkeypatch)
    full = Full(room)
    monkeypatch.setattr(output, "Output", lambda stream: Output(full if stream is sys.stdout else stream))
    words = ("--scenario", "class_pairs", "--method", "sgd", "--trials", 2, "--seeds", 2, "--set", "tasks/count=3")
    code, _, err = run("run", "quickstart", *words, "--set", "tasks/images_per_task=200")
    assert code == 1
    assert err.endswith(
        "study: standard output could not be written (No space left on device); the command itself has done its work.\n"
    )
    sweep = SweepFolder.open(here / "study-results", "quickstart")
    assert [history.outcome for history in sweep.histories()] == ["finished", "finished"]
    assert len(list((sweep.root / "best").glob("*.yaml"))) == 1
