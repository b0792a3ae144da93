"""How long a plan takes and what it costs.

The estimate follows from the time that a trial of each kind takes here. It is an upper bound for the trials themselves: a trial
that `asha` stops early costs less. A race has as many trials of each kind as it says, if none fails. Settings that only change
numbers, such as a learning rate, make no new kind of trial. Settings that change the work, such as a batch size, do; where a
sampler draws them, the estimate is a range.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

from study.config import Flat, TrialConfig
from study.decision import halving
from study.sweep.execution import Execution
from study.sweep.plan import Group, Plan, completed, ends
from study.timing.speed import Timing

SECONDS_PER_HOUR = 3600

MOST_CORNERS = 16
"""The most combinations of extreme values that are estimated.

Beyond this number, each setting is varied by itself.
"""


@dataclass(frozen=True)
class Range:
    """A least and a largest value."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Range:
        """The range of some values."""
        return cls(min(values), max(values))

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> Range:
        return Range(self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Row:
    """The trials of one method in one scenario.

    Attributes:
        scenario, method: their names.
        trials: their number.
        tasks: of each trial.
        images: training images of a task, in one lane.
        passes: over these images.
        trial: seconds of training and evaluation of one trial, in its pack: all lanes of the pack together.
        total: seconds of all these trials, one pack after the other.
    """

    scenario: str
    method: str
    trials: int
    tasks: int
    images: Range
    passes: Range
    trial: Range
    total: Range


@dataclass(frozen=True)
class Estimate:
    """How long a sweep takes.

    Attributes:
        rows: one for each method in each scenario.
        workers: how many packs of trials run at the same time.
        pack: most trials in a pack.
        cpus, gpus: of each worker.
    """

    rows: tuple[Row, ...]
    workers: int
    pack: int
    cpus: float
    gpus: float

    @property
    def work(self) -> Range:
        """Seconds of all trials, one pack after the other."""
        return sum((row.total for row in self.rows), Range(0.0, 0.0))

    @property
    def duration(self) -> Range:
        """Seconds from start to end.

        Never less than those of the longest trial.
        """
        shared = self.work * (1 / self.workers)
        return Range(
            max(shared.low, *(row.trial.low for row in self.rows)),
            max(shared.high, *(row.trial.high for row in self.rows)),
        )

    @property
    def cpu_hours(self) -> Range:
        """Hours of CPUs that the workers hold."""
        return self.work * (self.cpus / SECONDS_PER_HOUR)

    @property
    def gpu_hours(self) -> Range:
        """Hours of GPUs that the workers hold."""
        return self.work * (self.gpus / SECONDS_PER_HOUR)

    def price(self, per_hour: float) -> Range:
        """The cost, if all machines together cost `per_hour`."""
        return self.duration * (per_hour / SECONDS_PER_HOUR)


def kind(config: TrialConfig) -> str:
    """A key, equal for configurations that take equally long.

    Of the numbers of optimizers and interventions it only tells 0 from others, since that switches parts of a step on.
    """
    plain = config.plain() | {"seeds": len(config.seeds)}
    for section in ("optimizer", "interventions"):
        plain[section] = _without_numbers(plain[section])
    return json.dumps(plain, sort_keys=True)


def _without_numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_numbers(inner) for name, inner in value.items()}
    return value != 0 if isinstance(value, float) else value


def listed(plan: Plan, group: Group, rung: int = 0) -> list[list[TrialConfig]]:
    """Configurations of each kind, for each point within the budget.

    It is a single one for a point that leaves no setting to be drawn. They have the seeds of a rung, if the plan is a race.
    """
    return [_kinds_of(plan, group, point, rung) for point in group.points[: group.trials]]


def corners(plan: Plan, group: Group, rung: int = 0) -> list[TrialConfig]:
    """Configurations of each kind that the sampler may draw.

    They are at the ends of all ranges. Empty if the sampler draws nothing.
    """
    if group.trials <= len(group.points) or not group.distributions:
        return []
    return _kinds_of(plan, group, {}, rung)


