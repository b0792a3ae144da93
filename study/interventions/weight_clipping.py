"""Weight clipping: bounds weights near where they started.

Elsayed, Lan, Lyle and Mahmood 2024, arXiv 2407.01704. After each step, with n the number of inputs of the layer,

    w <- min(max(w, -kappa / sqrt(n)), kappa / sqrt(n))

for weights and biases. 1/sqrt(n) bounds the initial weights of torch's layers, whatever the network's own initialisation. As in
the authors' code the output layer may be left out (their `clip_last_layer`); kappa is `zeta` there, from 1 to 5. A scale or shift
of a layer norm is not clipped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from study.config import LARGEST, StrictSettings, setting
from study.contracts import Intervention, Learner, Step
from study.interventions import readable
from study.interventions._matrices import fan_in, matrices, stem
from study.lanes import per_lane


class Settings(StrictSettings):
    """Settings of weight clipping."""

    kappa: float = setting(
        1.0, "Largest weight, in multiples of 1/sqrt(inputs of the layer).", short="kappa", unit="1", gt=0, le=LARGEST
    )
    output_layer: bool = Field(True, description="Whether the output layer is clipped too.")


@dataclass(frozen=True)
class WeightClipping(Intervention):
    """The intervention; it has no state.

    Attributes:
        kappa: [lane].
        output_layer: see `Settings`.
    """

    kappa: Tensor
    output_layer: bool

    any_input_order = True

    def after_step(self, learner: Learner, step: Step) -> Learner:
        """The weights within their bounds, in place."""
        params = learner.params
        names = matrices(params)
        for weight in names if self.output_layer else names[:-1]:
            bound = self.kappa / fan_in(params, weight) ** 0.5  # [lane]
            for name in (weight, f"{stem(weight)}bias"):
                if name in params:
                    clip(params[name], bound)
        return learner


def clip(values: Tensor, bound: Tensor) -> None:
    """Clips values to plus and minus a bound, in place.

    Values are [lane, ...], the bound [lane].
    """
    if readable(bound):  # numbers take half the time of tensors
        for own, limit in zip(values, bound.tolist(), strict=True):
            own.clamp_(-limit, limit)
    else:
        limits = per_lane(bound, values)
        values.clamp_(-limits, limits)


def build(settings: Settings, seeds: Sequence[int], device: str) -> WeightClipping:
    """The intervention; nothing in it is random."""
    return WeightClipping(torch.full((len(seeds),), settings.kappa, device=device), settings.output_layer)
