"""Interfaces of data sets, tasks, models, rules, interventions, operations.

A part is one file in the folder of its kind. The file declares `Settings` and a function `build(settings, ...)` that returns what
is described here; no other registration is needed. The trainer knows nothing of a part beyond these interfaces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self, runtime_checkable

from torch import Tensor, nn

from study.config import Diagnostics
from study.lanes import Tensors
from study.pixels import UNIT, Scale
from study.pulls import AnyPull

Shape = tuple[int, int, int]
"""Channels, height and width of a picture."""

INITIAL_WEIGHTS = "initial weights"
"""The purpose of the random numbers that a network starts with."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, as bytes.

    A data set is equal only to itself, so that it can be the key of a cache.

    Attributes:
        name: the part's name.
        train_images: uint8 [image, feature], values from 0 to 255: channel after channel, and in each row after row.
        train_labels: int64 [image], from 0 to class_count - 1.
        test_images: uint8 [image, feature].
        test_labels: int64 [image].
        class_count: number of classes.
        shape: channels, height and width of a picture; their product is the number of features.
        fingerprint: 16 hexadecimal digits that change with any byte of images or labels.
        scale: how bytes become inputs of a network; it is set by `training/pixels`, not by the part.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_count: int
    shape: Shape
    fingerprint: str
    scale: Scale = UNIT

    def to(self, device: str) -> Dataset:
        """The same data on another device."""
        return replace(
            self,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            test_images=self.test_images.to(device),
            test_labels=self.test_labels.to(device),
            scale=self.scale.to(device),
        )


@dataclass(frozen=True)
class Relabelled:
    """Labels that have nothing to do with the images.

    Nothing can be learnt from them but the images themselves, so what a network has learnt is measured on the very images that it
    was trained on.

    Attributes:
        labels: int64 [lane, image], the network's output for each training image of the data set.
        test: int64 [lane, image], training images of the task whose accuracy counts as test accuracy.
    """

    labels: Tensor
    test: Tensor


@dataclass(frozen=True)
class Task:
    """One task, for all lanes, as indices into a Dataset.

    Attributes:
        name: for people, for example "3-8".
        train: int64 [lane, image], training images of each lane.
        validation: int64 [lane, image], held-out training images of each lane; the image axis may be empty.
        test: int64 [image], test images, the same in all lanes.
        outputs: int64 [class], the network's output for each class of the data set; -1 if the task does not have the class.
        pixel_order: int64 [lane, feature] or None; feature j of the network's input is pixel `pixel_order[lane, j]`.
        relabelled: labels in place of those of the data set, or None. With them `outputs` and `test` are not used, and
            `validation` are images that the task trains on.
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    outputs: Tensor
    pixel_order: Tensor | None
    relabelled: Relabelled | None = None


class TaskSequence(Protocol):
    """All tasks in order.

    `task(i)` depends on the seeds and i alone, so any task can be built without the others.
    """

    @property
    def count(self) -> int:
        """Number of tasks."""

    @property
    def output_count(self) -> int:
        """Outputs of the network, the same in every task.

        Chance accuracy is one divided by it.
        """

    @property
    def has_validation(self) -> bool:
        """Whether every task holds out validation images."""

    def task(self, index: int) -> Task:
        """The task at `index`, from 0."""


def not_positive(activations: Tensor) -> Tensor:
    """Where ReLU is flat."""
    return activations <= 0


@dataclass(frozen=True)
class HiddenLayer:
    """Names of the weights around a hidden layer.

    Attributes:
        incoming: names of the parameters that feed the layer, each [lane, unit, ...].
        outgoing: name of the weight that reads the layer, [lane, ..., unit].
        outputs: of each unit; with several, `outgoing` is [lane, ..., output, unit], and the activation of a unit is the sum of
            its outputs' absolute values.
        is_flat: where the activation function lets no gradient pass, as a function of activations, bool.
        is_homogeneous: whether activations grow by a factor c > 0 if incoming weights and biases do.
    """

    incoming: tuple[str, ...]
    outgoing: str
    outputs: int = 1
    is_flat: Callable[[Tensor], Tensor] = not_positive
    is_homogeneous: bool = False


class Model(Protocol):
    """A network as functions of stacked parameters."""

    @property
    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        """The hidden layers, from input to output."""

    def initial(self, seeds: tuple[int, ...], purpose: str = INITIAL_WEIGHTS, task: int = 0) -> Tensors:
        """Initial parameters [lane, ...] on the CPU.

        Lane k is a function of (seeds[k], purpose, task) alone. Other purposes and tasks give fresh weights of the same
        distribution, for an intervention that redraws some of them.
        """

    def forward(self, params: Tensors, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and hidden activations.

        Args:
            params: [lane, ...].
            inputs: [lane, batch, feature], or [1, batch, feature] if all lanes have the same.

        Returns:
            Logits [lane, batch, output], and the activations of each hidden layer, [lane, batch, unit].
        """


