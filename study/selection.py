"""Selects the best finished trials by objective, without test accuracy.

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
    groups: dict[tuple[str, str], list[tuple[float, Candidate]]] = {}
    for candidate in candidates:
        group = groups.setdefault((candidate.scenario, candidate.method), [])
        if candidate.outcome == "finished" and candidate.objective is not None:
            group.append((candidate.objective if is_maximised else -candidate.objective, candidate))
    return [
        candidate
        for group in groups.values()
        for _, candidate in sorted(group, key=lambda entry: (-entry[0], entry[1].number))[:count]
    ]
