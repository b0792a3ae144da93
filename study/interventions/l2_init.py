"""L2 Init: pulls the weights towards their initial values.

Kumar, Marklund and Van Roy 2023, arXiv 2308.11958. With w_0 the initial weights of the lane, the loss becomes

    L(w) + strength |w - w_0|^2.

As the term is part of the loss, it is part of every gradient of SAM and GNP.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from study.config import LARGEST, StrictSettings
from study.contracts import Intervention, Model
from study.lanes import Tensors
from study.pulls import Pull


class Settings(StrictSettings):
    """Settings of L2 Init."""

    strength: float = Field(
        1e-3, gt=0, le=LARGEST, description="Weight of the squared distance from the initial weights in the loss."
    )


@dataclass(frozen=True)
class L2Init(Intervention):
    """The loss term; its state is the initial weights.

    Attributes:
        strength: [lane].
    """

    strength: Tensor

    any_input_order = True

    def initial_state(self, params: Tensors, model: Model) -> Tensors:
        """A copy of the initial weights."""
        return {name: value.clone() for name, value in params.items()}

    def pull(self, state: Tensors) -> Pull:
        """The pull towards the initial weights."""
        return Pull(self.strength, state)


def build(settings: Settings, seeds: Sequence[int], device: str) -> L2Init:
    """The intervention; nothing in it is random."""
    return L2Init(torch.full((len(seeds),), settings.strength, device=device))
