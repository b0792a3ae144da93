"""The storage for checkpoints: a folder or an address.

An address is a URI such as s3://bucket/prefix. All nodes of a cluster must reach the storage.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Usage:
    """What files take.

    Attributes:
        files: their number.
        size: in bytes.
    """

    files: int = 0
    size: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.files + other.files, self.size + other.size)

    def __str__(self) -> str:
        """In words, with megabytes of 1,000,000 bytes."""
        return f"{self.size / 1e6:,.1f} MB in {self.files:,} {'file' if self.files == 1 else 'files'}"


def entries(place: str) -> list[str]:
    """Names in a folder; none if it does not exist.

    Raises StudyError if it is a link or cannot be read.
    """
    with _refusals(place):
        if not is_uri(place):
            _check_no_link(Path(place))
            return sorted(path.name for path in Path(place).iterdir()) if Path(place).is_dir() else []
        from pyarrow import fs  # slow to import

        system, path = _open(place)
        return sorted(info.base_name for info in system.get_file_info(fs.FileSelector(path, allow_not_found=True)))


def usage(place: str) -> Usage:
    """What a file or folder with all its content takes.

    Raises StudyError if it is a link, has one in it, or cannot be read.
    """
    with _refusals(place):
        if not is_uri(place):
            return _usage(Path(place))
        from pyarrow import fs  # slow to import

        system, path = _open(place)
        found = [system.get_file_info(path)]
        if found[0].type == fs.FileType.Directory:
            found += system.get_file_info(fs.FileSelector(path, recursive=True))
        files = [info for info in found if info.type == fs.FileType.File]
        return Usage(len(files), sum(info.size for info in files))


def _usage(path: Path) -> Usage:
    _check_no_link(path)
    if not path.is_dir():
        return Usage(1, path.stat().st_size) if path.exists() else Usage()
    return sum((_usage(each) for each in path.iterdir()), Usage())


def _check_no_link(path: Path) -> None:
    if path.is_symlink():
        raise StudyError(
            f"{str(path)!r} is a link, which the study has not written and does not delete; move it away first."
        )


def delete(place: str) -> None:
    """Deletes a file, or a folder with all its content.

    Raises StudyError if it cannot be deleted.
    """
    with _refusals(place):
        if not is_uri(place):
            if Path(place).is_dir():
                shutil.rmtree(place)  # follows no link
            else:
                Path(place).unlink(missing_ok=True)
            return
        from pyarrow import fs  # slow to import

        system, path = _open(place)
        kind = system.get_file_info(path).type
        if kind == fs.FileType.Directory:
            system.delete_dir(path)
        elif kind == fs.FileType.File:
            system.delete_file(path)


@contextmanager
def _refusals(place: str) -> Iterator[None]:
    """Turns errors of a file system in its block into a StudyError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise StudyError(f"{place!r} cannot be read or deleted ({reason}).") from None


def _open(place: str) -> tuple[Any, str]:
    from pyarrow import fs  # slow to import

    return fs.FileSystem.from_uri(place) if is_uri(place) else (fs.LocalFileSystem(), place)
