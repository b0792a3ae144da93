"""What a handful of seeds can say: arrays in, numbers out.

The unit of independence is the lane: one seed of one configuration. Tasks within a lane share its initial weights and all
it learnt before; an interval over lane x task, as if they were independent, covers the truth far less often than it says.
So each lane is first reduced to one number (`mean_accuracy`, `decline`, ...), and intervals are over lanes. Methods share,
seed by seed, initial weights, tasks and order of images, so they are compared by paired differences, in which what a seed
does to both cancels: with a t interval, an exact sign-flip p-value, adjusted by `holm` over a family of claims, and two
sizes of effect that do not grow with the number of lanes.

Values are [task, lane] or, one number a lane, [lane]; results have their unit. Every function raises ValueError for other
axes, for no task or no lane, and for a value that is not finite; what else it refuses stands with it.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special  # type: ignore[import-untyped]

from study.schema import tenth

Array = npt.NDArray[np.float64]

TIE: Final = 1e-9
"""Share of the largest number within which two numbers are equal, wherever it matters which is larger: accuracies are
shares k / n, so ties are common. Far above rounding, far below one image in the mean over a task sequence (1e-7)."""
MOST_FLIPPED: Final = 40
MOST_NEEDED: Final = 100_000


def mean_accuracy(values: npt.ArrayLike) -> Array:
    """Mean over all tasks of values [task, lane], float64 [lane]."""
    return np.asarray(_checked(values, "task", "lane").mean(axis=0))


def first_tenth(values: npt.ArrayLike) -> Array:
    """Mean over the first tenth of the tasks, rounded up, of values [task, lane], float64 [lane]."""
    table = _checked(values, "task", "lane")
    return mean_accuracy(table[: tenth(len(table))])


def last_tenth(values: npt.ArrayLike) -> Array:
    """Mean over the last tenth of the tasks, rounded up, of values [task, lane], float64 [lane]."""
    table = _checked(values, "task", "lane")
    return mean_accuracy(table[-tenth(len(table)) :])


def decline(values: npt.ArrayLike) -> Array:
    """First tenth minus last tenth of values [task, lane], float64 [lane]; above 0 in a lane that gets worse."""
    return first_tenth(values) - last_tenth(values)


def slope(values: npt.ArrayLike) -> Array:
    """Slope of the least-squares line through each lane of values [task, lane], per 100 tasks, float64 [lane].

    100 sum_t (t - mean t) v_t / sum_t (t - mean t)^2 with t the task index (Legendre 1805); NaN for one task.
    """
    table = _checked(values, "task", "lane")
    if len(table) == 1:
        return np.full(table.shape[1], math.nan)
    index = np.arange(len(table)) - (len(table) - 1) / 2
    return np.asarray(100 * (index @ (table - table.mean(axis=0))) / (index @ index))


@dataclass(frozen=True)
class Interval:
    """A mean over `lanes` lanes, and bounds that contain the true mean in a share `level` of all studies.

    Bounds are NaN when not known, as from one lane; whether the interval lies somewhere is then answered False.
    """

    mean: float
    low: float
    high: float
    lanes: int
    level: float

    def within(self, low: float, high: float) -> bool:
        """Whether all of it lies strictly between two numbers: equivalence, each side at (1 - level) / 2 (Schuirmann 1987)."""
        return low < self.low and self.high < high

    def above(self, number: float) -> bool:
        """Whether all of it lies strictly above a number."""
        return self.low > number

    def below(self, number: float) -> bool:
        """Whether all of it lies strictly below a number."""
        return self.high < number


def t_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Interval of the mean over lanes by Student's t, of values [lane].

    mean +- t(n - 1, (1 + level) / 2) s / sqrt(n), s^2 = sum (v - mean)^2 / (n - 1) (Student 1908). Covers as promised for
    independent lanes whose values are near normal. Equal lanes give low = mean = high, one lane gives unknown bounds.
    Raises ValueError for a level outside (0, 1).
    """
    numbers = _checked(values, "lane")
    _check_inside(level, "level")
    lanes = len(numbers)
    if np.ptp(numbers) == 0:  # the computed mean of equal numbers need not equal them to the last digit
        mean, half = float(numbers[0]), 0.0 if lanes > 1 else math.nan
    else:
        mean, half = float(numbers.mean()), _half_width(float(numbers.std(ddof=1)), lanes, level)
    return Interval(mean, mean - half, mean + half, lanes, level)


def sign_flip_p(differences: npt.ArrayLike) -> float:
    """Exact two-sided p-value of paired differences [lane] with mean zero, by flipping signs (Fisher 1935).

    p = #{s in {-1, 1}^n : |sum_i s_i d_i| >= |sum_i d_i|} / 2^n, inside (0, 1]. Were the methods interchangeable within a
    seed, every s would be as likely as the observed one, which is counted too: so p <= alpha happens in at most alpha of
    all studies, however the differences are spread. Sums short of the observed one by up to `TIE` sum_i |d_i| are counted
    as ties. One lane, and differences that are all 0, give 1. Nothing is sampled: the sorted sums of either half of the
    lanes are counted against each other (after Horowitz and Sahni 1974). Raises ValueError for more than 40 lanes.
    """
    numbers = _checked(differences, "lane")
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
    """Fewest lanes with which `sign_flip_p` can be at most alpha at all: smallest n with 2 / 2^n <= alpha; 6 for 0.05.

    The smallest of m p-values that go through `holm` needs alpha / m. Raises ValueError for alpha outside (0, 1).
    """
    _check_inside(alpha, "alpha")
    return 2 - math.frexp(alpha)[1]  # of alpha = m 2^e with 1/2 <= m < 1 the largest power of 2 inside is 2^(e - 1)


