"""Terms of the loss that pull weights to a point.

With w the weights of a lane and c the point, the centre,

    strength |w - c|^2,      its gradient 2 strength (w - c),      its Hessian 2 strength times the identity.

Or they pull a singular value of each layer to 1. With W the layer's weights as a matrix with a row for each unit, u a vector that
is held fixed, and s = |W^T u|,

    strength sum_layers (s^k - 1)^2,      its gradient 2 strength (s^k - 1) k s^(k - 2) u (W^T u)^T.

Both gradients are cheap to keep: the first is the weights themselves, the second one outer product a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from study.lanes import Tensors, per_lane, reciprocal


@dataclass(frozen=True, eq=False)
class Pull:
    """One such term.

    Attributes:
        strength: [lane].
        centre: c [lane, ...] by parameter name; None: 0.
    """

    strength: Tensor
    centre: Tensors | None = None

    @property
    def rate(self) -> Tensor:
        """`2 strength`, [lane]: the gradient's length by distance."""
        return 2 * self.strength

    def loss(self, params: Tensors) -> Tensor:
        """`strength |w - c|^2`, [lane]."""
        squares = [self._offset(name, value).square().flatten(1).sum(1) for name, value in params.items()]
        return self.strength * torch.stack(squares).sum(0)

    def gradient(self, params: Tensors) -> Tensors:
        """`2 strength (w - c)`, [lane, ...]."""
        return {name: self._offset(name, value) * per_lane(self.rate, value) for name, value in params.items()}

    def _offset(self, name: str, value: Tensor) -> Tensor:
        return value if self.centre is None else value - self.centre[name]


@dataclass(frozen=True, eq=False)
class SpectralPull:
    """A pull of one singular value of each layer.

    Attributes:
        strength: [lane].
        exponent: k, int64 [lane].
        directions: u [lane, unit] by the name of a layer's weights [lane, unit, ...]; layers that are left out are not pulled.
    """

    strength: Tensor
    exponent: Tensor
    directions: Tensors

    def backs(self, params: Tensors) -> Tensors:
        """W^T u of each layer, [lane, 1, input]."""
        # In this order of the factors the product takes a tenth of the time of the other one.
        return {name: torch.bmm(u.unsqueeze(1), params[name].flatten(2)) for name, u in self.directions.items()}

    def loss(self, params: Tensors) -> Tensor:
        """`strength * sum (s^k - 1)^2`, [lane]."""
        excess = lengths(self.backs(params)) ** self.exponent.unsqueeze(1) - 1  # of [lane, layer]
        return self.strength * excess.square().sum(1)

    def gradient(self, params: Tensors) -> Tensors:
        """The gradient by weights, written out [lane, unit, ...]."""
        backs = self.backs(params)
        return {
            name: torch.bmm(errors.unsqueeze(2), backs[name]).view_as(params[name])
            for name, errors in self.errors(backs).items()
        }

    def errors(self, backs: Tensors) -> Tensors:
        """The gradient's other factors, by weights, [lane, unit].

        Those of `backs`; 0 where s is 0.
        """
        s, k = lengths(backs), self.exponent.unsqueeze(1)
        power = s ** (k - 1)
        slopes = (
            (2 * self.strength * self.exponent).unsqueeze(1) * (power * s - 1) * power * reciprocal(s)
        )  # [lane, layer]
        return {name: self.directions[name] * slope for name, slope in zip(backs, slopes.split(1, dim=1), strict=True)}


AnyPull = Pull | SpectralPull


def lengths(rows: Tensors) -> Tensor:
    """L2 norms of rows [lane, 1, ...], as [lane, name]."""
    return torch.cat([torch.linalg.vector_norm(row, dim=2) for row in rows.values()], dim=1)


def joined(terms: Sequence[AnyPull]) -> AnyPull | None:
    """The pull with the gradient of all of them together.

    None if there is no such pull.
    """
    if len(terms) == 1:
        return terms[0]
    pulls = [term for term in terms if isinstance(term, Pull)]
    return _to_one_point(pulls) if len(pulls) == len(terms) else None


def _to_one_point(pulls: Sequence[Pull]) -> Pull:
    strength = torch.stack([pull.strength for pull in pulls]).sum(0)
    centre: Tensors = {}
    for pull in pulls:
        share = pull.strength / strength
        for name, value in (pull.centre or {}).items():
            part = value * per_lane(share, value)
            centre[name] = centre[name] + part if name in centre else part
    return Pull(strength, centre or None)
