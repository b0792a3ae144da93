"""The statistics against scipy, statsmodels, plain loops and simulated studies."""

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from statsmodels.stats.multitest import multipletests

from analysis import statistics

NUMBERS = st.integers(0, 2**32 - 1)
LEVELS = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999999])
BY_TASK = (
    statistics.mean_accuracy,
    statistics.first_tenth,
    statistics.last_tenth,
    statistics.decline,
    statistics.decline_after_warmup,
    statistics.slope,
)
BY_LANE = (
    statistics.t_interval,
    statistics.sign_flip_p,
    statistics.iqm,
    statistics.effect_size,
    statistics.superiority,
)


def whole_differences(seed, lanes):
    """Small whole numbers: ties and zeros are common, and their sums are exact."""
    return np.random.default_rng(seed).integers(-3, 5, lanes).astype(float)


def flipped_by_brute_force(differences):
    """The sign-flip p-value of whole numbers by its definition: all sign vectors, one after the other."""
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=len(differences))]
    return sum(total >= abs(differences.sum()) for total in sums) / len(sums)


@given(NUMBERS, st.integers(1, 120), st.integers(1, 4))
def test_a_lanes_numbers_are_those_of_a_plain_loop(seed, tasks, lanes):
    values = np.random.default_rng(seed).random((tasks, lanes))
    tenth = math.ceil(tasks / 10)
    for lane in range(lanes):
        column = [float(values[task, lane]) for task in range(tasks)]
        first = sum(column[:tenth]) / tenth
        last = sum(column[tasks - tenth :]) / tenth
        assert statistics.mean_accuracy(values)[lane] == pytest.approx(sum(column) / tasks, rel=1e-12)
        assert statistics.first_tenth(values)[lane] == pytest.approx(first, rel=1e-12)
        assert statistics.last_tenth(values)[lane] == pytest.approx(last, rel=1e-12)
        assert statistics.decline(values)[lane] == pytest.approx(first - last, rel=1e-12, abs=1e-15)
        early = sum(column[tenth // 2 : tenth // 2 + tenth]) / tenth
        assert statistics.decline_after_warmup(values)[lane] == pytest.approx(early - last, rel=1e-12, abs=1e-15)


@given(NUMBERS, st.integers(2, 120), st.integers(1, 4))
def test_slope_is_that_of_numpys_polynomial_of_degree_1_times_100(seed, tasks, lanes):
    values = np.random.default_rng(seed).random((tasks, lanes))
    expected = np.polyfit(np.arange(tasks), values, 1)[0] * 100
    np.testing.assert_allclose(statistics.slope(values), expected, rtol=1e-9, atol=1e-11)


def test_a_lane_that_loses_a_hundredth_a_task_loses_1_in_100_tasks():
    falling = np.array([[0.9], [0.89], [0.88]])
    assert statistics.slope(falling)[0] == pytest.approx(-1)
    assert statistics.decline(falling)[0] == pytest.approx(0.02)


def test_one_task_has_no_slope_and_no_decline():
    np.testing.assert_array_equal(statistics.slope([[0.5, 0.7]]), [math.nan, math.nan])
    np.testing.assert_array_equal(statistics.decline([[0.5, 0.7]]), [0, 0])


@pytest.mark.parametrize("measure", BY_TASK)
def test_tasks_are_reduced_in_double_precision_to_one_number_a_lane(measure):
    values = np.random.default_rng(0).random((200, 3)).astype(np.float32)
    reduced = measure(values)
    assert reduced.dtype == np.float64
    assert reduced.shape == (3,)
    np.testing.assert_array_equal(reduced, measure(values.astype(np.float64)))


@pytest.mark.parametrize("measure", BY_TASK)
@pytest.mark.parametrize(
    "values", [0.5, [0.5], [[[0.5]]], np.empty((0, 3)), np.empty((3, 0)), [[0.5], [math.nan]], [[math.inf]]]
)
def test_values_by_task_of_other_axes_none_or_not_finite_are_refused(measure, values):
    with pytest.raises(ValueError, match="Values"):
        measure(values)


@pytest.mark.parametrize("measure", BY_LANE)
@pytest.mark.parametrize("values", [0.5, [[0.5]], [], [0.5, math.nan], [-math.inf]])
def test_values_by_lane_of_other_axes_none_or_not_finite_are_refused(measure, values):
    with pytest.raises(ValueError, match="Values"):
        measure(values)


@given(NUMBERS, st.integers(2, 60), LEVELS)
def test_the_t_interval_is_scipys(seed, lanes, level):
    values = np.random.default_rng(seed).normal(0.9, 0.01, lanes)
    interval = statistics.t_interval(values, level)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(level)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert interval.mean == pytest.approx(values.mean(), rel=1e-12)
    assert (interval.lanes, interval.level) == (lanes, level)


@given(NUMBERS, st.integers(2, 20), st.floats(-10, 10), st.floats(0.1, 10))
def test_the_t_interval_moves_grows_and_turns_with_its_values(seed, lanes, shift, scale):
    values = np.random.default_rng(seed).random(lanes)
    plain = statistics.t_interval(values)
    moved = statistics.t_interval(shift + scale * values)
    turned = statistics.t_interval(-values)
    bounds = shift + scale * np.array([plain.mean, plain.low, plain.high])
    np.testing.assert_allclose([moved.mean, moved.low, moved.high], bounds, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose([turned.low, turned.high], [-plain.high, -plain.low], rtol=1e-12)


def test_of_one_lane_the_mean_is_known_and_the_bounds_are_not():
    interval = statistics.t_interval([0.9])
    assert interval.mean == 0.9
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert not interval.within(-math.inf, math.inf)
    assert not interval.above(-math.inf)
    assert not interval.below(math.inf)


@pytest.mark.parametrize("value", [0.1, 0.7, 0.93, 0.0])
def test_equal_lanes_have_an_interval_of_no_width_at_their_value(value):
    for lanes in range(2, 12):
        interval = statistics.t_interval([value] * lanes)
        assert (interval.low, interval.mean, interval.high) == (value, value, value)


def test_an_interval_lies_somewhere_only_with_all_of_it():
    interval = statistics.Interval(mean=2, low=1, high=3, lanes=5, level=0.95)
    assert interval.within(0, 4)
    assert interval.above(0)
    assert interval.below(4)
    for low, high in ((1, 4), (0, 3), (1.5, 4), (0, 2.5), (3, 4), (-1, 0)):
        assert not interval.within(low, high)
    for number in (1, 2, 3, 4):
        assert not interval.above(number)
    for number in (3, 2, 1, 0):
        assert not interval.below(number)


@pytest.mark.parametrize("level", [0, 1, -0.1, 1.5, 95, math.nan])
def test_a_level_outside_0_to_1_is_refused(level):
    for question in (
        lambda: statistics.t_interval([0.1, 0.2], level),
        lambda: statistics.compare([0.1, 0.2], [0.2, 0.2], level),
        lambda: statistics.lanes_needed(0.1, 0.1, level),
    ):
        with pytest.raises(ValueError, match="level"):
            question()


def sign_flip_of_scipy(differences):
    return scipy.stats.permutation_test(
        (differences,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=np.inf
    ).pvalue


@given(NUMBERS, st.integers(2, 10))
def test_the_sign_flip_p_is_scipys_exact_permutation_test(seed, lanes):
    spread_out = np.random.default_rng(seed).normal(0.5, 1, lanes)
    for differences in (spread_out, whole_differences(seed, lanes)):
        assert statistics.sign_flip_p(differences) == pytest.approx(sign_flip_of_scipy(differences), rel=1e-12)


@given(NUMBERS, st.integers(1, 12))
def test_the_sign_flip_p_is_that_of_trying_every_sign(seed, lanes):
    differences = whole_differences(seed, lanes)
    assert statistics.sign_flip_p(differences) == flipped_by_brute_force(differences)


@given(NUMBERS, st.integers(1, 12), st.floats(1e-6, 1e6))
def test_the_sign_flip_p_knows_neither_the_sign_the_scale_nor_the_order(seed, lanes, scale):
    differences = whole_differences(seed, lanes)
    p = statistics.sign_flip_p(differences)
    assert statistics.sign_flip_p(-differences) == p
    assert statistics.sign_flip_p(scale * differences) == p
    assert statistics.sign_flip_p(np.random.default_rng(seed).permutation(differences)) == p


@pytest.mark.parametrize("lanes", [1, 2, 5, 6, 24, 33, 40])
def test_differences_that_all_have_one_sign_have_the_least_p_there_is(lanes):
    differences = np.random.default_rng(lanes).uniform(0.5, 1, lanes)
    assert statistics.sign_flip_p(differences) == 2 / 2**lanes
    assert statistics.sign_flip_p(-differences) == 2 / 2**lanes


@pytest.mark.parametrize(("lanes", "negative"), [(13, 4), (24, 3), (24, 11), (31, 15), (37, 10), (40, 0), (40, 14)])
def test_of_differences_of_one_size_the_sign_flip_test_is_the_sign_test(lanes, negative):
    differences = np.where(np.arange(lanes) < negative, -0.1, 0.1)
    tail = sum(math.comb(lanes, count) for count in range(negative + 1))
    assert statistics.sign_flip_p(differences) == 2 * tail / 2**lanes


@pytest.mark.parametrize("lanes", [3, 11, 24, 28])
def test_of_powers_of_2_the_sign_flip_p_is_the_rank_of_the_sum(lanes):
    """Their signed sums are all odd numbers from 1 - 2^n to 2^n - 1, once each."""
    signs = np.random.default_rng(lanes).choice([-1, 1], lanes)
    differences = signs * 2.0 ** np.arange(lanes)
    assert statistics.sign_flip_p(differences) == (2**lanes + 1 - abs(differences.sum())) / 2**lanes


@given(NUMBERS, st.integers(1, 9), st.integers(1, 6))
def test_seeds_without_a_difference_do_not_change_the_sign_flip_p(seed, lanes, zeros):
    differences = whole_differences(seed, lanes)
    assert statistics.sign_flip_p([*differences, *[0.0] * zeros]) == statistics.sign_flip_p(differences)


@given(NUMBERS, st.integers(2, 12), st.sampled_from([1e-4, 1e-5, 1 / 3, 0.7, 1 / 45e4]))
def test_sums_that_are_equal_but_for_rounding_count_as_ties(seed, lanes, step):
    draw = np.random.default_rng(seed)
    whole = draw.integers(-3, 5, lanes)
    second = draw.integers(8000, 9000, lanes)
    differences = (second + whole) * step - second * step
    assert statistics.sign_flip_p(differences) == flipped_by_brute_force(whole)


def test_a_tenth_and_two_tenths_are_three_tenths():
    assert 0.1 + 0.2 - 0.3 != 0
    assert statistics.sign_flip_p([0.1, 0.2, -0.3]) == 1
    assert statistics.sign_flip_p([0.1, 0.2, 0.3, -0.1 - 0.2, 0.3]) == flipped_by_brute_force(
        np.array([1, 2, 3, -3, 3])
    )


def test_sums_apart_by_one_image_in_a_long_task_sequence_are_no_ties():
    image = 1 / (10_000 * 800)
    tied, ahead = np.array([0.01, 0.02, 0.03, -0.03]), np.array([0.01, 0.02, 0.03, -0.03 + image])
    assert statistics.sign_flip_p(tied) == flipped_by_brute_force(np.round(tied / image))
    assert statistics.sign_flip_p(ahead) == flipped_by_brute_force(np.round(ahead / image))
    assert statistics.sign_flip_p(ahead) < statistics.sign_flip_p(tied)


@pytest.mark.parametrize("differences", [[0.3], [-2.0], [0.0], [0.0] * 7, [1.0, -1.0], [0.0] * 40])
def test_one_lane_or_a_sum_of_0_gives_a_sign_flip_p_of_1(differences):
    assert statistics.sign_flip_p(differences) == 1


@given(NUMBERS, st.integers(5, 8))
def test_a_true_null_is_rejected_at_most_as_often_as_promised(seed, lanes):
    sizes = np.abs(np.random.default_rng(seed).standard_cauchy(lanes))
    p_values = [statistics.sign_flip_p(sizes * signs) for signs in itertools.product((-1, 1), repeat=lanes)]
    for alpha in {0.05, 0.1, 0.5, *p_values}:
        assert np.mean(np.array(p_values) <= alpha) <= alpha


def test_more_than_40_lanes_are_refused_by_the_exact_test_with_a_sentence():
    with pytest.raises(ValueError, match=r"^The exact sign-flip test takes at most 40 lanes, not 41\.$"):
        statistics.sign_flip_p(np.ones(41))


@pytest.mark.parametrize(("alpha", "lanes"), [(0.05, 6), (0.01, 8), (0.5, 2), (0.25, 3), (0.9, 2), (0.05 / 12, 9)])
def test_so_many_lanes_are_the_fewest_that_can_reach_alpha(alpha, lanes):
    assert statistics.least_lanes(alpha) == lanes
    assert statistics.sign_flip_p(np.ones(lanes)) <= alpha < statistics.sign_flip_p(np.ones(lanes - 1))


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_the_fewest_lanes_are_those_of_counting_up(alpha):
    lanes = 1
    while math.ldexp(1.0, 1 - lanes) > alpha:
        lanes += 1
    assert statistics.least_lanes(alpha) == lanes


def test_without_an_alpha_the_fewest_lanes_are_6():
    assert statistics.least_lanes() == 6


@pytest.mark.parametrize("claims", [1, 3, 12, 40])
@pytest.mark.parametrize("lanes", [1, 2, 4, 6, 9, 10])
def test_the_least_p_value_is_that_of_equal_differences_in_a_family_of_that_size(lanes, claims):
    p = statistics.sign_flip_p([0.1] * lanes)
    assert statistics.least_p(lanes, claims) == min(statistics.holm([p] * claims))
    assert (statistics.least_p(lanes, claims) <= 0.05) == (lanes >= statistics.least_lanes(0.05 / claims))


@pytest.mark.parametrize(("lanes", "claims"), [(0, 1), (1, 0), (-1, 2)])
def test_the_least_p_value_needs_a_lane_and_a_claim(lanes, claims):
    with pytest.raises(ValueError, match="at least one"):
        statistics.least_p(lanes, claims)


@pytest.mark.parametrize("alpha", [0, 1, -0.05, 5, math.nan])
def test_an_alpha_outside_0_to_1_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        statistics.least_lanes(alpha)


@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.02, 0.04, 1.0]), min_size=1, max_size=12))
def test_holms_p_values_are_statsmodels(p_values):
    expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(statistics.holm(p_values), expected, rtol=1e-12)


