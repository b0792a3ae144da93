"""The steps of one task after another, all lanes at once, on tensors that are made once and stay where they are.

Two things make a step cheap where the parts allow it, see `DirectModel`: the model's own gradient instead of autograd, and
weights that are reordered once a task instead of pixels that are moved in every image (`x[p] W = x W[argsort(p)]`). Where
an intervention acts within the steps, or the model knows no gradient of its own, the plain way is taken.

On a CUDA device a step is recorded once as a graph and then replayed, see `study.capture`: so small a network is otherwise
kept waiting by the launches of its kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from study import metrics
from study.capture import Captured
from study.contracts import DirectModel, Experiment, GradientFunction, Task
from study.feed import Feed, minibatch
from study.gradients import MinibatchGradient
from study.lanes import Tensors, finite

COUNTED_AT_ONCE = 32
"""Steps whose logits are kept before hits and losses are counted."""


@dataclass(frozen=True)
class Weights:
    """All that a step changes, as tensors [lane, ...]: parameters, the rule's memory, the states of the interventions."""

    params: Tensors
    memory: Tensors
    states: tuple[Tensors, ...]

    @property
    def groups(self) -> tuple[Tensors, ...]:
        """All dicts of tensors."""
        return (self.params, self.memory, *self.states)

    def copy(self) -> Weights:
        """The same in new tensors."""
        params, memory, *states = ({name: value.clone() for name, value in group.items()} for group in self.groups)
        return Weights(params, memory, tuple(states))

    def fill(self, others: Weights) -> None:
        """Overwrites these tensors with others'."""
        for mine, theirs in zip(self.groups, others.groups, strict=True):
            for name, value in theirs.items():
                if value is not mine[name]:
                    mine[name].copy_(value)


@dataclass(frozen=True)
class Trained:
    """What the steps of one task leave.

    Attributes:
        weights: new tensors.
        online_accuracy, online_loss: float64 [lane], over the task's images before each step was taken on them.
        sound: bool [lane], whether all losses and weights are finite.
        steps: taken.
    """

    weights: Weights
    online_accuracy: Tensor
    online_loss: Tensor
    sound: Tensor
    steps: int


class Steps:
    """Trains the lanes of one experiment, task after task.

    Attributes:
        reorders: whether weights are reordered for a task, rather than the pixels of its images moved. A rule whose memory
            does not bear the names of the parameters has the pixels moved.
    """

    def __init__(self, experiment: Experiment, params: Tensors, memory: Tensors) -> None:
        self._experiment = experiment
        acted_on = any(part.acts_in_steps for part in experiment.interventions)
        self._direct = experiment.model if isinstance(experiment.model, DirectModel) and not acted_on else None
        self.reorders = self._direct is not None and memory.keys() <= params.keys()
        self._held: Weights | None = None
        self._step = Captured(self._take, self._tensors) if experiment.device == "cuda" else self._take

    def feed(self, task: Task) -> Feed:
        """The images of a task, their pixels moved if the weights are not to be reordered."""
        return Feed(self._experiment.dataset, task, self._experiment.device, moves_pixels=not self.reorders)

    def turned(self, tensors: Tensors, feed: Feed, *, back: bool = False) -> Tensors:
        """Parameters as the feed's images want them, or `back` again. Also the memory of a rule."""
        if feed.feature_order is None or self._direct is None:
            return tensors
        return self._direct.reorder_features(tensors, feed.feature_order.argsort(dim=1) if back else feed.feature_order)

    def train(self, feed: Feed, task: int, start: Weights) -> Trained:
        """All passes over the images of a task; `start` stays as it is."""
        plan = self._experiment
        self._hold(Weights(self.turned(start.params, feed), self.turned(start.memory, feed), start.states))
        tally = _Tally(len(plan.seeds), plan.device)
        steps = 0
        for chosen in feed.choices(plan.seeds, task, plan.batch_size, plan.passes):
            order = () if feed.pixel_order is None else (feed.pixel_order,)
            tally.add(*self._step(chosen, feed.outputs, *order))
            steps += 1
        tally.count()
        left = self._weights.copy()
        return Trained(
            Weights(self.turned(left.params, feed, back=True), self.turned(left.memory, feed, back=True), left.states),
            tally.hits.to(torch.float64) / (feed.train_count * plan.passes),
            tally.losses / (feed.train_count * plan.passes),
            tally.losses.isfinite() & finite(left.params),
            steps,
        )

    def _take(self, chosen: Tensor, outputs: Tensor, pixel_order: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step on the tensors at hand; logits [lane, batch, output] before it, and labels [lane, batch]."""
        plan, weights = self._experiment, self._weights
        inputs, labels = minibatch(plan.dataset, chosen, outputs, pixel_order)
        params, memory, seen = plan.rule.step(weights.params, weights.memory, self._gradient_at(inputs, labels))
        states = []
        for part, state in zip(plan.interventions, weights.states, strict=True):
            params, state_after = part.after_step(params, state)
            states.append(state_after)
        weights.fill(Weights(params, memory, tuple(states)))
        return seen.logits, labels

    def _gradient_at(self, inputs: Tensor, labels: Tensor) -> GradientFunction:
        if self._direct is not None:
            return self._direct.gradient_function(inputs, labels)
        interventions = tuple(zip(self._experiment.interventions, self._weights.states, strict=True))
        return MinibatchGradient(self._experiment.model, inputs, labels, interventions)

    @property
    def _weights(self) -> Weights:
        assert self._held is not None, "no task has begun"
        return self._held

    def _hold(self, weights: Weights) -> None:
        """Copies weights to where the steps find them."""
        if self._held is None:
            self._held = weights.copy()
        else:
            self._held.fill(weights)

    def _tensors(self) -> list[Tensor]:
        """All that a step changes."""
        return [value for group in self._weights.groups for value in group.values()]


class _Tally:
    """Online measures of the steps: hits and summed losses of each lane."""

    def __init__(self, lanes: int, device: str) -> None:
        self.hits = torch.zeros(lanes, dtype=torch.int64, device=device)
        self.losses = torch.zeros(lanes, dtype=torch.float64, device=device)
        self._pending: list[tuple[Tensor, Tensor]] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Takes the logits and labels of a step."""
        self._pending.append((logits, labels))
        if len(self._pending) == COUNTED_AT_ONCE:
            self.count()

    def count(self) -> None:
        """Counts what has been taken, in one go, since many small operations take longer."""
        if not self._pending:
            return
        logits, labels = (torch.cat(list(pieces), dim=1) for pieces in zip(*self._pending, strict=True))
        losses = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
        self.hits += metrics.correct(logits, labels)
        self.losses += losses.sum(dim=1, dtype=torch.float64)
        self._pending.clear()
