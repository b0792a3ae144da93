"""Successive halving over seeds: a race.

Every configuration gets few seeds, the better half of them more, and so on until the best have all. The seeds are the resource
of asynchronous successive halving by promotion (Li et al. 2020, arXiv 1810.05934) with a reduction of 2:

    rungs        numbers of seeds: 1, 2, 4, ... below all of them, then all
    promotion    from the highest rung down, the best configuration that has the seeds of a rung and is in the upper half there
                 gets the further seeds of the next one; only if there is none, a new configuration is drawn
    places       n configurations with a rung's seeds have n // 2 places on the next rung, the last of all at least one

The last line is not in the paper, whose promotions can exceed a half where later configurations are better. With it all methods
spend the same number of seeds on equally many configurations, and that number is known before.

Configurations are judged by their objective over all seeds that they have. One with a diverged seed comes after all that have
none. Everything here is a function of results, so it gives the same whenever it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

SCHEDULER: Final = "race"
"""The word of `Plan.scheduler`."""

REDUCTION: Final = 2


def rungs_of(seeds: int) -> tuple[int, ...]:
    """Numbers of seeds after each rung, up to all."""
    found, rung = [], 1
    while rung < seeds:
        found.append(rung)
        rung *= REDUCTION
    return (*found, seeds)


def rungs_of_plan(plan: Mapping[str, Any]) -> tuple[int, ...]:
    """The rungs of a race's plan as plain data.

    None of other plans. Raises ValueError if it is malformed.
    """
    if plan.get("scheduler") != SCHEDULER:
        return ()
    if len(plan["seeds"]) < REDUCTION:
        raise ValueError("it races with fewer than two seeds")
    return rungs_of(len(plan["seeds"]))


@dataclass(frozen=True)
class Result:
    """A configuration's objective over all seeds of a rung.

    Attributes:
        score: more is better; None if it has no value.
        diverged: number of seeds that diverged.
    """

    score: float | None
    diverged: float = 0.0

    @property
    def key(self) -> tuple[bool, float]:
        """Sorts by this, the best last."""
        return self.diverged == 0, float("-inf") if self.score is None else self.score


@dataclass(frozen=True)
class Entrant:
    """A configuration in a race.

    Attributes:
        number: its place among the configurations of its method.
        results: after each rung whose seeds it has, in order.
        begun: number of rungs that it was admitted to, one more than results while seeds are trained or have failed.
        failed: whether training its last seeds has failed.
    """

    number: int
    results: tuple[Result, ...] = ()
    begun: int = 1
    failed: bool = False

    def has(self, rung: int) -> bool:
        """Whether it can be judged on a rung."""
        return len(self.results) > rung and self.results[rung].score is not None

    def is_open(self, rung: int) -> bool:
        """Whether seeds of this rung are still to come."""
        return self.begun == rung + 1 > len(self.results) and not self.failed


def sizes(configurations: int, rungs: int, lost: Sequence[int] = ()) -> tuple[int, ...]:
    """Configurations that get the seeds of each rung.

    Args:
        configurations: that are drawn.
        rungs: their number.
        lost: of each rung, how many cannot be judged on it.
    """
    found = [configurations]
    for rung in range(rungs - 1):
        judged = found[-1] - (lost[rung] if lost else 0)
        found.append(max(1, judged // REDUCTION) if judged > 0 else 0)
    return tuple(found)


def due(entrants: Sequence[Entrant], configurations: int, rungs: int) -> tuple[int, ...]:
    """`sizes`, given what cannot be judged so far.

    That is what has failed, until it is tried again, and what has no objective.
    """
    lost = [
        sum(
            (each.failed and each.begun == rung + 1) or (len(each.results) > rung and not each.has(rung))
            for each in entrants
        )
        for rung in range(rungs)
    ]
    return sizes(configurations, rungs, lost)


def promoted(entrants: Sequence[Entrant], configurations: int, rungs: int) -> Entrant | None:
    """The configuration whose next seeds are due, if any.

    Args:
        entrants: those drawn so far.
        configurations: that are drawn in all.
        rungs: their number.
    """
    last = _last_places(entrants, configurations, rungs)
    for rung in reversed(range(rungs - 1)):
        judged = ranked(entrants, rung)
        places = max(last[rung], len(judged) // REDUCTION)
        if sum(each.begun > rung + 1 for each in entrants) < places:
            return next(each for each in judged if each.begun == rung + 1)
    return None


def ranked(entrants: Iterable[Entrant], rung: int) -> list[Entrant]:
    """Those that can be judged on a rung, best first.

    Of equal ones, the earlier first.
    """
    judged = [each for each in entrants if each.has(rung)]
    return sorted(judged, key=lambda each: (*(-number for number in each.results[rung].key), each.number))


def _last_places(entrants: Sequence[Entrant], configurations: int, rungs: int) -> list[int]:
    """Places on the next rung that are sure by now.

    One of each rung that nobody reaches any more and somebody has reached, otherwise none.
    """
    found: list[int] = []
    is_closed = len(entrants) == configurations
    for rung in range(rungs):
        is_closed = is_closed and not any(each.is_open(rung) for each in entrants)
        judged = sum(each.has(rung) for each in entrants)
        found.append(int(is_closed and judged > 0))
        places = max(found[-1], judged // REDUCTION)
        is_closed = is_closed and sum(each.begun > rung + 1 for each in entrants) >= places
    return found
