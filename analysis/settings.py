"""How settings are shown, as their parts declare it.

A plan keeps the labels of its settings. A plan from before that has the labels of the paper's methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from study.config import EARLIER_LABELS, Label, label_of

BASELINE: Final = "sgd"
"""The optimizer that every sharpness of 0 stands for."""


def describe(name: str, plan: Mapping[str, Any] | None = None) -> Label:
    """The label of a setting, by slash name.

    A setting without one has the last part of its name, no unit and the role "other".
    """
    kept = (plan or {}).get("labels")
    return label_of(name, EARLIER_LABELS if kept is None else {key: Label(**label) for key, label in kept.items()})


def labels(names: Iterable[str], plan: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Axis labels by slash name, no two the same."""
    return _distinct({name: describe(name, plan).axis for name in names})


def short_names(names: Iterable[str], plan: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Short names by slash name, no two the same."""
    return _distinct({name: describe(name, plan).short for name in names})


def _distinct(texts: dict[str, str]) -> dict[str, str]:
    """The texts, with slash names in place of duplicates."""
    every = list(texts.values())
    return {name: text if every.count(text) == 1 else name for name, text in texts.items()}
