"""Finds parts by name; the folder is the registry.

`study/optimizers/sam.py` is the optimizer `sam`. A new file in the folder is a new part, with no other change. Parts that are
elsewhere are found by `study.parts.outside`.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from study.config import Choice, Label, Probes, StrictSettings, TrialConfig, sentence
from study.errors import StudyError, nearest
from study.parts import outside

KINDS = {
    "data": "data set",
    "tasks": "task sequence",
    "models": "model",
    "optimizers": "optimizer",
    "interventions": "intervention",
    "operations": "operation",
}

NAMED = ("interventions", "operations")
"""Sections of a configuration in which parts stand by their names, any number of them."""


def built_in(kind: str) -> list[str]:
    """The study's own parts of a kind, in alphabetical order.

    A file whose name begins with an underscore is not a part.
    """
    package = importlib.import_module(f"study.{kind}")
    modules = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in modules if not name.startswith("_"))


def names(kind: str) -> list[str]:
    """The parts of a kind with plain names, in order.

    The study's own, and those that installed packages bring.
    """
    return sorted([*built_in(kind), *outside.entry_points(kind)])


def find(kind: str, name: str) -> ModuleType:
    """The module of a part.

    Raises StudyError, with the nearest name, if there is no such part, or its code fails.
    """
    if name in built_in(kind):
        return importlib.import_module(f"study.{kind}.{name}")
    module = outside.find(kind, name, KINDS[kind])
    if module is None:
        raise StudyError(f"unknown {KINDS[kind]} {name!r}; {nearest(str(name), names(kind))}, or the path of a file.")
    return module


def public_names(settings: type[StrictSettings]) -> list[str]:
    """Names of a part's settings as users write them."""
    return [field.alias or name for name, field in settings.model_fields.items()]


def settings(kind: str, name: str, given: Mapping[str, Any], prefix: str) -> StrictSettings:
    """The validated settings of a part, defaults filled in.

    Args:
        kind: folder of the part.
        name: the part.
        given: settings by their public names.
        prefix: of their names in messages, for example "optimizer/".

    Raises:
        StudyError: a part or setting of that name does not exist, or a value is out of range.
    """
    declared: type[StrictSettings] = find(kind, name).Settings
    for word in given:
        if word not in public_names(declared):
            raise StudyError(
                f"{KINDS[kind]} {name!r} has no setting {prefix + word!r}; {nearest(word, public_names(declared))}."
            )
    try:
        return declared.model_validate(dict(given))
    except ValidationError as error:
        raise StudyError(sentence(error, public_names(declared), prefix)) from None
    except StudyError as error:
        raise StudyError(f"{prefix.rstrip('/')}: {error}") from None


SECTIONS = {"data": "data", "tasks": "tasks", "model": "models", "optimizer": "optimizers"}
"""The kind of part that each section of a configuration chooses."""


def complete(config: TrialConfig) -> TrialConfig:
    """The configuration with every default of every part written out.

    It states everything that decides a result. All settings of the parts are validated here, each once.

    Raises:
        StudyError: a part or a setting is unknown, or a value is out of range.
    """
    sections: dict[str, Any] = {}
    for section, kind in SECTIONS.items():
        choice = getattr(config, section)
        filled = settings(kind, choice.name, choice.settings, f"{section}/")
        sections[section] = Choice.model_validate({"name": choice.name} | filled.plain())
    for kind in NAMED:
        sections[kind] = {
            name: settings(kind, name, given, f"{kind}/{name}/").plain()
            for name, given in getattr(config, kind).items()
        }
    idle = [f"operations/{name}" for name in config.operations] + ["probes/lr"] * (config.probes.lr != Probes().lr)
    if idle and not config.probes.boundaries:
        raise StudyError(
            f"{idle[0]} has no effect without probes/boundaries; set the tasks before which networks are copied, such as "
            f"probes/boundaries=[10,30], or leave it out."
        )
    return config.model_copy(update=sections)  # the rest was validated when `config` was made


def labels(config: TrialConfig) -> dict[str, Label]:
    """Labels of settings of parts and probes, by slash name.

    Raises StudyError if a part is unknown.
    """
    declared: dict[str, type[StrictSettings]] = {
        prefix: find(kind, part).Settings for prefix, kind, part in _chosen(config)
    }
    if config.probes.boundaries:
        declared["probes/"] = Probes
    return {
        prefix + (field.alias or name): Label.model_validate(field.json_schema_extra["label"])
        for prefix, own in declared.items()
        for name, field in own.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and "label" in field.json_schema_extra
    }


def _chosen(config: TrialConfig) -> Iterator[tuple[str, str, str]]:
    """Prefix of the settings, kind and name of each part of a trial."""
    for section, kind in SECTIONS.items():
        yield f"{section}/", kind, getattr(config, section).name
    for kind in NAMED:
        for name in getattr(config, kind):
            yield f"{kind}/{name}/", kind, name


def installed(config: TrialConfig) -> dict[str, str]:
    """Fingerprints of a trial's parts that installed packages bring.

    By name. The data set is not among them, since its images have a fingerprint.
    """
    return outside.fingerprints((kind, name) for _, kind, name in _chosen(config) if kind != "data")
