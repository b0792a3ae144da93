"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A hidden path beside `path` to write its content to.

    Write a file or a folder there, then move it to `path`: readers see the old content or all of the new. A leftover draft is
    removed, also one of a killed process that had the same process id.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(draft)
    try:
        yield draft
    finally:
        _remove(draft)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def first_existing(folder: Path) -> Path:
    """The folder itself, or its nearest parent that exists."""
    return next((path for path in (folder, *folder.parents) if path.exists()), Path())


def write_fault(folder: Path) -> str:
    """Why nothing can be created in a folder.

    Returns a clause, or "". The folder need not exist. It is tried, for permissions do not tell of file systems that refuse.
    """
    try:
        existing = first_existing(folder)
        broken = next((path for path in (folder, *folder.parents) if path.is_symlink() and not path.exists()), None)
        if broken is not None:
            return f"{str(broken)!r} is a link that leads nowhere"
        if not existing.is_dir():
            return f"{str(existing)!r} is a file"
        with tempfile.TemporaryDirectory(prefix=".", dir=existing):
            return ""
    except OSError as error:
        return error.strerror or str(error)
