"""One line or many: do all ways agree?

A way gives each seed a change of sharpness x and a change of the outcome y against the baseline. If sharpness is the only cause,
and acts in proportion, then the means of all ways lie on one line through 0: y = b x.

The slope is weighted by the inverse variance of each way's distance from the line, with errors in both coordinates; the weights
depend on the slope, and both are found in turn (York 1966; "iterated weights" of Bowden et al. 2019):

    r = y - b x,      b = sum w mean x mean y / sum w (mean x)^2,      w = 1 / mean r^2

Heterogeneity is Cochran's Q (1954), sum over ways of (mean r)^2 / var(mean r), and I^2 = max(0, 1 - (ways - 1) / Q) of Higgins
and Thompson (2002). The ways share a baseline and seeds, and variances come from few seeds, so Q has no chi-squared distribution.
Its p-value is exact instead: if b is the true slope, then r has mean 0 in every way, and turning the signs of all ways of a seed
together is as likely as not (the test of Anderson and Rubin, 1949, by sign flips). No line fits if all are rejected: p is the
largest over the slopes. The interval of the slope comes from the same flips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from scipy import optimize  # type: ignore[import-untyped]

from analysis import statistics
from analysis.statistics import TIE, Array, Interval

LARGEST_SLOPE: Final = 1.0
"""Largest slope considered: all of accuracy in one doubling of sharpness."""

LEVEL: Final = 0.95
"""Of intervals."""

BISECTIONS: Final = 12
"""Halvings that find an end of the slope's interval."""

MOST_FLIPPED: Final = 12
"""Seeds up to which all sign flips are counted; beyond, `DRAWN` of them are drawn, which is exact too (Hemerik 2018)."""

DRAWN: Final = 2048

MOST_WEIGHTINGS: Final = 20
"""Weights are found in turn with the slope, or the curve, at most so often."""

CURVE_DEGREE: Final = 3
"""Degree of the curve that may stand in for a line."""


@dataclass(frozen=True)
class Line:
    """A line through 0, and how well it fits.

    Attributes:
        slope: outcome per unit of x.
        low, high: ends of the slope's 95 % interval by sign flips; NaN where it is unbounded, as with fewer than six seeds.
        q: Cochran's Q at the slope.
        freedom: ways minus one.
        p: of one line, by sign flips.
        distances: mean distance of each way from the line, with a 95 % interval over seeds.
    """

    slope: float
    low: float
    high: float
    q: float
    freedom: int
    p: float
    distances: tuple[Interval, ...]

    @property
    def i_squared(self) -> float:
        """Share of Q beyond what chance gives, 0 to 1."""
        return max(0.0, 1 - self.freedom / self.q) if self.q > 0 else 0.0


def line_through_zero(x: Array, y: Array) -> Line:
    """The line through the ways.

    Args:
        x: change of sharpness, doublings, [way, seed].
        y: change of the outcome, [way, seed].

    Raises:
        ValueError: there are fewer than two ways or three seeds, shapes differ, or a value is not finite.
    """
    _check(x, y)
    slope = _slope(x, y)
    variance = np.maximum((y - slope * x).var(axis=1, ddof=1), np.finfo(float).tiny) / x.shape[1]
    error = float(1 / np.sqrt(max((x.mean(axis=1) ** 2 / variance).sum(), np.finfo(float).tiny)))
    near = np.array(
        [middle + error * step for middle in (slope, _least_q(x, y)) for step in (-2, -1, -0.5, 0, 0.5, 1, 2)]
    )
    low, high = _interval(x, y, slope, error)
    return Line(
        slope=slope,
        low=low,
        high=high,
        q=float(_q((y - slope * x)[None])[0]),
        freedom=len(x) - 1,
        p=_p(x, y, np.clip(near, -LARGEST_SLOPE, LARGEST_SLOPE)),
        distances=tuple(statistics.t_interval(way) for way in y - slope * x),
    )


def curve_p(x: Array, y: Array) -> float:
    """P-value of one bent curve through 0.

    That of the best y = b x + c x^2 + d x^3, by sign flips as for the line. NaN with as few ways as it has coefficients.
    Arguments and errors are those of `line_through_zero`.
    """
    _check(x, y)
    terms = np.array([x**power for power in range(1, CURVE_DEGREE + 1)])  # [term, way, seed]
    if len(x) <= len(terms):
        return math.nan
    means, mean_y = terms.mean(axis=2), y.mean(axis=1)
    weights = np.ones(len(x))
    for _ in range(MOST_WEIGHTINGS):
        coefficients = np.linalg.lstsq((means * weights).T, mean_y * weights, rcond=None)[0]
        weights = 1 / np.maximum((y - np.tensordot(coefficients, terms, 1)).std(axis=1), np.finfo(float).tiny)
    return _p(x, y - np.tensordot(coefficients[1:], terms[1:], 1), coefficients[:1])


