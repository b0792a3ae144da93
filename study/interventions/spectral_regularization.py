"""Spectral regularisation: keeps largest singular values near 1.

Lewandowski et al. 2024, "Learning Continually by Spectral Regularization", arXiv 2406.06811. With s(W) the largest singular value
of a layer's weights, as a matrix with a row for each unit, the loss becomes

    L(w) + strength sum_layers (s(W)^exponent - 1)^2.

s is estimated by power iteration, one a step. With u a vector of unit length, kept between steps,

    v = W^T u / |W^T u|,      s = |W^T u|,      ds/dW = u v^T,      after the step  u <- W v / |W v|      (0/0 counts as 0)

The first u is drawn from (seed, "spectral regularization"), so s starts too small, for a few tens of steps. The term is part of
every gradient of SAM and GNP, with the same u. The paper also pulls biases to 0, and scales of normalisation to 1; here they are
left alone. There is no official code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from study.config import LARGEST, StrictSettings, setting
from study.contracts import Intervention, Learner, Model, Step
from study.interventions._matrices import matrices
from study.lanes import Tensors, generator, per_lane, reciprocal
from study.pulls import SpectralPull, lengths

PREFIX = "u of "
"""Of the names of the vectors in the state."""


class Settings(StrictSettings):
    """Settings of spectral regularisation."""

    strength: float = setting(1e-3, "Weight of the term in the loss.", short="strength", unit="1", gt=0, le=LARGEST)
    exponent: int = setting(2, "Power of the largest singular value.", short="k", unit="1", ge=1, le=10)


@dataclass(frozen=True)
class SpectralRegularization(Intervention):
    """The loss term; its state is u of each layer.

    Attributes:
        strength: [lane].
        exponent: int64 [lane].
        seeds: one for each lane.
    """

    strength: Tensor
    exponent: Tensor
    seeds: tuple[int, ...]

    any_input_order = True

    def initial_state(self, params: Tensors, model: Model) -> Tensors:
        """Each u, in a random direction."""
        draws = [generator(seed, "spectral regularization") for seed in self.seeds]
        state = {}
        for name in matrices(params):
            value = params[name]
            normal = torch.stack([torch.randn(value.shape[1], generator=draw) for draw in draws]).to(value)
            state[PREFIX + name] = _unit(normal)
        return state

    def pull(self, state: Tensors) -> SpectralPull:
        """The pull of each largest singular value to 1."""
        directions = {key.removeprefix(PREFIX): u for key, u in state.items()}
        return SpectralPull(self.strength, self.exponent, directions)

    def after_step(self, learner: Learner, step: Step) -> Learner:
        """A power iteration of each u, at the new weights."""
        params = learner.params
        ahead = {  # (W W^T u)^T, [lane, 1, unit]
            name: torch.bmm(back, params[name].flatten(2).mT)
            for name, back in self.pull(learner.state).backs(params).items()
        }
        factors = reciprocal(lengths(ahead)).split(1, dim=1)
        rows = zip(ahead.items(), factors, strict=True)
        return replace(learner, state={PREFIX + name: row.squeeze(1) * factor for (name, row), factor in rows})


def _unit(vectors: Tensor) -> Tensor:
    """The vectors [lane, ...] in unit length; 0 stays 0."""
    return vectors * per_lane(reciprocal(torch.linalg.vector_norm(vectors, dim=1)), vectors)


def build(settings: Settings, seeds: Sequence[int], device: str) -> SpectralRegularization:
    """The intervention for these lanes."""
    return SpectralRegularization(
        torch.full((len(seeds),), settings.strength, device=device),
        torch.full((len(seeds),), settings.exponent, device=device),
        tuple(seeds),
    )
