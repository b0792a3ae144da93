"""A configuration and its seeds, as words and numbers.

A `TrialConfig` is a frozen tree with a YAML form and a flat form. It checks the *shape* of its input only. Each part knows which
settings it has and what their values may be; `study.parts.complete` and `study.experiment.build` validate them there.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from study import schema
from study.errors import StudyError, brief, first_line, nearest

Flat = dict[str, Any]
"""Settings by slash name, for example `{"optimizer/rho": 0.05}`."""

SEED_LIMIT = 2**31

NAME_LENGTH = 100
"""Characters of the name of a sweep, method or scenario."""

NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_LENGTH - 1}}}")
"""Names of sweeps, methods and scenarios: folders and files are named after them."""

MOST_SEEDS = 10_000
"""Seeds of a trial, that is lanes that are trained together."""

MOST_TRIALS = 1_000_000
"""Trials of a method in a scenario."""

LARGEST = 1e30
"""Upper bound of settings, well within float32, in which networks are trained."""

DEEPEST = 20
"""Levels of lists and mappings in a setting or a file."""

MOST_VALUES = 100_000
"""Values in a setting or on a level of a file."""

LARGEST_FILE = 200_000
"""Bytes of a configuration."""

DEFAULT_PARTS = {"data": "mnist5k", "tasks": "permuted_pixels", "model": "mlp", "optimizer": "sgd"}
"""The default part of each section."""


def _tuple_of_list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Listed = BeforeValidator(_tuple_of_list)
"""Accepts a list, the only sequence of YAML and JSON, for a declared tuple."""


class StrictSettings(BaseModel):
    """Base of every group of settings.

    Frozen, strict about types, and closed to unknown names.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        populate_by_name=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",  # a part's own fault, and not "nothing", where it has not been validated yet
    )

    def plain(self) -> dict[str, Any]:
        """The settings as plain data, by their public names."""
        return self.model_dump(mode="json", by_alias=True)


Role = Literal["learning rate", "sharpness", "other"]
"""The role of a setting in a study of sharpness; see `Label`."""


class Label(StrictSettings):
    """How a setting appears in names, tables and figures.

    Attributes:
        short: one word, such as `lr`.
        unit: of its values; "1" for a pure number, "" if it has no unit.
        role: "learning rate" and "sharpness" span the heat maps, and MLflow's tables begin with them. Any other setting of a
            method has separate heat maps for each of its values.
        zero: one word for the value 0, such as "exact"; "" if 0 has no special meaning.
    """

    short: str
    unit: str = ""
    role: Role = "other"
    zero: str = ""

    @property
    def axis(self) -> str:
        """The name for an axis, with the unit."""
        name = f"learning rate {self.short}" if self.role == "learning rate" else self.short
        return f"{name} ({self.unit})" if self.unit else name


def setting(
    default: Any, description: str, *, short: str, unit: str = "", role: Role = "other", zero: str = "", **bounds: Any
) -> Any:
    """A pydantic field with a label.

    Args:
        default: its value where the user sets none.
        description: one sentence, for the table of settings.
        short, unit, role, zero: see `Label`.
        bounds: arguments of `pydantic.Field`, such as `gt=0` or `alias="lambda"`.
    """
    label = Label(short=short, unit=unit, role=role, zero=zero).plain()
    return Field(default, description=description, json_schema_extra={"label": label}, **bounds)


Labels = Mapping[str, Label]
"""Labels by slash name."""

EARLIER_LABELS: Labels = {
    "optimizer/lr": Label(short="lr", unit="1", role="learning rate"),
    "optimizer/rho": Label(short="rho", unit="length in weight space", role="sharpness"),
    "optimizer/lambda": Label(short="lambda", unit="1", role="sharpness"),
    "optimizer/r": Label(short="r", unit="length in weight space", zero="exact"),
}
"""Labels for sweeps whose plan was written before plans had labels."""


def label_of(name: str, labels: Labels) -> Label:
    """The label of a setting.

    Without one, its short name is the last word of its slash name.
    """
    return labels.get(name) or Label(short=name.rsplit("/", 1)[-1])


def settings_words(values: Mapping[str, Any], labels: Labels) -> str:
    """Settings on one line: `lr=0.01 rho=0.05`.

    Floats have three significant digits.
    """
    return " ".join(f"{label_of(name, labels).short}={short_value(value)}" for name, value in values.items())


