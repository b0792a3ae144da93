"""How two quantities go together from task to task within a lane: correlation, and partial correlation given others.

Lanes differ for reasons of their own (initial weights, order of images), so every quantity first loses its mean over the lane,
and controls are then taken out by least squares, all lanes together (Frisch and Waugh 1933). What is left of both is
correlated:

    r = sum x y / sqrt(sum x^2 sum y^2)

The unit of independence is the lane, not the task: bounds come from leaving out one lane at a time (the jackknife, Tukey 1958),
on Fisher's scale z = artanh r, where the estimate is nearer to normal, with Student's t of lanes - 1 degrees of freedom.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special  # type: ignore[import-untyped]

Array = npt.NDArray[np.float64]

LEAST_LANES = 3
"""With fewer no bounds are given."""

CERTAIN = 1 - 1e-12
"""The correlation that 1 counts as, since artanh 1 is infinite."""

FLAT = 1e-9
"""Share of a quantity's size below which its spread is rounding, and it has no correlation."""


@dataclass(frozen=True)
class Correlation:
    """A correlation from -1 to 1, NaN where there is none; its bounds, NaN where they are not known; from how much."""

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
    """The correlation of two quantities within lanes, given the controls; see the module.

    Args:
        first, second: [pair], one for each lane and task.
        lane: which lane each pair is of, [pair].
        controls: quantities [pair] that are taken out of both.
        level: share of studies in which the bounds hold the true value.

    Pairs with a value that is not finite are left out. Raises ValueError for arrays of different lengths.
    """
    columns = [np.asarray(values, dtype=np.float64) for values in (first, second, *controls)]
    lanes = np.asarray(lane)
    if any(column.shape != lanes.shape or column.ndim != 1 for column in columns):
        raise ValueError("Quantities, controls and lanes must be rows of the same length.")
    table = np.stack(columns, axis=1)
    known = np.isfinite(table).all(axis=1)
    table, lanes = table[known], lanes[known]
    names = np.unique(lanes)
    value = _correlation(table, lanes)
    if math.isnan(value) or len(names) < LEAST_LANES:
        return Correlation(value, math.nan, math.nan, len(names), len(table))
    whole = math.atanh(value)
    others = np.array([_correlation(table[lanes != name], lanes[lanes != name]) for name in names])
    pseudo = len(names) * whole - (len(names) - 1) * np.arctanh(others)
    error = float(pseudo.std(ddof=1)) / math.sqrt(len(names))
    half = float(special.stdtrit(len(names) - 1, (1 + level) / 2)) * error
    return Correlation(value, math.tanh(whole - half), math.tanh(whole + half), len(names), len(table))


def _correlation(table: Array, lanes: npt.NDArray[np.generic]) -> float:
    """Of the first two columns given the others; NaN when one does not vary, or too few pairs are left."""
    names, where = np.unique(lanes, return_inverse=True)
    if len(table) - len(names) - (table.shape[1] - 2) < 2:
        return math.nan
    counts = np.bincount(where)
    means = np.stack([np.bincount(where, weights=column) / counts for column in table.T], axis=1)
    within = table - means[where]
    scale = np.abs(table).max(axis=0)
    spread = np.sqrt((within**2).mean(axis=0))
    if (spread[:2] <= FLAT * scale[:2]).any():
        return math.nan
    controls = within[:, 2:][:, spread[2:] > FLAT * scale[2:]]
    controls = controls / np.sqrt((controls**2).sum(axis=0))
    pair = within[:, :2] / np.sqrt((within[:, :2] ** 2).sum(axis=0))
    left = pair - controls @ np.linalg.lstsq(controls, pair, rcond=None)[0] if controls.size else pair
    sizes = (left**2).sum(axis=0)
    if (sizes <= FLAT).any():
        return math.nan
    value = float((left[:, 0] * left[:, 1]).sum() / math.sqrt(sizes[0] * sizes[1]))
    return max(-CERTAIN, min(CERTAIN, value))
