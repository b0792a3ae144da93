"""Adaptive SAM: uphill relative to the size of each weight.

Kwon, Kim, Park and Choi 2021, arXiv 2102.11600. With T = |w| + eta, element by element,

    G = g(w + e),      e = rho T^2 g / |T g|

Unlike that of SAM, this step is as steep as before when the weights of one layer are scaled up and those of the next one down,
which changes no output of a ReLU network.

The paper has T for all parameters. Its code (SamsungLabs/ASAM) has T = 1 for parameters that are not called a weight, that is for
biases; it is followed here unless `adapt_biases` is set. With eta = 0 and `adapt_biases` this is the adaptive SAM of
davda54/sam. A negative rho goes downhill, see `study.optimizers.sam`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field, field_validator
from torch import Tensor

from study.config import setting
from study.contracts import Evaluation, Gradient, GradientFunction
from study.lanes import Tensors, add, norm, per_lane, reciprocal
from study.optimizers import LARGEST, BlendedRule, SharpnessSettings, constant_rule, not_zero


class Settings(SharpnessSettings):
    """Settings of ASAM."""

    rho: float = setting(
        0.5,
        "Length of the uphill step, relative to the weights; below 0: downhill, anti-SAM.",
        short="rho",
        unit="relative length",
        role="sharpness",
        ge=-LARGEST,
        le=LARGEST,
    )
    eta: float = setting(0.01, "Added to the size of each weight.", short="eta", unit="weight", ge=0, le=LARGEST)
    adapt_biases: bool = Field(
        False, description="Whether the step is relative to biases too, as in the paper; its code leaves them out."
    )
    _rho_is_not_zero = field_validator("rho")(not_zero)


@dataclass(frozen=True)
class AdaptiveRule(BlendedRule):
    """SAM's row of the equation with another step uphill.

    Attributes:
        eta: [lane].
        adapt_biases: whether T is |b| + eta for a bias b, not 1.
    """

    eta: Tensor
    adapt_biases: bool

    def descent(self, gradient_at: GradientFunction, params: Tensors) -> tuple[Gradient, Evaluation]:
        """G, and the evaluation at `params`."""
        here = gradient_at(params)
        uphill, steepness = {}, {}  # T^2 g [lane, ...] and |T g| [lane, 1]
        for name, gradient in here.gradient.tensors().items():
            if self.adapt_biases or "weight" in name:
                size = params[name].abs().add_(per_lane(self.eta, gradient))  # T
                scaled = size * gradient
                uphill[name] = size.mul_(scaled)
            else:
                scaled = uphill[name] = gradient
            steepness[name] = norm({name: scaled}).unsqueeze(1)
        there = gradient_at(add(params, uphill, self.radius * reciprocal(norm(steepness))))
        return there.gradient, here


def build(settings: Settings, lanes: int, device: str) -> AdaptiveRule:
    """The rule for a number of lanes."""
    row = constant_rule(settings, lanes, device, blend=1.0, radius=settings.rho)
    eta = torch.full((lanes,), settings.eta, device=device)
    return AdaptiveRule(**vars(row), eta=eta, adapt_biases=settings.adapt_biases)
