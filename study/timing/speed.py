"""How long a trial takes here, measured on real parts.

A trial's steps are taken by `study.training.steps` on a whole task, as in training. What comes after a task is done by the
trainer itself, on tasks that are cut to one minibatch. Each kind of diagnostics is computed once and counted as often as it is
due. So the times include whatever these parts do, and nothing is guessed from sizes. As many processes measure at once as
there will be trials at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from typing import Any

import torch

from study.config import Diagnostics, TrialConfig
from study.contracts import Dataset, Experiment, Probes, Rule, Subject, Task, TaskSequence
from study.experiment import build
from study.lanes import Tensors
from study.timing.processes import MOST_PROCESSES, meet, processes, shared_datasets
from study.training.diagnostics import NetworkDiagnostics, due
from study.training.minibatches import Feed
from study.training.steps import RECORDED_AT_ONCE, Steps
from study.training.trainer import initial_state, train

SAMPLED_TASKS = 9
"""Tasks whose sizes are read: those of class pairs differ."""

WARMING_STEPS = {"cpu": 9, "cuda": 2 * RECORDED_AT_ONCE - 1}
"""Steps before the clock starts, by device.

The first ones make their tensors. On a GPU a graph is recorded for each length of `study.training.steps.in_runs`.
"""

TIMED_STEPS = 30
"""Steps of the copies of a probe that are timed."""

OPERATED_IMAGES = 20
"""Images on which an operation is timed; curvature of a convolutional network on more of them takes minutes."""

ENDLESS = 2**31
"""Passes over a task that no measurement completes."""

DIAGNOSTICS = ("units_every", "curvature_every", "forgetting_every", "onset_every")
"""The settings that switch the four kinds of diagnostics on."""

OFF = dict.fromkeys(DIAGNOSTICS, 0)


class Lanes:
    """Lanes of an experiment on a task without end.

    Each task starts from the initial weights.

    Attributes:
        experiment: whose lanes these are.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._initial = initial_state(experiment).weights
        self._steps = Steps(experiment, self._initial)

    def enter(self, index: int) -> float:
        """Starts a task, draws its first minibatch, returns the seconds."""
        began = time.perf_counter()
        self._index, self._task = index, self.experiment.tasks.task(index)
        self._feed = self._steps.feed(self._task)
        self._steps.begin(self._feed, self._initial)
        choices = self._feed.choices(self.experiment.seeds, index, self.experiment.batch_size, ENDLESS)
        self._choices = chain([next(choices)], choices)
        return time.perf_counter() - began

    def seconds(self, steps: int) -> float:
        """Seconds of that many steps, with minibatches and online measures."""
        began = time.perf_counter()
        tally = self._steps.advance(self._feed, islice(self._choices, steps))
        tally.hits.tolist()  # waits for the device
        return time.perf_counter() - began

    def trained(self, tasks: int) -> Tensors:
        """Parameters [lane, ...] after the first tasks.

        Enters the last of these tasks.
        """
        weights = self._initial
        for index in range(tasks):
            self.enter(index)
            weights = self._steps.train(self._feed, index, weights).weights
        return weights.params

    def subject(self) -> Subject:
        """The initial networks on this task, for an operation."""
        experiment = self.experiment
        feed = Feed(experiment.dataset, self._task, experiment.device)
        sample = feed.sample(experiment.seeds, experiment.diagnostics.images)
        return Subject(experiment.model, self._initial.params, experiment.seeds, self._index, *sample)

    def diagnostics_seconds(self, kind: str, params: Tensors | None = None, repeats: int = 1) -> float:
        """Seconds that one kind of diagnostics takes on this task.

        Args:
            kind: one of `DIAGNOSTICS`. For "forgetting_every" the seconds are those of one task that is evaluated again.
            params: that are diagnosed, [lane, ...]; None: the initial ones.
            repeats: how often; the last counts, the first also makes what later ones share.
        """
        experiment = self.experiment
        params = self._initial.params if params is None else params
        only = experiment.diagnostics.model_copy(update={**OFF, kind: 1})
        diagnosis = NetworkDiagnostics(replace(experiment, diagnostics=only), self._steps)
        for _ in range(repeats):
            began = time.perf_counter()
            diagnosis.before(self._index, self._feed, params)
            diagnosis.after(self._index, self._task, self._feed, params)
            seconds = time.perf_counter() - began
        return seconds / (self._index + 1) if kind == "forgetting_every" else seconds


