"""The rule that ends a confirmation: its intervals hold over all looks."""

import numpy as np
import pytest
from seeds_saved import RULE, studies

from study.decision.intervals import Interval, paired_differences, t_interval
from study.decision.rule import FEWEST, Rule, decide, verdict_of

COUNT = 2000


def accuracies(**methods):
    """Accuracies of one scenario."""
    return {"s": {name: list(map(float, values)) for name, values in methods.items()}}


def upper(count, share):
    """A share that so many studies exceed by chance in one of a thousand cases."""
    return share + 3.1 * np.sqrt(share * (1 - share) / count)


@pytest.mark.parametrize(("noise", "effect"), [("normal", 0.0), ("normal", 1.0)])
def test_over_all_looks_at_most_one_study_in_twenty_has_a_false_answer_or_a_wrong_interval(noise, effect):
    found = list(studies(COUNT, effect, noise))
    wrong = np.mean([study.is_wrong or study.misses for study in found])
    assert 0 < wrong <= 1 - RULE.level
    assert {study.seeds for study in found} > {RULE.most}


def test_looking_as_often_at_plain_intervals_misleads_more_often_than_they_promise():
    """The simulation would show a rule that does not pay for its looks."""
    wrong, count = 0, 600
    for study in studies(count, 0.0):
        d = paired_differences(study.values["a"], study.values["b"])
        looks = range(RULE.batch, RULE.most + 1, RULE.batch)
        wrong += any(verdict_of(t_interval(d[:seeds]), RULE.margin) in ("higher", "lower") for seeds in looks)
    assert wrong / count > upper(count, 0.05)


def test_large_differences_take_few_seeds_and_small_ones_many():
    spent = [np.mean([study.seeds for study in studies(200, effect)]) for effect in (0.5, 1.0, 2.0)]
    assert spent[0] > spent[1] > spent[2]
    assert spent[2] < 0.6 * RULE.most


def test_the_level_is_divided_among_pairs_of_all_scenarios_and_looks():
    rule = Rule(batch=6, most=24, level=0.95, margin=0.01)
    d = np.linspace(-0.2, 0.2, 6)
    both = {"s": {"a": d, "b": 0 * d, "c": 2 * d}, "t": {"a": d, "b": 0 * d}}
    course = decide(rule, both)
    assert len(course.differences) == 4
    assert {each.interval.level for each in course.differences} == {1 - 0.05 / (4 * 4)}
    assert course.differences[0].interval == t_interval(d, 1 - 0.05 / 16)
    assert rule.level_of() == 1 - 0.05 / 4


def test_there_is_no_look_and_no_price_of_one_below_six_seeds():
    rule = Rule(batch=2, most=10, level=0.95, margin=0.01)
    assert rule.looks == len([6, 8, 10])
    four = decide(rule, accuracies(a=[1.0, 0.9, 1.0, 0.9], b=[0.1, 0.1, 0.2, 0.2]))
    assert four.differences[0].interval is None
    assert set(four.due.values()) == {FEWEST}


def test_a_batch_is_due_only_when_all_that_go_on_have_the_one_before():
    noise = np.array([0.1, -0.1] * 6)
    course = decide(RULE, accuracies(a=0.5 + noise, b=0.5 - noise[:6], c=0.5 + noise[:4]))
    assert dict(course.due) == {("s", "a"): 6, ("s", "b"): 6, ("s", "c"): 6}
    assert dict(course.spent) == {("s", "a"): 12, ("s", "b"): 6, ("s", "c"): 4}
    assert course.ending("s", "a") == "not ended yet"
    assert set(course.saved.values()) == {0}


def test_a_method_goes_on_for_the_sake_of_one_open_difference():
    noise = np.array([0.01, -0.01] * 3)
    course = decide(RULE, accuracies(a=0.5 + noise, b=0.5 - noise, c=0.9 + 0 * noise))
    assert {(each.first, each.second): each.verdict for each in course.differences} == {
        ("a", "b"): "open",
        ("a", "c"): "lower",
        ("b", "c"): "lower",
    }
    assert dict(course.due) == {("s", "a"): 12, ("s", "b"): 12, ("s", "c"): 6}
    assert course.ending("s", "c") == "all its differences are decided"


def test_more_seeds_never_change_what_was_decided():
    noise = np.array([0.01, -0.01] * 15)
    few = decide(RULE, accuracies(a=0.5 + noise[:6], b=0.9 - noise[:6]))
    more = decide(RULE, accuracies(a=np.r_[0.5 + noise[:6], 0.99 + noise[:6]], b=np.r_[0.9 - noise[:6], noise[:6]]))
    assert few.differences == more.differences
    assert few.due == more.due


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.001, 0.1, "higher"), (-0.1, -0.001, "lower"), (-0.009, 0.009, "alike"), (-0.01, 0.005, "open"), (0, 1, "open")],
)
def test_an_interval_says(low, high, verdict):
    assert verdict_of(Interval((low + high) / 2, low, high, 6, 0.95), 0.01) == verdict


def test_an_unknown_interval_decides_nothing():
    assert verdict_of(Interval(0.5, np.nan, np.nan, 1, 0.95), 0.01) == "open"