def short_value(value: object) -> str:
    """A value as text, floats to three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class Choice(BaseModel):
    """The name of a part and its given settings."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="constants")

    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """The given settings, without the name."""
        return dict(self.model_extra or {})


class Training(StrictSettings):
    """How each task is trained, whatever the method."""

    batch_size: int = Field(16, ge=1, le=2**31, description="Images in a minibatch, in each lane.")
    passes: int = Field(1, ge=1, le=2**31, description="Passes over the images of each task.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to train: `auto` takes a CUDA GPU when there is one."
    )
    pixels: Literal["unit", "symmetric", "standardized"] = Field(
        "unit",
        description="Values of pixels: `unit` from 0 to 1, `symmetric` from -1 to 1, `standardized` with mean 0 and standard "
        "deviation 1 in each channel of the training images.",
    )


LATER_SETTINGS: Flat = {"training/pixels": "unit", "diagnostics/onset_every": 0, "diagnostics/rho_adaptive": 0.5}
"""Settings that records of earlier versions lack, with the value that these versions had."""

_LATER_IN_NETWORKS: Flat = {"activation": "relu", "layer_norm": "none", "initialisation": "torch"}

_LATER_SHARPNESS: Flat = {
    "base": "sgd",
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
    "schedule": "constant",
    "schedule_over": "tasks",
    "schedule_from": 1.0,
    "schedule_to": 0.0,
    "schedule_length": 0,
    "schedule_factors": [],
}

LATER_PART_SETTINGS: dict[tuple[str, str], Flat] = {
    ("optimizer", "sam"): _LATER_SHARPNESS,
    ("optimizer", "gnp"): _LATER_SHARPNESS,
    ("model", "mlp"): _LATER_IN_NETWORKS,
    ("model", "cnn"): _LATER_IN_NETWORKS,
}
"""The same of parts that are older than some of their settings, by section and name of the part."""


def later_settings(chosen: Mapping[str, Any]) -> Flat:
    """What records of earlier versions lack, by slash name.

    `chosen` has the names of the parts: `optimizer/name` and so on.
    """
    return LATER_SETTINGS | {
        f"{section}/{name}": value
        for (section, part), own in LATER_PART_SETTINGS.items()
        if chosen.get(f"{section}/name") == part
        for name, value in own.items()
    }


