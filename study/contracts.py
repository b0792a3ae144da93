"""What a part of each kind returns: data set, task sequence, model, rule, intervention.

A part is one file in the folder of its kind. The file declares `Settings` and a function `build(settings, ...)`; there is
no other registration. The trainer knows only what stands here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

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
        incoming: names of the parameters that feed the layer, each with the unit as its last axis.
        outgoing: name of the weight that reads the layer, [lane, unit, ...].
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
        """Logits [lane, batch, output] of inputs [lane, batch, feature], and each hidden layer's output [lane, batch, unit]."""


@dataclass(frozen=True)
class Evaluation:
    """A minibatch's gradient at some parameters, with what was seen on the way.

    Attributes:
        gradient: of the whole loss, interventions included, [lane, ...] by parameter.
        losses: cross-entropy of each image, without interventions, [lane, batch].
        logits: [lane, batch, output].
    """

    gradient: Tensors
    losses: Tensor
    logits: Tensor


class GradientFunction(Protocol):
    """The gradient of one minibatch's loss as a function of the parameters."""

    def __call__(self, params: Tensors) -> Evaluation:
        """The evaluation at `params`."""

    def with_hessian_product(self, params: Tensors) -> tuple[Evaluation, Tensors]:
        """The evaluation at `params` and `H g / |g|`, H the Hessian and g the gradient there, by double backprop; 0/0 is 0."""


class Rule(Protocol):
    """An optimizer: takes parameters, memory and the gradient *function*, returns new ones. All settings are [lane] tensors."""

    @property
    def evaluations_per_step(self) -> int:
        """Gradient evaluations of one step in one lane; a Hessian-vector product counts as one."""

    @property
    def constants(self) -> dict[str, float]:
        """Numbers that the settings come down to, for the log: see `study.schema.RULE`."""

    def initial_memory(self, params: Tensors) -> Tensors:
        """The memory before the first step; empty when the rule keeps none."""

    def step(
        self, params: Tensors, memory: Tensors, gradient_at: GradientFunction
    ) -> tuple[Tensors, Tensors, Evaluation]:
        """New parameters, new memory, and the evaluation at the old parameters."""


class Intervention:
    """Something that acts on training besides the rule. Every method has a default that does nothing.

    State is a dict of tensors [lane, ...], taken and returned, and is part of every checkpoint.
    """

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
