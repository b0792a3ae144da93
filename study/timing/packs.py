"""What a pack of trials costs, against one trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from study.contracts import Dataset
from study.timing import speed
from study.timing.bench import METHODS, best_rates

WIDTHS, BATCH_SIZE = (100, 100), 16
"""The paper's setting."""

SEEDS = 3
"""Seeds of each trial, as in a search."""

TRIALS = (1, 2, 5, 10, 20, 40)
"""Numbers of trials in a pack."""

HARDLY_MORE = 1.35
"""A pack whose step takes up to so many times that of one trial is worthwhile on a GPU."""


@dataclass(frozen=True)
class Cost:
    """A step of a pack, timed.

    Attributes:
        method: "sgd", "sam" or "gnp".
        trials: in the pack, of `SEEDS` seeds each.
        seconds: of a step of all lanes.
        ratio: to a step of one trial of the method.
    """

    method: str
    trials: int
    seconds: float
    ratio: float

    @property
    def lanes(self) -> int:
        """Lanes of the pack."""
        return self.trials * SEEDS

    @property
    def gain(self) -> float:
        """How many times faster than its trials one by one."""
        return self.trials / self.ratio


def measured(dataset: Dataset, device: str, seconds: float) -> list[Cost]:
    """The cost of packs of several sizes.

    Args:
        dataset: on the CPU.
        device: "cpu" or "cuda".
        seconds: for each method, size and round, about.
    """
    timed = {
        (name, trials): speed.lanes_of(dataset, name, trials * SEEDS, WIDTHS, BATCH_SIZE, device).seconds
        for name in METHODS
        for trials in TRIALS
    }
    steps = best_rates(timed, seconds)
    return costs({key: 1 / rate for key, rate in steps.items()})


def costs(seconds: Mapping[tuple[str, int], float]) -> list[Cost]:
    """Costs from seconds of a step by method and trials."""
    return [Cost(name, trials, taken, taken / seconds[name, 1]) for (name, trials), taken in seconds.items()]


def worthwhile(pack_costs: list[Cost]) -> int:
    """Trials of the largest pack that costs hardly more.

    At most `HARDLY_MORE` times one trial, with every method.
    """
    dear = [cost.trials for cost in pack_costs if cost.ratio > HARDLY_MORE]
    return max(cost.trials for cost in pack_costs if cost.trials < min(dear, default=cost.trials + 1))
