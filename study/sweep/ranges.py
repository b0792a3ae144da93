"""The values that a drawn setting may have.

A plan keeps distributions as Optuna's JSON. Reading a sweep must not import Optuna, which takes half a second, so this module
says what that JSON means.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from study.config import StrictSettings

STEP_TOLERANCE = 1e-8
"""How far a value may be from a multiple of the step, in steps; Optuna's own tolerance."""


class Numbers(StrictSettings):
    """A range of floats, both ends included."""

    low: float
    high: float
    log: bool
    step: float | None = Field(gt=0)

    @model_validator(mode="after")
    def _is_possible(self) -> Numbers:
        if not self.low <= self.high or (self.log and self.low <= 0):
            raise ValueError(f"low={self.low} and high={self.high} are not the ends of a range")
        return self

    def contains(self, value: object) -> bool:
        """Whether a value can be drawn."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < STEP_TOLERANCE


class WholeNumbers(Numbers):
    """A range of integers, both ends included."""

    low: int
    high: int
    step: int | None = Field(gt=0)

    def contains(self, value: object) -> bool:
        """Whether a value can be drawn."""
        return isinstance(value, int) and super().contains(value)


class Choices(StrictSettings):
    """A list of values."""

    choices: list[Any] = Field(min_length=1)

    def contains(self, value: object) -> bool:
        """Whether a value can be drawn."""
        return any(type(choice) is type(value) and choice == value for choice in self.choices)


class Floats(StrictSettings):
    """Optuna's JSON of a FloatDistribution."""

    name: Literal["FloatDistribution"]
    attributes: Numbers


class Integers(StrictSettings):
    """Optuna's JSON of an IntDistribution."""

    name: Literal["IntDistribution"]
    attributes: WholeNumbers


class Categories(StrictSettings):
    """Optuna's JSON of a CategoricalDistribution."""

    name: Literal["CategoricalDistribution"]
    attributes: Choices


_DISTRIBUTION: TypeAdapter[Floats | Integers | Categories] = TypeAdapter(Floats | Integers | Categories)


@lru_cache(maxsize=1000)
def range_of(text: str) -> Numbers | Choices:
    """The range in Optuna's JSON of a distribution.

    Raises ValueError if the text is no distribution.
    """
    return _DISTRIBUTION.validate_python(json.loads(text)).attributes
