"""Probes: copies of networks, changed between tasks and trained.

Before a task at a boundary, each lane's network is copied, an operation changes the copy, and the copy is trained on that task
by plain SGD, on the same minibatches as every other copy. The networks themselves go on as if nothing had happened. A copy that
nothing has changed is the reference, under the name `schema.UNTOUCHED`. So the difference of two copies is the operation's doing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from study import schema
from study.contracts import RATE, Experiment, Operated, Rule, Subject, Task
from study.lanes import Tensors, norm, taken
from study.training import metrics
from study.training.diagnostics import NetworkDiagnostics
from study.training.metrics import evaluate
from study.training.minibatches import Feed
from study.training.steps import COUNTED_AT_ONCE, Steps, Trained, Weights


@dataclass(frozen=True)
class Copies:
    """Copies after training.

    Attributes:
        lr: their learning rate.
        undone: whether multiples of it, one for each parameter, undid the operation.
        values: by schema name, float64 [lane]; NaN in lanes that had diverged before they were made.
    """

    lr: float
    undone: bool
    values: Mapping[str, Tensor]


@dataclass(frozen=True)
class Probed:
    """An operation on the networks at a boundary.

    Attributes:
        operation: name of its part, or `schema.UNTOUCHED`.
        level: see `study.contracts.Operation`.
        network: the networks after it, before the first step: by schema name, float64 [lane]; NaN where a value is unknown.
        trained: the copies.
    """

    operation: str
    level: float | None
    network: Mapping[str, Tensor]
    trained: tuple[Copies, ...]

    def of_lanes(self, lanes: slice) -> Probed:
        """The same of some lanes."""
        trained = tuple(replace(each, values=taken(each.values, lanes)) for each in self.trained)
        return replace(self, network=taken(self.network, lanes), trained=trained)


@dataclass(frozen=True)
class _Boundary:
    """What is probed, on which task.

    Attributes:
        subject: the networks.
        task, feed: the task and its images, as the networks see them.
        diverged: bool [lane], networks that nothing is learnt from.
    """

    subject: Subject
    task: Task
    feed: Feed
    diverged: Tensor

    def known(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Values [lane] on the CPU, NaN where they are unknown."""
        on_cpu = {key: value.to("cpu", torch.float64) for key, value in values.items()}
        return {key: value.where(~self.diverged & value.isfinite(), torch.nan) for key, value in on_cpu.items()}


class Probing:
    """The probes of one experiment, boundary after boundary."""

    def __init__(self, experiment: Experiment, diagnosis: NetworkDiagnostics) -> None:
        self._experiment = replace(experiment, interventions=())
        self._diagnosis = diagnosis
        self._steps: dict[tuple[float, bool], Steps] = {}

    def before(self, index: int, task: Task, feed: Feed, params: Tensors, diverged: Tensor) -> tuple[Probed, ...]:
        """The probes at the boundary before a task, if any.

        Args:
            index: of the task.
            task, feed: the task and its images, as the networks see them.
            params: of the networks that begin it, [lane, ...]; they do not change.
            diverged: bool [lane], the networks that nothing is learnt from.
        """
        probes = self._experiment.probes
        if probes is None or index not in probes.boundaries:
            return ()
        sample = Feed(self._experiment.dataset, task, self._experiment.device).sample(
            self._experiment.seeds, self._experiment.diagnostics.images
        )
        subject = Subject(self._experiment.model, params, self._experiment.seeds, index, *sample)
        boundary = _Boundary(subject, task, feed, diverged)
        found = [self._probed(schema.UNTOUCHED, None, Operated(params), boundary)]
        for name, operation in probes.operations:
            found.append(self._probed(name, operation.level, operation.operate(subject), boundary))
        return tuple(found)

    def _probed(self, name: str, level: float | None, operated: Operated, boundary: _Boundary) -> Probed:
        """The networks after an operation, and their training."""
        probes = self._experiment.probes
        assert probes is not None
        trained = [
            Copies(lr, False, boundary.known(self._outcome(rule, {}, (lr, False), operated.params, boundary)))
            for lr, rule in probes.rules.items()
        ]
        if operated.rates is not None:
            memory = {RATE + key: value for key, value in operated.rates.items()}
            trained += [
                Copies(lr, True, boundary.known(self._outcome(rule, memory, (lr, True), operated.params, boundary)))
                for lr, rule in probes.layerwise.items()
            ]
        return Probed(name, level, boundary.known(self._network(operated.params, boundary)), tuple(trained))

    def _network(self, params: Tensors, boundary: _Boundary) -> dict[str, Tensor]:
        """Measures of copies before their first step, [lane]."""
        subject = boundary.subject
        with torch.no_grad():
            before, _ = subject.model.forward(subject.params, subject.inputs)  # [lane, image, output]
            after, _ = subject.model.forward(params, subject.inputs)
            change = (after - before).abs().flatten(1).amax(dim=1)
            moved = norm({key: value - subject.params[key] for key, value in params.items()})
        measured = self._diagnosis.onset(subject.task, boundary.feed, params)
        return {schema.FUNCTION_CHANGE: change, schema.DISPLACEMENT: moved, **measured}

    def _outcome(
        self, rule: Rule, memory: Tensors, key: tuple[float, bool], params: Tensors, boundary: _Boundary
    ) -> dict[str, Tensor]:
        """What copies learn, [lane]."""
        experiment = replace(self._experiment, rule=rule)
        start = Weights(params, memory or rule.initial_memory(params), ())
        if key not in self._steps:
            self._steps[key] = Steps(experiment, start)
        steps = self._steps[key]
        feed = steps.feed(boundary.task)
        trained = steps.train(feed, boundary.subject.task, start)
        accuracy = evaluate(experiment.model, steps.for_evaluation(trained.weights.params, feed.features), feed.test())
        outputs, sound = experiment.tasks.output_count, trained.sound.cpu()
        chance = metrics.chance_accuracy(outputs)

        def counted(values: Tensor, otherwise: float) -> Tensor:
            """Values [lane], replaced in copies that have diverged."""
            values = values.to("cpu", torch.float64)
            return torch.where(sound & ~values.isnan(), values, otherwise)

        return {
            schema.PROBE_ONLINE_ACCURACY: counted(trained.online_accuracy, chance),
            schema.PROBE_ONLINE_LOSS: counted(trained.online_loss, metrics.chance_loss(outputs)),
            schema.PROBE_TEST_ACCURACY: counted(accuracy, chance),
            schema.PROBE_STEPS: counted(steps_until(trained, schema.WELL_LEARNT), trained.steps),
        }


def steps_until(trained: Trained, accuracy: float) -> Tensor:
    """Steps until a block has an online accuracy, float64 [lane].

    The number of steps at the end of the first such block; all steps if there is none.
    """
    reached = trained.blocks >= accuracy  # [block, lane]
    count = reached.int().argmax(dim=0) + 1  # blocks up to the first
    steps = (count * COUNTED_AT_ONCE).clamp(max=trained.steps)
    return torch.where(reached.any(dim=0), steps, trained.steps).to(torch.float64)
