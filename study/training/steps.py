"""The training steps of all lanes, task after task.

Parameters, memory and states are allocated once and changed in place. Three shortcuts make a step cheap if the parts allow them,
see `study.contracts.DirectModel` and `Selective`:

- the model's own gradient instead of autograd, if interventions that act on the loss know the gradient of their terms;
- with pixels permuted by p, weights that are reordered once a task instead of pixels that are moved in every image,

      W x[p] = W[:, argsort(p)] x,

  if all interventions that act within steps allow any order of the inputs;
- on a CPU, pixels that are 0 in all images of a task are left out, if `training/pixels` leaves 0 as it is: their weights add
  nothing to an output and have no gradient. No intervention may act within the steps.

If the model does not know its own gradient, none of them is taken.

On a CUDA device steps are recorded once as a graph and then replayed, see `study.training.cuda_graph`. Networks as small as these
would otherwise wait for the launches of their kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from study.contracts import (
    Beginning,
    DirectModel,
    Experiment,
    GradientFunction,
    Learner,
    Selective,
    Step,
    Task,
    TaskAware,
)
from study.gradients import MinibatchGradient, direct_gradient
from study.lanes import Tensors, finite
from study.training import metrics
from study.training.cuda_graph import Captured
from study.training.minibatches import EarlierTask, Feed, Pictures, minibatch, whole, without_blank_pixels

COUNTED_AT_ONCE = 32
"""Number of steps whose logits are kept until hits and losses are counted."""

RECORDED_AT_ONCE = 32
"""The most steps in one recording: to start a replay takes some microseconds."""


@dataclass(frozen=True)
class Weights:
    """All that a step changes, as tensors [lane, ...].

    Attributes:
        params: the parameters.
        memory: of the rule.
        states: of the interventions.
    """

    params: Tensors
    memory: Tensors
    states: tuple[Tensors, ...]

    @property
    def groups(self) -> tuple[Tensors, ...]:
        """All dicts of tensors."""
        return (self.params, self.memory, *self.states)

    def is_shaped_like(self, others: Weights) -> bool:
        """Whether all tensors have the shapes of the others."""
        pairs = zip(self.groups, others.groups, strict=True)
        return all(mine[name].shape == value.shape for mine, theirs in pairs for name, value in theirs.items())

    def copy(self) -> Weights:
        """The same values in new tensors."""
        params, memory, *states = ({name: value.clone() for name, value in group.items()} for group in self.groups)
        return Weights(params, memory, tuple(states))

    def fill(self, others: Weights) -> None:
        """Overwrites these tensors with the values of the others."""
        for mine, theirs in zip(self.groups, others.groups, strict=True):
            for name, value in theirs.items():
                if value is not mine[name]:
                    mine[name].copy_(value)


@dataclass(frozen=True)
class Trained:
    """The result of the steps of one task.

    Attributes:
        weights: after the last step, in new tensors.
        online_accuracy, online_loss: float64 [lane], of each of the task's images before the step on it.
        sound: bool [lane], whether all losses and weights are finite.
        steps: number of steps.
        blocks: online accuracy of each block of `COUNTED_AT_ONCE` steps, the last one shorter, float64 [block, lane].
    """

    weights: Weights
    online_accuracy: Tensor
    online_loss: Tensor
    sound: Tensor
    steps: int
    blocks: Tensor


class Steps:
    """Trains the lanes of one experiment, task after task.

    Weights are reordered only if memory and states can be reordered with them: what is as long as the inputs is named after a
    parameter. Pixels are left out only if nothing moves weights whose gradient is 0.
    """

    def __init__(self, experiment: Experiment, start: Weights) -> None:
        self._experiment = experiment
        acting = [intervention for intervention in experiment.interventions if intervention.acts_in_steps]
        known = all(intervention.knows_gradient for intervention in acting if intervention.acts_on_loss)
        model = experiment.model
        self._direct = model if isinstance(model, DirectModel) and known else None
        self._selective = model if isinstance(model, Selective) else None
        self._reorders = (
            self._selective is not None
            and all(intervention.any_input_order for intervention in acting)
            and _follow_inputs(start, experiment.dataset.train_images.shape[1])
        )
        rests = experiment.rule.rests_where_flat and experiment.dataset.scale.keeps_zero and not acting
        self._leaves_out = self._reorders and rests and experiment.device == "cpu"
        self._is_seen = any(intervention.acts_after_steps for intervention in acting)  # the gradient, after the step
        self._pictures: Pictures | None = None
        self._held: Weights | None = None
        self._recorded = Captured(self._take_all, self._tensors) if experiment.device == "cuda" else None

    def feed(self, task: Task) -> Feed:
        """The images of a task, in their cheapest form."""
        dataset = self._experiment.dataset
        if self._leaves_out:
            self._pictures = without_blank_pixels(dataset, task, self._pictures)
        elif self._pictures is None:
            self._pictures = whole(dataset)
        return Feed(dataset, task, self._experiment.device, self._pictures if self._reorders else None)

    def earlier(self, task: Task, size: int) -> EarlierTask:
        """At most `size` test images, for later evaluation."""
        return EarlierTask.of(task, self._experiment.device, size, moves_pixels=not self._reorders)

    def for_evaluation(self, params: Tensors, features: Tensor | None) -> Tensors:
        """Parameters in the order of the images of an evaluation.

        `features` are those of `Feed` or `EarlierTask`.
        """
        return self._taken(params, features)

    def for_training(self, tensors: Tensors, feed: Feed, lanes: slice = slice(None)) -> Tensors:
        """Parameters in the order of the feed's minibatches.

        `tensors` are those of the given lanes, or other tensors with names and shapes of parameters.
        """
        features = feed.trained_features
        return self._taken(tensors, features if features is None else features[lanes])

    def train(self, feed: Feed, task: int, start: Weights) -> Trained:
        """Trains for all passes over the images of a task.

        `start` does not change.

        Args:
            feed: images of the task.
            task: index of the task.
            start: weights before the first step.
        """
        experiment = self._experiment
        start = self._told(feed, task, start)
        self.begin(feed, start)
        tally = self.advance(feed, feed.choices(experiment.seeds, task, experiment.batch_size, experiment.passes))
        trained, features = self._weights.copy(), feed.trained_features
        images = feed.train_count * experiment.passes
        return Trained(
            Weights(
                self._put(start.params, features, trained.params),
                self._put(start.memory, features, trained.memory),
                tuple(
                    self._put(before, features, after)
                    for before, after in zip(start.states, trained.states, strict=True)
                ),
            ),
            tally.hits.to(torch.float64) / images,
            tally.losses / images,
            tally.losses.isfinite() & finite(trained.params),
            tally.steps,
            tally.blocks,
        )

    def _told(self, feed: Feed, task: int, start: Weights) -> Weights:
        """Weights after the rule was told that the task begins."""
        experiment, rule = self._experiment, self._experiment.rule
        if not isinstance(rule, TaskAware):
            return start
        steps = -(-feed.train_count // experiment.batch_size) * experiment.passes
        beginning = Beginning(task, experiment.tasks.count, steps, experiment.seeds)
        return replace(start, memory=rule.before_task(start.memory, beginning))

    def begin(self, feed: Feed, start: Weights) -> None:
        """Copies weights into the tensors that the steps change.

        New tensors are allocated if this task has other pixels than the one before.
        """
        features = feed.trained_features
        weights = Weights(
            self._taken(start.params, features),
            self._taken(start.memory, features),
            tuple(self._taken(state, features) for state in start.states),
        )
        self._pictures = feed.pictures
        if self._held is None or not self._held.is_shaped_like(weights):
            self._held = weights.copy()
        else:
            self._held.fill(weights)

    def advance(self, feed: Feed, choices: Iterable[Tensor]) -> Tally:
        """Takes a step for each choice of pictures [lane, batch].

        The first step continues from the last one taken.
        """
        tally = Tally(len(self._experiment.seeds), self._experiment.device)
        order = () if feed.pixel_order is None else (feed.pixel_order,)
        with torch.no_grad():
            if self._recorded is None:
                for chosen in choices:
                    tally.add(*self._take(chosen, feed.labels, *order))
            else:
                for several in in_runs(choices):
                    taken = self._recorded(several, feed.labels, *order)
                    for logits, labels in zip(*taken, strict=True):
                        tally.add(logits, labels)
            tally.count()
        return tally

    def _taken(self, tensors: Tensors, features: Tensor | None) -> Tensors:
        """Tensors with only the given features, see `Selective.take_features`."""
        if self._selective is None or features is None:
            return tensors
        selected: Tensors = {}
        for prefix, group in _grouped(tensors):
            selected |= _prefixed(prefix, self._selective.take_features(group, features))
        return selected

    def _put(self, tensors: Tensors, features: Tensor | None, taken: Tensors) -> Tensors:
        """The inverse of `_taken`."""
        if self._selective is None or features is None:
            return taken
        whole: Tensors = {}
        for (prefix, group), (_, part) in zip(_grouped(tensors), _grouped(taken), strict=True):
            whole |= _prefixed(prefix, self._selective.put_features(group, features, part))
        return whole

    def _take_all(self, several: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        """Several steps, in place.

        Args:
            several: pictures of each step, int64 [step, lane, batch].
            others: see `_take`.

        Returns:
            Logits before each step, [step, lane, batch, output], and labels [step, lane, batch].
        """
        logits, labels = zip(*(self._take(chosen, *others) for chosen in several), strict=True)
        return torch.stack(logits), torch.stack(labels)

    def _take(self, chosen: Tensor, labels: Tensor, pixel_order: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step, in place.

        Args:
            chosen: pictures of the step, int64 [lane, batch].
            labels: of all pictures, see `Feed`.
            pixel_order: int64 [lane, feature]; None: pixels stay in place.

        Returns:
            Logits before the step, [lane, batch, output], and labels [lane, batch].
        """
        experiment, weights = self._experiment, self._weights
        assert self._pictures is not None, "no task has begun"
        # [lane, batch, feature] and [lane, batch]
        inputs, shown = minibatch(self._pictures, chosen, labels, pixel_order)
        gradient_at = self._gradient_at(inputs, shown)
        params, memory, evaluation = experiment.rule.step(weights.params, weights.memory, gradient_at)
        seen, states = Step(experiment.model, evaluation), []
        for intervention, state in zip(experiment.interventions, weights.states, strict=True):
            learner = intervention.after_step(Learner(params, memory, state), seen)
            params, memory = learner.params, learner.memory
            states.append(learner.state)
        weights.fill(Weights(params, memory, tuple(states)))  # copies only what was not changed in place
        return evaluation.logits, shown

    def _gradient_at(self, inputs: Tensor, labels: Tensor) -> GradientFunction:
        """The gradient of a minibatch: the model's own, or autograd's."""
        interventions = tuple(zip(self._experiment.interventions, self._weights.states, strict=True))
        if self._direct is not None:
            return direct_gradient(self._direct, inputs, labels, interventions, lasting=self._is_seen)
        return MinibatchGradient(self._experiment.model, inputs, labels, interventions)

    @property
    def _weights(self) -> Weights:
        assert self._held is not None, "no task has begun"
        return self._held

    def _tensors(self) -> list[Tensor]:
        """All tensors that a step changes."""
        return [value for group in self._weights.groups for value in group.values()]


