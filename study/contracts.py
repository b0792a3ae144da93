"""What a part of each kind returns: data set, task sequence, model, rule, intervention.

A part is one file in the folder of its kind. The file declares `Settings` and a function `build(settings, ...)`; there is
no other registration. The trainer knows only what stands here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

from torch import Tensor, nn

from study.config import Diagnostics
from study.lanes import Tensors


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, as bytes; equal to itself alone.

    Attributes:
        name: the part's name.
        train_images: uint8 [image, feature], grey values from 0 to 255, rows of the picture one after the other.
        train_labels: int64 [image], from 0 to class_count - 1.
        test_images: uint8 [image, feature].
        test_labels: int64 [image].
        class_count: number of classes.
        fingerprint: 16 hexadecimal digits that change when any byte of images or labels does.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_count: int
    fingerprint: str

    def to(self, device: str) -> Dataset:
        """The same data on another device."""
        return Dataset(
            self.name,
            self.train_images.to(device),
            self.train_labels.to(device),
            self.test_images.to(device),
            self.test_labels.to(device),
            self.class_count,
            self.fingerprint,
        )


@dataclass(frozen=True)
class Task:
    """One task, for all lanes. Indices point into a Dataset.

    Attributes:
        name: what a person calls it, for example "3-8".
        train: int64 [lane, image], training images of each lane.
        validation: int64 [lane, image], held-out training images of each lane; may be empty on the image axis.
        test: int64 [image], test images, the same in all lanes.
        outputs: int64 [class], the output of the network that stands for each class of the data set; -1 where the task
            has no such class.
        pixel_order: int64 [lane, feature] or None; feature j of the network's input is pixel `pixel_order[lane, j]`.
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    outputs: Tensor
    pixel_order: Tensor | None


class TaskSequence(Protocol):
    """All tasks in order. `task(i)` depends on the seeds and i alone, so that any task can be built without the others."""

    @property
    def count(self) -> int:
        """Number of tasks."""

    @property
    def output_count(self) -> int:
        """Outputs of the network, the same in every task; chance accuracy is one over it."""

    @property
    def has_validation(self) -> bool:
        """Whether every task holds out validation images."""

    def task(self, index: int) -> Task:
        """The task at `index`, from 0."""


@dataclass(frozen=True)
class HiddenLayer:
    """Which weights enter and leave the units of a hidden layer.

    Attributes:
        incoming: names of the parameters that feed the layer, each [lane, unit, ...].
        outgoing: name of the weight that reads the layer, [lane, ..., unit].
    """

    incoming: tuple[str, ...]
    outgoing: str


