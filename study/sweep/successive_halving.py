"""Asynchronous successive halving, as a function of the records."""

from __future__ import annotations

REDUCTION = 3
"""Successive halving keeps one in this many trials at each rung."""


FIRST_RUNG_SHARE = 9
"""The first rung lies after this part of the task sequence: a ninth, then a third."""


class Rungs:
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), for the objective of one group's trials.

    Rungs lie after a ninth, a third and, of long sequences, further powers of three of the tasks. A trial that reaches a rung
    goes on if its objective is among the best third of all that have reached it so far, itself counted in; the first to
    arrive always goes on.
    """

    def __init__(self, task_count: int) -> None:
        self.steps: list[int] = []
        step = -(-task_count // FIRST_RUNG_SHARE)
        while step < task_count:
            self.steps.append(step)
            step *= REDUCTION
        self._reached: dict[int, dict[int, float]] = {step: {} for step in self.steps}

    def note(self, number: int, task: int, objective: float) -> None:
        """Takes down the objective of a trial at the end of a task."""
        if task + 1 in self._reached:
            self._reached[task + 1][number] = objective

    def passes(self, task: int, objective: float) -> bool:
        """Whether the trial, taken down before, goes on after this task."""
        if task + 1 not in self._reached:
            return True
        values = sorted(self._reached[task + 1].values(), reverse=True)
        kept = max(1, len(values) // REDUCTION)
        return objective >= values[kept - 1]
