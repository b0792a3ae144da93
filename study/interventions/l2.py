"""L2 regularisation: pulls all weights towards 0.

Krogh and Hertz 1991; against the loss of plasticity Lyle et al. 2024, arXiv 2402.18762. The loss becomes

    L(w) + strength |w|^2,

over weights and biases. As the term is part of the loss, it is part of every gradient of SAM and GNP and of their norm, and of
the moments of Adam. `optimizer/weight_decay` is added to the update instead, after these; for SGD `weight_decay = 2 strength` is
the same. The code of L2 Init has `0.5 l2_weight |w|^2`: its `l2_weight` is twice the strength.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from study.config import LARGEST, StrictSettings, setting
from study.contracts import Intervention
from study.lanes import Tensors
from study.pulls import Pull


class Settings(StrictSettings):
    """Settings of L2 regularisation."""

    strength: float = setting(
        1e-4, "Weight of the squared length of all weights in the loss.", short="strength", unit="1", gt=0, le=LARGEST
    )


@dataclass(frozen=True)
class L2(Intervention):
    """The loss term; it has no state.

    Attributes:
        strength: [lane].
    """

    strength: Tensor

    any_input_order = True

    def pull(self, state: Tensors) -> Pull:
        """The pull to 0."""
        return Pull(self.strength)


def build(settings: Settings, seeds: Sequence[int], device: str) -> L2:
    """The intervention; nothing in it is random."""
    return L2(torch.full((len(seeds),), settings.strength, device=device))
