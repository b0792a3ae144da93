"""What decides a result: a configuration and its seeds, as words and numbers, without meaning yet.

A `TrialConfig` is a frozen tree with a YAML form and a flat form. It checks the *shape* of what it is given. Whether a
part of that name exists and what its settings may be is known to the part itself; `study.experiment.complete` asks it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from study import schema
from study.errors import StudyError, nearest

Flat = dict[str, Any]
"""Settings by slash name, for example `{"optimizer/rho": 0.05}`."""

SEED_LIMIT = 2**31

DEFAULT_PARTS = {"data": "mnist5k", "tasks": "permuted_pixels", "model": "mlp", "optimizer": "sgd"}
"""The part of a section that names none."""


def _tuple_of_list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Listed = BeforeValidator(_tuple_of_list)
"""Lets a list, the only sequence that YAML and JSON know, stand where a tuple is declared."""


class StrictSettings(BaseModel):
    """Base of every group of settings: frozen, strict about types, and closed to names it does not know."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    def plain(self) -> dict[str, Any]:
        """The settings as plain data under their public names."""
        return self.model_dump(mode="json", by_alias=True)


Role = Literal["learning rate", "sharpness", "other"]
"""What a setting is to a study of sharpness; see `Label`."""


class Label(StrictSettings):
    """How a setting is shown in names, tables, MLflow's columns and figures.

    Attributes:
        short: its name in a word, such as `lr`.
        unit: of its values; "1" for a pure number, "" if it has none.
        role: "learning rate" and "sharpness" span the heat maps, and MLflow's tables begin with them; any other setting of a
            method has heat maps of its own for each of its values.
        zero: what the value 0 means, in a word; "" if nothing special.
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
        default: value if none is given.
        description: one sentence, for the table of settings.
        short, unit, role, zero: see `Label`.
        bounds: as of `pydantic.Field`, such as `gt=0` or `alias="lambda"`.
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
"""Those of sweeps whose plan was written before plans had labels."""


def label_of(name: str, labels: Labels) -> Label:
    """The label of a setting; one without is called by the last word of its slash name."""
    return labels.get(name) or Label(short=name.rsplit("/", 1)[-1])


def settings_words(values: Mapping[str, Any], labels: Labels) -> str:
    """Settings in a line, floats to three significant digits: `lr=0.01 rho=0.05`."""
    return " ".join(f"{label_of(name, labels).short}={short_value(value)}" for name, value in values.items())


def short_value(value: object) -> str:
    """A value for people: floats to three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class Choice(BaseModel):
    """A part by its name, with whatever settings are given to it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, without the name."""
        return dict(self.model_extra or {})


class Training(StrictSettings):
    """How a task is trained on, whatever the method."""

    batch_size: int = Field(16, ge=1, le=2**31, description="Images in a minibatch, in each lane.")
    passes: int = Field(1, ge=1, le=2**31, description="Passes over the images of each task.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to train: `auto` takes a CUDA GPU when there is one."
    )


class Diagnostics(StrictSettings):
    """Looks into the network after some tasks, see `study.schema.DIAGNOSTICS`; they change nothing about training."""

    images: int = Field(
        1000,
        ge=1,
        le=2**31,
        description="Images of the diagnostics' sample, in each lane; fewer where there are fewer.",
    )
    units_every: int = Field(
        1, ge=0, le=2**31, description="Tasks from one look at units, ranks and weights to the next; 0: none."
    )
    curvature_every: int = Field(
        10, ge=0, le=2**31, description="Tasks from one look at Hessian, sharpness and gradient to the next; 0: none."
    )
    forgetting_every: int = Field(
        10, ge=0, le=2**31, description="Tasks from one look at the accuracy on earlier tasks to the next; 0: none."
    )
    rho: float = Field(
        0.05, gt=0, le=1e30, description="Length of the step uphill in `sharpness/sam`, for all methods."
    )
    probes: int = Field(10, ge=2, le=2**31, description="Random vectors in the estimate of the Hessian's trace.")
    dormant_below: float = Field(0.025, ge=0, le=1e30, description="Score tau up to which a unit counts as dormant.")
    leave_out: Annotated[tuple[str, ...], Listed] = Field(
        (), description="Diagnostics that are not computed, by name, such as `hessian/trace`."
    )

    @field_validator("leave_out")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [quantity.name for quantity in schema.DIAGNOSTICS]
        for name in names:
            if name not in known:
                raise ValueError(f"{name!r} is no diagnostic; {nearest(name, known)}")
        return names


