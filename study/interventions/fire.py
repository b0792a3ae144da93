"""FIRE: replaces each layer's weights by the nearest isometry.

Han et al. 2026, "FIRE: Frobenius-Isometry Reinitialization for Balancing the Stability-Plasticity Tradeoff", arXiv 2602.08040.
Before each task but the first, for the weights W [unit, input] of each layer,

    W <- sqrt(units / inputs) W (W^T W)^(-1/2),

by Newton's and Schulz's iteration, which brings the singular values to 1 and leaves the singular vectors:

    X_0 = W / |W|,      X <- 1.5 X - 0.5 X X^T X,      `iterations` times.

A convolution has such a matrix for each place of its kernel, each divided by the number of places, and the weights that read
feature maps are one matrix. Biases stay. All of this is the authors' code, and so is that the rule forgets everything: their
training resets the optimizer whenever the data change. Few iterations leave small singular values below 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor

from study.config import StrictSettings
from study.contracts import Boundary, Intervention, Learner
from study.interventions._matrices import matrices
from study.lanes import MATRIX, per_lane, reciprocal

KERNEL = 5
"""Axes of the weights of a convolution."""


class Settings(StrictSettings):
    """Settings of FIRE."""

    iterations: int = Field(10, ge=1, le=100, description="Iterations of Newton and Schulz.")


@dataclass(frozen=True)
class Fire(Intervention):
    """The intervention; it has no state.

    Attributes:
        iterations: see `Settings`.
    """

    iterations: int

    def before_task(self, learner: Learner, boundary: Boundary) -> Learner:
        """Isometries, and an empty memory."""
        # units with several outputs, each [..., output, unit], are so many inputs
        several = {layer.outgoing for layer in boundary.model.hidden_layers if layer.outputs > 1}
        isometries = {}
        for name in matrices(learner.params):
            weights = learner.params[name]
            flat = weights.flatten(-2) if name in several else weights
            isometries[name] = self._isometry(name, flat).view_as(weights)
        memory = {name: torch.zeros_like(value) for name, value in learner.memory.items()}
        return replace(learner, params=learner.params | isometries, memory=memory)

    def _isometry(self, name: str, weights: Tensor) -> Tensor:
        """The isometry nearest to a layer's weights."""
        if weights.dim() < KERNEL:
            matrix = weights.flatten(2) if weights.dim() > MATRIX else weights
            return self._scaled(matrix, 1).view_as(weights)
        # torch's modules have the places last, [lane, out, in, row, column]; other networks the inputs, see `HiddenLayer`
        torch_order = "/" not in name
        places = weights.permute(0, 3, 4, 1, 2) if torch_order else weights.permute(0, 2, 3, 1, 4)
        lanes, rows, columns = places.shape[:3]
        scaled = self._scaled(places.flatten(0, 2), rows * columns)
        found: Tensor = scaled.unflatten(0, (lanes, rows, columns))
        return (found.permute(0, 3, 4, 1, 2) if torch_order else found.permute(0, 3, 1, 2, 4)).contiguous()

    def _scaled(self, weights: Tensor, places: int) -> Tensor:
        units, inputs = weights.shape[1:]
        scale: float = (units / inputs) ** 0.5 / places
        return newton_schulz(weights, self.iterations) * scale


def newton_schulz(weights: Tensor, iterations: int) -> Tensor:
    """Isometries of matrices [matrix, row, column]; 0 stays 0."""
    wide = weights.shape[2] > weights.shape[1]
    tall = weights.mT if wide else weights
    lengths = torch.linalg.vector_norm(tall.flatten(1), dim=1)
    x = tall * per_lane(reciprocal(lengths), tall)
    for _ in range(iterations):
        x = torch.baddbmm(x, x, x.mT @ x, beta=1.5, alpha=-0.5)
    return x.mT if wide else x


def build(settings: Settings, seeds: Sequence[int], device: str) -> Fire:
    """The intervention; nothing in it is random."""
    return Fire(settings.iterations)