def test_holms_p_values_of_a_worked_family():
    np.testing.assert_allclose(statistics.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm([0.02, 0.021]), [0.04, 0.04])


@given(NUMBERS, st.integers(1, 12))
def test_holms_p_values_keep_the_order_and_never_fall_below_the_given(seed, claims):
    draw = np.random.default_rng(seed)
    p_values = draw.random(claims) ** 3
    adjusted = statistics.holm(p_values)
    assert (adjusted >= p_values).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p_values)]) >= 0).all()
    order = draw.permutation(claims)
    np.testing.assert_array_equal(statistics.holm(p_values[order]), adjusted[order])


def test_an_empty_family_has_no_adjusted_p_values():
    adjusted = statistics.holm([])
    assert adjusted.shape == (0,)
    assert adjusted.dtype == np.float64


@pytest.mark.parametrize("p_values", [[-0.01], [0.5, 1.01], [0.5, math.nan], [math.inf], 0.5, [[0.5]]])
def test_p_values_outside_0_to_1_or_of_other_axes_are_refused(p_values):
    with pytest.raises(ValueError, match=r"p-value|Values"):
        statistics.holm(p_values)


@given(NUMBERS, st.integers(1, 40))
def test_the_interquartile_mean_is_scipys_trimmed_mean(seed, lanes):
    values = np.random.default_rng(seed).standard_cauchy(lanes)
    assert statistics.iqm(values) == pytest.approx(scipy.stats.trim_mean(values, 0.25), rel=1e-9, abs=1e-12)


