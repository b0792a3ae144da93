"""Student's t intervals of means over lanes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special  # type: ignore[import-untyped]

Array = npt.NDArray[np.float64]

TIE: Final = 1e-9
"""Relative difference up to which two numbers count as equal.

Used wherever it matters which is larger: accuracies are shares k / n, so ties are common. Far above rounding, far below one
image in the mean over a task sequence (1e-7).
"""


@dataclass(frozen=True)
class Interval:
    """A mean over lanes with its confidence interval.

    The bounds contain the true mean in a share `level` of all studies. They are NaN when unknown, as with one lane; every
    question about where the interval lies is then answered False.
    """

    mean: float
    low: float
    high: float
    lanes: int
    level: float

    def within(self, low: float, high: float) -> bool:
        """Whether it lies strictly between two numbers.

        A test of equivalence, each side at (1 - level) / 2 (Schuirmann 1987).
        """
        return low < self.low and self.high < high

    def above(self, number: float) -> bool:
        """Whether it lies strictly above a number."""
        return self.low > number

    def below(self, number: float) -> bool:
        """Whether it lies strictly below a number."""
        return self.high < number


def t_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of values [lane].

    mean +- t(n - 1, (1 + level) / 2) s / sqrt(n), s^2 = sum (v - mean)^2 / (n - 1) (Student 1908). Has its nominal coverage for
    independent lanes with nearly normal values. Equal lanes give low = mean = high, one lane gives unknown bounds. Raises
    ValueError if the level is outside (0, 1).
    """
    numbers = checked(values, "lane")
    check_inside(level, "level")
    lanes = len(numbers)
    if np.ptp(numbers) == 0:  # the computed mean of equal numbers need not equal them to the last digit
        mean, half = float(numbers[0]), 0.0 if lanes > 1 else math.nan
    else:
        mean, half = float(numbers.mean()), half_width(float(numbers.std(ddof=1)), lanes, level)
    return Interval(mean, mean - half, mean + half, lanes, level)


def paired_differences(first: npt.ArrayLike, second: npt.ArrayLike) -> Array:
    """First minus second, values [lane], seed by seed.

    Values within `TIE` times the larger of the two are equal: their difference is 0. Raises ValueError for different numbers of
    lanes.
    """
    a, b = checked(first, "lane"), checked(second, "lane")
    if len(a) != len(b):
        raise ValueError(f"A paired comparison needs the same seeds, not {len(a)} lanes against {len(b)}.")
    differences = a - b
    differences[np.abs(differences) <= TIE * np.maximum(np.abs(a), np.abs(b))] = 0
    return differences


def half_width(spread: float, lanes: int, level: float) -> float:
    """Half the length of a t interval with this spread."""
    # not scipy's ttest_1samp: it rounds differently, and warns where lanes are equal or there is one
    return -float(special.stdtrit(lanes - 1, (1 - level) / 2)) * spread / math.sqrt(lanes)


def checked(values: npt.ArrayLike, *axes: str) -> Array:
    """Values as float64 with these axes.

    Raises ValueError for other axes, for none, and for non-finite values.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != len(axes):
        raise ValueError(f"Values need the axes [{', '.join(axes)}], not {array.ndim} axes.")
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"Values [{', '.join(axes)}] of shape {list(array.shape)} must be finite, and at least one.")
    return array


def check_inside(number: float, name: str) -> None:
    """Raises ValueError unless a number lies inside (0, 1)."""
    if not 0 < number < 1:
        raise ValueError(f"The {name} must lie inside (0, 1), not be {number}.")