def _kinds_of(plan: Plan, group: Group, point: Flat, rung: int) -> list[TrialConfig]:
    """Configurations of each kind with a point's settings.

    The other settings are at the ends of their ranges.
    """
    if group.drawn().keys() <= point.keys():
        return [plan.trial_config(group, point, rung)]
    values: dict[str, list[Any]] = {}
    for end in ends(group):
        for name, value in end.items():
            values.setdefault(name, [])
            if name not in point and value not in values[name]:
                values[name].append(value)
    values = {name: extremes for name, extremes in values.items() if extremes}
    lowest = {**point, **{name: extremes[0] for name, extremes in values.items()}}
    alone = {name: {kind(plan.trial_config(group, lowest | {name: v}, rung)) for v in values[name]} for name in values}
    deciding = {name: values[name] for name in values if len(alone[name]) > 1}
    crossed: list[Flat] = [dict(zip(deciding, choice, strict=True)) for choice in product(*deciding.values())]
    drawn = [lowest | choice for choice in crossed] if len(crossed) <= MOST_CORNERS else completed(group, point)
    return list({kind(config): config for config in (plan.trial_config(group, draw, rung) for draw in drawn)}.values())


def kinds(plan: Plan) -> dict[str, TrialConfig]:
    """A configuration of each kind that the plan tries."""
    configs: dict[str, TrialConfig] = {}
    for group in plan.groups:
        for config in _all_kinds(plan, group):
            configs.setdefault(kind(config), config)
    return configs


def _all_kinds(plan: Plan, group: Group) -> list[TrialConfig]:
    """Configurations of each kind that a group tries, on each rung."""
    return [
        config
        for rung in range(len(plan.rungs))
        for config in chain(*listed(plan, group, rung), corners(plan, group, rung))
    ]


def estimate(plan: Plan, execution: Execution, workers: int, timing_of: Callable[[TrialConfig], Timing]) -> Estimate:
    """How long the plan takes.

    Args:
        plan: what is tried.
        execution: where it runs; the GPUs and packs of the workers must be chosen.
        workers: how many fit there.
        timing_of: gives the timing of a pack of trials of a configuration's `kind`, see `in_a_pack`.
    """
    pack = execution.pack or 1
    rows = tuple(_row(plan, group, timing_of, pack) for group in plan.groups)
    packs = sum(-(-plan.trials_of(group) // pack) for group in plan.groups)
    return Estimate(rows, min(workers, packs), pack, execution.cpus_per_trial, execution.gpus_per_trial or 0.0)


def in_a_pack(plan: Plan, config: TrialConfig, pack: int) -> TrialConfig:
    """A configuration with the lanes of a whole pack.

    A group with fewer trials than a pack may hold has smaller ones.
    """
    largest = max(group.trials for group in plan.groups if kind(config) in map(kind, _all_kinds(plan, group)))
    return config.model_copy(update={"seeds": tuple(range(len(config.seeds) * min(pack, largest)))})


def _row(plan: Plan, group: Group, timing_of: Callable[[TrialConfig], Timing], pack: int) -> Row:
    points, drawn = listed(plan, group), corners(plan, group)
    total = Range(0.0, 0.0)
    for variants in points:
        total += Range.of([timing_of(config).trial for config in variants])
    if drawn:
        total += Range.of([timing_of(config).trial for config in drawn]) * (group.trials - len(points))
    for rung, count in list(enumerate(halving.sizes(group.trials, len(plan.rungs))))[1:]:  # of a race; of any settings
        further = [*chain(*listed(plan, group, rung)), *corners(plan, group, rung)]
        total += Range.of([timing_of(config).trial for config in further]) * count
    total *= 1 / min(pack, group.trials)
    configs = _all_kinds(plan, group)
    timings = [timing_of(config) for config in configs]
    return Row(
        scenario=group.scenario,
        method=group.method,
        trials=plan.trials_of(group),
        tasks=timings[0].tasks,
        images=Range.of([timing.images for timing in timings]),
        passes=Range.of([config.training.passes for config in configs]),
        trial=Range.of([timing.trial for timing in timings]),
        total=total,
    )
