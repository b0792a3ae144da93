"""Search spaces: one file each, with a constant `SPACE`.

The folder is the registry.
"""

import difflib
import importlib
import importlib.util
import pkgutil
from pathlib import Path

from pydantic import ValidationError

from search_spaces.space import Method, SearchSpace

__all__ = ["YAML", "Method", "SearchSpace", "fault", "is_path", "load", "names"]

YAML = (".yaml", ".yml")
"""Endings of files with a space in YAML."""


def names() -> list[str]:
    """The search spaces of this folder, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "space")


def load(name: str) -> SearchSpace:
    """The search space of a name or Python file.

    Those in YAML are read by `study.sweep.space_file`.

    Args:
        name: of a file in this folder, or the path of any other Python file.

    Raises:
        ValueError: the name is unknown, or the file has no valid search space; the message is one sentence.
    """
    if is_path(name):
        return _load_file(Path(name))
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"Unknown search space {name!r}; {hint}known: {', '.join(names())}, or the path of a file.")
    space: SearchSpace = importlib.import_module(f"search_spaces.{name}").SPACE
    return space


def is_path(name: str) -> bool:
    """Whether this is a path rather than a name."""
    return name.endswith((".py", *YAML)) or "/" in name


def fault(path: Path, error: ValidationError, place: str = "") -> str:
    """Why a file has no search space, as one sentence.

    Args:
        path: the file.
        error: of the first class that did not accept them.
        place: where in the file, such as "methods/sgd".
    """
    first = error.errors()[0]
    where = "/".join(part for part in (place, *map(str, first["loc"])) if part) or error.title
    complaint = first["msg"].removeprefix("Value error, ").rstrip(".").replace("valid tuple", "list")
    return f"The search space in {str(path)!r} is not possible: {where}: {complaint}."


def _load_file(path: Path) -> SearchSpace:
    if not path.is_file():
        raise ValueError(f"There is no search space file {str(path)!r}.")
    spec = importlib.util.spec_from_file_location(f"search_space_{path.stem}", path)
    if spec is None:
        raise ValueError(f"{str(path)!r} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        # As the loader does it, but without a compiled copy: that would lie beside the user's file, and could be an older one.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102
    except ValidationError as error:
        raise ValueError(fault(path, error)) from error
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        raise ValueError(f"The search space file {str(path)!r} fails: {type(error).__name__}: {error}.") from error
    space = getattr(module, "SPACE", None)
    if not isinstance(space, SearchSpace):
        raise ValueError(f"{str(path)!r} must define SPACE = SearchSpace(...), from search_spaces.")
    return space
