"""The steps of one task after another, all lanes at once, on tensors that are made once and stay where they are.

Three things make a step cheap where the parts allow it, see `DirectModel`: the model's own gradient instead of autograd;
weights that are reordered once a task instead of pixels that are moved in every image (`W x[p] = W[:, argsort(p)] x`); and, on
a CPU, pixels left out that are 0 in all images of a task, since their weights neither add anything nor have a gradient. Where
an intervention acts within the steps, or the model knows no gradient of its own, the plain way is taken.

On a CUDA device a step is recorded once as a graph and then replayed, see `study.training.cuda_graph`: so small a network is
otherwise kept waiting by the launches of its kernels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from study.contracts import DirectModel, Experiment, GradientFunction, Task
from study.gradients import MinibatchGradient
from study.lanes import Tensors, finite
from study.training import metrics
from study.training.cuda_graph import Captured
from study.training.minibatches import EarlierTask, Feed, Pictures, minibatch, whole, without_blank_pixels

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

    def is_shaped_like(self, others: Weights) -> bool:
        """Whether all tensors have the shapes of others'."""
        pairs = zip(self.groups, others.groups, strict=True)
        return all(mine[name].shape == value.shape for mine, theirs in pairs for name, value in theirs.items())

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

    Weights are reordered only for a rule whose memory bears the names of the parameters, so that it can go along, and
    pixels are left out only for one that rests where the gradient is 0.
    """

    def __init__(self, experiment: Experiment, params: Tensors, memory: Tensors) -> None:
        self._experiment = experiment
        acted_on = any(part.acts_in_steps for part in experiment.interventions)
        self._direct = experiment.model if isinstance(experiment.model, DirectModel) and not acted_on else None
        self._reorders = self._direct is not None and memory.keys() <= params.keys()
        self._leaves_out = self._reorders and experiment.rule.rests_where_flat and experiment.device == "cpu"
        self._pictures: Pictures | None = None
        self._held: Weights | None = None
        self._step = Captured(self._take, self._tensors) if experiment.device == "cuda" else self._take

    def feed(self, task: Task) -> Feed:
        """The images of a task, in the form that is the cheapest to train on."""
        dataset = self._experiment.dataset
        if self._leaves_out:
            self._pictures = without_blank_pixels(dataset, task, self._pictures)
        elif self._pictures is None:
            self._pictures = whole(dataset)
        return Feed(dataset, task, self._experiment.device, self._pictures if self._reorders else None)

    def earlier(self, task: Task, size: int) -> EarlierTask:
        """What it takes to ask the network for a task later on."""
        return EarlierTask.of(task, self._experiment.device, size, moves_pixels=not self._reorders)

    def seeing(self, params: Tensors, features: Tensor | None) -> Tensors:
        """Parameters as images for evaluation want them whose pixels are those features."""
        return self._taken(params, features)

    def training_on(self, tensors: Tensors, feed: Feed, lanes: slice = slice(None)) -> Tensors:
        """Parameters, or tensors of their names, of some lanes as the feed's minibatches want them."""
        features = feed.trained_features
        return self._taken(tensors, features if features is None else features[lanes])

    def train(self, feed: Feed, task: int, start: Weights) -> Trained:
        """All passes over the images of a task; `start` stays as it is."""
        plan = self._experiment
        self.begin(feed, start)
        tally = self.advance(feed, feed.choices(plan.seeds, task, plan.batch_size, plan.passes))
        left, features = self._weights.copy(), feed.trained_features
        return Trained(
            Weights(
                self._put(start.params, features, left.params),
                self._put(start.memory, features, left.memory),
                left.states,
            ),
            tally.hits.to(torch.float64) / (feed.train_count * plan.passes),
            tally.losses / (feed.train_count * plan.passes),
            tally.losses.isfinite() & finite(left.params),
            tally.steps,
        )

    def begin(self, feed: Feed, start: Weights) -> None:
        """Copies weights to where the steps find them; to a new place when a task has other pixels than the one before."""
        features = feed.trained_features
        weights = Weights(self._taken(start.params, features), self._taken(start.memory, features), start.states)
        self._pictures = feed.pictures
        if self._held is None or not self._held.is_shaped_like(weights):
            self._held = weights.copy()
        else:
            self._held.fill(weights)

    def advance(self, feed: Feed, choices: Iterable[Tensor]) -> Tally:
        """A step for each choice of pictures [lane, batch], from where the last left off."""
        tally = Tally(len(self._experiment.seeds), self._experiment.device)
        order = () if feed.pixel_order is None else (feed.pixel_order,)
        with torch.no_grad():
            for chosen in choices:
                tally.add(*self._step(chosen, feed.outputs, *order))
            tally.count()
        return tally

    def _taken(self, tensors: Tensors, features: Tensor | None) -> Tensors:
        if self._direct is None or features is None:
            return tensors
        return self._direct.take_features(tensors, features)

    def _put(self, tensors: Tensors, features: Tensor | None, taken: Tensors) -> Tensors:
        if self._direct is None or features is None:
            return taken
        return self._direct.put_features(tensors, features, taken)

    def _take(self, chosen: Tensor, outputs: Tensor, pixel_order: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step on the tensors at hand; logits [lane, batch, output] before it, and labels [lane, batch]."""
        plan, weights = self._experiment, self._weights
        assert self._pictures is not None, "no task has begun"
        inputs, labels = minibatch(self._pictures, chosen, outputs, pixel_order)
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

    def _tensors(self) -> list[Tensor]:
        """All that a step changes."""
        return [value for group in self._weights.groups for value in group.values()]


class Tally:
    """Online measures of some steps.

    Attributes:
        steps: how many.
        hits: images told right before the step on them, [lane].
        losses: sum of their cross-entropies, float64 [lane].
    """

    def __init__(self, lanes: int, device: str) -> None:
        self.steps = 0
        self.hits = torch.zeros(lanes, dtype=torch.int64, device=device)
        self.losses = torch.zeros(lanes, dtype=torch.float64, device=device)
        self._pending: list[tuple[Tensor, Tensor]] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Takes the logits and labels of a step."""
        self.steps += 1
        self._pending.append((logits, labels))
        if len(self._pending) == COUNTED_AT_ONCE:
            self.count()

    def count(self) -> None:
        """Counts what has been taken, in one go, since many small operations take longer."""
        if not self._pending:
            return
        outputs = torch.cat(
            [logits.mT for logits, _ in self._pending], dim=2
        )  # so the loss is 15 times as fast on a CPU
        labels = torch.cat([labels for _, labels in self._pending], dim=1)
        self.hits += metrics.correct(outputs.mT, labels)
        self.losses += cross_entropy(outputs, labels, reduction="none").sum(dim=1, dtype=torch.float64)
        self._pending.clear()
