"""What is made once a run and read by many tests, whichever worker of pytest-xdist they run on."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

DATABASE = "mlflow.db"


class Shared:
    """The folder of this run that all its workers see."""

    root: Path | None = None

    @classmethod
    def begin(cls, factory: pytest.TempPathFactory) -> None:
        """Takes the folder above those of the workers; without workers, that of the run itself."""
        own = factory.getbasetemp()
        cls.root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
        cls.root.mkdir(exist_ok=True)


def once(name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first who asks fills; the others wait for it. They only read it, or copy it."""
    assert Shared.root is not None
    place, done = Shared.root / name, Shared.root / f"{name}.done"
    with FileLock(Shared.root / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(place, ignore_errors=True)  # of one who has failed
            place.mkdir()
            make(place)
            done.touch()
    return place


def lay_database(directory: Path) -> str:
    """Puts an empty store of MLflow into a folder of sweeps that has none, and gives its address.

    It is a copy of one that MLflow has made, for making one takes seconds.
    """
    from study.tracking.store import Store, default_uri  # MLflow takes seconds, and most tests need none of it

    if not (directory / DATABASE).exists():
        made = once("store", lambda place: Store(default_uri(place)))
        shutil.copytree(made, directory, dirs_exist_ok=True)
    return default_uri(directory)
