"""What each setting is called, its unit and its role.

The only module of the analysis that knows a setting by name. A plan may carry the descriptions of its settings,
`plan[DESCRIPTIONS][slash name]`, each with the fields of `Description`; those win over the table here, which describes the
settings of sweeps whose plan has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Role = Literal["learning rate", "sharpness", "other"]

DESCRIPTIONS: Final = "descriptions"
"""Key of a plan under which the descriptions of its settings are."""

BASELINE: Final = "sgd"
"""The optimizer that every sharpness of 0 stands for."""


@dataclass(frozen=True)
class Description:
    """How a setting is shown.

    Attributes:
        short: its short name, as in a trial's name.
        unit: its unit; "" if unknown.
        role: "learning rate" and "sharpness" span the heat maps; a method's other settings each have maps of their own.
        zero: what the value 0 means, in a word; "" if nothing special.
    """

    short: str
    unit: str = ""
    role: Role = "other"
    zero: str = ""

    @property
    def label(self) -> str:
        """The name for an axis, with its unit."""
        name = f"learning rate {self.short}" if self.role == "learning rate" else self.short
        return f"{name} ({self.unit})" if self.unit else name


BY_HAND: Final = {
    "optimizer/lr": Description("lr", "1", "learning rate"),
    "optimizer/rho": Description("rho", "length in weight space", "sharpness"),
    "optimizer/lambda": Description("lambda", "1", "sharpness"),
    "optimizer/r": Description("r", "length in weight space", zero="exact"),
}


def describe(name: str, plan: Mapping[str, Any] | None = None) -> Description:
    """The description of a setting, by slash name.

    A setting that neither the plan nor this module describes has the last part of its name, no unit and the role "other".
    """
    described = ((plan or {}).get(DESCRIPTIONS) or {}).get(name)
    if described is not None:
        return Description(**described)
    return BY_HAND.get(name, Description(name.rpartition("/")[2]))


def labels(names: Iterable[str], plan: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Axis labels by slash name, no two the same."""
    return _distinct({name: describe(name, plan).label for name in names})


def short_names(names: Iterable[str], plan: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Short names by slash name, no two the same."""
    return _distinct({name: describe(name, plan).short for name in names})


def _distinct(texts: dict[str, str]) -> dict[str, str]:
    """The texts, with slash names in place of duplicates."""
    every = list(texts.values())
    return {name: text if every.count(text) == 1 else name for name, text in texts.items()}
