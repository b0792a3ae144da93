"""Parts from outside the package: files, modules and entry points.

A part's name says where it is:

    sam                   a file of the study, or an entry point of an installed package
    ./asam.py             a file of one's own, beside the space or configuration that names it
    my_package.asam       a module of an installed package

A file is read once, where it is named. From then on its name is `asam.py@0123456789ab`, with the digest of its content, and its
source travels with that name: into the record of a sweep, to Ray's workers, beside exported configurations. So a sweep trains
the same code to its end, even if the file has changed or is gone. An installed package must be the same on all machines: its
fingerprint is among the facts of each trial.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import linecache
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from study.config import DEFAULT_PARTS, LARGEST_FILE, Flat, StrictSettings
from study.errors import StudyError, with_type
from study.fingerprint import fingerprint_of

ENTRY_POINTS = "plasticity_study"
"""Entry points of the group `plasticity_study.optimizers` are optimizers, and so on."""

DIGITS = 12
"""Hexadecimal digits of a file's digest in its name."""

ADOPTED = re.compile(rf"([A-Za-z0-9_.-]+)\.py@([0-9a-f]{{{DIGITS}}})")
"""The name of a part in a file, once it has been read."""

_files: dict[str, PartFile] = {}
"""The files that this process knows, by name."""


class PartFile(StrictSettings):
    """A part in one file.

    Attributes:
        path: where it was read.
        text: its Python source.
    """

    path: str
    text: str


def is_path(name: object) -> bool:
    """Whether a name that a user wrote is a file's."""
    return isinstance(name, str) and name.endswith(".py")


def adopt(path: Path) -> str:
    """Reads the file of a part; returns the part's name.

    Raises StudyError if it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StudyError(f"Cannot read the part {str(path)!r}: {reason}.") from None
    if len(text) > LARGEST_FILE:
        raise StudyError(f"{str(path)!r} is no part: it is larger than {LARGEST_FILE:,} characters.")
    digest = _digest(text)
    word = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem).removesuffix(f"-{digest}")  # as `study export` names it
    name = f"{word}.py@{digest}"
    _files.setdefault(name, PartFile(path=str(path.resolve()), text=text))
    return name


def adopted(flat: Mapping[str, Any], folder: Path) -> Flat:
    """Settings in which files have been read and renamed.

    Args:
        flat: settings, or distributions, by slash name.
        folder: that relative paths start from.

    Raises StudyError if a file cannot be read.
    """
    return dict(_adopted(name, value, folder) for name, value in flat.items())


def _adopted(name: str, value: Any, folder: Path) -> tuple[str, Any]:
    """A setting, its file read and renamed if it names one."""
    section, _, leaf = name.partition("/")
    if section in DEFAULT_PARTS and leaf == "name" and is_path(value):
        return name, adopt(folder / value)
    match = re.fullmatch(r"(.+?\.py)(/[^/]+)?", leaf) if section in ("interventions", "operations") else None
    return (f"{section}/{adopt(folder / match[1])}{match[2] or ''}", value) if match else (name, value)


def stem(name: str) -> str:
    """A part's name, fit for the name of a file."""
    match = ADOPTED.fullmatch(name)
    return match[1] if match else name


def sources(names: Iterable[str]) -> dict[str, PartFile]:
    """The files of those names that have been read."""
    return {name: _files[name] for name in names if name in _files}


def known() -> dict[str, PartFile]:
    """All files that this process knows."""
    return dict(_files)


def named_in(text: str) -> set[str]:
    """The names of files that occur in a text."""
    return {match[0] for match in ADOPTED.finditer(text)}


def register(files: Mapping[str, PartFile]) -> None:
    """Makes files known that this process has not read.

    Raises StudyError if a text is not the one that its name promises.
    """
    for name, file in files.items():
        match = ADOPTED.fullmatch(name)
        if match is None or match[2] != _digest(file.text):
            raise StudyError(f"{name!r} is not the name of the part whose source stands beside it.")
        _files.setdefault(name, file)


