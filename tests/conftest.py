"""What every test shares: one thread, settled hypothesis profiles, and the folder of the downloaded data sets."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

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
