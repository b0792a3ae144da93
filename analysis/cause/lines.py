"""One line or many: do all ways to change sharpness agree?

A way gives each seed a change of sharpness x and a change of the outcome y against the baseline. If sharpness is the only cause,
and acts in proportion, then the means of all ways lie on one line through 0: y = b x.

The line is the one with the least Cochran's Q (1954), weighted by the inverse variance of each way's distance from it, with
errors in both coordinates (York 1966; "exact weights" of Bowden et al. 2019):

    r = y - b x,      Q(b) = sum over ways of (mean r)^2 / var(mean r),      I^2 = max(0, 1 - (ways - 1) / Q)

with I^2 of Higgins and Thompson (2002). The ways share a baseline and seeds, and variances come from few seeds, so Q has no
chi-squared distribution. Its p-value is exact instead: if b is the true slope, then r has mean 0 in every way, and turning the
signs of all ways of a seed together is as likely as not (the test of Anderson and Rubin, 1949, by sign flips). No line fits if all
are rejected: p is the largest over the slopes b. The interval of the slope comes from the same flips.
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

CURVE_STEPS: Final = 10
"""Steps of iteratively reweighted least squares; the weights hardly depend on the coefficients."""


@dataclass(frozen=True)
class Line:
    """A line through 0, and whether the ways lie on it.

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
    slope, error = _least_q(x, y)
    near = np.clip(slope + error * np.linspace(-4, 4, 9), -LARGEST_SLOPE, LARGEST_SLOPE)
    low, high = _interval(x, y, slope, error)
    return Line(
        slope=slope,
        low=low,
        high=high,
        q=float(_q((y - slope * x)[None])[0]),
        freedom=len(x) - 1,
        p=_p(x, y, near),
        distances=tuple(statistics.t_interval(way) for way in y - slope * x),
    )


def curve_p(x: Array, y: Array) -> float:
    """P-value of one parabola through 0, y = b x + c x^2.

    That of the parabola with the least Q, by sign flips as for the line. Arguments and errors are those of `line_through_zero`; NaN
    with two ways, which every parabola through 0 can meet.
    """
    _check(x, y)
    if len(x) < 3:
        return math.nan
    terms = np.array([x, x**2])  # [term, way, seed]
    means, mean_y = terms.mean(axis=2), y.mean(axis=1)
    coefficients = np.zeros(2)
    for _ in range(CURVE_STEPS):  # weights at the coefficients, then coefficients at the weights
        r = y - np.tensordot(coefficients, terms, 1)
        weights = 1 / np.maximum(r.std(axis=1), np.finfo(float).tiny)
        coefficients = np.linalg.lstsq((means * weights).T, mean_y * weights, rcond=None)[0]
    bent = y - coefficients[1] * terms[1]
    return _p(x, bent, coefficients[:1])


def _check(x: Array, y: Array) -> None:
    if x.shape != y.shape or x.ndim != 2 or x.shape[0] < 2 or x.shape[1] < 3:
        raise ValueError(f"A line needs two ways and three seeds at least, [way, seed], not {x.shape} and {y.shape}.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("Changes of sharpness and outcome must be finite.")


def _q(r: Array) -> Array:
    """Q of distances [..., way, seed], [...]."""
    mean, variance = r.mean(axis=-1), r.var(axis=-1, ddof=1) / r.shape[-1]
    return _ratio(mean**2, variance).sum(axis=-1)


def _ratio(square: Array, variance: Array) -> Array:
    """Squares over variances; 0/0 is 0, and nothing is infinite."""
    return np.asarray(square / np.maximum(variance, TIE * square + np.finfo(float).tiny))


def _least_q(x: Array, y: Array) -> tuple[float, float]:
    """The slope with the least Q, and its standard error about."""
    seeds = x.shape[1]
    mean_x, mean_y = x.mean(axis=1), y.mean(axis=1)
    xx, yy = x.var(axis=1, ddof=1) / seeds, y.var(axis=1, ddof=1) / seeds
    xy = ((x - mean_x[:, None]) * (y - mean_y[:, None])).sum(axis=1) / (seeds - 1) / seeds

    def q(b: Array) -> Array:
        b = np.asarray(b)[..., None]
        return _ratio((mean_y - b * mean_x) ** 2, np.maximum(yy - 2 * b * xy + b**2 * xx, 0)).sum(axis=-1)

    scale = float(np.abs(mean_y).mean()) / max(float(np.abs(mean_x).mean()), np.finfo(float).tiny)
    grid = min(scale, LARGEST_SLOPE) * np.tan(np.linspace(-1.55, 1.55, 311))
    grid = np.unique(np.clip([*grid, -LARGEST_SLOPE, LARGEST_SLOPE], -LARGEST_SLOPE, LARGEST_SLOPE))
    place = int(np.argmin(q(grid)))
    ends = grid[max(place - 1, 0)], grid[min(place + 1, len(grid) - 1)]
    found = optimize.minimize_scalar(lambda b: float(q(b)), bounds=ends, method="bounded", options={"xatol": 1e-9})
    slope = float(found.x) if found.fun < q(grid[place]) else float(grid[place])
    variance = np.maximum(yy - 2 * slope * xy + slope**2 * xx, np.finfo(float).tiny)
    return slope, float(1 / np.sqrt(max((mean_x**2 / variance).sum(), np.finfo(float).tiny)))


def _interval(x: Array, y: Array, slope: float, error: float) -> tuple[float, float]:
    """The slopes b that sign flips do not reject at 5 %.

    Of the weighted mean of y - b x over the ways, with the weights of the line: mean x over the mean square of y - b x, which sign
    flips leave as they are. So shared baselines are accounted for, and weights that come from few seeds. NaN if unbounded.
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
