"""How long a trial takes here: the parts of a trial at work for a moment, timed, by as many processes as there will be trials.

A trial's steps are taken by `study.training.steps` on a whole task, as in training, and what comes after a task is done by the
trainer itself, on tasks that are cut to one minibatch; each kind of look into the network is taken once and counted as often
as it is due. So whatever they do is in the times, and nothing is guessed from sizes.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.synchronize import Barrier
from typing import Any

import torch

from study.config import TrialConfig
from study.contracts import Dataset, Experiment, Task, TaskSequence
from study.errors import StudyError
from study.experiment import build
from study.lanes import Tensors
from study.training.diagnostics import Diagnosis, due
from study.training.minibatches import Feed
from study.training.steps import Steps, Weights
from study.training.trainer import initial_state, train

MOST_PROCESSES = 8
"""So many trials at once are tried at most; their processes take seconds to start."""

START_SECONDS = 120.0
"""How long the processes may take to start."""

SAMPLED_TASKS = 9
"""Tasks whose sizes are looked at: those of class pairs differ."""

WARMING_STEPS = 8
"""Steps before the clock starts: the first ones make their tensors, and on a GPU a graph is recorded."""

OFF = {"units_every": 0, "curvature_every": 0, "forgetting_every": 0}


ENDLESS = 2**31
"""Passes that no measurement gets to the end of."""


@dataclass(frozen=True)
class Timing:
    """How long a configuration trains and evaluates.

    Attributes:
        tasks: number of tasks.
        images: training images of a task, in one lane, on average.
        steps: steps on a task, all passes together, on average.
        setup: seconds before the first step on a task.
        step: seconds of a step, all lanes together.
        evaluation: seconds of all that comes after the steps on a task.
    """

    tasks: int
    images: float
    steps: float
    setup: float
    step: float
    evaluation: float

    @property
    def trial(self) -> float:
        """Seconds of training and evaluation over all tasks."""
        return self.tasks * (self.setup + self.steps * self.step + self.evaluation)


@dataclass(frozen=True)
class Job:
    """A configuration to be timed, with the name of its data set and about how many seconds to give it."""

    config: TrialConfig
    dataset: str
    seconds: float


@dataclass(frozen=True)
class FirstMinibatches:
    """A task sequence of which each task has only its first images to train on."""

    whole: TaskSequence
    images: int

    @property
    def count(self) -> int:
        """Number of tasks."""
        return min(2, self.whole.count)

    @property
    def output_count(self) -> int:
        """As of the whole sequence."""
        return self.whole.output_count

    @property
    def has_validation(self) -> bool:
        """As of the whole sequence."""
        return self.whole.has_validation

    def task(self, index: int) -> Task:
        """The task with few training images, and all others."""
        task = self.whole.task(index)
        return replace(task, train=task.train[:, : self.images])


def timed(config: TrialConfig, dataset: Dataset, seconds: float) -> Timing:
    """Trains and evaluates in this process for about so long.

    Args:
        config: complete or not.
        dataset: the one that it names, or one of its shape, on the CPU.
        seconds: for the steps; what comes once a task is added.

    Raises:
        StudyError: the configuration cannot be trained here, see `study.experiment.build`.
    """
    experiment = build(config, dataset)
    count = experiment.tasks.count
    tasks = [
        experiment.tasks.task(index) for index in sorted({k * count // SAMPLED_TASKS for k in range(SAMPLED_TASKS)})
    ]
    sizes = [task.train.shape[1] for task in tasks]

    state = initial_state(experiment)
    steps = Steps(experiment, state.params, state.memory)
    for index in (0, min(1, count - 1)):  # the second task finds what the first has made, as later ones do
        began = time.perf_counter()
        feed = steps.feed(experiment.tasks.task(index))
        steps.begin(feed, Weights(state.params, state.memory, state.intervention_states))
        choices = feed.choices(experiment.seeds, index, experiment.batch_size, ENDLESS)
        first = [next(choices)]
        setup = time.perf_counter() - began
        steps.advance(feed, [*first, *islice(choices, WARMING_STEPS)]).hits.tolist()  # waits for the device
    done, taken, ahead = 0, 0.0, WARMING_STEPS
    while taken < seconds:
        began = time.perf_counter()
        steps.advance(feed, islice(choices, ahead)).hits.tolist()
        done, taken = done + ahead, taken + time.perf_counter() - began
        ahead = max(1, min(4 * ahead, int(done / taken * (seconds - taken))))

    looks = _diagnostics(experiment, steps, feed, state.params)
    results = train(
        replace(
            experiment,
            tasks=FirstMinibatches(experiment.tasks, experiment.batch_size),
            diagnostics=experiment.diagnostics.model_copy(update=OFF),
        )
    )
    for _ in range(min(2, count)):
        began = time.perf_counter()
        result = next(results)
        evaluation = time.perf_counter() - began - result.training_seconds
    return Timing(
        tasks=count,
        images=sum(sizes) / len(sizes),
        steps=experiment.passes * sum(-(-size // experiment.batch_size) for size in sizes) / len(sizes),
        setup=setup,
        step=taken / done,
        evaluation=evaluation + looks,
    )


def _diagnostics(experiment: Experiment, steps: Steps, feed: Feed, params: Tensors) -> float:
    """Seconds of the diagnostics, averaged over all tasks: each look is taken once, after the second task."""
    index, seconds = min(1, experiment.tasks.count - 1), 0.0
    for name in ("units_every", "curvature_every", "forgetting_every"):
        looks = due(experiment.tasks.count, getattr(experiment.diagnostics, name))
        if not looks:
            continue
        only = experiment.diagnostics.model_copy(update={**OFF, name: 1})
        diagnosis = Diagnosis(replace(experiment, diagnostics=only), steps)
        began = time.perf_counter()
        diagnosis.after(index, experiment.tasks.task(index), feed, params)
        taken = time.perf_counter() - began
        asked = sum(look + 1 for look in looks) / (index + 1) if name == "forgetting_every" else len(looks)
        seconds += taken * asked  # a look at what is forgotten asks for all tasks so far
    return seconds / experiment.tasks.count


def measured(
    configs: Sequence[TrialConfig],
    names: Sequence[str],
    datasets: Mapping[str, Dataset],
    *,
    trials_at_once: int,
    threads: int,
    seconds: float,
) -> list[Timing]:
    """The timings of some configurations, taken while as many train at once as in the sweep.

    Args:
        configs: to be timed.
        names: of the data set of each.
        datasets: by name, on the CPU.
        trials_at_once: so many processes, see `MOST_PROCESSES`.
        threads: of each.
        seconds: for all of them together, about.

    Raises:
        StudyError: one of them cannot be trained here, or the processes die.
    """
    processes = min(trials_at_once, MOST_PROCESSES)
    repeats = -(-processes // len(configs))  # a pool starts no more processes than it has jobs, and all are waited for
    rounds = -(-len(configs) * repeats // processes)
    jobs = [Job(config, name, seconds / rounds) for config, name in zip(configs, names, strict=True)]
    context = multiprocessing.get_context("spawn")
    start = (threads, context.Barrier(processes), dict(datasets))
    pool = ProcessPoolExecutor(processes, context, _begin, start)
    try:
        found = list(pool.map(_run, jobs * repeats))
    except BrokenProcessPool:
        raise StudyError("The processes that were to measure the speed of training died.") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return [_mean(found[place :: len(jobs)]) for place in range(len(jobs))]


def _mean(timings: Sequence[Timing]) -> Timing:
    """The same configuration's timings by several processes, as one."""
    many = len(timings)
    return replace(
        timings[0],
        setup=sum(timing.setup for timing in timings) / many,
        step=sum(timing.step for timing in timings) / many,
        evaluation=sum(timing.evaluation for timing in timings) / many,
    )


_datasets: dict[str, Dataset] = {}
"""Of a process that measures."""


def _begin(threads: int, barrier: Barrier, datasets: dict[str, Dataset]) -> None:
    """What a process does first: it waits for the others, so that all measure at the same time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that has started this one
    torch.set_num_threads(threads)
    _datasets.update(datasets)
    barrier.wait(START_SECONDS)


def _run(job: Job) -> Timing:
    return timed(job.config, _datasets[job.dataset], job.seconds)


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
        experiment = build(config, dataset)
        state = initial_state(experiment)
        self._steps = Steps(experiment, state.params, state.memory)
        self._feed = self._steps.feed(experiment.tasks.task(0))
        self._steps.begin(self._feed, Weights(state.params, state.memory, state.intervention_states))
        self._choices = self._feed.choices(experiment.seeds, 0, batch_size, ENDLESS)

    def seconds(self, steps: int) -> float:
        """Time of so many steps with their minibatches and online measures."""
        began = time.perf_counter()
        tally = self._steps.advance(self._feed, islice(self._choices, steps))
        tally.hits.tolist()  # waits for the device
        return time.perf_counter() - began
