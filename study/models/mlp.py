"""Fully connected network with ReLU, all lanes as one stack.

Layer i maps `x` to `x W_i + b_i`. Weights and biases start uniform within `1/sqrt(fan_in)` of zero, as torch.nn.Linear's do.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from study.config import Listed, StrictSettings
from study.contracts import HiddenLayer
from study.lanes import Tensors, generator


class Settings(StrictSettings):
    """Shape of the network."""

    widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Listed] = Field(
        (100, 100),
        description="Units of each hidden layer, from input to output; an empty list is a linear classifier.",
    )


@dataclass(frozen=True)
class MLP:
    """The network as functions of its parameters `i/weight` [lane, in, out] and `i/bias` [lane, out]."""

    sizes: tuple[int, ...]

    @property
    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        """Layer i feeds hidden layer i, and layer i + 1 reads it."""
        return tuple(HiddenLayer((f"{i}/weight", f"{i}/bias"), f"{i + 1}/weight") for i in range(len(self.sizes) - 2))

    def initial(self, seeds: tuple[int, ...]) -> Tensors:
        """Initial parameters, lane k drawn from (seeds[k], "initial weights")."""
        lanes = [self._initial_lane(generator(seed, "initial weights")) for seed in seeds]
        return {name: torch.stack([lane[name] for lane in lanes]) for name in lanes[0]}

    def _initial_lane(self, draw: torch.Generator) -> Tensors:
        params = {}
        for i, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            bound = 1 / math.sqrt(fan_in)
            params[f"{i}/weight"] = torch.empty(fan_in, fan_out).uniform_(-bound, bound, generator=draw)
            params[f"{i}/bias"] = torch.empty(fan_out).uniform_(-bound, bound, generator=draw)
        return params

    def forward(self, params: Tensors, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [lane, batch, output] and the hidden activations, each [lane, batch, unit]."""
        hidden: list[Tensor] = []
        signal = inputs
        for i in range(len(self.sizes) - 1):
            if i:
                signal = signal.relu()
                hidden.append(signal)
            signal = torch.baddbmm(params[f"{i}/bias"].unsqueeze(1), signal, params[f"{i}/weight"])
        return signal, hidden


def build(settings: Settings, feature_count: int, output_count: int) -> MLP:
    """The network with the given number of inputs and outputs."""
    return MLP((feature_count, *settings.widths, output_count))
