"""Trials side by side, and how each slows the others."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import repeat

import torch

from study.contracts import Dataset
from study.timing import processes, speed

WIDTHS, BATCH_SIZE = (100, 100), 16
"""The paper's setting."""

ON_A_GPU = (1, 2, 4)
"""Numbers of trials at once on a GPU."""

PROBING_STEPS = 20
"""Steps before the clock starts; also the least number of steps."""


@dataclass(frozen=True)
class Division:
    """Trials at once with some threads each, timed.

    Attributes:
        trials, threads: of each trial.
        images_per_second: of each trial, over its lanes, while all of them run.
    """

    trials: int
    threads: int
    images_per_second: tuple[float, ...]

    @property
    def total(self) -> float:
        """Images a second of all trials together."""
        return sum(self.images_per_second)


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def divisions(dataset: Dataset, lane_count: int, device: str, seconds: float) -> list[Division]:
    """Times SGD in the paper's setting, several trials at once.

    On a CPU: one trial with one thread, one with all threads, and one trial for each CPU.

    Args:
        dataset: on the CPU.
        lane_count: seeds of each trial.
        device: "cpu" or "cuda"; on a GPU a few trials share it.
        seconds: how long they run, about.

    Raises:
        StudyError: the processes die.
    """
    if device == "cuda":
        ways = [(trials, 1) for trials in ON_A_GPU]
    else:
        cpus = usable_cpus()
        ways = sorted({(1, 1), (1, cpus), (cpus, 1)})
    probe = _lanes(dataset, lane_count, device)
    probe.seconds(PROBING_STEPS)
    steps = max(PROBING_STEPS, round(PROBING_STEPS * seconds / probe.seconds(PROBING_STEPS)))
    with processes.processes({trials for trials, _ in ways}, {"it": dataset}) as run:
        return [
            Division(
                trials,
                threads,
                tuple(run(_rate, [trials] * trials, *map(repeat, (threads, lane_count, device, steps)))),
            )
            for trials, threads in ways
        ]


def _lanes(dataset: Dataset, lane_count: int, device: str) -> speed.Lanes:
    return speed.lanes_of(dataset, "sgd", lane_count, WIDTHS, BATCH_SIZE, device)


def _rate(trials: int, threads: int, lane_count: int, device: str, steps: int) -> float:
    """Images a second of one trial; all start together."""
    torch.set_num_threads(threads)
    lanes = _lanes(processes.shared_datasets["it"], lane_count, device)
    lanes.seconds(PROBING_STEPS)
    processes.meet(trials)
    return steps * lane_count * BATCH_SIZE / lanes.seconds(steps)