def test_one_wild_lane_of_four_does_not_move_the_interquartile_mean():
    assert statistics.iqm([1e9, 0.4, 0.2, 0.3]) == pytest.approx(0.35)
    assert statistics.iqm([0.9, 0.1, 0.2]) == pytest.approx(0.4)


@given(NUMBERS, st.integers(3, 40))
def test_the_effect_size_is_cohens_times_the_mean_of_a_chi(seed, lanes):
    """Hedges' J undoes the mean of sigma / s, where s^2 is sigma^2 chi^2 / m: an integral instead of gamma functions."""
    differences = np.random.default_rng(seed).normal(0.3, 1, lanes)
    freedom = lanes - 1
    inflation = math.sqrt(freedom) * scipy.stats.chi(freedom).expect(lambda x: 1 / x)
    cohen = differences.mean() / math.sqrt(((differences - differences.mean()) ** 2).sum() / freedom)
    assert statistics.effect_size(differences) == pytest.approx(cohen / inflation, rel=1e-6)


def test_the_effect_size_of_few_lanes_is_right_on_average():
    draw = np.random.default_rng(1)
    sizes = [statistics.effect_size(differences) for differences in draw.normal(1, 1, (10_000, 6))]
    assert np.mean(sizes) == pytest.approx(1, abs=0.03)  # without the correction 1.19