@runtime_checkable
class Featured(Model, Protocol):
    """A model whose units may have several outputs; optional."""

    def features(self, params: Tensors, inputs: Tensor) -> Tensor:
        """All outputs of the last hidden layer, [lane, batch, feature].

        Its ranks are those of these outputs. Arguments are those of `forward`.
        """


class Gradient(Protocol):
    """A vector over all parameters, for each lane.

    Each model chooses the form that is cheapest to compute with. It may read the parameters that it was taken at, so it holds
    until they change; `add_to` may change them.
    """

    def norm(self) -> Tensor:
        """L2 norm over all parameters together, [lane]."""

    def combined(self, share: Tensor, other: Self, weight: Tensor) -> Self:
        """`share * self + weight * other`.

        `share` and `weight` are [lane].
        """

    def add_to(self, tensors: Tensors, scale: Tensor) -> None:
        """Adds `scale * self`, in place, with `scale` [lane].

        `tensors` have the names and shapes of the parameters.
        """

    def tensors(self) -> Tensors:
        """The vector written out, [lane, ...] by parameter name."""


@dataclass(frozen=True)
class Evaluation:
    """Gradient and outputs of a minibatch at some parameters.

    Attributes:
        gradient: of the whole loss, terms of interventions included.
        logits: [lane, batch, output].
        hidden: makes the activations of each hidden layer, [lane, batch, unit]. They are made only if somebody asks.
    """

    gradient: Gradient
    logits: Tensor
    hidden: Callable[[], list[Tensor]]


class GradientFunction(Protocol):
    """A minibatch's gradient as a function of the parameters."""

    def __call__(self, params: Tensors) -> Evaluation:
        """The evaluation at `params`."""

    def displaced(self, params: Tensors, evaluation: Evaluation, scale: Tensor) -> Evaluation:
        """The evaluation at `params + scale * evaluation.gradient`.

        `evaluation` is the one at `params`; `scale` is [lane].
        """

    def with_hessian_product(self, params: Tensors) -> tuple[Evaluation, Gradient]:
        """The evaluation at `params`, and `H g / |g|` there.

        H is the Hessian and g the gradient; the product is computed by double backprop, and 0/0 counts as 0.
        """


@runtime_checkable
class Pullable(GradientFunction, Protocol):
    """A model's own gradient that takes in pulls; optional.

    Otherwise the pull's gradient is added to the model's, both written out.
    """

    def pulled(self, pull: AnyPull) -> GradientFunction:
        """The gradient of the loss and the pull."""


@runtime_checkable
class DirectModel(Model, Protocol):
    """A model that knows its own gradient; optional.

    Models without it are differentiated by autograd; the results are equal up to rounding.
    """

    def gradient_function(self, inputs: Tensor, labels: Tensor) -> GradientFunction:
        """The gradient of a minibatch's mean cross-entropy.

        Inputs are [lane, batch, feature], labels [lane, batch].
        """


@runtime_checkable
class Selective(DirectModel, Protocol):
    """A model that works on some features; optional.

    In any order. So pixels need not be moved, and pixels that are always 0 can be left out. Other models see whole images with
    their pixels moved; the results are equal up to rounding.
    """

    def take_features(self, params: Tensors, features: Tensor) -> Tensors:
        """Parameters of the network that sees only the given features.

        Input j of the new network stands for feature `features[lane, j]` of the old one, whose other features count as 0.

        Args:
            params: all parameters, some of them, or other tensors of their names and shapes.
            features: int64 [lane, input], without repetition.
        """

    def put_features(self, params: Tensors, features: Tensor, taken: Tensors) -> Tensors:
        """The inverse of `take_features`.

        Weights of the given features come from `taken`, those of all others from `params`.
        """


@runtime_checkable
class Counted(Model, Protocol):
    """A model that knows its size before it is made.

    A model need not. Networks that this machine's memory cannot hold are then refused before they are allocated.
    """

    @property
    def parameter_count(self) -> int:
        """Number of parameters of one lane."""