def in_runs(choices: Iterable[Tensor]) -> Iterator[Tensor]:
    """Choices of the same shape together, [step, lane, batch].

    A run has `RECORDED_AT_ONCE` steps, or what is left as powers of two: so there are few lengths, each recorded once.
    """
    waiting: list[Tensor] = []
    for chosen in choices:
        if waiting and chosen.shape != waiting[0].shape:
            yield from _in_powers_of_two(waiting)
            waiting = []
        waiting.append(chosen)
        if len(waiting) == RECORDED_AT_ONCE:
            yield torch.stack(waiting)
            waiting = []
    yield from _in_powers_of_two(waiting)


def _in_powers_of_two(waiting: list[Tensor]) -> Iterator[Tensor]:
    while waiting:
        length = 1 << (len(waiting).bit_length() - 1)
        yield torch.stack(waiting[:length])
        waiting = waiting[length:]


def _follow_inputs(weights: Weights, features: int) -> bool:
    """Whether all tensors can be reordered with the inputs.

    Those that are not named after a parameter must not have an axis as long as the inputs.
    """
    return all(
        name.rpartition(":")[2] in weights.params or features not in value.shape[1:]
        for group in weights.groups
        for name, value in group.items()
    )


def _grouped(tensors: Tensors) -> list[tuple[str, Tensors]]:
    """Tensors by prefix, under the names of their parameters."""
    groups: dict[str, Tensors] = {}
    for name, value in tensors.items():
        prefix, colon, parameter = name.rpartition(":")
        groups.setdefault(prefix + colon, {})[parameter] = value
    return list(groups.items())