def holm(p_values: npt.ArrayLike) -> Array:
    """P-values [claim] adjusted so that any false claim has at most the chance alpha, dependent or not (Holm 1979).

    Of m, sorted upwards: adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)). Given back in the order that came,
    float64 [claim], inside [0, 1]; no claims give none. Raises ValueError for a p-value outside [0, 1] or NaN.
    """
    numbers = _checked(p_values, "claim") if np.size(p_values) else np.empty(0)
    if np.any((numbers < 0) | (numbers > 1)):
        raise ValueError("A p-value must lie inside [0, 1].")
    order = np.argsort(numbers, kind="stable")
    adjusted = np.empty_like(numbers)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(numbers), 0, -1) * numbers[order]))
    return adjusted


def iqm(values: npt.ArrayLike) -> float:
    """Interquartile mean of values [lane]: without the floor(n / 4) lowest and highest lanes (Agarwal et al. 2021)."""
    numbers = np.sort(_checked(values, "lane"))
    cut = len(numbers) // 4
    return float(numbers[cut : len(numbers) - cut].mean())


def effect_size(differences: npt.ArrayLike) -> float:
    """Mean of paired differences [lane] in units of their spread, without the bias of few lanes.

    J(n - 1) mean(d) / s(d), Cohen's d_z (1988) with J(m) = Gamma(m / 2) / (sqrt(m / 2) Gamma((m - 1) / 2)) (Hedges 1981).
    NaN with fewer than 3 lanes: with 2, d_z has no expectation to correct, and J = 0 would hide any effect. Without
    spread (a range of up to `TIE` times the largest |d|): 0 if all differences are 0, else +-inf.
    """
    numbers = _checked(differences, "lane")
    freedom = len(numbers) - 1
    if freedom < 2:
        return math.nan
    mean = float(numbers.mean())
    if np.ptp(numbers) <= TIE * np.abs(numbers).max():
        return math.copysign(math.inf, mean) if mean else 0.0
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return correction * mean / float(numbers.std(ddof=1))


def superiority(differences: npt.ArrayLike) -> float:
    """Share of the paired differences [lane] that are above 0; those within `TIE` of 0 times the largest count half."""
    numbers = _checked(differences, "lane")
    decided = np.abs(numbers) > TIE * np.abs(numbers).max()
    return float(np.where(decided, numbers > 0, 0.5).mean())


@dataclass(frozen=True)
class Comparison:
    """What the functions of these names say of paired differences; p is not adjusted for other comparisons."""

    interval: Interval
    p: float
    effect_size: float
    superiority: float


def compare(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> Comparison:
    """Compares two methods by their differences a - b, seed by seed, of values [lane].

    Lane i of both is of the same seed. Values within `TIE` times the larger of the two are equal: their difference is 0.
    Raises ValueError for different numbers of lanes, for more than 40, and for a level outside (0, 1).
    """
    first, second = _checked(a, "lane"), _checked(b, "lane")
    if len(first) != len(second):
        raise ValueError(f"A paired comparison needs the same seeds, not {len(first)} lanes against {len(second)}.")
    d = first - second
    d[np.abs(d) <= TIE * np.maximum(np.abs(first), np.abs(second))] = 0
    return Comparison(t_interval(d, level), sign_flip_p(d), effect_size(d), superiority(d))


def lanes_needed(spread: float, distance: float, level: float = 0.95) -> int | None:
    """Lanes whose t interval would tell the mean from a boundary at this distance, if mean and spread stayed as they are.

    Smallest n in 2 .. 100,000 with t(n - 1, (1 + level) / 2) spread / sqrt(n) <= |distance|, where spread is the standard
    deviation over lanes; None if there is none, or if the distance is 0. Raises ValueError for a spread that is negative
    or not finite, a distance that is not finite, and a level outside (0, 1).
    """
    _check_inside(level, "level")
    if not (math.isfinite(spread) and spread >= 0 and math.isfinite(distance)):
        raise ValueError(f"A spread of {spread} and a distance of {distance} are not finite, or the spread is below 0.")
    # the half-width falls with every lane, so minus the half-width is sorted
    enough = bisect_left(range(MOST_NEEDED + 1), -abs(distance), lo=2, key=lambda n: -_half_width(spread, n, level))
    return enough if distance != 0 and enough <= MOST_NEEDED else None


def _half_width(spread: float, lanes: int, level: float) -> float:
    return -float(special.stdtrit(lanes - 1, (1 - level) / 2)) * spread / math.sqrt(lanes)


def _signed_sums(numbers: Array) -> Array:
    """All 2^n sums of +-numbers, sorted upwards; of no number there is one, 0."""
    sums = np.zeros(1)
    for number in numbers:
        sums = np.concatenate((sums - number, sums + number))
    return np.sort(sums)


def _checked(values: npt.ArrayLike, *axes: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != len(axes):
        raise ValueError(f"Values need the axes [{', '.join(axes)}], not {array.ndim} axes.")
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"Values [{', '.join(axes)}] of shape {list(array.shape)} must be finite, and at least one.")
    return array


def _check_inside(number: float, name: str) -> None:
    if not 0 < number < 1:
        raise ValueError(f"The {name} must lie inside (0, 1), not be {number}.")