def lanes_of(
    dataset: Dataset, method: str, count: int, widths: tuple[int, ...], batch_size: int, device: str, **sections: Any
) -> Lanes:
    """Lanes of a method of the paper, on a task.

    Args:
        dataset: on the CPU.
        method: "sgd", "sam" or "gnp", with the paper's sharpness settings, which are the defaults.
        count: of lanes.
        widths: of the hidden layers.
        batch_size: images in a minibatch of each lane.
        device: "cpu" or "cuda".
        sections: of the configuration, instead of those here.
    """
    plain = {
        "data": {"name": dataset.name},
        "tasks": {"name": "permuted_pixels", "count": 1},
        "model": {"name": "mlp", "widths": list(widths)},
        "optimizer": {"name": method, "lr": 0.01},
        "training": {"batch_size": batch_size, "device": device},
        "seeds": list(range(count)),
    }
    return entered(build(TrialConfig.from_plain(plain | sections), dataset))


def entered(experiment: Experiment) -> Lanes:
    """Lanes of an experiment on its first task."""
    lanes = Lanes(experiment)
    lanes.enter(0)
    return lanes


def diagnostics_count(tasks: int, diagnostics: Diagnostics, kind: str) -> int:
    """How often a trial computes one kind of diagnostics.

    For "forgetting_every" each task that is evaluated again counts: after task i they are i + 1, the first one twice.
    """
    indices = due(tasks, getattr(diagnostics, kind))
    return sum(index + 1 for index in indices) if kind == "forgetting_every" else len(indices)