def _prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: value for name, value in tensors.items()}


class Tally:
    """Online measures of a number of steps.

    Attributes:
        steps: number of steps.
        hits: number of images classified correctly before the step on them, int64 [lane].
        losses: sum of the images' cross-entropies before the step on them, float64 [lane].
    """

    def __init__(self, lanes: int, device: str) -> None:
        self.steps = 0
        self.hits = torch.zeros(lanes, dtype=torch.int64, device=device)
        self.losses = torch.zeros(lanes, dtype=torch.float64, device=device)
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._blocks: list[Tensor] = []

    @property
    def blocks(self) -> Tensor:
        """Online accuracy of each block counted, float64 [block, lane]."""
        return torch.stack(self._blocks)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a step; several are counted at once.

        Logits are [lane, batch, output], labels [lane, batch].
        """
        self.steps += 1
        self._pending.append((logits, labels))
        if len(self._pending) == COUNTED_AT_ONCE:
            self.count()

    def count(self) -> None:
        """Counts all steps added since the last count.

        At once, because many small operations take longer.
        """
        if not self._pending:
            return
        # [lane, output, image]: with the image last, cross_entropy is 15 times as fast on a CPU.
        outputs = torch.cat([logits.mT for logits, _ in self._pending], dim=2)
        labels = torch.cat([labels for _, labels in self._pending], dim=1)  # [lane, image]
        hits = metrics.correct(outputs.mT, labels)
        self.hits += hits
        self._blocks.append(hits.to(torch.float64) / labels.shape[1])
        self.losses += cross_entropy(outputs, labels, reduction="none").sum(dim=1, dtype=torch.float64)
        self._pending.clear()
