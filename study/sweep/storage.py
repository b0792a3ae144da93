"""Where checkpoints go: a folder, or an address such as s3://bucket/prefix. All nodes of a cluster must reach it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from study.errors import StudyError, first_line


def is_uri(place: str) -> bool:
    """Whether a place is an address and no path."""
    return "://" in place


def within(place: str, *names: str) -> str:
    """A place inside of another one. The query of an address, such as `?endpoint_override=...`, stays its end."""
    if not is_uri(place):
        return str(Path(place, *names))
    address, mark, query = place.partition("?")
    return "/".join([address.rstrip("/"), *names]) + mark + query


def address_of(place: str, path: str) -> str:
    """The full place of a path that the file system of `place` knows: "bucket/prefix/x" in s3 is s3://bucket/prefix/x."""
    if not is_uri(place):
        return path
    scheme = place.partition("://")[0]
    return f"{scheme}://{path}{''.join(place.partition('?')[1:])}"


def check(place: str) -> str:
    """The place, a path made absolute.

    Raises:
        StudyError: it is an address that no file system belongs to.
    """
    if not is_uri(place):
        return str(Path(place).expanduser().resolve())
    try:
        if not _open(place)[1]:
            raise ValueError("it names no bucket")
    except Exception as error:  # pyarrow raises what its file systems do
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
    """The content of a file. Raises OSError, and FileNotFoundError if it is not there."""
    if not is_uri(place):
        return Path(place, name).read_bytes()
    system, path = _open(place)
    with system.open_input_stream(f"{path}/{name}") as file:
        return bytes(file.read())


def remove(place: str, name: str) -> None:
    """Removes a small file, if it is there. Raises OSError."""
    system, path = _open(place)
    if system.get_file_info(f"{path}/{name}").type.name == "File":
        system.delete_file(f"{path}/{name}")


def _open(place: str) -> tuple[Any, str]:
    from pyarrow import fs  # takes a moment

    return fs.FileSystem.from_uri(place) if is_uri(place) else (fs.LocalFileSystem(), place)