@given(NUMBERS, st.integers(3, 20), st.floats(0.01, 100))
def test_the_sizes_of_effect_know_the_sign_but_not_the_unit(seed, lanes, scale):
    differences = np.random.default_rng(seed).normal(0.5, 1, lanes)
    size, share = statistics.effect_size(differences), statistics.superiority(differences)
    assert statistics.effect_size(scale * differences) == pytest.approx(size, rel=1e-9)
    assert statistics.effect_size(-differences) == pytest.approx(-size, rel=1e-12)
    assert statistics.superiority(scale * differences) == share
    assert statistics.superiority(-differences) == pytest.approx(1 - share)


def test_the_effect_size_without_spread_is_0_or_endless_and_of_two_lanes_unknown():
    assert statistics.effect_size([0.0] * 5) == 0
    assert statistics.effect_size([0.1] * 5) == math.inf
    assert statistics.effect_size([-0.1] * 5) == -math.inf
    assert statistics.effect_size([0.3 - 0.2, 0.2 - 0.1, 0.1]) == math.inf  # equal but for rounding
    assert math.isnan(statistics.effect_size([0.1]))
    assert math.isnan(statistics.effect_size([0.1, 0.2]))
    assert math.isfinite(statistics.effect_size([0.1, 0.2, 0.3]))


