"""Where a Ray of this machine puts its files, and what is no address of a cluster."""

import os
import tempfile
from pathlib import Path

import pytest

from study.cluster.connection import LONGEST_FOLDER, joined, short_folder
from study.errors import StudyError
from study.sweep.execution import Execution

LONGEST_SOCKET = 107
"""Bytes of the path of a Unix socket."""


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch):
    for variable in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(variable, raising=False)


def below(folder: str) -> str:
    """A socket of Ray below its folder."""
    return f"{folder}/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1"


def test_the_longest_folder_that_ray_is_left_with_has_room_for_its_sockets():
    assert len(below("x" * LONGEST_FOLDER)) <= LONGEST_SOCKET


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize("name", ["x" * 60, "ä" * 30])
def test_a_long_folder_of_temporary_files_is_replaced_by_a_short_one_that_is_removed(
    monkeypatch, tmp_path, variable, name
):
    monkeypatch.setenv(variable, str(tmp_path / name))
    with short_folder() as folder:
        assert Path(folder).is_dir()
        assert len(os.fsencode(folder)) <= LONGEST_FOLDER
        (Path(folder) / "session").mkdir()
    assert not Path(folder).exists()


def test_a_short_folder_is_left_to_ray(monkeypatch):
    for folder in (None, "/tmp", "/" + "x" * (LONGEST_FOLDER - 1)):
        if folder:
            monkeypatch.setenv("TMPDIR", folder)
        with short_folder() as chosen:
            assert chosen is None


def test_no_short_folder_is_a_sentence(monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("TMPDIR", "/" + "x" * 80)
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(StudyError, match="set RAY_TMPDIR to a folder with a short path"), short_folder():
        pass


class ReachedError(Exception):
    """Ray was about to start."""


@pytest.mark.parametrize("home", ["unwritable", "writable"])
def test_a_home_that_cannot_be_written_gets_no_token_of_ray(monkeypatch, tmp_path, home):
    def reach(**_):
        raise ReachedError

    for variable in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(variable, "")  # so that it is restored
        monkeypatch.delenv(variable)
    monkeypatch.setattr("ray.init", reach)
    monkeypatch.setenv("HOME", "/proc" if home == "unwritable" else str(tmp_path))
    with pytest.raises(StudyError, match="Ray did not start here: ReachedError"), joined(Execution(data_dir="data")):
        pass
    assert ("RAY_AUTH_TOKEN" in os.environ) == (home == "unwritable")
    assert not list(tmp_path.iterdir())


def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch):
    def fail(**_):
        raise RuntimeError(
            "The current node timed out during startup. This could happen because some of the raylet failed."
        )

    monkeypatch.setattr("ray.init", fail)
    with pytest.raises(StudyError) as refusal, joined(Execution(data_dir="data")):
        pass
    assert "timed out during startup" in str(refusal.value)
    assert "Run the command again" in str(refusal.value)
    assert len(str(refusal.value)) <= 300


@pytest.mark.parametrize("address", ["127.0.0.1:²", "127.0.0.1:" + "9" * 5000, "a..b:1", "x" * 70 + ":1", "127.0.0.1:"])
def test_what_is_no_address_is_refused_in_a_sentence(address):
    with pytest.raises(StudyError, match="--address"), joined(Execution(data_dir="data", address=address)):
        pass
