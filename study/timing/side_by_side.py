"""Trials side by side on one machine: what each loses to the others, and how many it pays to run at once."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

import torch

from study.contracts import Dataset
from study.timing import speed

WIDTHS, BATCH_SIZE = (100, 100), 16
"""The paper's setting."""

ON_A_GPU = (1, 2, 4)
"""How many trials at once are tried on a GPU."""


@dataclass(frozen=True)
class Division:
    """So many trials at once with so many threads each, timed.

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
    """SGD in the paper's setting: one trial by itself, one with all threads, and as many at once as there are CPUs.

    Args:
        dataset: on the CPU.
        lane_count: seeds of each trial.
        device: "cpu" or "cuda"; on a GPU a few trials share it.
        seconds: how long they run, about.
    """
    if device == "cuda":
        ways = [(trials, 1) for trials in ON_A_GPU]
    else:
        cpus = usable_cpus()
        ways = sorted({(1, 1), (1, cpus), (cpus, 1)})
    steps = _steps(dataset, lane_count, device, seconds)
    return [Division(n, threads, _together(dataset, lane_count, device, n, threads, steps)) for n, threads in ways]


def _steps(dataset: Dataset, lane_count: int, device: str, seconds: float) -> int:
    probe, trial = 20, speed.Lanes(dataset, "sgd", lane_count, WIDTHS, BATCH_SIZE, device)
    trial.seconds(probe)
    return max(probe, round(probe * seconds / trial.seconds(probe)))


def _together(
    dataset: Dataset, lane_count: int, device: str, trials: int, threads: int, steps: int
) -> tuple[float, ...]:
    """Images a second of trials that start at once, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(trials), context.SimpleQueue()
    processes = [
        context.Process(target=_one, args=(dataset, lane_count, device, threads, steps, barrier, rates))
        for _ in range(trials)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError(
            f"one of {trials} trials at once ended with exit code {max(p.exitcode or 0 for p in processes)}"
        )
    return tuple(rates.get() for _ in processes)


def _one(
    dataset: Dataset,
    lane_count: int,
    device: str,
    threads: int,
    steps: int,
    barrier: Barrier,
    rates: multiprocessing.SimpleQueue[float],
) -> None:
    torch.set_num_threads(threads)
    trial = speed.Lanes(dataset, "sgd", lane_count, WIDTHS, BATCH_SIZE, device)
    trial.seconds(20)
    barrier.wait()
    taken = trial.seconds(steps)
    rates.put(steps * lane_count * BATCH_SIZE / taken)