@given(NUMBERS, st.integers(1, 20))
def test_superiority_counts_the_seeds_above_0_and_half_the_ties(seed, lanes):
    differences = whole_differences(seed, lanes)
    expected = sum(1 if number > 0 else 0.5 if number == 0 else 0 for number in differences) / lanes
    assert statistics.superiority(differences) == pytest.approx(expected)


def test_a_difference_of_rounding_alone_is_a_tie():
    assert statistics.superiority([0.1 + 0.2 - 0.3, 0.1, 0.2, -0.1]) == 2.5 / 4
    assert statistics.superiority([1e-7, 0.1, 0.2, -0.1]) == 3 / 4


@given(NUMBERS, st.integers(3, 12), LEVELS)
def test_a_comparison_is_that_of_the_paired_differences(seed, lanes, level):
    draw = np.random.default_rng(seed)
    seeds = draw.normal(0.9, 0.05, lanes)
    a, b = seeds + draw.normal(0.01, 0.01, lanes), seeds
    comparison = statistics.compare(a, b, level)
    expected = scipy.stats.ttest_rel(a, b).confidence_interval(level)
    assert (comparison.interval.low, comparison.interval.high) == pytest.approx((expected.low, expected.high))
    assert (comparison.interval.lanes, comparison.interval.level) == (lanes, level)
    assert comparison.p == statistics.sign_flip_p(a - b)
    assert comparison.effect_size == statistics.effect_size(a - b)
    assert comparison.superiority == np.mean(a > b)