@runtime_checkable
class Portable(Model, Protocol):
    """A model that can be exported as torch modules; optional.

    The exported network runs without this package.
    """

    def layers(self, params: Tensors, lane: int) -> list[nn.Module]:
        """One lane's network as a sequence of layers.

        Applied one after the other they map inputs [image, feature] to logits [image, output].
        """


class Rule(Protocol):
    """An optimizer as a rule that takes the gradient *function*.

    It takes and returns parameters and memory. All its settings are [lane] tensors.
    """

    @property
    def evaluations_per_step(self) -> int:
        """Gradient evaluations of one step, in one lane.

        A Hessian-vector product counts as one.
        """

    @property
    def constants(self) -> dict[str, float]:
        """Numbers derived from the settings, for the log.

        Named by `study.schema.RULE`.
        """

    @property
    def rests_where_flat(self) -> bool:
        """Whether weights whose gradient is 0 do not change.

        Nor may their part of the memory.
        """

    def initial_memory(self, params: Tensors) -> Tensors:
        """The memory before the first step.

        Empty if the rule has none. See `study.training.steps.Steps` on the names of its tensors.
        """

    def step(
        self, params: Tensors, memory: Tensors, gradient_at: GradientFunction
    ) -> tuple[Tensors, Tensors, Evaluation]:
        """New parameters and memory after one step.

        Returned with the evaluation at the old parameters. The rule may overwrite its arguments. It uses torch operations on the
        device only, and never branches on the value of a tensor, so that a step can be recorded once and replayed.
        """


@dataclass(frozen=True)
class Beginning:
    """What a rule is told when a task begins.

    Attributes:
        task: index of the task.
        tasks: number of tasks of the sequence.
        steps: number of steps of this task.
        seeds: one for each lane.
    """

    task: int
    tasks: int
    steps: int
    seeds: tuple[int, ...]


@runtime_checkable
class TaskAware(Rule, Protocol):
    """A rule that is told when a task begins; optional.

    So its settings may follow the place in the sequence, and its random numbers are a function of seed and task.
    """

    def check_tasks(self, count: int) -> None:
        """Raises StudyError if it cannot train on so many tasks."""

    def before_task(self, memory: Tensors, beginning: Beginning) -> Tensors:
        """The memory before the first step of a task.

        In new tensors where changed. Called for every task, the first one too, after interventions have acted.
        """


@dataclass(frozen=True)
class Learner:
    """What an intervention may change.

    Attributes:
        params: [lane, ...].
        memory: of the rule, [lane, ...]. Its tensors are named after parameters, `0/weight` or `prefix:0/weight`, or have one
            number for each lane. Whole numbers among them are the state of a random generator and are not reset.
        state: of the intervention, [lane, ...].
    """

    params: Tensors
    memory: Tensors
    state: Tensors


@dataclass(frozen=True)
class Step:
    """What an intervention sees of a step.

    Attributes:
        model: the network.
        evaluation: of the step's minibatch, at the parameters before the step. Its tensors hold until the intervention returns.
    """

    model: Model
    evaluation: Evaluation


@dataclass(frozen=True)
class Boundary:
    """What an intervention sees between two tasks.

    Attributes:
        model: the network.
        task: index of the task that is about to begin.
        images: at most so many training images of that task: inputs [lane, image, feature] and labels int64 [lane, image]. In
            every task those at the same positions, drawn from (seed, "sample").
    """

    model: Model
    task: int
    images: Callable[[int], tuple[Tensor, Tensor]]


