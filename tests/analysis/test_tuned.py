"""Contrasts of tuned methods: margins, families, places, and error rates of the answer."""

import numpy as np
import pytest
from analysis_fixtures import Trial, curve, framed

from analysis import tuned
from analysis.statistics import Interval, t_interval

SETTINGS = {"data/name": "mnist"}


def winner(method, end, *, scenario="pixels", lanes=10, draw=None, noise=0.001, rank=1, **settings):
    """A confirmed trial that ends at an accuracy."""
    test = curve(start=0.9, end=end, lanes=lanes, noise=noise, draw=draw).to_numpy()
    return Trial(scenario, method, test, {**SETTINGS, **settings}, rank=rank, confirms=f"{scenario}-{method}-000")


def confirmation(*trials):
    return framed(trials, name="made-confirm", phase="confirm")


def answers(*trials):
    return {each.first: each.answer for each in tuned.against_baseline([confirmation(*trials)])}


def test_a_method_is_better_only_by_more_than_the_margin():
    trials = winner("sgd", 0.90), winner("sam", 0.95), winner("gnp", 0.905), winner("asam", 0.85)
    assert answers(*trials) == {"sam": "yes", "gnp": "no", "asam": "no"}


def test_a_difference_close_to_the_margin_is_open():
    draw = np.random.default_rng(1)
    assert answers(winner("sgd", 0.9, noise=0.02, draw=draw), winner("sam", 0.91, noise=0.02, draw=draw)) == {
        "sam": "open"
    }


@pytest.mark.parametrize(("lanes", "answer"), [(5, "open"), (6, "yes")])
def test_fewer_than_six_seeds_answer_nothing(lanes, answer):
    assert answers(winner("sgd", 0.8, lanes=lanes), winner("sam", 0.95, lanes=lanes)) == {"sam": answer}


def test_only_winners_count():
    other = winner("sam", 0.99, rank=2)
    (found,) = tuned.against_baseline([confirmation(winner("sgd", 0.9), winner("sam", 0.9), other)])
    assert found.late[0] == pytest.approx(0.9, abs=0.002)


def test_the_intervals_of_a_question_are_simultaneous():
    two = confirmation(winner("sgd", 0.9), winner("sam", 0.9), winner("gnp", 0.9))
    other = confirmation(winner("sgd", 0.9, scenario="pairs"), winner("sam", 0.9, scenario="pairs"))
    found = tuned.against_baseline([two, other])
    assert [(each.scenario, each.first) for each in found] == [("pixels", "sam"), ("pixels", "gnp"), ("pairs", "sam")]
    assert {each.difference.level for each in found} == {1 - 0.05 / 3}


def test_a_question_without_the_reference_has_no_contrast():
    assert tuned.against_baseline([confirmation(winner("sam", 0.9))]) == []


def test_the_decline_after_warm_up_stands_beside():
    (found,) = tuned.against_baseline([confirmation(winner("sgd", 0.7), winner("sam", 0.9))])
    sam, sgd = found.declines
    assert tuned.beyond(sgd) == "yes"
    assert tuned.beyond(sam) == "no"


def test_the_conclusion_names_where_answers_differ():
    places = [
        confirmation(winner("sgd", 0.9), winner("sam", 0.95)),
        confirmation(winner("sgd", 0.9), winner("sam", 0.9)),
    ]
    better, alike = ([each] for sweep in places for each in tuned.against_baseline([sweep]))
    assert tuned.conclusion(better) == "sam against sgd: yes"
    assert tuned.conclusion(alike) == "sam against sgd: no"
    assert tuned.conclusion([*better, *alike]) == "sam against sgd: yes on pixels of mnist; no on pixels of mnist"


def test_a_difference_of_exactly_the_margin_is_called_either_way_in_at_most_five_percent():
    draw, calls, studies = np.random.default_rng(0), 0, 10_000
    for _ in range(studies):
        late = 0.01 + 0.01 * draw.normal(size=10)
        calls += tuned.beyond(t_interval(late)) != "open"
    assert calls / studies <= 0.057  # 5 % and three standard errors


def test_an_unknown_interval_is_open():
    assert tuned.beyond(Interval(0.5, float("nan"), float("nan"), 1, 0.95)) == "open"
