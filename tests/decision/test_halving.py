"""Races as functions of results: rungs, places, who is promoted."""

import random

import pytest

from study.decision.halving import Entrant, Result, due, promoted, rungs_of, rungs_of_plan, sizes


def entrant(number, *scores, begun=None, failed=False):
    results = tuple(score if isinstance(score, Result) else Result(score) for score in scores)
    return Entrant(number, results, len(scores) if begun is None else begun, failed)


@pytest.mark.parametrize(
    ("seeds", "rungs"), [(2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4)), (5, (1, 2, 4, 5)), (10, (1, 2, 4, 8, 10))]
)
def test_rungs_double_up_to_all_seeds(seeds, rungs):
    assert rungs_of(seeds) == rungs
    assert rungs_of_plan({"scheduler": "race", "seeds": list(range(seeds))}) == rungs


def test_only_a_race_has_rungs():
    assert rungs_of_plan({"scheduler": "asha", "seeds": [0, 1]}) == rungs_of_plan({"seeds": [0]}) == ()
    with pytest.raises(ValueError, match="two seeds"):
        rungs_of_plan({"scheduler": "race", "seeds": [0]})


def test_half_of_each_rung_goes_on_and_at_least_one():
    assert sizes(12, 4) == (12, 6, 3, 1)
    assert sizes(3, 4) == (3, 1, 1, 1)
    assert sizes(8, 3, lost=[1, 3, 0]) == (8, 3, 0)


def test_the_highest_rung_comes_first_and_the_best_of_its_upper_half():
    known = [entrant(0, 0.5, 0.5), entrant(1, 0.6, 0.7), entrant(2, 0.9), entrant(3, 0.8), entrant(4, 0.1)]
    assert promoted(known, 9, 3).number == 1
    known[1] = entrant(1, 0.6, 0.7, begun=3)
    assert promoted(known, 9, 3) is None  # of 5, two have been promoted
    assert promoted([*known, entrant(5, 0.2)], 9, 3).number == 2


def test_of_equal_ones_the_earlier_and_of_diverged_ones_none_before_others():
    assert promoted([entrant(0, 0.5), entrant(1, 0.5)], 9, 2).number == 0
    assert promoted([entrant(0, Result(0.9, diverged=1)), entrant(1, 0.5)], 9, 2).number == 1
    assert promoted([entrant(0, Result(0.9, diverged=1)), entrant(1, Result(0.5, diverged=1))], 9, 2).number == 0


def test_the_last_of_a_rung_goes_on_only_when_nobody_else_can_come():
    assert promoted([entrant(0, 0.5)], 2, 2) is None
    assert promoted([entrant(0, 0.5)], 1, 2).number == 0
    open_one = entrant(1, begun=1)
    assert promoted([entrant(0, 0.5), open_one], 2, 2) is None
    assert promoted([entrant(0, 0.5), entrant(1, begun=1, failed=True)], 2, 2).number == 0


def test_what_has_failed_or_no_objective_has_no_successor():
    failed, unknown = entrant(0, begun=1, failed=True), entrant(1, None)
    known = [failed, unknown, entrant(2, 0.5, begun=2), entrant(3, 0.4)]
    assert due(known, 4, 2) == (4, 1)
    assert promoted(known, 4, 2) is None
    assert promoted([unknown], 1, 2) is None
    assert due([unknown], 1, 3) == (1, 0, 0)


@pytest.mark.parametrize("workers", [1, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 13, 40])
def test_in_whatever_order_results_come_a_race_ends_with_the_places_that_it_has(count, workers):
    draw, rungs = random.Random(f"{count} {workers}"), 4
    known, running = [], []
    while True:
        while len(running) < workers:
            if (next_ := promoted(known, count, rungs)) is not None:
                known[next_.number] = Entrant(next_.number, next_.results, next_.begun + 1)
                running.append(next_.number)
            elif len(known) < count:
                running.append(len(known))
                known.append(Entrant(len(known)))
            else:
                break
        if not running:
            break
        number = running.pop(draw.randrange(len(running)))
        before = known[number]
        known[number] = Entrant(number, (*before.results, Result(draw.random())), before.begun)
    reached = tuple(sum(len(each.results) > rung for each in known) for rung in range(rungs))
    assert reached == sizes(count, rungs) == due(known, count, rungs)
