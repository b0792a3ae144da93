"""The storage for checkpoints: a folder or an address.

An address is a URI such as s3://bucket/prefix. All nodes of a cluster must reach the storage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from study import addresses
from study.errors import StudyError, first_line
from study.files import write_fault


def is_uri(place: str) -> bool:
    """Whether a place is an address rather than a path."""
    return "://" in place


def within(place: str, *names: str) -> str:
    """Returns a place inside another one.

    The query of an address, such as `?endpoint_override=...`, stays at the end.
    """
    if not is_uri(place):
        return str(Path(place, *names))
    address, mark, query = place.partition("?")
    return "/".join([address.rstrip("/"), *names]) + mark + query


def address_of(place: str, path: str) -> str:
    """Returns the full address of a file system's path.

    Args:
        place: any place in the file system.
        path: as the file system has it: "bucket/prefix/x" in S3 is s3://bucket/prefix/x.
    """
    if not is_uri(place):
        return path
    scheme = place.partition("://")[0]
    return f"{scheme}://{path}{''.join(place.partition('?')[1:])}"


def check(place: str) -> str:
    """Returns the place, with paths made absolute.

    Raises:
        StudyError: it is an address of no known file system, or a folder that cannot be written.
    """
    if not is_uri(place):
        try:
            folder = addresses.full_path(place)
        except (RuntimeError, OSError) as error:  # no home; a circle of links
            raise StudyError(
                f"--storage {place!r} cannot be a folder ({first_line(error)}); write it in full."
            ) from None
        if fault := write_fault(folder):
            raise StudyError(f"--storage {str(folder)!r} cannot be written ({fault}); choose a folder that can.")
        return str(folder)
    try:
        if not _open(place)[1]:
            raise ValueError("it names no bucket")
    except Exception as error:  # pyarrow passes on whatever its file systems raise
        raise StudyError(
            f"--storage {place} cannot be used ({first_line(error)}); give a folder or an address like s3://BUCKET/PREFIX."
        ) from None
    return place


def leave(place: str, name: str, text: str) -> None:
    """Writes a small file. Raises OSError."""
    system, path = _open(place)
    system.create_dir(path, recursive=True)
    with system.open_output_stream(f"{path}/{name}") as file:
        file.write(text.encode())


def read(place: str, name: str) -> bytes:
    """Returns the content of a file.

    Raises OSError; FileNotFoundError if the file does not exist.
    """
    if not is_uri(place):
        return Path(place, name).read_bytes()
    system, path = _open(place)
    with system.open_input_stream(f"{path}/{name}") as file:
        return bytes(file.read())


def remove(place: str, name: str) -> None:
    """Removes a small file if it exists. Raises OSError."""
    system, path = _open(place)
    if system.get_file_info(f"{path}/{name}").type.name == "File":
        system.delete_file(f"{path}/{name}")


def _open(place: str) -> tuple[Any, str]:
    from pyarrow import fs  # slow to import

    return fs.FileSystem.from_uri(place) if is_uri(place) else (fs.LocalFileSystem(), place)