@given(NUMBERS, st.integers(3, 10))
def test_a_comparison_turned_round_turns_its_numbers(seed, lanes):
    draw = np.random.default_rng(seed)
    a, b = draw.integers(9000, 9006, (2, lanes)) / 10_000
    there, back = statistics.compare(a, b), statistics.compare(b, a)
    assert (back.interval.low, back.interval.high) == (-there.interval.high, -there.interval.low)
    assert (back.p, back.effect_size) == (there.p, -there.effect_size)
    assert back.superiority == pytest.approx(1 - there.superiority)


def test_methods_that_differ_by_rounding_alone_do_not_differ():
    a, b = np.array([0.3, 0.6, 0.9, 0.7]), np.array([0.1 + 0.2, 0.1 * 6, 0.3 * 3, 0.7])
    assert (a != b).sum() == 3
    comparison = statistics.compare(a, b)
    assert comparison.interval == statistics.Interval(0, 0, 0, 4, 0.95)
    assert (comparison.p, comparison.effect_size, comparison.superiority) == (1, 0, 0.5)


def test_methods_that_differ_by_one_image_in_a_long_task_sequence_differ():
    b = np.linspace(0.8, 0.9, 8)
    comparison = statistics.compare(b + 1 / (10_000 * 800), b)
    assert comparison.p == 2 / 2**8
    assert comparison.superiority == 1


def test_one_seed_says_nothing_but_its_difference():
    comparison = statistics.compare([0.9], [0.8])
    assert comparison.interval.mean == pytest.approx(0.1)
    assert math.isnan(comparison.interval.low)
    assert math.isnan(comparison.effect_size)
    assert (comparison.p, comparison.superiority) == (1, 1)


def test_methods_of_different_seeds_are_not_compared():
    with pytest.raises(ValueError, match="same seeds, not 3 lanes against 1"):
        statistics.compare([0.1, 0.2, 0.3], [0.1])


@given(st.floats(0.01, 10), st.floats(-10, 10).filter(lambda x: abs(x) > 0.3), LEVELS)
def test_the_lanes_needed_are_those_of_a_direct_search(spread, distance, level):
    expected = next(
        (
            lanes
            for lanes in range(2, 40_000)
            if scipy.special.stdtrit(lanes - 1, (1 + level) / 2) * spread / math.sqrt(lanes) <= abs(distance)
        ),
        None,
    )
    assert statistics.lanes_needed(spread, distance, level) == expected


def test_the_lanes_needed_halve_the_half_width_with_about_four_times_as_many():
    assert statistics.lanes_needed(1, 0.1) == 387
    assert statistics.lanes_needed(1, 0.05) == 1540
    values = np.random.default_rng(0).normal(size=12)
    interval = statistics.t_interval(values)
    half = interval.high - interval.mean
    assert statistics.lanes_needed(values.std(ddof=1), half * 1.000001) == 12
    assert statistics.lanes_needed(values.std(ddof=1), -half * 0.999999) == 13


def test_no_number_of_lanes_or_too_many_are_none_and_without_spread_two_are_enough():
    assert statistics.lanes_needed(1, 0) is None
    assert statistics.lanes_needed(0, 0) is None
    assert statistics.lanes_needed(1, 1e-9) is None
    assert statistics.lanes_needed(0, 1e-9) == 2
    assert statistics.lanes_needed(1e-9, 1) == 2
    last = scipy.stats.t.ppf(0.975, 99_999) / math.sqrt(100_000)
    assert statistics.lanes_needed(1, last * (1 + 1e-9)) == 100_000
    assert statistics.lanes_needed(1, last * (1 - 1e-9)) is None


