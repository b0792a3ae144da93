"""Search spaces in YAML.

A file has the keys of `search_spaces.SearchSpace`, and each of its methods those of `search_spaces.Method`. Settings have slash
names, or are nested: `{"tasks/count": 10}` is `{"tasks": {"count": 10}}`. Distributions are mappings, see `search_spaces.space`.
`study/docs/settings.md` shows a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import search_spaces
from search_spaces import Method, SearchSpace
from search_spaces.space import RANGE
from study.config import TrialConfig, read_yaml
from study.errors import StudyError, brief, nearest


def read(path: Path) -> SearchSpace:
    """The search space in a YAML file.

    Raises StudyError if the file cannot be read or has no valid search space.
    """
    if not path.is_file():
        raise StudyError(f"There is no search space file {str(path)!r}.")
    plain = read_yaml(path)
    if not isinstance(plain, Mapping):
        raise StudyError(
            f"{str(path)!r} is no search space: it must be a mapping with keys like 'scenarios' and 'methods'."
        )
    if plain and plain.keys() <= TrialConfig.model_fields.keys():
        raise StudyError(
            f"{str(path)!r} is no search space but the configuration of one trial; run it with `study trial`."
        )
    try:
        return _space(path, plain)
    except ValueError as error:
        raise StudyError(f"The search space in {str(path)!r} is not possible: {error}.") from None


def _space(path: Path, plain: Mapping[Any, Any]) -> SearchSpace:
    """The space that plain data describe.

    Raises StudyError, or ValueError whose message is a clause.
    """
    _check_keys(plain, SearchSpace, "")
    values = dict(plain)
    scenarios, methods = (_mapping(values.get(name, {}), name) for name in ("scenarios", "methods"))
    if "settings" in values:
        values["settings"] = _settings(values["settings"], "settings")
    if "scenarios" in values:
        values["scenarios"] = {name: _settings(given, f"scenarios/{name}") for name, given in scenarios.items()}
    if "methods" in values:
        values["methods"] = {name: _method(path, given, f"methods/{name}") for name, given in methods.items()}
    try:
        return SearchSpace(**values)
    except ValidationError as error:
        raise StudyError(search_spaces.fault(path, error)) from None


def _method(path: Path, plain: object, place: str) -> Method:
    """The method that plain data describe."""
    given = _mapping(plain, place)
    _check_keys(given, Method, place)
    values = dict(given)
    for name in values.keys() & {"settings", "distributions"}:
        values[name] = _settings(values[name], f"{place}/{name}", drawn=name == "distributions")
    if isinstance(values.get("points"), list):
        values["points"] = [
            _settings(point, f"{place}/points/{number}") for number, point in enumerate(values["points"])
        ]
    try:
        return Method(**values)
    except ValidationError as error:
        raise StudyError(search_spaces.fault(path, error, place)) from None


def _check_keys(given: Mapping[Any, Any], declared: type[SearchSpace | Method], place: str) -> None:
    """Raises ValueError if a key is not one of the class's."""
    known = [field.name for field in fields(declared)]
    for key in given:
        if key not in known:
            where = f" in {place}" if place else ""
            hint = ""
            if "/" in str(key) and declared is Method:
                hint = "; it belongs under settings, or under distributions if it is drawn"
            raise ValueError(f"unknown key {brief(key)}{where}; {nearest(str(key), known)}{hint}")


def _mapping(plain: object, place: str) -> Mapping[Any, Any]:
    if not isinstance(plain, Mapping):
        raise ValueError(f"{place} must be a mapping, not {brief(plain)}")
    return plain


def _settings(plain: object, place: str, *, drawn: bool = False) -> dict[Any, Any]:
    """Settings or distributions by slash name, nested or not.

    Raises ValueError if one is there twice.
    """
    flat: dict[Any, Any] = {}
    for name, value in _pairs(_mapping(plain, place).items(), drawn):
        if name in flat:
            raise ValueError(f"{name} is there twice in {place}")
        flat[name] = value
    return flat


def _pairs(items: Iterable[tuple[Any, Any]], drawn: bool) -> Iterator[tuple[Any, Any]]:
    """Names and values; a distribution is a value, and so is an empty group."""
    for name, value in items:
        is_group = isinstance(value, Mapping) and bool(value)
        if is_group and not (drawn and value.keys() & {*RANGE, "choices"}):
            yield from ((f"{name}/{rest}", inner) for rest, inner in _pairs(value.items(), drawn))
        else:
            yield name, value