def with_later_settings(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration with all settings of this version.

    `plain` is nested and complete by the version that wrote it.
    """
    filled: dict[str, Any] = dict(plain)
    for setting, value in later_settings(_part_names(plain)).items():
        section, name = setting.split("/")
        if isinstance(filled.get(section), Mapping):
            filled[section] = {**filled[section], **({} if name in filled[section] else {name: value})}
    return filled


def without_later_settings(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as versions without these settings wrote it.

    It keeps settings with another value than these versions had.
    """
    cut: dict[str, Any] = dict(plain)
    for setting, value in later_settings(_part_names(plain)).items():
        section, name = setting.split("/")
        cut[section] = {word: own for word, own in cut[section].items() if word != name or own != value}
    return cut


def _part_names(plain: Mapping[str, Any]) -> Flat:
    """The names of a nested configuration's parts."""
    sections = {section: plain.get(section) for section in DEFAULT_PARTS}
    return {f"{section}/name": own.get("name") for section, own in sections.items() if isinstance(own, Mapping)}


class Diagnostics(StrictSettings):
    """Which diagnostics of `study.schema` run before and after which tasks.

    They do not change training.
    """

    images: int = Field(
        1000,
        ge=1,
        le=2**31,
        description="Images in the diagnostics' sample, in each lane; fewer if the task has fewer.",
    )
    units_every: int = Field(
        1, ge=0, le=2**31, description="Units, ranks and weights are measured every so many tasks; 0: never."
    )
    curvature_every: int = Field(
        10, ge=0, le=2**31, description="Hessian, sharpness and gradient are measured every so many tasks; 0: never."
    )
    forgetting_every: int = Field(
        10, ge=0, le=2**31, description="Accuracy on earlier tasks is measured every so many tasks; 0: never."
    )
    onset_every: int = Field(
        0,
        ge=0,
        le=2**31,
        description="The network is measured before the first step on every so many tasks, on the new task's images; 0: never.",
    )
    rho: float = Field(
        0.05, gt=0, le=LARGEST, description="Length of the uphill step in `sharpness/sam`, for all methods."
    )
    rho_adaptive: float = Field(
        0.5,
        gt=0,
        le=LARGEST,
        description="Length of the uphill step in `onset/sharpness/adaptive`, relative to each weight, for all methods.",
    )
    probes: int = Field(10, ge=2, le=2**31, description="Random vectors that estimate the Hessian's trace.")
    dormant_below: float = Field(
        0.025, ge=0, le=LARGEST, description="Highest score tau at which a unit counts as dormant."
    )
    leave_out: Annotated[tuple[str, ...], Listed] = Field(
        (), description="Names of diagnostics that are not computed, such as `hessian/trace`."
    )

    @field_validator("leave_out")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [quantity.name for quantity in schema.ALL_DIAGNOSTICS]
        for name in names:
            if name not in known:
                raise ValueError(f"{name!r} is not a diagnostic; {nearest(name, known)}")
        return names


class Probes(StrictSettings):
    """Copies of the networks, changed by operations and trained.

    They do not change training.
    """

    boundaries: Annotated[tuple[Annotated[int, Field(ge=0, le=2**31)], ...], Listed] = Field(
        (),
        description="Tasks before which each network is copied, changed by the operations and trained; none: no probes.",
    )
    lr: Annotated[tuple[Annotated[float, Field(gt=0, le=LARGEST)], ...], Listed] = setting(
        (0.01,),
        "Learning rates of the copies, which are trained by plain SGD, once with each.",
        short="probe_lr",
        unit="1",
        min_length=1,
    )

    @field_validator("boundaries", "lr")
    @classmethod
    def _are_different(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(values)) < len(values):
            raise ValueError("values must all be different")
        return values


Seed = Annotated[int, Field(ge=0, lt=SEED_LIMIT)]


class TrialConfig(StrictSettings):
    """One trial: a configuration and its seeds.

    Each seed is trained as one lane.
    """

    data: Choice = Field(default_factory=lambda: Choice(name=DEFAULT_PARTS["data"]))
    tasks: Choice = Field(default_factory=lambda: Choice(name=DEFAULT_PARTS["tasks"]))
    model: Choice = Field(default_factory=lambda: Choice(name=DEFAULT_PARTS["model"]))
    optimizer: Choice = Field(default_factory=lambda: Choice(name=DEFAULT_PARTS["optimizer"]))
    interventions: dict[str, dict[str, Any]] = Field(default_factory=dict)
    training: Training = Training()
    diagnostics: Diagnostics = Diagnostics()
    probes: Probes = Probes()
    operations: dict[str, dict[str, Any]] = Field(default_factory=dict)
    seeds: Annotated[tuple[Seed, ...], Listed] = Field((0,), min_length=1, max_length=MOST_SEEDS)

    @classmethod
    def from_plain(cls, plain: object, source: str = "the configuration") -> TrialConfig:
        """The configuration in nested plain data.

        Raises StudyError, one sentence that begins with `source`, if its shape is wrong.
        """
        if not isinstance(plain, Mapping):
            raise StudyError(f"{source} must be a mapping with keys like 'optimizer' and 'tasks', not {plain!r}.")
        try:
            config = cls.model_validate({name: _named(name, value) for name, value in plain.items()})
        except ValidationError as error:
            groups: dict[str, type[StrictSettings]] = {
                "training": Training,
                "diagnostics": Diagnostics,
                "probes": Probes,
            }
            inner = [f"{group}/{name}" for group, settings in groups.items() for name in settings.model_fields]
            known = [*cls.model_fields, *inner]
            raise StudyError(f"{source}: {sentence(error, known)}") from None
        if len(set(config.seeds)) != len(config.seeds):
            raise StudyError(f"{source}: seeds must all be different, not {list(config.seeds)}.")
        return config

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any], source: str = "the configuration") -> TrialConfig:
        """The configuration in settings by slash name.

        Raises StudyError if their shape is wrong.
        """
        return cls.from_plain(nested(flat), source)

    def plain(self) -> dict[str, Any]:
        """The configuration as plain data.

        A trial without probes has nothing of them, as in records of versions that had none.
        """
        plain = super().plain()
        if self.probes == Probes():
            del plain["probes"]
        if not self.operations:
            del plain["operations"]
        return plain

    @property
    def stack_shape(self) -> str:
        """What trials of one stack have in common.

        As text: all but the seeds and the settings of optimizer and interventions.
        """
        plain = without_later_settings(self.plain())  # or a record would differ from a new trial
        del plain["seeds"]
        plain |= {"optimizer": self.optimizer.name, "interventions": list(self.interventions)}
        return json.dumps(plain, sort_keys=True)

    def flat(self) -> Flat:
        """All settings by slash name, without the seeds."""
        plain = self.plain()
        del plain["seeds"]
        if not self.interventions:
            del plain["interventions"]
        return flattened(plain)


