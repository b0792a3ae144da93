"""Correlation within lanes against regressions with a dummy for each lane, and its bounds against simulated studies."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from hypothesis import given, settings

from analysis.correlation import within_lanes


def made(draw, lanes=10, tasks=10, strength=0.5, spread=3.0):
    """Two quantities with correlation `strength` within lanes that differ much in level, and the lane of each pair."""
    lane = np.repeat(np.arange(lanes), tasks)
    first = draw.normal(size=lanes * tasks)
    second = strength * first + math.sqrt(1 - strength**2) * draw.normal(size=lanes * tasks)
    return first + spread * draw.normal(size=lanes)[lane], second + spread * draw.normal(size=lanes)[lane], lane


def residuals(values, lane, controls=()):
    """What a regression on a dummy for each lane and on the controls leaves."""
    dummies = (lane[:, None] == np.unique(lane)).astype(float)
    return sm.OLS(values, np.column_stack([dummies, *controls])).fit().resid


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(5, 12), st.integers(0, 2))
def test_it_is_the_correlation_of_what_regressions_on_lanes_and_controls_leave(seed, lanes, tasks, count):
    draw = np.random.default_rng(seed)
    first, second, lane = made(draw, lanes, tasks)
    controls = tuple(draw.normal(size=len(lane)) + first * draw.normal() for _ in range(count))
    expected = scipy.stats.pearsonr(residuals(first, lane, controls), residuals(second, lane, controls)).statistic
    found = within_lanes(first, second, lane, controls)
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert (found.lanes, found.pairs) == (lanes, lanes * tasks)


def test_lanes_that_differ_in_level_alone_have_no_correlation_between_them():
    draw = np.random.default_rng(0)
    first, second, lane = made(draw, 20, 40, strength=0.0, spread=0.0)
    shift = 100 * draw.normal(size=20)[lane]
    assert np.corrcoef(first + shift, second + shift)[0, 1] > 0.99
    assert abs(within_lanes(first + shift, second + shift, lane).value) < 0.1


def test_a_common_cause_is_taken_out():
    draw = np.random.default_rng(1)
    cause, _, lane = made(draw, 10, 50)
    first, second = cause + 0.5 * draw.normal(size=500), cause + 0.5 * draw.normal(size=500)
    alone, given_cause = within_lanes(first, second, lane), within_lanes(first, second, lane, (cause,))
    assert alone.low > 0.5
    assert given_cause.low < 0 < given_cause.high


@pytest.mark.parametrize("strength", [0.0, -0.6])
@pytest.mark.parametrize(("lanes", "tasks"), [(10, 9), (5, 30)])
def test_bounds_hold_the_true_correlation_in_95_of_100_studies(strength, lanes, tasks):
    draw = np.random.default_rng(2)
    held = 0
    for _ in range(600):
        found = within_lanes(*made(draw, lanes, tasks, strength))
        assert found.low < found.value < found.high
        held += found.low <= strength <= found.high
    assert 0.915 <= held / 600 <= 0.985


def test_lanes_of_their_own_mind_widen_the_bounds_as_one_hundred_pairs_would_not():
    """The correlation differs from lane to lane; an interval over pairs, as if they were independent, would not know."""
    draw = np.random.default_rng(3)
    first, second, lane = made(draw, 6, 60, strength=0.0)
    second = second + np.where(lane % 2, 1.0, -1.0) * first * 2
    found = within_lanes(first, second, lane)
    assert found.low < -0.4
    assert found.high > 0.4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1.0] * 12, list(range(12))),
        (list(range(12)), [0.1] * 12),
        ([5.0] * 4 + [6.0] * 4 + [7.0] * 4, list(range(12))),
    ],
    ids=["first is constant", "second is constant", "first is constant within lanes"],
)
def test_what_does_not_vary_has_no_correlation(first, second):
    found = within_lanes(first, second, np.repeat([0, 1, 2], 4))
    assert math.isnan(found.value)
    assert math.isnan(found.low)


def test_what_the_controls_explain_in_full_has_no_correlation():
    draw = np.random.default_rng(4)
    first, second, lane = made(draw)
    assert math.isnan(within_lanes(first, second, lane, (2 * first + lane,)).value)


def test_a_control_that_does_not_vary_takes_nothing_out():
    first, second, lane = made(np.random.default_rng(5))
    with_it, without = within_lanes(first, second, lane, (np.full(100, 3.0),)), within_lanes(first, second, lane)
    assert with_it.value == pytest.approx(without.value)


def test_two_lanes_have_a_correlation_without_bounds_and_too_few_pairs_have_none():
    first, second, lane = made(np.random.default_rng(6), lanes=2)
    found = within_lanes(first, second, lane)
    assert math.isfinite(found.value)
    assert math.isnan(found.low)
    assert math.isnan(within_lanes([1, 2, 3.0], [1, 3, 2.0], [0, 0, 0], ([1, 1, 2.0],)).value)
    assert math.isnan(within_lanes([1.0], [2.0], [0]).value)
    assert math.isnan(within_lanes([], [], []).value)


def test_pairs_that_are_not_known_are_left_out():
    first, second, lane = made(np.random.default_rng(7))
    holes = first.copy()
    holes[::7] = math.nan
    known = np.isfinite(holes)
    assert within_lanes(holes, second, lane) == within_lanes(first[known], second[known], lane[known])


def test_one_that_follows_the_other_exactly_has_the_correlation_one():
    draw = np.random.default_rng(8)
    first, _, lane = made(draw)
    found = within_lanes(first, -2 * first + lane, lane)
    assert found.value == pytest.approx(-1)
    assert found.high == pytest.approx(-1)


def test_rows_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="same length"):
        within_lanes([1.0, 2.0], [1.0], [0, 0])
