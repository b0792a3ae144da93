"""Where the values of a setting lie on an axis, and what stands at its ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

SETTING_LABELS = {
    "lr": "learning rate lr (1)",
    "rho": "rho (length in weight space)",
    "lambda": "lambda (1)",
    "r": "r (length in weight space)",
}

LOGARITHMIC_FROM = 20.0
"""A scale is logarithmic if its largest value is more than so many times its smallest one above 0."""

ZERO_AT = -0.11
"""Place of the value 0 on a logarithmic scale, whose values from lowest to highest have the places 0 to 1."""


def setting_label(name: str) -> str:
    """A setting with its unit: of `lr` or `optimizer/lr`. One that is not known here stands as it is called."""
    return SETTING_LABELS.get(name.rsplit("/", 1)[-1], name)


def short(value: float) -> str:
    """A number in few letters, to three digits: 0.001, 0.25, 30, 1e-5, 2.5e6; in five where it is above 1000."""
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
        low: the lowest value; of a logarithmic scale the lowest above 0.
        high: the highest value; may equal the lowest.
        log: whether equal ratios have equal distances.
        zero: whether a logarithmic scale has a place for 0, left of all others.
    """

    low: float
    high: float
    log: bool
    zero: bool

    @classmethod
    def of(cls, values: Iterable[float]) -> Scale:
        """The scale for these values; those that are not finite have no say. Without any, it has no ticks."""
        known = [float(value) for value in values if math.isfinite(value)]
        if not known:
            return cls.linear(known)
        positive = [value for value in known if value > 0]
        if min(known) >= 0 and positive and max(positive) / min(positive) > LOGARITHMIC_FROM:
            return cls(min(positive), max(positive), log=True, zero=min(known) == 0)
        return cls.linear(known)

    @classmethod
    def linear(cls, values: Iterable[float]) -> Scale:
        """The linear scale for these values."""
        known = [float(value) for value in values if math.isfinite(value)]
        return cls(min(known, default=math.nan), max(known, default=math.nan), log=False, zero=False)

    def place(self, value: float) -> float:
        """Where a value lies: 0 at the lowest, 1 at the highest one, 1/2 if they are equal."""
        if not self.low < self.high:
            return 0.5
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else ZERO_AT

    def coordinate(self, place: float) -> float:
        """The value at a place, also outside of 0 to 1."""
        if self.log:
            return float(self.low * (self.high / self.low) ** place)
        return self.low + place * (self.high - self.low)

    def shown(self, value: float) -> float:
        """The value, but for the 0 of a logarithmic axis the coordinate of its place."""
        return self.coordinate(ZERO_AT) if self.log and value == 0 else value

    def ticks(self, most: int) -> dict[float, str]:
        """At most `most` values with their labels, and the 0 of a logarithmic scale beside them."""
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
