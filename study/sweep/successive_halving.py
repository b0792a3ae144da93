"""Asynchronous successive halving as a function of the records."""

from __future__ import annotations

REDUCTION = 3
"""Each rung keeps one in this many trials."""

FIRST_RUNG_SHARE = 9
"""The first rung is after one ninth of the tasks, the next after a third."""


class Rungs:
    """The rungs of asynchronous successive halving for one group.

    Li et al. 2020, arXiv 1810.05934. The first rung is after ceil(tasks / 9) tasks, and each further one after three times as
    many, as long as that is less than all: a ninth, a third. A trial that reaches a rung continues if its objective is in the
    best third of all trials that have reached the rung so far, itself included. The first to arrive always continues.
    """

    def __init__(self, task_count: int) -> None:
        self.steps: list[int] = []
        step = -(-task_count // FIRST_RUNG_SHARE)
        while step < task_count:
            self.steps.append(step)
            step *= REDUCTION
        self._reached: dict[int, dict[int, float]] = {step: {} for step in self.steps}

    def note(self, number: int, task: int, objective: float) -> None:
        """Notes the objective of a trial after a task."""
        if task + 1 in self._reached:
            self._reached[task + 1][number] = objective

    def passes(self, task: int, objective: float) -> bool:
        """Whether a trial with this objective continues after the task.

        Its objective must have been noted before.
        """
        if task + 1 not in self._reached:
            return True
        values = sorted(self._reached[task + 1].values(), reverse=True)
        kept = max(1, len(values) // REDUCTION)
        return objective >= values[kept - 1]
