"""Selects trials by objective, without test accuracy.

The best ones, and the incumbents: those that were the best so far.

A selection cannot read test accuracy, because a `Candidate` does not have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """The fields of a trial that a selection reads.

    Attributes:
        trial: key of the trial.
        number: its place among the trials of its scenario and method.
        scenario, method: the group in which it competes.
        outcome: only a "finished" trial can win.
        objective: what the search optimised; None if it has none, as without held-out images.
    """

    trial: str
    number: int
    scenario: str
    method: str
    outcome: str
    objective: float | None


def best(candidates: Sequence[Candidate], count: int = 1, *, is_maximised: bool = True) -> list[Candidate]:
    """The finished candidates with the best objective of each group.

    Args:
        candidates: in any order.
        count: the largest number of winners of each scenario and method.
        is_maximised: whether the highest objective is the best, or the lowest.

    Returns:
        The winners of each group, best first; ties go to the earlier trial. Groups are in the order of their first candidate,
        finished or not. Empty if no finished candidate has an objective.
    """
    return [
        candidate
        for group in _scored(candidates, is_maximised)
        for _, candidate in sorted(group, key=lambda entry: (-entry[0], entry[1].number))[:count]
    ]


def incumbents(candidates: Sequence[Candidate], *, is_maximised: bool = True) -> list[Candidate]:
    """The finished candidates that were their group's best so far.

    The t-th trial is an incumbent if its objective is better than that of each earlier one. Of T trials in random order,
    H_T = 1 + 1/2 + ... + 1/T are expected, 4.5 of 50 (Renyi 1962); of a search that improves, more.

    Args:
        candidates: in any order; those that have not finished, or have no objective, are passed over.
        is_maximised: as in `best`.

    Returns:
        The incumbents of each group in order of their numbers; the last is its `best`. Groups are in the order of `best`.
    """
    found = []
    for group in _scored(candidates, is_maximised):
        highest: float | None = None
        for score, candidate in sorted(group, key=lambda entry: entry[1].number):
            if highest is None or score > highest:
                highest = score
                found.append(candidate)
    return found


def _scored(candidates: Sequence[Candidate], is_maximised: bool) -> list[list[tuple[float, Candidate]]]:
    """Each group's finished candidates, and scores of which more is better."""
    groups: dict[tuple[str, str], list[tuple[float, Candidate]]] = {}
    for candidate in candidates:
        group = groups.setdefault((candidate.scenario, candidate.method), [])
        if candidate.outcome == "finished" and candidate.objective is not None:
            group.append((candidate.objective if is_maximised else -candidate.objective, candidate))
    return list(groups.values())
