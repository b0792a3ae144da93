"""What networks made of numbered layers have in common.

Initial weights are uniform within a bound of zero:

    torch      1 / sqrt(fan_in), weights and biases, as in torch.nn.Linear and torch.nn.Conv2d
    kaiming    gain sqrt(3 / fan_in), and biases of 0 (He et al. 2015, arXiv 1502.01852, the uniform form), the gain being that of
               the activation function, and 1 for the output layer, as in the code of Dohare et al. (2024, arXiv 2306.13812)

For the activation functions that code does not have, sqrt(2) is the gain of `gelu`, as it has it for similar ones, and of `crelu`
and `deep_fourier`, whose outputs have a mean square of 1/2 as those of ReLU have.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from study.contracts import INITIAL_WEIGHTS, HiddenLayer
from study.lanes import Tensors, generator
from study.models._nonlinearities import ActivationName, LayerNorm, Learnt, Nonlinearity

Initialisation = Literal["torch", "kaiming"]

ACTIVATION: Final[ActivationName] = Field(
    "relu",
    description="Activation function: `relu`, `leaky_relu`, `gelu`, `tanh`, `crelu` or `deep_fourier`. With the last two a unit "
    "has two outputs, and all widths are cut by one factor so that the number of weights stays the same.",
)
LAYER_NORM: Final[LayerNorm] = Field(
    "none",
    description="Layer norm before each activation function: `none`, `plain`, or `learnt` with a learnt scale and shift of each "
    "unit.",
)
INITIALISATION: Final[Initialisation] = Field(
    "torch",
    description="Initial weights: `torch` as torch draws them, `kaiming` for Kaiming's uniform weights and biases of 0.",
)


class Layered(ABC):
    """A network of layers i with `i/weight` and `i/bias`.

    Where the nonlinearity learns, hidden layers also have `i/scale` and `i/shift` [lane, unit]. Weights are [lane, unit, ...,
    in], and [lane, unit, ..., output, in] where the units that they read have several outputs.

    Attributes:
        nonlinearity: between two layers.
        initialisation: how weights start.
    """

    nonlinearity: Nonlinearity
    initialisation: Initialisation

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of layers, the output layer included."""

    @abstractmethod
    def weight_shapes(self) -> Sequence[tuple[int, ...]]:
        """Shape of each layer's weight, in one lane."""

    @property
    def parameter_count(self) -> int:
        """Number of parameters of one lane."""
        shapes = self.weight_shapes()
        units = sum(shape[0] for shape in shapes[:-1])
        return sum(math.prod(shape) + shape[0] for shape in shapes) + 2 * units * self.nonlinearity.learns

    @property
    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        """The hidden layers, from input to output.

        Layer i feeds hidden layer i, and layer i + 1 reads it.
        """
        names = ("weight", "bias", "scale", "shift") if self.nonlinearity.learns else ("weight", "bias")
        return tuple(
            HiddenLayer(
                incoming=tuple(f"{i}/{name}" for name in names),
                outgoing=f"{i + 1}/weight",
                outputs=self.nonlinearity.outputs,
                is_flat=self.nonlinearity.activation.is_flat,
                is_homogeneous=self.nonlinearity.is_homogeneous,
            )
            for i in range(self.depth - 1)
        )

    def initial(self, seeds: tuple[int, ...], purpose: str = INITIAL_WEIGHTS, task: int = 0) -> Tensors:
        """Initial parameters on the CPU, [lane, ...].

        Lane k is drawn from (seeds[k], purpose, task).
        """
        lanes = [self._initial_lane(generator(seed, purpose, task)) for seed in seeds]
        return {name: torch.stack([lane[name] for lane in lanes]) for name in lanes[0]}

    def _initial_lane(self, draw: torch.Generator) -> Tensors:
        """Initial parameters of one lane."""
        params = {}
        for i, shape in enumerate(self.weight_shapes()):
            is_last, units, fan_in = i == self.depth - 1, shape[0], math.prod(shape[1:])
            if self.initialisation == "torch":
                bound = bias = 1 / math.sqrt(fan_in)
            else:
                bound, bias = (1 if is_last else self.nonlinearity.activation.gain) * math.sqrt(3 / fan_in), 0.0
            params[f"{i}/weight"] = self._drawn(shape, bound, draw)
            params[f"{i}/bias"] = (
                torch.empty(units).uniform_(-bias, bias, generator=draw) if bias else torch.zeros(units)
            )
            if self.nonlinearity.learns and not is_last:
                params |= {f"{i}/scale": torch.ones(units), f"{i}/shift": torch.zeros(units)}
        return params

    def _drawn(self, shape: tuple[int, ...], bound: float, draw: torch.Generator) -> Tensor:
        """A weight of one lane, uniform within the bound."""
        drawn: Tensor = torch.empty(shape).uniform_(-bound, bound, generator=draw)
        return drawn

    def learnt(self, params: Tensors, i: int) -> Learnt | None:
        """Scale and shift after layer i, [lane, unit, 1]."""
        if not self.nonlinearity.learns:
            return None
        return params[f"{i}/scale"].unsqueeze(2), params[f"{i}/shift"].unsqueeze(2)

    def between(self, params: Tensors, lane: int, i: int) -> list[nn.Module]:
        """Torch modules that follow layer i in one lane."""
        learnt = (params[f"{i}/scale"][lane], params[f"{i}/shift"][lane]) if self.nonlinearity.learns else None
        return self.nonlinearity.modules(params[f"{i}/bias"].shape[1], learnt)

    def activity(self, signal: Tensor) -> Tensor:
        """What units are measured by, [..., unit, image].

        Their output; of units with several outputs the sum of absolute values.

        Args:
            signal: that the next layer reads, [..., output of unit, image].
        """
        if self.nonlinearity.outputs == 1:
            return signal
        sizes: Tensor = signal.unflatten(-2, (self.nonlinearity.outputs, -1)).abs().sum(dim=-3)
        return sizes


def fitted(widths: Sequence[int], made: Callable[[tuple[int, ...]], Layered], parameters: int) -> tuple[int, ...]:
    """Widths cut by one factor, for a number of parameters.

    As in the code of L2 Init (Kumar, Marklund and Van Roy 2023, arXiv 2308.11958) for CReLU, but to the nearest number. They are
    rounded, so the network has as many up to half a unit of each layer.

    Args:
        widths: units of each hidden layer, before the cut.
        made: the network of given widths.
        parameters: number of parameters, not more than with `widths`.
    """

    def cut(factor: float) -> tuple[int, ...]:
        return tuple(max(1, round(factor * width)) for width in widths)

    below, above = 0.0, 1.0  # factors with too few and too many parameters
    while cut(below) != cut(above) and above - below > 1e-15:
        middle = (below + above) / 2
        if made(cut(middle)).parameter_count <= parameters:
            below = middle
        else:
            above = middle
    return min(cut(below), cut(above), key=lambda some: abs(made(some).parameter_count - parameters))