def _named(section: object, value: object) -> object:
    """A section, its default part filled in.

    Sections that choose no part, or name one, are returned as they are.
    """
    if section in DEFAULT_PARTS and isinstance(value, Mapping):
        return {"name": DEFAULT_PARTS[str(section)], **value}
    return value


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turns `{"optimizer/lr": 1}` into `{"optimizer": {"lr": 1}}`.

    Raises:
        StudyError: a name is both a setting and a group.
    """
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, leaf = name.split("/")
        branch = tree
        for step in path:
            branch = branch.setdefault(step, {})
            if not isinstance(branch, dict):
                raise StudyError(f"{name!r} cannot be set: {step!r} is a single setting, not a group of settings.")
        if leaf in branch:
            raise StudyError(f"{name!r} cannot be set: it is a group of settings, not a single setting.")
        branch[leaf] = dict(value) if isinstance(value, Mapping) else value
    return tree


def flattened(tree: Mapping[str, Any], prefix: str = "") -> Flat:
    """Turns `{"optimizer": {"lr": 1}}` into `{"optimizer/lr": 1}`.

    The inverse of `nested`. An empty group is a value.
    """
    flat: Flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = value
    return flat


def sentence(error: ValidationError, known: Iterable[str], prefix: str = "") -> str:
    """The first fault of a pydantic error as one sentence.

    Args:
        error: the error.
        known: names of settings, to suggest one for an unknown name.
        prefix: of the names, for example "optimizer/".
    """
    fault = error.errors()[0]
    where = "/".join(str(step) for step in fault["loc"])
    name = f"{prefix}{where}" if where else prefix.rstrip("/")
    if fault["type"] == "extra_forbidden":
        return f"unknown setting {name!r}; {nearest(where, known)}."
    if fault["type"] == "missing":
        return f"setting {name!r} is missing."
    words = fault["msg"].removeprefix("Value error, ")
    complaint = (words[0].lower() + words[1:]).replace("valid tuple", "list")
    complaint = re.sub(r"valid dictionary( or instance of \w+)?", "mapping", complaint)
    return f"{name}={brief(fault['input'])} is not possible: {complaint}."


def is_too_nested(value: object, most: int = MOST_VALUES) -> bool:
    """Whether plain data are too nested to be settings.

    They may contain themselves. `most` values are allowed on a level.
    """
    level = [value]
    for _ in range(DEEPEST):
        inner: list[object] = []
        for item in level:
            if isinstance(item, Mapping):
                inner += item.values()
            elif isinstance(item, list | tuple):
                inner += item
            if len(inner) > most:
                return True
        if not inner:
            return False
        level = inner
    return True


def read_yaml(path: Path) -> Any:
    """Plain data of a YAML 1.2 file; nothing is executed.

    Raises:
        StudyError: the file cannot be read, is too large, or is not plain YAML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StudyError(f"Cannot read {str(path)!r}: {reason}.") from None
    if len(content) > LARGEST_FILE:
        raise StudyError(f"{str(path)!r} is no configuration: it is larger than {LARGEST_FILE:,} bytes.")
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise StudyError(f"{str(path)!r} is not plain YAML: {error}.") from None


def parse_yaml(text: str) -> Any:
    """Plain data of a YAML 1.2 text; nothing is executed.

    Raises ValueError, whose message is a clause, if it is not plain YAML or is nested too deep.
    """
    try:
        plain = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:200].rstrip(".")) from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except Exception as error:  # ruamel passes on what numbers, dates and tags provoke
        raise ValueError(first_line(error)) from None
    if is_too_nested(plain):
        raise ValueError(f"it is nested too deep, or has more than {MOST_VALUES:,} values")
    return plain


def yaml_text(plain: Mapping[str, Any]) -> str:
    """Plain data as YAML.

    Keys keep their order, and lists are on one line.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 4096
    text = io.StringIO()
    yaml.dump(dict(plain), text)
    return text.getvalue()