class Model(Protocol):
    """A network as functions of stacked parameters."""

    @property
    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        """The hidden layers, from input to output."""

    def initial(self, seeds: tuple[int, ...]) -> Tensors:
        """Initial parameters on the CPU, [lane, ...], lane k a function of `seeds[k]` alone."""

    def forward(self, params: Tensors, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [lane, batch, output], and each hidden layer's output [lane, batch, unit].

        The inputs are [lane, batch, feature], or [1, batch, feature] when all lanes see the same.
        """


class Gradient(Protocol):
    """A vector over all parameters of each lane, in whatever form is the cheapest."""

    def norm(self) -> Tensor:
        """L2 norm over all parameters together, [lane]."""

    def combined(self, share: Tensor, other: Self, weight: Tensor) -> Self:
        """`share * self + weight * other` with `share` and `weight` [lane]."""

    def add_to(self, tensors: Tensors, scale: Tensor) -> None:
        """Adds `scale * self` to tensors of the parameters' names and shapes, in place; `scale` is [lane]."""

    def tensors(self) -> Tensors:
        """The vector written out, by the names of the parameters."""


@dataclass(frozen=True)
class Evaluation:
    """A minibatch's gradient at some parameters, with what was seen on the way.

    Attributes:
        gradient: of the whole loss, interventions included.
        logits: [lane, batch, output].
    """

    gradient: Gradient
    logits: Tensor


class GradientFunction(Protocol):
    """The gradient of one minibatch's loss as a function of the parameters."""

    def __call__(self, params: Tensors) -> Evaluation:
        """The evaluation at `params`."""

    def displaced(self, params: Tensors, seen: Evaluation, scale: Tensor) -> Evaluation:
        """The evaluation at `params + scale * seen.gradient`, with `seen` that at `params` and `scale` [lane]."""

    def with_hessian_product(self, params: Tensors) -> tuple[Evaluation, Gradient]:
        """The evaluation at `params` and `H g / |g|`, H the Hessian and g the gradient there, by double backprop; 0/0 is 0."""


@runtime_checkable
class DirectModel(Model, Protocol):
    """A model that knows its own gradient, and need not have pixels moved, nor see those that are always 0.

    A model may leave this out; it is then differentiated by autograd, on whole images whose pixels have been moved. The
    results are the same but for rounding.
    """

    def gradient_function(self, inputs: Tensor, labels: Tensor) -> GradientFunction:
        """The gradient of a minibatch's mean cross-entropy; inputs [lane, batch, feature], labels [lane, batch]."""

    def take_features(self, params: Tensors, features: Tensor) -> Tensors:
        """Parameters at which some inputs give what they give at `params` as those `features`, the others being 0.

        `features` is int64 [lane, input], without repetition. `params` may also be a part of the parameters, or other
        tensors of their names and shapes.
        """

    def put_features(self, params: Tensors, features: Tensor, taken: Tensors) -> Tensors:
        """What is in `taken`, and the rest of `params`: the inverse of `take_features`."""


@runtime_checkable
class Portable(DirectModel, Protocol):
    """A model whose network can be written as layers of torch, for those who have nothing of this study. May be left out."""

    def layers(self, params: Tensors, lane: int) -> list[nn.Module]:
        """Layers that, one after the other, map inputs [image, feature] to the lane's logits [image, output]."""


class Rule(Protocol):
    """An optimizer: takes parameters, memory and the gradient *function*, returns new ones. All settings are [lane] tensors."""

    @property
    def evaluations_per_step(self) -> int:
        """Gradient evaluations of one step in one lane; a Hessian-vector product counts as one."""

    @property
    def constants(self) -> dict[str, float]:
        """Numbers that the settings come down to, for the log: see `study.schema.RULE`."""

    @property
    def rests_where_flat(self) -> bool:
        """Whether a weight, and the memory of it, stay as they are while the gradient is 0 there."""

    def initial_memory(self, params: Tensors) -> Tensors:
        """The memory before the first step, empty when the rule keeps none; see `Steps` on how to name its tensors."""

    def step(
        self, params: Tensors, memory: Tensors, gradient_at: GradientFunction
    ) -> tuple[Tensors, Tensors, Evaluation]:
        """New parameters, new memory, and the evaluation at the old parameters.

        What comes in is the rule's to overwrite. It acts by torch operations alone, on the device, and none of its
        decisions hangs on a value in a tensor, so that a step can be recorded once and replayed.
        """


class Intervention:
    """Something that acts on training besides the rule. Every method has a default that does nothing.

    State is a dict of tensors [lane, ...], taken and returned, and is part of every checkpoint. What acts within a step does
    so by torch operations on the device alone, see `Rule.step`.
    """

    @property
    def acts_in_steps(self) -> bool:
        """Whether it acts on the loss or after a step, rather than at the boundaries of tasks alone."""
        mine = type(self)
        return mine.loss_term is not Intervention.loss_term or mine.after_step is not Intervention.after_step

    def initial_state(self, params: Tensors) -> Tensors:
        """The state before the first task."""
        return {}

    def loss_term(self, params: Tensors, state: Tensors) -> Tensor | None:
        """A term [lane] added to the loss inside the gradient function, so that every gradient of a step sees it."""
        return None

    def after_step(self, params: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """Acts on the weights after each step."""
        return params, state

    def before_task(self, index: int, params: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """Acts on the weights at the boundary before task `index`, the first task excepted."""
        return params, state


@dataclass(frozen=True)
class Experiment:
    """The parts of one trial, put together.

    Attributes:
        dataset: on the device.
        tasks, model, rule, interventions: the parts.
        seeds: one for each lane.
        batch_size, passes: see `study.config.Training`.
        diagnostics: what is looked at after which tasks.
        device: "cpu" or "cuda".
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
