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
            state[f"u of {name}"] = _unit(normal)
        return state

    def loss_term(self, params: Tensors, state: Tensors) -> Tensor:
        """`strength * sum (s^exponent - 1)^2`, [lane]."""
        terms = [(self._singular(params, state, name) ** self.exponent - 1) ** 2 for name in matrices(params)]
        return self.strength * torch.stack(terms).sum(0)

    def loss_gradient(self, params: Tensors, state: Tensors) -> Tensors:
        """The gradient of the term.

        `2 strength (s^exponent - 1) exponent s^(exponent - 1) u v^T` for weights; biases have none.
        """
        gradient = {}
        for name in matrices(params):
            value, u = params[name], state[f"u of {name}"]
            pulled = _back(value, u)  # s v
            s = torch.linalg.vector_norm(pulled, dim=1)
            slope = 2 * self.strength * (s**self.exponent - 1) * self.exponent * s ** (self.exponent - 1)
            scaled = u * (slope * reciprocal(s)).unsqueeze(1)
            gradient[name] = (scaled.unsqueeze(2) * pulled.unsqueeze(1)).view_as(value)
        return gradient

    def _singular(self, params: Tensors, state: Tensors, name: str) -> Tensor:
        """Largest singular value of a layer, [lane]."""
        values: Tensor = torch.linalg.vector_norm(_back(params[name], state[f"u of {name}"]), dim=1)
        return values

    def after_step(self, learner: Learner, step: Step) -> Learner:
        """A power iteration of each u, at the new weights."""
        state = dict(learner.state)
        for name in matrices(learner.params):
            value, key = learner.params[name], f"u of {name}"
            v = _unit(_back(value, state[key]))
            state[key] = _unit(torch.bmm(value.flatten(2), v.unsqueeze(2)).squeeze(2))
        return replace(learner, state=state)


def _back(weights: Tensor, u: Tensor) -> Tensor:
    """W^T u, [lane, input], of weights [lane, unit, ...]."""
    return torch.bmm(u.unsqueeze(1), weights.flatten(2)).squeeze(1)


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
