"""What every test shares: one thread, the order of the tests, the folder of the downloaded data sets, the command line."""

import fcntl
import gc
import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from shared import Shared
from sweep_fixtures import assert_one_sentence

from study.cli import main

torch.set_num_threads(1)

settings.register_profile("study", deadline=None, max_examples=20, print_blob=True)
settings.register_profile("study-ci", settings.get_profile("study"), derandomize=True, database=None)
settings.load_profile("study-ci" if os.environ.get("CI") else "study")

PROCESSES = 4
"""More of them wait for each other's Ray; five took half a minute longer."""

REPOSITORY = Path(__file__).parent.parent
DATA_FOLDERS = (
    os.environ.get("STUDY_DATA"),
    REPOSITORY.parent / "shared" / "data",
    Path.home() / ".cache" / "plasticity-study" / "data",
)


def pytest_xdist_auto_num_workers(config):
    """The whole suite is divided among processes; tests that are asked for by name, or watched, run in this one."""
    watched = config.option.usepdb or config.option.capture == "no"
    if watched or config.option.keyword or config.args_source != pytest.Config.ArgsSource.TESTPATHS:
        return 0
    return min(PROCESSES, 2 * (os.cpu_count() or 1))  # more than processors, for a sweep's test mostly waits


def pytest_sessionstart(session):
    """Makes the folder for what is made once a run."""
    Shared.begin(session.config._tmp_path_factory)


def pytest_collection_finish():
    """Thousands of tests and modules stay to the end: no search for garbage needs to walk them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def pytest_unconfigure():
    """Libraries complain at the end of objects that nobody has collected."""
    gc.unfreeze()


def pytest_collection_modifyitems(items):
    """What takes longest comes first, so that no process is left with it at the end; what must run alone comes last.

    The tests of a file stay together, so those that take long add up; of the others, the files with the most tests come first.
    """
    weights = {}
    for item in items:
        weight = 8 if item.get_closest_marker("slow") else 1 if item.get_closest_marker("sweep") else 1e-4
        weights[item.path] = weights.get(item.path, 0) + weight
    items.sort(key=lambda item: (item.get_closest_marker("alone") is not None, -weights[item.path]))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """A test that measures seconds waits until no other one runs, and the others wait for its end."""
    alone = item.get_closest_marker("alone") is not None
    with (Shared.root / "turn").open("w") as turn, (Shared.root / "running").open("w") as running:
        fcntl.flock(turn, fcntl.LOCK_EX)  # nobody overtakes one that waits
        fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            fcntl.flock(running, fcntl.LOCK_UN)  # a process that was forked off meanwhile has it open still


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """A folder that holds MNIST and Fashion-MNIST already; tests that need it skip where there is none."""
    for folder in DATA_FOLDERS:
        if folder and all((Path(folder) / name / "raw").is_dir() for name in ("MNIST", "FashionMNIST")):
            return Path(folder)
    pytest.skip("MNIST and Fashion-MNIST are not on this machine (set STUDY_DATA to their folder)")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to stand in, and no setting from the environment."""
    monkeypatch.chdir(tmp_path)
    for variable in ("MLFLOW_TRACKING_URI", "STUDY_DATA", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capfd):
    """Runs the command line in this process: (exit code, standard output, standard error)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["study", *map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capfd.readouterr()
        return exit_.value.code or 0, out, err

    return call


@pytest.fixture
def refused(here, run):
    """Runs the command line, expects a refusal in one sentence that leaves nothing behind, and gives the sentence."""

    def call(*words):
        before = sorted(here.rglob("*"))
        code, out, err = run(*words)
        assert_one_sentence(code, out, err)
        assert sorted(here.rglob("*")) == before
        return err

    return call


@pytest.fixture
def blank_figures(monkeypatch):
    """The pictures of a page are small and empty, for drawing them takes most of a report's time."""
    from report_fixtures import draw_blank

    from analysis.report.page import Picture

    monkeypatch.setattr(Picture, "draw", property(lambda _: draw_blank, lambda *_: None), raising=False)
