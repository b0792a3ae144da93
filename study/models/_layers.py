"""What networks made of numbered layers have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from study.contracts import INITIAL_WEIGHTS, HiddenLayer
from study.lanes import Tensors, generator


class Layered(ABC):
    """A network of layers i with `i/weight` and `i/bias`."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of layers, the output layer included."""

    @property
    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        """The hidden layers, from input to output.

        Layer i feeds hidden layer i, and layer i + 1 reads it.
        """
        return tuple(HiddenLayer((f"{i}/weight", f"{i}/bias"), f"{i + 1}/weight") for i in range(self.depth - 1))

    def initial(self, seeds: tuple[int, ...], purpose: str = INITIAL_WEIGHTS, task: int = 0) -> Tensors:
        """Initial parameters on the CPU, [lane, ...].

        Lane k is drawn from (seeds[k], purpose, task).
        """
        lanes = [self._initial_lane(generator(seed, purpose, task)) for seed in seeds]
        return {name: torch.stack([lane[name] for lane in lanes]) for name in lanes[0]}

    @abstractmethod
    def _initial_lane(self, draw: torch.Generator) -> Tensors:
        """Initial parameters of one lane."""
