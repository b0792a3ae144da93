"""Surgery: sharpness set by rescaling, and negative controls.

Each seed is reduced to one number: within a block over the arms, then over the boundaries, then, unless it is about one of them,
over the learning rates of the probes. Intervals and tests are over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from analysis import statistics
from analysis.cause.blocks import Arm, Blocks
from analysis.statistics import Array, Comparison, Interval

TOLERANCE: Final = 0.001
"""Accuracy that rounding may change, a share; and largest change of a logit.

Ten images of 10,000, a fifth of the margin. A logit's change of 0.001 changes no image's loss by more than 0.002 nats. In 32
bits, undone rescaling and permuted units changed logits by less than 1e-5 and no prediction of 5,000.
"""

LEAST_RANGE: Final = 0.1
"""Doublings between the flattest and the sharpest level without which a block has no slope."""

PLACEBO: Final = "unit_permutation"


def slopes(x: Array, y: Array) -> Array:
    """Least-squares slopes over arms: [arm, ...] to [...].

    sum (x - mean x)(y - mean y) / sum (x - mean x)^2 (Legendre 1805); NaN where x spans less than `LEAST_RANGE`.
    """
    x = np.broadcast_to(x, y.shape)
    deviation = x - x.mean(axis=0)
    spread = (deviation**2).sum(axis=0)
    wide = np.ptp(x, axis=0) >= LEAST_RANGE
    return np.where(wide, (deviation * (y - y.mean(axis=0))).sum(axis=0) / np.where(wide, spread, 1), math.nan)


def parabolas(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Least-squares parabolas over arms: [arm, ...] to three of [...].

    Returns:
        The curvature, the coefficient of x^2; and the slope at the smallest and at the largest x. NaN with fewer than three
        arms, or where x spans less than `LEAST_RANGE`.
    """
    x = np.broadcast_to(x, y.shape)
    if len(x) < 3:
        unknown = np.full(y.shape[1:], math.nan)
        return unknown, unknown, unknown
    one = x - x.mean(axis=0)
    two = one**2 - (one**2).mean(axis=0)
    centred = y - y.mean(axis=0)
    aa, ab, bb = ((left * right).sum(axis=0) for left, right in ((one, one), (one, two), (two, two)))
    determinant = aa * bb - ab**2
    solvable = (np.ptp(x, axis=0) >= LEAST_RANGE) & (determinant > 1e-9 * aa * bb)
    determinant = np.where(solvable, determinant, math.nan)
    ay, by = (one * centred).sum(axis=0), (two * centred).sum(axis=0)
    linear, square = (bb * ay - ab * by) / determinant, (aa * by - ab * ay) / determinant
    return square, linear + 2 * square * one.min(axis=0), linear + 2 * square * one.max(axis=0)


def of_seeds(values: Array) -> Array:
    """Mean over the boundaries: [boundary, seed] to [seed].

    Blocks without a value and seeds without a block are left out.
    """
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    return np.asarray(np.where(known, values, 0).sum(axis=0)[counts > 0] / counts[counts > 0])


@dataclass(frozen=True)
class Control:
    """A negative control at one learning rate of the probe.

    Attributes:
        arm: its name.
        rate: learning rate.
        difference: accuracy minus that of the untouched copy.
    """

    arm: str
    rate: float
    difference: Interval

    @property
    def holds(self) -> bool:
        """Whether it changed nothing beyond rounding."""
        return self.difference.within(-TOLERANCE, TOLERANCE)


@dataclass(frozen=True)
class Gate:
    """What must hold before anything else is shown.

    Attributes:
        controls: each negative control.
        function_changes: largest change of a logit by arm that keeps the function.
        missing: kinds of negative control that have no probe.
    """

    controls: tuple[Control, ...]
    function_changes: Mapping[str, float]
    missing: tuple[str, ...]

    @property
    def is_open(self) -> bool:
        """Whether all negative controls came out as they must."""
        return not self.reasons

    @property
    def reasons(self) -> list[str]:
        """Why it is shut, as clauses."""
        words = [f"there is no probe of {kind}" for kind in self.missing]
        words += [
            f"{control.arm} changed accuracy at learning rate {control.rate:g}, or may have"
            for control in self.controls
            if not control.holds
        ]
        words += [
            f"{arm} changed a logit by {change:.2g}"
            if math.isfinite(change)
            else f"{arm} changed logits by an unknown amount"
            for arm, change in self.function_changes.items()
            if not change <= TOLERANCE
        ]
        return words


def gate(blocks: Blocks) -> Gate:
    """The negative controls, at each learning rate.

    The untouched copy's own change of the function is not asked for.
    """
    kinds = {"undone rescaling": lambda arm: arm.undone, "permuted units": lambda arm: arm.operation == PLACEBO}
    controls = [
        Control(blocks.arms[arm].name, rate, statistics.t_interval(blocks.changes[arm, place].mean(axis=0)))
        for chosen in kinds.values()
        for arm in blocks.places(chosen)
        for place, rate in enumerate(blocks.rates)
    ]
    keeping = blocks.places(lambda arm: arm.undone or arm.is_rescaled or arm.operation == PLACEBO)
    return Gate(
        tuple(controls),
        {blocks.arms[arm].name: float(blocks.function_change[arm].max()) for arm in keeping},
        tuple(kind for kind, chosen in kinds.items() if not blocks.places(chosen)),
    )


