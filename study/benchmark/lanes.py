"""The study's own training, timed: lanes on permuted pixels, as in a trial."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

from study import experiment
from study.config import TrialConfig
from study.contracts import Dataset
from study.steps import Steps, Weights
from study.trainer import initial_state

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd"},
    "sam": {"name": "sam", "rho": 0.05},
    "gnp": {"name": "gnp", "lambda": 0.1, "r": 0.05},
}
"""The paper's methods."""

ENDLESS = 2**31
"""Passes that no measurement gets to the end of."""


class Lanes:
    """Some lanes in the middle of a task that never ends."""

    def __init__(
        self, dataset: Dataset, method: str, lanes: int, widths: tuple[int, ...], batch_size: int, device: str
    ) -> None:
        config = TrialConfig.from_plain(
            {
                "data": {"name": dataset.name},
                "tasks": {"name": "permuted_pixels", "count": 1},
                "model": {"name": "mlp", "widths": list(widths)},
                "optimizer": OPTIMIZERS[method] | {"lr": 0.01},
                "training": {"batch_size": batch_size, "device": device},
                "seeds": list(range(lanes)),
            }
        )
        plan = experiment.build(config, dataset)
        state = initial_state(plan)
        self._steps = Steps(plan, state.params, state.memory)
        self._feed = self._steps.feed(plan.tasks.task(0))
        self._steps.begin(self._feed, Weights(state.params, state.memory, state.intervention_states))
        self._choices = self._feed.choices(plan.seeds, 0, batch_size, ENDLESS)

    def seconds(self, steps: int) -> float:
        """Time of so many steps with their minibatches and online measures."""
        began = time.perf_counter()
        tally = self._steps.advance(self._feed, islice(self._choices, steps))
        tally.hits.tolist()  # waits for the device
        return time.perf_counter() - began