@pytest.mark.parametrize(("spread", "distance"), [(-1, 1), (math.nan, 1), (math.inf, 1), (1, math.nan), (1, -math.inf)])
def test_a_spread_or_distance_that_says_nothing_is_refused(spread, distance):
    with pytest.raises(ValueError, match="finite"):
        statistics.lanes_needed(spread, distance)


STUDIES, LANES, TASKS = 4000, 10, 45
CURVE = np.linspace(0.95, 0.93, TASKS)  # true accuracy of each task, which falls by 0.02


@pytest.fixture(scope="module")
def simulated():
    """Two methods' accuracies [task, study, lane] in many studies; the second is better by 0.002.

    A lane differs from the true curve by what its seed does to both methods, by what it does to the one, by noise that
    lasts for some tasks, and by noise of every task alone.
    """
    draw = np.random.default_rng(20)
    seeds = draw.normal(0, 0.01, (STUDIES, LANES))
    methods = []
    for advantage in (0.0, 0.002):
        lasting = np.empty((TASKS, STUDIES, LANES))
        lasting[0] = draw.normal(0, 0.004, (STUDIES, LANES))
        for task in range(1, TASKS):
            fresh = draw.normal(0, 0.004 * math.sqrt(1 - 0.8**2), (STUDIES, LANES))
            lasting[task] = 0.8 * lasting[task - 1] + fresh
        own = draw.normal(0, 0.003, (STUDIES, LANES))
        noise = draw.normal(0, 0.003, (TASKS, STUDIES, LANES))
        methods.append(CURVE[:, None, None] + advantage + seeds + own + lasting + noise)
    return methods


def by_study(measure, values):
    """A measure of values [task, study, lane] as [study, lane]."""
    return measure(values.reshape(TASKS, STUDIES * LANES)).reshape(STUDIES, LANES)


def coverage(intervals, truth):
    return np.mean([interval.low <= truth <= interval.high for interval in intervals])


@pytest.mark.parametrize(
    ("measure", "truth"),
    [
        (statistics.mean_accuracy, CURVE.mean()),
        (statistics.decline, CURVE[:5].mean() - CURVE[-5:].mean()),
        (statistics.decline_after_warmup, CURVE[2:7].mean() - CURVE[-5:].mean()),
        (statistics.slope, -0.02 / 44 * 100),
    ],
)
def test_an_interval_over_lanes_covers_the_truth_as_often_as_it_promises(simulated, measure, truth):
    intervals = [statistics.t_interval(lanes) for lanes in by_study(measure, simulated[0])]
    assert 0.93 < coverage(intervals, truth) < 0.97


def test_a_paired_interval_covers_the_true_difference_as_often_as_it_promises_and_is_narrower(simulated):
    first, second = (by_study(statistics.mean_accuracy, method) for method in simulated)
    paired = [statistics.compare(b, a).interval for a, b in zip(first, second, strict=True)]
    assert 0.93 < coverage(paired, 0.002) < 0.97
    alone = [statistics.t_interval(lanes) for lanes in second]
    assert np.mean([i.high - i.low for i in paired]) < 0.7 * np.mean([i.high - i.low for i in alone])


def test_an_interval_over_lane_and_task_as_if_independent_covers_the_truth_far_less_often(simulated):
    for method, truth in ((simulated[0], CURVE.mean()), (simulated[1] - simulated[0], 0.002)):
        intervals = [statistics.t_interval(method[:, study].ravel()) for study in range(STUDIES)]
        assert coverage(intervals, truth) < 0.6


def test_the_sign_flip_test_rejects_a_true_null_in_a_twentieth_of_all_studies(simulated):
    first, second = (by_study(statistics.mean_accuracy, method) for method in simulated)
    p_values = [statistics.sign_flip_p(row) for row in second - first - 0.002]
    assert 0.03 < np.mean(np.array(p_values) <= 0.05) < 0.07