Seed = Annotated[int, Field(ge=0, lt=SEED_LIMIT)]


class TrialConfig(StrictSettings):
    """One trial: a configuration over its seeds. Each seed is trained as one lane."""

    data: Choice = Field(default_factory=lambda: Choice(name=DEFAULT_PARTS["data"]))
    tasks: Choice = Field(default_factory=lambda: Choice(name=DEFAULT_PARTS["tasks"]))
    model: Choice = Field(default_factory=lambda: Choice(name=DEFAULT_PARTS["model"]))
    optimizer: Choice = Field(default_factory=lambda: Choice(name=DEFAULT_PARTS["optimizer"]))
    interventions: dict[str, dict[str, Any]] = Field(default_factory=dict)
    training: Training = Training()
    diagnostics: Diagnostics = Diagnostics()
    seeds: Annotated[tuple[Seed, ...], Listed] = Field((0,), min_length=1)

    @classmethod
    def from_plain(cls, plain: object, source: str = "the configuration") -> TrialConfig:
        """Reads nested plain data. Raises StudyError, with one sentence, when its shape is wrong."""
        if not isinstance(plain, Mapping):
            raise StudyError(f"{source} must be a mapping with keys like 'optimizer' and 'tasks', not {plain!r}.")
        try:
            config = cls.model_validate({name: _named(name, value) for name, value in plain.items()})
        except ValidationError as error:
            groups: dict[str, type[StrictSettings]] = {"training": Training, "diagnostics": Diagnostics}
            inner = [f"{group}/{name}" for group, settings in groups.items() for name in settings.model_fields]
            known = [*cls.model_fields, *inner]
            raise StudyError(f"{source}: {sentence(error, known)}") from None
        if len(set(config.seeds)) != len(config.seeds):
            raise StudyError(f"{source}: seeds must all be different, not {list(config.seeds)}.")
        return config

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any], source: str = "the configuration") -> TrialConfig:
        """Reads settings by slash name. Raises StudyError when their shape is wrong."""
        return cls.from_plain(nested(flat), source)

    def flat(self) -> Flat:
        """All settings by slash name, the seeds excepted."""
        plain = self.plain()
        del plain["seeds"]
        if not self.interventions:
            del plain["interventions"]
        return flattened(plain)


def _named(section: object, value: object) -> object:
    """A section with the name of its default part, if it is one that chooses a part and names none."""
    if section in DEFAULT_PARTS and isinstance(value, Mapping):
        return {"name": DEFAULT_PARTS[str(section)], **value}
    return value


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turns `{"optimizer/lr": 1}` into `{"optimizer": {"lr": 1}}`.

    Raises:
        StudyError: a name is both a setting and a group of settings.
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
    """Turns `{"optimizer": {"lr": 1}}` into `{"optimizer/lr": 1}`; inverse of `nested`. An empty group is a value."""
    flat: Flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = value
    return flat


def sentence(error: ValidationError, known: Iterable[str], prefix: str = "") -> str:
    """The first fault of a pydantic error as one sentence, in terms of slash names."""
    fault = error.errors()[0]
    where = "/".join(str(step) for step in fault["loc"])
    name = f"{prefix}{where}" if where else prefix.rstrip("/")
    if fault["type"] == "extra_forbidden":
        return f"unknown setting {name!r}; {nearest(where, known)}."
    if fault["type"] == "missing":
        return f"setting {name!r} is missing."
    complaint = (fault["msg"][0].lower() + fault["msg"][1:]).replace("valid tuple", "list")
    return f"{name}={fault['input']!r} is not possible: {complaint}."


def read_yaml(path: Path) -> Any:
    """Plain data of a YAML 1.2 file, read without executing anything.

    Raises:
        StudyError: the file cannot be read or is no YAML.
    """
    try:
        plain = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        json.dumps(plain, default=str, skipkeys=True)  # a file may contain itself, by an alias
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StudyError(f"Cannot read {str(path)!r}: {reason}.") from None
    except YAMLError as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise StudyError(f"{str(path)!r} is not plain YAML: {reason}.") from None
    except (RecursionError, ValueError):
        raise StudyError(f"{str(path)!r} is not plain YAML: it is nested without end.") from None
    return plain


def yaml_text(plain: Mapping[str, Any]) -> str:
    """Plain data as YAML, keys in the given order, lists on one line."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 4096
    text = io.StringIO()
    yaml.dump(dict(plain), text)
    return text.getvalue()