def written_out(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A configuration for a file, and its parts' sources.

    Args:
        config: nested plain data.

    Returns:
        The configuration, with paths in place of names; and texts by file name.
    """
    files: dict[str, str] = {}

    def path(name: str) -> str:
        match = ADOPTED.fullmatch(name)
        if match is None or name not in _files:
            return name
        file = f"{match[1]}-{match[2]}.py"
        files[file] = _files[name].text
        return f"./{file}"

    shown = dict(config)
    for section in DEFAULT_PARTS:
        shown[section] = {**config[section], "name": path(config[section]["name"])}
    for kind in ("interventions", "operations"):
        if kind in config:
            shown[kind] = {path(name): given for name, given in config[kind].items()}
    return shown, files


def changes(files: Mapping[str, PartFile]) -> Iterator[str]:
    """A clause on each file that has changed."""
    for name, file in files.items():
        try:
            text = Path(file.path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, ValueError):
            continue  # it is not needed any more
        if text != file.text:
            yield f"{file.path} has changed since it was read as {name}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def find(kind: str, name: str, what: str) -> ModuleType | None:
    """The module of a part from outside, or None.

    Args:
        kind: folder of the parts of this kind in the study.
        name: of the part.
        what: the word for a part of the kind, for messages.

    Raises StudyError if its code fails or is no such part.
    """
    if ADOPTED.fullmatch(name):
        module = _module_of_file(name, what)
    elif name in (points := entry_points(kind)):
        module = _checked_import(points[name], f"{name!r} ({points[name]})", what)
    elif "." in name and all(word.isidentifier() for word in name.split(".")):
        module = _checked_import(name, repr(name), what)
    else:
        return None
    declared = getattr(module, "Settings", None)
    if not (
        isinstance(declared, type) and issubclass(declared, StrictSettings) and callable(getattr(module, "build", None))
    ):
        raise StudyError(
            f"{name!r} is no {what}: it must define a class `Settings`, derived from study.config.StrictSettings, and a "
            f"function `build`."
        )
    return module


@functools.cache
def entry_points(kind: str) -> dict[str, str]:
    """The modules of installed parts, by their names.

    Raises StudyError if a name is not free.
    """
    group = f"{ENTRY_POINTS}.{kind}"
    found: dict[str, str] = {}
    for point in metadata.entry_points(group=group):
        other = found.setdefault(point.name, point.value)
        if point.name.isidentifier() and importlib.util.find_spec(f"study.{kind}.{point.name}"):
            other = "the study's own part"
        if other != point.value:
            raise StudyError(
                f"The entry point {point.name!r} in {group} of an installed package ({point.value}) has the name of another "
                f"part ({other}); rename or uninstall it."
            )
    return found


def fingerprints(kinds: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Fingerprints of the packages of installed parts, by name.

    Args:
        kinds: kinds and names of parts; those in files and those of the study are left out.
    """
    found = {}
    for kind, name in kinds:
        module = entry_points(kind).get(name, name)
        if name in entry_points(kind) or ("." in name and not ADOPTED.fullmatch(name)):
            found[name] = _fingerprint(module.partition(".")[0])
    return found


@functools.cache
def _fingerprint(package: str) -> str:
    """Fingerprint of a top-level package or module."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return "not installed"
    for place in spec.submodule_search_locations or ():
        folder = Path(place)
        return fingerprint_of(folder.parent, [folder.name])
    return _digest(Path(str(spec.origin)).read_text(encoding="utf-8"))


def _checked_import(module: str, name: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever its code raises
        raise StudyError(f"The {what} {name} cannot be imported: {with_type(error)}.") from error


def _module_of_file(name: str, what: str) -> ModuleType:
    """The module of a file that has been read, executed once."""
    if name not in _files:
        raise StudyError(f"The source of the {what} {name!r} is not here; name its file.")
    module_name = "study_part_" + re.sub(r"\W", "_", name)
    if module_name in sys.modules:
        return sys.modules[module_name]
    file = _files[name]
    module = ModuleType(module_name)
    module.__file__ = file.path
    linecache.cache[name] = (len(file.text), None, file.text.splitlines(keepends=True), name)  # for tracebacks
    sys.modules[module_name] = module  # dataclasses and pydantic look names up there
    try:
        exec(compile(file.text, name, "exec"), module.__dict__)  # noqa: S102  # it is the user's own code
    except (Exception, SystemExit) as error:  # whatever it raises
        del sys.modules[module_name]
        raise StudyError(f"The {what} {name!r} fails: {with_type(error)}.") from error
    return module
