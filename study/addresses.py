"""Addresses of files and databases.

A path becomes part of an address here and nowhere else. It is quoted, so a folder may have any name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

PLAIN = "sqlite:///"
"""How the address of a database file begins if nothing in it needs quotes."""


def full_path(path: Path | str) -> Path:
    """The absolute path of a file or folder.

    Relative paths begin at the current folder, and `~/` at the user's home. Other names that begin with `~` are names.
    """
    path = Path(path)
    return _resolved(path.expanduser() if path.parts[:1] == ("~",) else path)


def _resolved(path: Path) -> Path:
    """The absolute path; a circle of links stays."""
    try:
        return path.resolve()
    except RuntimeError:
        return path.absolute()


def database(path: Path, options: Mapping[str, str] | None = None) -> str:
    """The address of an SQLite file.

    Paths with `?` or `%` take SQLite's own form of an address, `file:` and quotes. SQLAlchemy quotes that once more or not at
    all, depending on its version. The driver is then named, because MLflow would take the quoted path of `sqlite:///` for a
    path and create its folders.

    Args:
        path: of the file; it is made absolute.
        options: of the connection, such as `mode` = `ro`; they need SQLite's own form too.
    """
    path = _resolved(path)
    if not options and not {"?", "%"} & set(str(path)):
        return f"{PLAIN}{path}"
    from sqlalchemy.engine import URL  # slow to import

    query = {**(options or {}), "uri": "true"}
    url = URL.create("sqlite+pysqlite", database=f"file:{quote(str(path))}", query=query)
    return url.render_as_string(hide_password=False)


def database_file(address: str) -> Path | None:
    """The file of an SQLite address.

    None if it is of another kind, has no file or is malformed.
    """
    path, _ = _parts(address)
    return path


def absolute(address: str) -> str:
    """An address with the path of an SQLite file absolute.

    Relative paths begin at the current folder. Other addresses are returned as they are.
    """
    path, options = _parts(address)
    return address if path is None else database(path, options)


def read_only(address: str) -> str:
    """The address for connections that cannot write.

    Such a connection to an SQLite file neither creates nor changes it. Other addresses are returned as they are.
    """
    path, options = _parts(address)
    return address if path is None else database(path, {**options, "mode": "ro"})


def local_folder(address: str) -> Path | None:
    """The folder of a `file:` address or absolute path.

    None for other addresses.
    """
    parts = urlsplit(address)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(address) if address.startswith("/") else None


def moved(address: str, before: Path, now: Path) -> str:
    """The address of a place after a folder moved.

    Args:
        address: of the place, a path, a `file:` address or that of an SQLite file; others are returned as they are.
        before, now: absolute paths of the folder that moved.
    """
    path, options = _parts(address)
    if path is not None:
        return database(now / path.relative_to(before), options) if path.is_relative_to(before) else address
    place = local_folder(address)
    if place is None or not place.is_relative_to(before):
        return address
    new = now / place.relative_to(before)
    return new.as_uri() if "://" in address else str(new)


def _parts(address: str) -> tuple[Path | None, dict[str, str]]:
    """Path and options of an SQLite address.

    A question mark that begins no options, `?key=value`, is part of the path.
    """
    if not address.startswith(("sqlite:", "sqlite+")):
        return None, {}
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(address)
        options = {name: value for name, value in url.query.items() if isinstance(value, str)}
        name = url.database or ""
        if "?" in address and not options:
            head, _, tail = address.partition("?")
            name = f"{make_url(head).database}?{tail}"
    except (ArgumentError, ValueError):
        return None, {}
    if options.pop("uri", "") and name.startswith("file:"):
        name = unquote(urlsplit(name).path)
    if not name or name == ":memory:" or url.host:
        return None, {}
    return Path(name), options