class Intervention:
    """Acts on training besides the rule; by default does nothing.

    Its state is a dict of tensors [lane, ...], taken and returned, and is part of every checkpoint. Within a step it may use
    torch operations on the device only, see `Rule.step`. Tensors of the state that are shaped like a parameter bear its name,
    `0/weight` or `prefix:0/weight`: if the network's inputs are reordered, so are they.
    """

    any_input_order: bool = False
    """Whether it acts alike if the network's inputs are reordered.

    If so, its steps are faster, see `study.training.steps`. It need not be true at boundaries, where inputs are in order."""

    acts_on_units: bool = False
    """Whether it resets units, and so needs a network that declares `Model.hidden_layers`."""

    @property
    def acts_in_steps(self) -> bool:
        """Whether it acts on the loss or after steps.

        Otherwise it acts only at the boundaries of tasks.
        """
        return self.acts_on_loss or self.acts_after_steps

    @property
    def acts_after_steps(self) -> bool:
        """Whether it acts after steps, and so sees their gradients."""
        return self._overrides("after_step")

    @property
    def acts_on_loss(self) -> bool:
        """Whether it adds a term to the loss."""
        return self._overrides("loss_term", "pull")

    @property
    def knows_gradient(self) -> bool:
        """Whether the gradient of its term needs no autograd."""
        return self._overrides("loss_gradient", "pull")

    def _overrides(self, *names: str) -> bool:
        return any(getattr(type(self), name) is not getattr(Intervention, name) for name in names)

    def initial_state(self, params: Tensors, model: Model) -> Tensors:
        """The state before the first task, given the initial weights."""
        return {}

    def loss_term(self, params: Tensors, state: Tensors) -> Tensor | None:
        """A term [lane] added to the loss, or None.

        It is added inside the gradient function, so every gradient of a step includes it.
        """
        pull = self.pull(state)
        return None if pull is None else pull.loss(params)

    def loss_gradient(self, params: Tensors, state: Tensors) -> Tensors | None:
        """The gradient of the term, by parameter name; optional.

        With it a model's own gradient is used, see `DirectModel`; without, autograd. It is 0 for names that are left out.
        """
        pull = self.pull(state)
        return None if pull is None else pull.gradient(params)

    def pull(self, state: Tensors) -> AnyPull | None:
        """The term, if it has a form of `study.pulls`.

        Neither `loss_term` nor `loss_gradient` is then needed, and training is fastest.
        """
        return None

    def after_step(self, learner: Learner, step: Step) -> Learner:
        """The learner after each step.

        Its tensors may be changed in place.
        """
        return learner

    def before_task(self, learner: Learner, boundary: Boundary) -> Learner:
        """The learner after a boundary, in new tensors where changed.

        Not called for the first task.
        """
        return learner


@dataclass(frozen=True, eq=False)
class Subject:
    """Networks at a boundary, for an operation.

    A subject is equal only to itself, so that it can be the key of a cache.

    Attributes:
        model: the network.
        params: [lane, ...]; no operation changes them.
        seeds: one for each lane.
        task: index of the task that is about to begin.
        inputs: a sample of that task's training images, [lane, image, feature]; the diagnostics' sample.
        labels: int64 [lane, image].
    """

    model: Model
    params: Tensors
    seeds: tuple[int, ...]
    task: int
    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Operated:
    """Networks after an operation.

    Attributes:
        params: in new tensors where changed, [lane, ...].
        rates: multiples of the learning rate, [lane], by parameter, with which training undoes the operation; None if there are
            none, or nobody asked for them.
    """

    params: Tensors
    rates: Mapping[str, Tensor] | None = None


RATE = "rate "
"""Begins the name of a parameter's multiple of the learning rate."""


class Operation(Protocol):
    """Changes copies of networks, for a probe."""

    @property
    def level(self) -> float | None:
        """What tells it from others of its part, or None."""

    def check(self, layers: tuple[HiddenLayer, ...]) -> None:
        """Raises StudyError if it cannot act on such networks."""

    def operate(self, subject: Subject) -> Operated:
        """The networks after it.

        Every random draw is a function of (seed, purpose, task).
        """


@dataclass(frozen=True)
class Probes:
    """Copies of the networks that are changed and trained.

    Attributes:
        boundaries: tasks before which networks are copied.
        operations: each with the name of its part.
        rules: plain SGD for the copies, by its learning rate.
        layerwise: the same with multiples of the learning rate, [lane]; its memory has one for each parameter, `RATE` and its
            name.
    """

    boundaries: tuple[int, ...]
    operations: tuple[tuple[str, Operation], ...]
    rules: Mapping[float, Rule]
    layerwise: Mapping[float, Rule]


@dataclass(frozen=True)
class Experiment:
    """The parts of one trial, put together.

    Attributes:
        dataset: on the device.
        tasks, model, rule, interventions: the parts.
        seeds: one for each lane.
        batch_size, passes: see `study.config.Training`.
        diagnostics: which diagnostics run after which tasks.
        device: "cpu" or "cuda".
        probes: what is done to copies of the networks; None: nothing.
    """

    dataset: Dataset
    tasks: TaskSequence
    model: Model
    rule: Rule
    interventions: tuple[Intervention, ...]
    seeds: tuple[int, ...]
    batch_size: int
    passes: int
    diagnostics: Diagnostics
    device: str
    probes: Probes | None = None