@dataclass(frozen=True)
class Response:
    """What layer rescaling does to the outcome, seed by seed.

    Attributes:
        slope: accuracy per doubling of sharpness, averaged over the learning rates of the probes, [seed].
        by_rate: the same for each learning rate, [seed] each.
        trend: change of the slope for a tenfold learning rate, [seed]; empty with one rate.
        curvature: coefficient of the square of the doublings, [seed]; empty with fewer than three levels.
        flat_end, sharp_end: slope at the flattest and at the sharpest level, [seed]; empty like the curvature.
        span: doublings between the flattest and the sharpest level, smallest and largest of all blocks.
        narrow: blocks whose span is below `LEAST_RANGE`, which are left out.
    """

    slope: Array
    by_rate: Mapping[float, Array]
    trend: Array
    curvature: Array
    flat_end: Array
    sharp_end: Array
    span: tuple[float, float]
    narrow: int

    @property
    def is_inverted_u(self) -> bool:
        """Whether it rises, then falls.

        At the flat and at the sharp end, each by the whole interval (Lind and Mehlum 2010).
        """
        if not len(self.flat_end):
            return False
        return statistics.t_interval(self.flat_end).above(0) and statistics.t_interval(self.sharp_end).below(0)


def response(blocks: Blocks) -> Response | None:
    """The response to sharpness, set by layer rescaling.

    None with fewer than two levels, or if no block spans `LEAST_RANGE`.
    """
    levels = blocks.rescaled
    if len(levels) < 2 or not blocks.seeds:
        return None
    x, y = blocks.sharpness[levels], blocks.accuracy[levels]
    span = np.ptp(x, axis=0)
    if (span < LEAST_RANGE).all():
        return None
    by_rate = [of_seeds(slopes(x, y[:, rate])) for rate in range(len(blocks.rates))]
    square, flat, sharp = (of_seeds(part) for part in parabolas(x, y.mean(axis=1)))
    rates = np.log10(blocks.rates)
    return Response(
        slope=np.mean(by_rate, axis=0),
        by_rate=dict(zip(blocks.rates, by_rate, strict=True)),
        trend=slopes(rates[:, None], np.array(by_rate)) if len(rates) > 1 else np.empty(0),
        curvature=square,
        flat_end=flat,
        sharp_end=sharp,
        span=(float(span.min()), float(span.max())),
        narrow=int((span < LEAST_RANGE).sum()),
    )


@dataclass(frozen=True)
class Effect:
    """One arm against another, averaged over rates and blocks.

    Attributes:
        arm, baseline: their names.
        sharpening: doublings of sharpness.
        outcome: accuracy, arm minus baseline.
    """

    arm: Arm
    baseline: Arm
    sharpening: Interval
    outcome: Comparison


def effects(blocks: Blocks) -> list[Effect]:
    """Each arm against the untouched copy.

    Layer rescaling also stands against a random displacement of the same length.
    """
    random = {
        blocks.arms[place].level: place for place in blocks.places(lambda arm: arm.operation == "random_displacement")
    }
    pairs = [(arm, 0) for arm in range(1, len(blocks.arms))]
    pairs += [(arm, random[blocks.arms[arm].level]) for arm in blocks.rescaled if blocks.arms[arm].level in random]
    accuracy, sharpness = blocks.accuracy.mean(axis=(1, 2)), blocks.sharpness.mean(axis=1)
    return [
        Effect(
            blocks.arms[arm],
            blocks.arms[baseline],
            statistics.t_interval(sharpness[arm] - sharpness[baseline]),
            statistics.compare(accuracy[arm], accuracy[baseline]),
        )
        for arm, baseline in pairs
    ]


def slope_in(blocks: Blocks, measure: str) -> Array:
    """Accuracy per doubling of another measure of sharpness, [seed].

    Over the levels of layer rescaling; empty if they do not move it.
    """
    levels = blocks.rescaled
    if len(levels) < 2:
        return np.empty(0)
    return of_seeds(slopes(blocks.others[measure][levels], blocks.accuracy[levels].mean(axis=1)))


def norm_slope(blocks: Blocks) -> Array:
    """Accuracy per doubling of the total norm, [seed].

    Over `norm_rescaling` and the untouched copy, by the norms that were reached; empty without them.
    """
    places = [0, *blocks.places(lambda arm: arm.operation == "norm_rescaling")]
    if len(places) < 2:
        return np.empty(0)
    return of_seeds(slopes(blocks.norm[places], blocks.accuracy[places].mean(axis=1)))
