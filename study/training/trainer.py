"""The training loop: one result per task, all lanes together.

`train` is a generator. It knows no Ray, no MLflow and no part by name. Everything that the next task depends on is in the `State`
of each result. So a run that stops after any task can be continued from there, and gives the same results to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from study.contracts import Boundary, Experiment, Learner, Task
from study.lanes import Tensors, select
from study.training import metrics
from study.training.diagnostics import NetworkDiagnostics
from study.training.metrics import evaluate
from study.training.minibatches import Feed
from study.training.probes import Probed, Probing
from study.training.steps import Steps, Weights


@dataclass(frozen=True)
class State:
    """The state of a trial between two tasks.

    Attributes:
        next_task: index of the first task that has not been trained.
        params: [lane, ...].
        memory: of the rule, [lane, ...].
        intervention_states: one for each intervention, [lane, ...].
        diverged: bool [lane].
        test: float64 [task, lane], test accuracy of the tasks so far.
        validation: float64 [task, lane], validation accuracy of the tasks so far; no rows if no image is held out.
        gradient_evaluations: so far, in one lane.
    """

    next_task: int
    params: Tensors
    memory: Tensors
    intervention_states: tuple[Tensors, ...]
    diverged: Tensor
    test: Tensor
    validation: Tensor
    gradient_evaluations: int

    @property
    def weights(self) -> Weights:
        """All that the steps of the next task change."""
        return Weights(self.params, self.memory, self.intervention_states)


@dataclass(frozen=True)
class TaskResult:
    """The measurements of one task, and the state after it.

    Attributes:
        task: index of the task.
        name: of the task.
        test_accuracy, validation_accuracy, online_accuracy: share, float64 [lane]; validation is None if no image is held out.
        online_loss: nats, float64 [lane].
        diagnostics: by name, float64 [lane], those of `schema.ONSET` before the first step and all others after the last; NaN
            where a value is unknown, as in lanes that had diverged by then.
        training_seconds, evaluation_seconds, diagnostics_seconds: wall time, all lanes together; probes count as diagnostics.
        state: after the task.
        probes: of the networks that began it; none unless it follows a boundary with probes.
    """

    task: int
    name: str
    test_accuracy: Tensor
    validation_accuracy: Tensor | None
    online_accuracy: Tensor
    online_loss: Tensor
    diagnostics: dict[str, Tensor]
    training_seconds: float
    evaluation_seconds: float
    diagnostics_seconds: float
    state: State
    probes: tuple[Probed, ...] = ()


def initial_state(experiment: Experiment) -> State:
    """The state before the first task."""
    params = {name: value.to(experiment.device) for name, value in experiment.model.initial(experiment.seeds).items()}
    lanes = len(experiment.seeds)
    return State(
        next_task=0,
        params=params,
        memory=experiment.rule.initial_memory(params),
        intervention_states=tuple(part.initial_state(params, experiment.model) for part in experiment.interventions),
        diverged=torch.zeros(lanes, dtype=torch.bool),
        test=torch.empty(0, lanes, dtype=torch.float64),
        validation=torch.empty(0, lanes, dtype=torch.float64),
        gradient_evaluations=0,
    )


def train(experiment: Experiment, start: State | None = None) -> Iterator[TaskResult]:
    """Trains task after task and yields the result of each.

    Training starts at `start`, by default at the first task.

    A lane whose loss or weights become non-finite during a task has diverged, for good. Its weights return to their values before
    that task and stay there, its accuracies count as chance and its loss as that of a uniform guess. A lane whose weights are
    finite after a task, but whose logits overflow, counts as chance on those images.
    """
    state = start or initial_state(experiment)
    steps = Steps(experiment, state.weights)
    diagnosis = NetworkDiagnostics(experiment, steps)
    probing = Probing(experiment, diagnosis)
    for index in range(state.next_task, experiment.tasks.count):
        result = _train_on_task(experiment, steps, diagnosis, probing, state, index)
        state = result.state
        yield result


def _train_on_task(
    experiment: Experiment,
    steps: Steps,
    diagnosis: NetworkDiagnostics,
    probing: Probing,
    state: State,
    index: int,
) -> TaskResult:
    """Boundary, diagnostics, training and evaluation of one task.

    Lanes that have diverged are computed with the others, and their results are discarded.
    """
    began = time.perf_counter()
    task = experiment.tasks.task(index)
    feed = steps.feed(task)
    start = state.weights if index == 0 else _after_boundary(experiment, index, task, state.weights)
    boundary_seconds = time.perf_counter() - began

    began = time.perf_counter()
    onset = _known(diagnosis.before(index, feed, start.params), state.diverged)
    probes = probing.before(index, task, feed, start.params, state.diverged)
    onset_seconds = time.perf_counter() - began

    began = time.perf_counter()
    trained = steps.train(feed, index, start)
    diverged = state.diverged | ~trained.sound.cpu()
    healthy = ~diverged.to(experiment.device)  # [lane]
    after = replace(
        state,
        next_task=index + 1,
        params=select(healthy, trained.weights.params, state.params),
        memory=select(healthy, trained.weights.memory, state.memory),
        intervention_states=tuple(
            select(healthy, new, old)
            for new, old in zip(trained.weights.states, state.intervention_states, strict=True)
        ),
        diverged=diverged,
        gradient_evaluations=state.gradient_evaluations + trained.steps * experiment.rule.evaluations_per_step,
    )
    training_seconds = boundary_seconds + time.perf_counter() - began

    began = time.perf_counter()
    outputs = experiment.tasks.output_count
    chance = torch.full((len(experiment.seeds),), metrics.chance_accuracy(outputs), dtype=torch.float64)  # [lane]

    def counted(values: Tensor, otherwise: Tensor) -> Tensor:
        """Values [lane], replaced if NaN or the lane has diverged."""
        values = values.to("cpu", torch.float64)
        return torch.where(after.diverged | values.isnan(), otherwise, values)

    params = steps.for_evaluation(after.params, feed.features)
    test = counted(evaluate(experiment.model, params, feed.test()), chance)
    validation = None
    if experiment.tasks.has_validation:
        validation = counted(evaluate(experiment.model, params, feed.validation()), chance)
    evaluation_seconds = time.perf_counter() - began

    began = time.perf_counter()
    diagnostics = _known(diagnosis.after(index, task, feed, after.params), after.diverged) | onset
    return TaskResult(
        task=index,
        name=task.name,
        test_accuracy=test,
        validation_accuracy=validation,
        online_accuracy=counted(trained.online_accuracy, chance),
        online_loss=counted(trained.online_loss, torch.full_like(chance, metrics.chance_loss(outputs))),
        diagnostics=diagnostics,
        training_seconds=training_seconds,
        evaluation_seconds=evaluation_seconds,
        diagnostics_seconds=onset_seconds + time.perf_counter() - began,
        state=replace(after, test=_with_row(state.test, test), validation=_with_row(state.validation, validation)),
        probes=probes,
    )


def _known(values: dict[str, Tensor], diverged: Tensor) -> dict[str, Tensor]:
    """Values by name, each [lane], unknown in lanes that have diverged."""
    return {name: lanes.where(~diverged, torch.nan) for name, lanes in values.items()}


def _with_row(rows: Tensor, row: Tensor | None) -> Tensor:
    return rows if row is None else torch.cat([rows, row.unsqueeze(0)])


def _after_boundary(experiment: Experiment, index: int, task: Task, weights: Weights) -> Weights:
    """Weights after all interventions acted before task `index`.

    They act in turn, each on what the one before it returned.
    """

    def images(count: int) -> tuple[Tensor, Tensor]:
        return Feed(experiment.dataset, task, experiment.device).sample(experiment.seeds, count)

    boundary = Boundary(experiment.model, index, images)
    params, memory, states = weights.params, weights.memory, []
    for intervention, state in zip(experiment.interventions, weights.states, strict=True):
        learner = intervention.before_task(Learner(params, memory, state), boundary)
        params, memory = learner.params, learner.memory
        states.append(learner.state)
    return Weights(params, memory, tuple(states))
