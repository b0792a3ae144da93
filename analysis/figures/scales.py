"""Linear and logarithmic scales of settings, with their ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

LOGARITHMIC_FROM = 20.0
"""A scale is logarithmic if its positive values span more than this factor."""

ZERO_AT = -0.11
"""Place of the value 0 on a logarithmic scale, whose other values are at 0 to 1."""


def short(value: float) -> str:
    """A number in few characters: 0.001, 0.25, 30, 1e-5, 2.5e6.

    It has three significant digits, five from 1000 on.
    """
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        digits = 3 if abs(value) < 1000 else 5
        return np.format_float_positional(float(f"{value:.{digits}g}"), trim="-").replace("-", "−")
    mantissa, exponent = f"{value:.3g}".split("e") if "e" in f"{value:.3g}" else f"{value:.2e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa.replace('-', '−')}e{int(exponent)}"


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic scale.

    Attributes:
        low: the lowest value; on a logarithmic scale, the lowest above 0.
        high: the highest value; may equal the lowest.
        log: whether equal ratios have equal distances.
        zero: whether a logarithmic scale has a place for 0, left of all other values.
    """

    low: float
    high: float
    log: bool
    zero: bool

    @classmethod
    def of(cls, values: Iterable[float]) -> Scale:
        """The scale for the finite ones among these values.

        Without any, it has no ticks.
        """
        finite = [float(value) for value in values if math.isfinite(value)]
        positive = [value for value in finite if value > 0]
        if positive and min(finite) >= 0 and max(positive) / min(positive) > LOGARITHMIC_FROM:
            return cls(min(positive), max(positive), log=True, zero=min(finite) == 0)
        return cls.linear(finite)

    @classmethod
    def linear(cls, values: Iterable[float]) -> Scale:
        """The linear scale for these values."""
        finite = [float(value) for value in values if math.isfinite(value)]
        return cls(min(finite, default=math.nan), max(finite, default=math.nan), log=False, zero=False)

    def place(self, value: float) -> float:
        """A value's place: 0 lowest, 1 highest, 1/2 if equal."""
        if not self.low < self.high:
            return 0.5
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else ZERO_AT

    def coordinate(self, place: float) -> float:
        """The value at a place, also outside 0 to 1."""
        if self.log:
            return float(self.low * (self.high / self.low) ** place)
        return self.low + place * (self.high - self.low)

    def shown(self, value: float) -> float:
        """The value as plotted: a logarithmic 0 gets a coordinate."""
        return self.coordinate(ZERO_AT) if self.log and value == 0 else value

    def ticks(self, most: int) -> dict[float, str]:
        """At most `most` ticks with labels, plus a logarithmic 0."""
        if math.isnan(self.low):
            return {}
        if self.low == self.high:
            return {self.low: short(self.low)}
        if not self.log:
            values = MaxNLocator(max(1, most - 1), steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
            rim = 1e-9 * (self.high - self.low)
            inside = [float(value) for value in values if self.low - rim <= value <= self.high + rim]
            return {value: short(value if abs(value) > rim else 0.0) for value in inside[:most]}
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            ticks = self._inside(step * 10.0**decade for decade in decades for step in steps)
            if len(ticks) <= most:
                break
        stride = -(-len(ticks) // most)
        ticks = dict(list(ticks.items())[::stride])
        return {self.coordinate(ZERO_AT): "0", **ticks} if self.zero else ticks

    def _inside(self, values: Iterable[float]) -> dict[float, str]:
        return {value: short(value) for value in values if self.low * 0.999 <= value <= self.high * 1.001}