def _check(x: Array, y: Array) -> None:
    if x.shape != y.shape or x.ndim != 2 or x.shape[0] < 2 or x.shape[1] < 3:
        raise ValueError(f"A line needs two ways and three seeds at least, [way, seed], not {x.shape} and {y.shape}.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("Changes of sharpness and outcome must be finite.")


def _q(r: Array) -> Array:
    """Q of distances [..., way, seed], [...]."""
    mean, variance = r.mean(axis=-1), r.var(axis=-1, ddof=1) / r.shape[-1]
    return np.asarray(_ratio(mean**2, variance).sum(axis=-1))


def _ratio(square: Array, variance: Array) -> Array:
    """Squares over variances; 0/0 is 0, and nothing is infinite."""
    return np.asarray(square / np.maximum(variance, TIE * square + np.finfo(float).tiny))


def _slope(x: Array, y: Array) -> float:
    """The slope by iterated inverse variance weighting."""
    mean_x, mean_y = x.mean(axis=1), y.mean(axis=1)
    weights, slope = np.ones(len(x)), math.inf
    for _ in range(MOST_WEIGHTINGS):
        before, slope = slope, float(weights @ (mean_x * mean_y) / max(weights @ mean_x**2, np.finfo(float).tiny))
        if abs(slope - before) <= TIE * abs(slope):
            break
        weights = 1 / np.maximum(((y - slope * x) ** 2).mean(axis=1), np.finfo(float).tiny)
        weights /= weights.max()
    return float(np.clip(slope, -LARGEST_SLOPE, LARGEST_SLOPE))


def _least_q(x: Array, y: Array) -> float:
    """The slope with the least Q."""
    seeds = x.shape[1]
    mean_x, mean_y = x.mean(axis=1), y.mean(axis=1)
    xx, yy = x.var(axis=1, ddof=1) / seeds, y.var(axis=1, ddof=1) / seeds
    xy = ((x - mean_x[:, None]) * (y - mean_y[:, None])).sum(axis=1) / (seeds - 1) / seeds

    def q(b: Array) -> Array:
        b = np.asarray(b)[..., None]
        variance = np.maximum(yy - 2 * b * xy + b**2 * xx, 0)
        return np.asarray(_ratio((mean_y - b * mean_x) ** 2, variance).sum(axis=-1))

    scale = float(np.abs(mean_y).mean()) / max(float(np.abs(mean_x).mean()), np.finfo(float).tiny)
    grid = min(scale, LARGEST_SLOPE) * np.tan(np.linspace(-1.55, 1.55, 311))
    grid = np.unique(np.clip([*grid, -LARGEST_SLOPE, LARGEST_SLOPE], -LARGEST_SLOPE, LARGEST_SLOPE))
    place = int(np.argmin(q(grid)))
    ends = grid[max(place - 1, 0)], grid[min(place + 1, len(grid) - 1)]
    found = optimize.minimize_scalar(lambda b: float(q(b)), bounds=ends, method="bounded", options={"xatol": 1e-9})
    return float(found.x) if found.fun < q(grid[place]) else float(grid[place])


def _interval(x: Array, y: Array, slope: float, error: float) -> tuple[float, float]:
    """The slopes b that sign flips do not reject at 5 %.

    Of the mean of y - b x over the ways, with the weights of the line, mean x / mean (y - b x)^2, which sign flips leave as they
    are. So shared baselines are accounted for, and weights that come from few seeds. NaN if unbounded.
    """
    flips, mean_x = _flips(x.shape[1]), x.mean(axis=1)

    def is_kept(b: float) -> bool:
        r = y - b * x
        sums = np.abs(flips @ (mean_x / np.maximum((r**2).mean(axis=1), np.finfo(float).tiny) @ r))
        return float((sums >= sums[0] * (1 - TIE)).mean()) > 1 - LEVEL

    ends = []
    for side in (-1.0, 1.0):
        step = error
        while is_kept(slope + side * step) and step < LARGEST_SLOPE:
            step *= 2
        inside, outside = 0.0, step
        for _ in range(BISECTIONS):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if is_kept(slope + side * middle) else (inside, middle)
        ends.append(slope + side * outside if step < LARGEST_SLOPE else math.nan)
    return ends[0], ends[1]


@cache
def _flips(seeds: int) -> Array:
    """Signs [flip, seed], the observed ones first; the first seed keeps its sign."""
    if seeds <= MOST_FLIPPED:
        bits = (np.arange(2 ** (seeds - 1))[:, None] >> np.arange(seeds - 1)) & 1
    else:
        bits = np.random.default_rng(0).integers(0, 2, (DRAWN, seeds - 1))
        bits[0] = 0
    return np.hstack((np.ones((len(bits), 1)), 1.0 - 2 * bits))


def _p(x: Array, y: Array, slopes: Array) -> float:
    """The largest p-value of these slopes.

    Each is the share of sign flips with at least the observed Q.
    """
    seeds = x.shape[1]
    flips = _flips(seeds)
    along, up = flips @ x.T / seeds, flips @ y.T / seeds  # [flip, way]
    largest = 0.0
    for slope in slopes:
        square = (up - slope * along) ** 2
        q = _ratio(square, (((y - slope * x) ** 2).mean(axis=1) - square) / (seeds - 1)).sum(axis=1)
        largest = max(largest, float((q >= q[0] * (1 - TIE)).mean()))
    return largest
