"""Fingerprints of source code."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

SOURCE_PACKAGES = ("study", "search_spaces")
"""Packages whose code decides what is tried and measured."""


def fingerprint_of(folder: Path, packages: Iterable[str] = SOURCE_PACKAGES) -> str:
    """16 hexadecimal digits that identify the code in a folder.

    They change with any line of any Python file of the packages, whether git tracks the file or not.
    """
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((folder / package).rglob("*.py")):
            if path.is_file():  # an editor's lock is a link to nowhere
                name = path.relative_to(folder).as_posix()
                digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
