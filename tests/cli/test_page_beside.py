"""`study run --ui`: a page that comes and goes with a sweep, and never fails it."""

import os
import subprocess
import sys
import time

import pytest
from report_fixtures import play, tuned, whole_directory

from study.cli import ui
from study.sweep import optuna_storage
from study.sweep.folder import SweepFolder
from study.tracking import server
from study.tracking.store import default_uri

PATIENCE = 9


def tied(seconds):
    """A process that stands for a server and sleeps, tied to this one."""
    command = [sys.executable, "-I", "-c", server.TIED, "sleep", str(seconds)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)


def count(process):
    """How many are left of a process and those that it started."""
    process.poll()
    members = subprocess.run(["ps", "-o", "stat=", "-g", str(process.pid)], capture_output=True, text=True, check=False)
    return sum(not state.startswith("Z") for state in members.stdout.split())


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("seconds", "stop"),
    [
        (600, lambda process: process.stdin.close()),  # as when the process that started it is killed
        (600, server.end),
        (0.1, lambda _: None),
    ],
    ids=["its owner is gone", "it is ended", "it ends by itself"],
)
def test_nothing_is_left_of_a_tied_server_when(seconds, stop):
    process = tied(seconds)
    if seconds > 1:
        until(lambda: count(process) == 2)
    stop(process)
    until(lambda: not count(process))


@pytest.fixture
def unproxied(monkeypatch):
    """Puts back what is said of proxies."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def test_the_links_are_said_and_the_server_ends_with_the_sweep(monkeypatch, unproxied):
    sweep = SweepFolder.open(whole_directory(), "whole")
    started, said = [], []
    monkeypatch.setattr(ui, "begin_tied", lambda *_: started.append(tied(600)) or started[0])
    monkeypatch.setattr(ui, "answers", lambda *_: True)
    with ui.beside(sweep, default_uri(sweep.directory), said.append):
        until(lambda: any("until the sweep ends" in line for line in said))
        assert count(started[0])
    assert not count(started[0])
    assert any(line.startswith("all trials: table: http://127.0.0.1:") for line in said), said
    assert any("telemetry is off" in line for line in said)


def test_a_page_that_cannot_be_is_a_note_and_no_fault(monkeypatch, unproxied, tmp_path):
    sweep = tuned(tmp_path / "study-results", "kept", methods=["sgd"], scenarios=["class_pairs"], trials=1, tasks=2)
    said = []

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ui, "OPTUNA_SECONDS", 0)
    monkeypatch.setattr(ui.store, "Store", fail)
    monkeypatch.setattr(optuna_storage, "write", fail)
    with ui.beside(sweep, default_uri(sweep.directory), said.append):
        until(lambda: len(said) == 2)
        play(sweep)
    assert sorted(line.split(",")[0] for line in said) == [
        "note: MLflow's page is not shown",
        "note: the trials for optuna-dashboard are not kept up to date",
    ]
    assert all("the sweep goes on" in line and "No space left" in line for line in said)


def test_the_trials_are_kept_for_optuna_while_the_sweep_runs(monkeypatch, unproxied, tmp_path):
    sweep = tuned(tmp_path / "study-results", "kept", methods=["sgd"], scenarios=["class_pairs"], trials=1, tasks=2)
    monkeypatch.setattr(ui, "OPTUNA_SECONDS", 0.01)
    monkeypatch.setattr(ui, "_show_beside", lambda *_: None)
    with ui.beside(sweep, default_uri(sweep.directory), lambda _: None):
        until((sweep.root / optuna_storage.FILE).is_file)


def test_a_dry_run_has_no_page(refused):
    assert "--ui shows a sweep that runs" in refused("run", "quickstart", "--dry-run", "--ui")
