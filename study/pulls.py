"""Terms of the loss that pull weights to a point.

With w the weights of a lane and c the point, the centre,

    strength |w - c|^2,      its gradient 2 strength (w - c),      its Hessian 2 strength times the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from study.lanes import Tensors, per_lane


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


def joined(pulls: Sequence[Pull]) -> Pull:
    """The pull with the same gradient as all pulls together."""
    if len(pulls) == 1:
        return pulls[0]
    strength = torch.stack([pull.strength for pull in pulls]).sum(0)
    centre: Tensors = {}
    for pull in pulls:
        share = pull.strength / strength
        for name, value in (pull.centre or {}).items():
            part = value * per_lane(share, value)
            centre[name] = centre[name] + part if name in centre else part
    return Pull(strength, centre or None)
