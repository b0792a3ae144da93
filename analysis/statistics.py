"""Statistics over a handful of seeds: arrays in, numbers out.

The unit of independence is the lane: one seed of one configuration. Tasks within a lane share its initial weights and
everything it learnt before, so an interval over lane x task covers the truth far less often than it claims. Each lane is
therefore reduced to one number first (`mean_accuracy`, `decline`, ...), and intervals are over lanes. Methods share initial
weights, tasks and image order seed by seed, so they are compared by paired differences, in which the seed's own effect cancels:
with a t interval, an exact sign-flip p-value, adjusted by `holm` over a family of claims, and two effect sizes that do not grow
with the number of lanes.

Values are [task, lane], or [lane] with one number per lane; results have the same unit. Every function raises ValueError for
other axes, for no task or no lane, and for non-finite values; anything else it rejects is in its docstring.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special  # type: ignore[import-untyped]

from study.decision.intervals import (
    TIE,
    Array,
    Interval,
    check_inside,
    checked,
    half_width,
    paired_differences,
    t_interval,
)
from study.schema import after_warmup, tenth

__all__ = [
    "MOST_FLIPPED",
    "MOST_NEEDED",
    "TIE",
    "Array",
    "Comparison",
    "Interval",
    "compare",
    "decline",
    "decline_after_warmup",
    "effect_size",
    "first_tenth",
    "holm",
    "iqm",
    "lanes_needed",
    "last_tenth",
    "least_lanes",
    "least_p",
    "mean_accuracy",
    "sign_flip_p",
    "slope",
    "superiority",
    "t_interval",
]

MOST_FLIPPED: Final = 40
"""Most lanes that the exact sign-flip test takes."""

MOST_NEEDED: Final = 100_000
"""Largest number of lanes that `lanes_needed` considers."""


def mean_accuracy(values: npt.ArrayLike) -> Array:
    """Mean over all tasks: values [task, lane] to [lane]."""
    return np.asarray(checked(values, "task", "lane").mean(axis=0))


def first_tenth(values: npt.ArrayLike) -> Array:
    """Mean over the first tenth of the tasks, rounded up.

    Values [task, lane] to float64 [lane].
    """
    table = checked(values, "task", "lane")
    return mean_accuracy(table[: tenth(len(table))])


def last_tenth(values: npt.ArrayLike) -> Array:
    """Mean over the last tenth of the tasks, rounded up.

    Values [task, lane] to float64 [lane].
    """
    table = checked(values, "task", "lane")
    return mean_accuracy(table[-tenth(len(table)) :])


def decline(values: npt.ArrayLike) -> Array:
    """First tenth minus last tenth: positive for a worsening lane.

    Values [task, lane] to float64 [lane].
    """
    return first_tenth(values) - last_tenth(values)


def decline_after_warmup(values: npt.ArrayLike) -> Array:
    """Early tenth minus last tenth, without the first tasks.

    Slow first tasks are not rewarded. Values [task, lane] to float64 [lane]; of 100 tasks, the mean over 5 to 14 minus that over
    the last ten.
    """
    table = checked(values, "task", "lane")
    return mean_accuracy(table[after_warmup(len(table))]) - last_tenth(table)


def slope(values: npt.ArrayLike) -> Array:
    """Least-squares slope of each lane per 100 tasks.

    Values [task, lane] to float64 [lane], NaN for one task:
    100 sum_t (t - mean t) v_t / sum_t (t - mean t)^2 with t the task index (Legendre 1805).
    """
    table = checked(values, "task", "lane")
    if len(table) == 1:
        return np.full(table.shape[1], math.nan)
    index = np.arange(len(table)) - (len(table) - 1) / 2
    return np.asarray(100 * (index @ (table - table.mean(axis=0))) / (index @ index))


def sign_flip_p(differences: npt.ArrayLike) -> float:
    """Exact two-sided sign-flip p-value of paired differences [lane].

    p = #{s in {-1, 1}^n : |sum_i s_i d_i| >= |sum_i d_i|} / 2^n, inside (0, 1] (Fisher 1935). If the methods were interchangeable
    within a seed, every s would be as likely as the observed one, which is counted too; so p <= alpha in at most a share alpha of
    all studies, whatever the distribution of the differences. Sums short of the observed one by up to `TIE` sum_i |d_i| count as
    ties. One lane gives 1, and so do differences that are all 0. Nothing is sampled: the sorted sums of the two halves of the
    lanes are counted against each other (after Horowitz and Sahni 1974). Raises ValueError for more than 40 lanes.
    """
    numbers = checked(differences, "lane")
    lanes = len(numbers)
    if lanes > MOST_FLIPPED:
        raise ValueError(f"The exact sign-flip test takes at most {MOST_FLIPPED} lanes, not {lanes}.")
    reached = abs(float(numbers.sum())) - TIE * float(np.abs(numbers).sum())
    if reached <= 0:
        return 1.0
    left, right = _signed_sums(numbers[: lanes // 2]), _signed_sums(numbers[lanes // 2 :])
    extreme = int((len(left) - np.searchsorted(left, reached - right, side="left")).sum())
    return math.ldexp(extreme, 1 - lanes)  # as many sums are at most -reached as are at least reached


def least_lanes(alpha: float = 0.05) -> int:
    """Fewest lanes with which `sign_flip_p` can reach alpha.

    The smallest n with 2 / 2^n <= alpha; 6 for 0.05. The smallest of m p-values adjusted by `holm` needs alpha / m. Raises
    ValueError if alpha is outside (0, 1).
    """
    check_inside(alpha, "alpha")
    return 2 - math.frexp(alpha)[1]  # of alpha = m 2^e with 1/2 <= m < 1 the largest power of 2 inside is 2^(e - 1)


def least_p(lanes: int, claims: int = 1) -> float:
    """Smallest p-value that `sign_flip_p`, then `holm`, can give.

    min(1, claims 2 / 2^lanes); 1 for one lane. Above alpha, no result of a family of this size can be significant. Raises
    ValueError without a lane or a claim.
    """
    if lanes < 1 or claims < 1:
        raise ValueError(f"The least p-value needs at least one lane and one claim, not {lanes} and {claims}.")
    return min(1.0, math.ldexp(claims, 1 - lanes))


def holm(p_values: npt.ArrayLike) -> Array:
    """P-values [claim] adjusted by Holm's method.

    The chance of any false claim is at most alpha, dependent or not (Holm 1979). Of m in ascending order: adjusted p_(i) = max
    over j <= i of min(1, (m - j + 1) p_(j)). Returns float64 [claim] inside [0, 1], in the order given; no claims give none.
    Raises ValueError for a p-value that is outside [0, 1] or NaN.
    """
    numbers = checked(p_values, "claim") if np.size(p_values) else np.empty(0)
    if np.any((numbers < 0) | (numbers > 1)):
        raise ValueError("A p-value must lie inside [0, 1].")
    order = np.argsort(numbers, kind="stable")
    adjusted = np.empty_like(numbers)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(numbers), 0, -1) * numbers[order]))
    return adjusted


def iqm(values: npt.ArrayLike) -> float:
    """Interquartile mean of values [lane].

    Drops the floor(n / 4) lowest and highest lanes (Agarwal et al. 2021).
    """
    numbers = np.sort(checked(values, "lane"))
    cut = len(numbers) // 4
    return float(numbers[cut : len(numbers) - cut].mean())


def effect_size(differences: npt.ArrayLike) -> float:
    """Hedges' g of paired differences [lane].

    Their mean in units of their standard deviation, corrected for few lanes: J(n - 1) mean(d) / s(d), Cohen's d_z (1988) with
    J(m) = Gamma(m / 2) / (sqrt(m / 2) Gamma((m - 1) / 2)) (Hedges 1981). NaN with fewer than 3 lanes: with 2, d_z has no
    expectation to correct, and J = 0 would hide any effect. Without spread (a range of up to `TIE` times the largest |d|): 0 if
    all differences are 0, else +-inf.
    """
    numbers = checked(differences, "lane")
    freedom = len(numbers) - 1
    if freedom < 2:
        return math.nan
    mean = float(numbers.mean())
    if np.ptp(numbers) <= TIE * np.abs(numbers).max():
        return math.copysign(math.inf, mean) if mean else 0.0
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return correction * mean / float(numbers.std(ddof=1))


def superiority(differences: npt.ArrayLike) -> float:
    """Share of paired differences [lane] above 0.

    Those within `TIE` times the largest of 0 count half.
    """
    numbers = checked(differences, "lane")
    decided = np.abs(numbers) > TIE * np.abs(numbers).max()
    return float(np.where(decided, numbers > 0, 0.5).mean())


@dataclass(frozen=True)
class Comparison:
    """The statistics of paired differences; p is unadjusted."""

    interval: Interval
    p: float
    effect_size: float
    superiority: float


def compare(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> Comparison:
    """Compares two methods, values [lane], seed by seed.

    Differences are a - b; lane i of both has the same seed. Values within `TIE` times the larger of the two are equal: their
    difference is 0. Raises ValueError for different numbers of lanes, for more than 40, and if the level is outside (0, 1).
    """
    d = paired_differences(a, b)
    return Comparison(t_interval(d, level), sign_flip_p(d), effect_size(d), superiority(d))


def compare_unpaired(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> tuple[Interval, float]:
    """Compares two means of independent lanes, values [lane].

    mean a - mean b +- t(f, (1 + level) / 2) e with e^2 = s_a^2 / n_a + s_b^2 / n_b and f degrees of freedom, 1 / f = sum of
    (s^2 / n / e^2)^2 / (n - 1) over both (Welch 1947). Where seeds are shared `compare` is right, and mostly sharper.

    Returns:
        The interval, with the smaller number of lanes, and the two-sided p-value of Welch's t test. With one lane on either side
        the bounds and p are NaN. Without any spread the bounds are the mean, and p is 1 for equal means, else 0.

    Raises:
        ValueError: the level is outside (0, 1).
    """
    first, second = checked(a, "lane"), checked(b, "lane")
    check_inside(level, "level")
    mean, lanes = float(first.mean() - second.mean()), min(len(first), len(second))
    if lanes == 1:
        return Interval(mean, math.nan, math.nan, lanes, level), math.nan
    shares = [0.0 if np.ptp(each) == 0 else float(each.var(ddof=1)) / len(each) for each in (first, second)]
    error = math.sqrt(sum(shares))
    if error == 0:
        is_tie = abs(mean) <= TIE * max(abs(first[0]), abs(second[0]))
        mean = 0.0 if is_tie else mean
        return Interval(mean, mean, mean, lanes, level), float(is_tie)
    parts = zip(shares, (len(first), len(second)), strict=True)
    freedom = 1 / sum((share / error**2) ** 2 / (number - 1) for share, number in parts)
    half = -float(special.stdtrit(freedom, (1 - level) / 2)) * error
    return Interval(mean, mean - half, mean + half, lanes, level), 2 * float(special.stdtr(freedom, -abs(mean) / error))


def lanes_needed(spread: float, distance: float, level: float = 0.95) -> int | None:
    """Lanes needed to separate the mean from a boundary.

    Assumes that mean and spread stay as they are. Smallest n in 2 .. 100,000 with t(n - 1, (1 + level) / 2) spread / sqrt(n) <=
    |distance|, where spread is the standard deviation over lanes; None if there is none, or if the distance is 0. Raises
    ValueError if the spread is negative or non-finite, the distance non-finite, or the level outside (0, 1).
    """
    check_inside(level, "level")
    if not (math.isfinite(spread) and spread >= 0 and math.isfinite(distance)):
        raise ValueError(f"A spread of {spread} and a distance of {distance} are not finite, or the spread is below 0.")
    # the half-width shrinks with every lane, so minus the half-width is sorted
    enough = bisect_left(range(MOST_NEEDED + 1), -abs(distance), lo=2, key=lambda n: -half_width(spread, n, level))
    return enough if distance != 0 and enough <= MOST_NEEDED else None


def _signed_sums(numbers: Array) -> Array:
    """All 2^n signed sums, ascending; [0] for no numbers."""
    sums = np.zeros(1)
    for number in numbers:
        sums = np.concatenate((sums - number, sums + number))
    return np.sort(sums)
