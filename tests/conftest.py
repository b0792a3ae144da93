"""What every test shares: one thread, settled hypothesis profiles, the folder of the downloaded data sets, the command line."""

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from sweep_fixtures import assert_one_sentence

from study.cli import main

torch.set_num_threads(1)

settings.register_profile("study", deadline=None, max_examples=20, print_blob=True)
settings.register_profile("study-ci", settings.get_profile("study"), derandomize=True, database=None)
settings.load_profile("study-ci" if os.environ.get("CI") else "study")

REPOSITORY = Path(__file__).parent.parent
DATA_FOLDERS = (
    os.environ.get("STUDY_DATA"),
    REPOSITORY.parent / "shared" / "data",
    Path.home() / ".cache" / "plasticity-study" / "data",
)


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
