"""Friendly SAM: uphill along the gradient's part beyond its mean.

Li, Zhou, He, Cheng and Huang 2024, arXiv 2403.12350. With m a running mean of the gradients,

    G = g(w + e),      e = rho d / |d|,      d = g - sigma m,      then m <- ema m + (1 - ema) g      (m = g at the first step)

So the part of the uphill step that all minibatches share is taken out of it. The paper's d has the mean that includes g; its code
(nblt/F-SAM) has the one before, and m = g after the first step, in which d = g. The code is followed here. With sigma = 1 both
are one direction, for then the paper's d is ema times the code's. `ema` is the lambda of the paper and 0.9 in the code; its
recipes have 0.6 and 0.95. The mean goes on from task to task.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from study.config import setting
from study.contracts import Evaluation, Gradient, GradientFunction
from study.lanes import Tensors, add, norm, per_lane, reciprocal
from study.optimizers import LARGEST, BlendedRule, SharpnessSettings, constant_rule

BEGUN = "friendly begun"
"""Name in the memory of 1 for lanes that have taken a step, otherwise 0."""


class Settings(SharpnessSettings):
    """Settings of Friendly SAM."""

    rho: float = setting(
        0.05,
        "Length of the uphill step, in weight space.",
        short="rho",
        unit="length in weight space",
        role="sharpness",
        gt=0,
        le=LARGEST,
    )
    sigma: float = setting(
        1.0, "Multiple of the mean gradient taken off the uphill direction.", short="sigma", unit="1", ge=0, le=LARGEST
    )
    ema: float = Field(0.9, ge=0, lt=1, description="Share of the mean gradient kept in the next; the paper's lambda.")


@dataclass(frozen=True)
class FriendlyRule(BlendedRule):
    """SAM's row of the equation with another step uphill.

    Attributes:
        sigma, ema: [lane].
    """

    sigma: Tensor
    ema: Tensor

    @property
    def rests_where_flat(self) -> bool:
        """False: the mean changes where the gradient is 0."""
        return False

    def initial_memory(self, params: Tensors) -> Tensors:
        """A mean of zeros besides what the base remembers."""
        means = {f"friendly:{name}": torch.zeros_like(value) for name, value in params.items()}
        return super().initial_memory(params) | means | {BEGUN: torch.zeros_like(self.ema)}

    def descent_with_memory(
        self, gradient_at: GradientFunction, params: Tensors, memory: Tensors
    ) -> tuple[Gradient, Evaluation]:
        """G, and the evaluation at `params`."""
        here = gradient_at(params)
        fresh = 1 - self.ema * memory[BEGUN]  # share of g in the mean: all of it at the first step
        direction = {}  # d
        for name, gradient in here.gradient.tensors().items():
            mean = memory[f"friendly:{name}"]
            direction[name] = torch.addcmul(gradient, mean, per_lane(-self.sigma, mean))
            mean.lerp_(gradient, per_lane(fresh, mean))
        memory[BEGUN].fill_(1)
        there = gradient_at(add(params, direction, self.radius * reciprocal(norm(direction))))
        return there.gradient, here


def build(settings: Settings, lanes: int, device: str) -> FriendlyRule:
    """The rule for a number of lanes."""
    row = constant_rule(settings, lanes, device, blend=1.0, radius=settings.rho)
    sigma, ema = (torch.full((lanes,), value, device=device) for value in (settings.sigma, settings.ema))
    return FriendlyRule(**vars(row), sigma=sigma, ema=ema)
