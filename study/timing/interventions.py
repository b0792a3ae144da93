"""What an intervention costs in each step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from study import parts
from study.contracts import Dataset
from study.timing import speed
from study.timing.bench import ROUNDS, best_rates

WIDTHS, BATCH_SIZE, LANES = (100, 100), 16, 10
"""The paper's setting."""

METHODS = ("sgd", "sam")

SHORTER = 20
"""Rounds are so many times as short and as many as elsewhere, since ratios near 1 are told apart here."""


@dataclass(frozen=True)
class Cost:
    """A step with an intervention, timed.

    Attributes:
        intervention: its name, with its default settings; None: a step without any.
        method: "sgd" or "sam".
        seconds: of a step of all lanes.
        ratio: to a step of the method without intervention.
        in_steps: whether it acts within the steps; otherwise only between tasks, and the ratio should be 1.
    """

    intervention: str | None
    method: str
    seconds: float
    ratio: float
    in_steps: bool


def measured(dataset: Dataset, device: str, seconds: float) -> list[Cost]:
    """The cost of every intervention there is, plain steps first.

    What is done once a task is not part of it. On one thread of a CPU it is processor time, which leaves out the turns of other
    programs.

    Args:
        dataset: on the CPU.
        device: "cpu" or "cuda".
        seconds: for each intervention, method and round, about.
    """
    names = (None, *parts.names("interventions"))
    lanes = {
        (name, method): speed.lanes_of(
            dataset, method, LANES, WIDTHS, BATCH_SIZE, device, interventions={name: {}} if name else {}
        )
        for name in names
        for method in METHODS
    }
    timed = {key: _clock(each, device) for key, each in lanes.items()}
    rates = best_rates(timed, seconds / SHORTER, ROUNDS * SHORTER)
    return [
        Cost(
            name,
            method,
            1 / rate,
            rates[None, method] / rate,
            any(acting.acts_in_steps for acting in lanes[name, method].experiment.interventions),
        )
        for (name, method), rate in rates.items()
    ]


def _clock(lanes: speed.Lanes, device: str) -> Callable[[int], float]:
    """A function that takes so many steps and returns their seconds."""

    def processor_seconds(steps: int) -> float:
        began = time.process_time()
        lanes.seconds(steps)
        return time.process_time() - began

    return processor_seconds if device == "cpu" and torch.get_num_threads() == 1 else lanes.seconds
