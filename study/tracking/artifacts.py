"""The artifacts of a sweep whose folder has moved.

MLflow keeps absolute addresses of artifacts in its database: of experiments, runs and models. If the store is a database, the
artifacts are in the sweep's folder, and that may have been moved, copied or renamed since. Reading finds them in the folder as
it is now, and changes nothing. Writing corrects the addresses first, so that nothing goes to the old place. A server keeps
artifacts itself.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service import utils
from sqlalchemy import Connection, String, column, func, literal, table
from sqlalchemy.exc import SQLAlchemyError

from study import addresses, redaction
from study.errors import StudyError, first_line
from study.sweep import folder
from study.sweep.folder import SweepFolder
from study.tracking.client import ARTIFACTS, SWEEP_TAG, is_missing, own_folder, served

COLUMNS: Final = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""MLflow's columns with addresses of artifacts; older versions lack the tables of models."""


def settle(uri: str, sweep: SweepFolder, original: str | None = None) -> None:
    """Makes a store write where the sweep's folder is now.

    Does nothing if its artifacts are there already, or if the store has nothing of the sweep.

    Args:
        uri: of the store.
        sweep: whose artifacts they are.
        original: of which the store is a temporary copy.

    Raises:
        StudyError: the folder is a copy of another one that this store belongs to.
        MlflowException: the database cannot be read or written.
    """
    getattr(utils, "_artifact_repos_cache", {}).clear()  # MLflow's, by runs; copies of a sweep have the same runs
    if served(uri) or is_missing(uri):
        return
    place = sweep.root.resolve() / ARTIFACTS
    with _connected(uri) as connection:
        for location in _locations(connection, sweep.identity):
            before = own_folder(location)
            if before is None or before == place:
                continue
            _check_moved(original or uri, sweep, before)
            for name, field in COLUMNS:
                _replace(connection, name, field, location, place.as_uri())


def check_place(uri: str, sweep: SweepFolder) -> None:
    """Raises StudyError if another copy owns the store.

    A store that cannot be read is none of its business.
    """
    if served(uri) or is_missing(uri):
        return
    with suppress(MlflowException), _connected(addresses.read_only(uri)) as connection:
        for location in _locations(connection, sweep.identity):
            if before := own_folder(location):
                _check_moved(uri, sweep, before)


def settle_all(uri: str, directory: Path, original: str | None = None) -> None:
    """Settles all sweeps in a folder, see `settle`.

    Copies whose store belongs to another folder are left as they are.
    """
    for name in folder.names(directory):
        with suppress(StudyError):
            settle(uri, SweepFolder.open(directory, name), original)


def is_writable(uri: str, root: Path | None) -> bool:
    """Whether a store and a sweep's folder can be written.

    Servers and databases that are no files are known to refuse only when they do. `root` is None if there is no such folder.
    """
    file = addresses.database_file(uri)
    places = [place for place in (file, file and file.parent, None if served(uri) else root) if place]
    return all(os.access(place, os.W_OK) for place in places)


@contextmanager
def browsable(uri: str, directory: Path) -> Iterator[str]:
    """The address of a store with present places of artifacts.

    It is the store itself, settled. If its file cannot be written it is a temporary copy, since MLflow's page writes.

    Args:
        uri: of the store.
        directory: folder of all sweeps.
    """
    file = addresses.database_file(uri)
    if file is None or is_writable(uri, None):
        settle_all(uri, directory)
        yield uri
        return
    with tempfile.TemporaryDirectory() as draft:
        copy = Path(draft) / file.name
        try:
            with (
                closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
        except sqlite3.Error as error:
            raise StudyError(f"MLflow's store {str(file)!r} cannot be read: {first_line(error)}.") from None
        settle_all(addresses.database(copy), directory, uri)
        yield addresses.database(copy)


def _check_moved(uri: str, sweep: SweepFolder, before: Path) -> None:
    """Raises StudyError if the artifacts belong to another copy.

    That is so if the sweep is still where they were, and the store has not come along with this copy.
    """
    root, other = sweep.root.resolve(), before.parent.resolve()
    try:
        is_copied = other != root and folder.identity_of(other) == sweep.identity
    except OSError:
        return
    file = addresses.database_file(uri)
    came_along = file is not None and file.resolve().is_relative_to(root.parent) and other.parent != root.parent
    if is_copied and not came_along:
        raise StudyError(
            f"{str(sweep.root)!r} is a copy of {str(other)!r}, which MLflow at {uri} belongs to; name another store with "
            f"--tracking-uri."
        )


@contextmanager
def _connected(uri: str) -> Iterator[Connection]:
    """A transaction in a database.

    Raises MlflowException if that fails.
    """
    engine = None
    try:
        engine = sqlalchemy.create_engine(redaction.completed(uri))
        with engine.begin() as connection:
            yield connection
    except (SQLAlchemyError, ImportError) as error:  # ImportError: a database without its driver
        raise MlflowException(first_line(error)) from None
    finally:
        if engine is not None:
            engine.dispose()


def _locations(connection: Connection, identity: str) -> list[str]:
    """The artifact locations of a sweep's experiments."""
    if not sqlalchemy.inspect(connection).has_table("experiment_tags"):
        return []
    experiments = table("experiments", column("experiment_id"), column("artifact_location"))
    tags = table("experiment_tags", column("experiment_id"), column("key"), column("value"))
    query = (
        sqlalchemy.select(experiments.c.artifact_location)
        .join(tags, tags.c.experiment_id == experiments.c.experiment_id)
        .where(tags.c.key == SWEEP_TAG, tags.c.value == identity)
    )
    return [location for (location,) in connection.execute(query) if location]


def _replace(connection: Connection, name: str, field: str, before: str, now: str) -> None:
    """Replaces the beginning of all addresses in a column."""
    inspector = sqlalchemy.inspect(connection)
    if not inspector.has_table(name) or field not in {row["name"] for row in inspector.get_columns(name)}:
        return
    address = column(field, String)
    start = func.substr(address, 1, len(before) + 1)
    rest = func.substr(address, len(before) + 1, type_=String)
    rows = (address == before) | (start == f"{before}/")
    connection.execute(sqlalchemy.update(table(name, address)).where(rows).values({field: literal(now) + rest}))
