"""Correlation and partial correlation from task to task within lanes.

Lanes differ for reasons of their own (initial weights, order of images), so each lane's mean is first subtracted from every
quantity. Controls are then regressed out by least squares, all lanes together (Frisch and Waugh 1933), and the residuals are
correlated:

    r = sum x y / sqrt(sum x^2 sum y^2)

The unit of independence is the lane, not the task. Bounds come from leaving out one lane at a time (the jackknife, Tukey 1958) on
Fisher's scale z = artanh r, where the estimate is closer to normal, with Student's t of lanes - 1 degrees of freedom.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special  # type: ignore[import-untyped]

Array = npt.NDArray[np.float64]

LEAST_LANES = 3
"""With fewer lanes there are no bounds."""

CERTAIN = 1 - 1e-12
"""Stands in for a correlation of 1, whose artanh is infinite."""

FLAT = 1e-9
"""Relative spread below which a quantity counts as constant."""


@dataclass(frozen=True)
class Correlation:
    """A correlation with its bounds.

    Attributes:
        value: from -1 to 1; NaN if there is none.
        low, high: bounds; NaN if unknown.
        lanes, pairs: how many of each it was computed from.
    """

    value: float
    low: float
    high: float
    lanes: int
    pairs: int


def within_lanes(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    lane: npt.ArrayLike,
    controls: tuple[npt.ArrayLike, ...] = (),
    level: float = 0.95,
) -> Correlation:
    """Correlation of two quantities within lanes, given the controls.

    Args:
        first, second: [pair], one pair per lane and task.
        lane: the lane of each pair, [pair].
        controls: quantities [pair] regressed out of both.
        level: share of studies in which the bounds contain the true value.

    Pairs with a non-finite value are left out. Raises ValueError if the arrays differ in length.
    """
    columns = [np.asarray(values, dtype=np.float64) for values in (first, second, *controls)]
    lanes = np.asarray(lane)
    if any(column.shape != lanes.shape or column.ndim != 1 for column in columns):
        raise ValueError("Quantities, controls and lanes must be rows of the same length.")
    table = np.stack(columns, axis=1)  # [pair, quantity]
    finite = np.isfinite(table).all(axis=1)
    table, lanes = table[finite], lanes[finite]
    names = np.unique(lanes)
    value = _correlation(table, lanes)
    if math.isnan(value) or len(names) < LEAST_LANES:
        return Correlation(value, math.nan, math.nan, len(names), len(table))
    whole = math.atanh(value)
    others = np.array([_correlation(table[lanes != name], lanes[lanes != name]) for name in names])
    # the jackknife's pseudo-values [lane]: n z - (n - 1) z without this lane
    pseudo = len(names) * whole - (len(names) - 1) * np.arctanh(others)
    error = float(pseudo.std(ddof=1)) / math.sqrt(len(names))
    half = float(special.stdtrit(len(names) - 1, (1 + level) / 2)) * error
    return Correlation(value, math.tanh(whole - half), math.tanh(whole + half), len(names), len(table))


def _correlation(table: Array, lanes: npt.NDArray[np.generic]) -> float:
    """Correlation of the first two columns given the others.

    NaN if one of them does not vary, or if too few pairs are left.
    """
    names, where = np.unique(lanes, return_inverse=True)  # where: [pair], place of its lane in names
    if len(table) - len(names) - (table.shape[1] - 2) < 2:
        return math.nan
    counts = np.bincount(where)
    means = np.stack([np.bincount(where, weights=column) / counts for column in table.T], axis=1)
    within = table - means[where]  # [pair, quantity], means are [lane, quantity]
    scale = np.abs(table).max(axis=0)
    spread = np.sqrt((within**2).mean(axis=0))
    if (spread[:2] <= FLAT * scale[:2]).any():
        return math.nan
    controls = within[:, 2:][:, spread[2:] > FLAT * scale[2:]]
    controls = controls / np.sqrt((controls**2).sum(axis=0))
    pair = within[:, :2] / np.sqrt((within[:, :2] ** 2).sum(axis=0))
    residual = pair - controls @ np.linalg.lstsq(controls, pair, rcond=None)[0] if controls.size else pair
    sizes = (residual**2).sum(axis=0)  # [2], shares of the variance that the controls leave
    if (sizes <= FLAT).any():
        return math.nan
    value = float((residual[:, 0] * residual[:, 1]).sum() / math.sqrt(sizes[0] * sizes[1]))
    return max(-CERTAIN, min(CERTAIN, value))