@dataclass(frozen=True)
class Timing:
    """How long training and evaluation of a configuration take.

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
class FirstMinibatches:
    """A task sequence with only the first training images."""

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
        """The task with few training images and all others."""
        task = self.whole.task(index)
        return replace(task, train=task.train[:, : self.images])


def timed(config: TrialConfig, dataset: Dataset, seconds: float) -> Timing:
    """Measures a configuration in this process.

    Args:
        config: complete or not.
        dataset: the one that it names, or one of its shape, on the CPU.
        seconds: for the steps, about; what comes once a task is added.

    Raises:
        StudyError: the configuration cannot be trained here, see `study.experiment.build`.
    """
    experiment = build(config, dataset)
    count, batch_size = experiment.tasks.count, experiment.batch_size
    sampled = sorted({k * count // SAMPLED_TASKS for k in range(SAMPLED_TASKS)})
    sizes = [experiment.tasks.task(index).train.shape[1] for index in sampled]

    lanes, warming = Lanes(experiment), WARMING_STEPS[experiment.device]
    for index in (0, min(1, count - 1)):  # the second task finds what the first has made, as later ones do
        setup = lanes.enter(index)
        lanes.seconds(warming)
    done, taken, ahead = 0, 0.0, warming
    while taken < seconds:
        taken += lanes.seconds(ahead)
        done += ahead
        ahead = max(1, min(4 * ahead, int(done / taken * (seconds - taken))))

    diagnostics = 0.0  # of all tasks
    for kind in DIAGNOSTICS:
        if times := diagnostics_count(count, experiment.diagnostics, kind):
            diagnostics += times * lanes.diagnostics_seconds(kind)
    without = experiment.diagnostics.model_copy(update=OFF)
    first = FirstMinibatches(experiment.tasks, batch_size)
    results = train(replace(experiment, tasks=first, diagnostics=without, probes=None))
    for _ in range(min(2, count)):
        began = time.perf_counter()
        result = next(results)
        evaluation = time.perf_counter() - began - result.training_seconds
    steps = experiment.passes * sum(-(-size // batch_size) for size in sizes) / len(sizes)
    probes = 0.0 if experiment.probes is None else probes_seconds(lanes, experiment.probes, steps, setup + evaluation)
    return Timing(
        tasks=count,
        images=sum(sizes) / len(sizes),
        steps=steps,
        setup=setup,
        step=taken / done,
        evaluation=evaluation + (diagnostics + probes) / count,
    )


def probes_seconds(lanes: Lanes, probes: Probes, steps: float, around: float) -> float:
    """Seconds of all probes of a trial.

    Each operation acts once, on the initial networks, and the copies of each kind take some steps. Operations are timed on few
    images; on more of them they take longer in proportion to the measures at an onset, most of which is curvature as well.

    Args:
        lanes: of the trial, on a task.
        probes: of the trial.
        steps: of a task.
        around: seconds before the first step on a task and after the last.
    """
    onset, longer = lanes.diagnostics_seconds("onset_every"), 1.0
    diagnostics, few = lanes.experiment.diagnostics, lanes
    if diagnostics.images > OPERATED_IMAGES:
        fewer = diagnostics.model_copy(update={"images": OPERATED_IMAGES})
        few = entered(replace(lanes.experiment, diagnostics=fewer, probes=None))
        longer = onset / few.diagnostics_seconds("onset_every")
    subject, operating, layerwise = few.subject(), 0.0, 0
    for _, operation in probes.operations:
        began = time.perf_counter()
        layerwise += operation.operate(subject).rates is not None
        operating += longer * (time.perf_counter() - began)

    def copy(rules: Mapping[float, Rule]) -> float:
        """Seconds of training copies with each of the rules."""
        rule = next(iter(rules.values()))
        copies = entered(replace(lanes.experiment, rule=rule, interventions=(), probes=None))
        copies.seconds(WARMING_STEPS[copies.experiment.device])
        return len(rules) * (around + steps * copies.seconds(TIMED_STEPS) / TIMED_STEPS)

    networks = 1 + len(probes.operations)
    measuring = networks * onset
    training = networks * copy(probes.rules) + (layerwise * copy(probes.layerwise) if layerwise else 0.0)
    return len(probes.boundaries) * (operating + measuring + training)


def measured(
    configs: Sequence[TrialConfig],
    names: Sequence[str],
    datasets: Mapping[str, Dataset],
    *,
    trials_at_once: int,
    threads: int,
    seconds: float,
) -> list[Timing]:
    """Timings of configurations, with parallel trials as in a sweep.

    Args:
        configs: to be timed.
        names: of the data set of each.
        datasets: by name, on the CPU.
        trials_at_once: how many processes measure, at most `MOST_PROCESSES`.
        threads: of each process.
        seconds: for all of them together, about.

    Raises:
        StudyError: a configuration cannot be trained here, or the processes die.
    """
    count = min(trials_at_once, MOST_PROCESSES)
    repeats = -(-count // len(configs))  # so that no process is idle while others measure
    rounds = -(-len(configs) * repeats // count)
    with processes([count], datasets) as run:
        run(meet, [count] * count)
        timings = run(_timed, [*configs] * repeats, [*names] * repeats, repeat(seconds / rounds), repeat(threads))
    return [_mean(timings[place :: len(configs)]) for place in range(len(configs))]


def _timed(config: TrialConfig, name: str, seconds: float, threads: int) -> Timing:
    torch.set_num_threads(threads)
    return timed(config, shared_datasets[name], seconds)


def _mean(timings: Sequence[Timing]) -> Timing:
    """The same configuration's timings by several processes, as one."""
    many = len(timings)
    return replace(
        timings[0],
        setup=sum(timing.setup for timing in timings) / many,
        step=sum(timing.step for timing in timings) / many,
        evaluation=sum(timing.evaluation for timing in timings) / many,
    )
