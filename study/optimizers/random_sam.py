"""Random SAM: the mean of gradients at two noisy points.

Zhang, Li and Ju 2023, arXiv 2306.08553, noise stability optimisation, with one pair of points:

    G = (g(w + e) + g(w - e)) / 2

So to second order the loss gets half the Hessian's trace times the variance of the noise, without following the gradient uphill.

The paper and its code draw e from a normal distribution of deviation sigma. Here each weight of e is sigma times a random sign,
which has the same mean and covariance, and so the same penalty of the trace; and |e| = rho = sigma sqrt(d) exactly, with d the
number of weights, so that rho means what it means in SAM. Each weight has a sequence of signs of its own, the highest bits of a
multiplicative congruential generator modulo 2^32,

    x <- A x mod 2^32,

with an odd start drawn from (seed, "random sam", task) before each task. Multiplier: Steele and Vigna 2021, arXiv 2001.05304. So
signs are a function of seed, task and step, and a step can be recorded. Each lane also evaluates the gradient at w, which
measures online accuracy and is what interventions see: three evaluations a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from study import schema
from study.config import setting
from study.contracts import Beginning, Evaluation, Gradient, GradientFunction
from study.lanes import Tensors, add, generator, per_lane
from study.optimizers import LARGEST, BlendedRule, SharpnessSettings, constant_rule

MULTIPLIER = 0x93D765DD - 2**32
"""A as a signed 32-bit integer."""

NOISE = "noise:"
"""Prefix of the names of x in the memory."""


class Settings(SharpnessSettings):
    """Settings of random SAM."""

    rho: float = setting(
        0.05,
        "Length of the noise, in weight space.",
        short="rho",
        unit="length in weight space",
        role="sharpness",
        gt=0,
        le=LARGEST,
    )


@dataclass(frozen=True)
class RandomRule(BlendedRule):
    """The mean of the gradients at two noisy points."""

    @property
    def evaluations_per_step(self) -> int:
        """3: at both points, and at the weights themselves."""
        return 3

    @property
    def rests_where_flat(self) -> bool:
        """False: noise goes on where the gradient is 0."""
        return False

    @property
    def constants(self) -> dict[str, float]:
        """Length of the noise of the first lane."""
        return {schema.RADIUS: float(self.radius[0])}

    def initial_memory(self, params: Tensors) -> Tensors:
        """Noise not yet drawn, besides what the base remembers."""
        noise = {NOISE + name: torch.ones_like(value, dtype=torch.int32) for name, value in params.items()}
        return super().initial_memory(params) | noise

    def before_task(self, memory: Tensors, beginning: Beginning) -> Tensors:
        """The memory with new noise, lane by lane."""
        memory = super().before_task(memory, beginning)
        draws = [generator(seed, "random sam", beginning.task) for seed in beginning.seeds]
        noise = {}
        for name, value in memory.items():
            if name.startswith(NOISE):
                lanes = [
                    torch.randint(-(2**31), 2**31, value.shape[1:], dtype=torch.int32, generator=draw) for draw in draws
                ]
                noise[name] = (torch.stack(lanes) | 1).to(value.device)
        return memory | noise

    def descent_with_memory(
        self, gradient_at: GradientFunction, params: Tensors, memory: Tensors
    ) -> tuple[Gradient, Evaluation]:
        """G, and the evaluation at `params`."""
        here = gradient_at(params)
        sigma = self.radius / sum(value[0].numel() for value in params.values()) ** 0.5  # [lane]
        noise = {}  # e
        for name, value in params.items():
            numbers = memory[NOISE + name].mul_(MULTIPLIER)
            noise[name] = torch.copysign(per_lane(sigma, value), numbers.view(torch.float32))  # their highest bits
        one = torch.ones_like(sigma)
        there, back = (gradient_at(add(params, noise, way)) for way in (one, -one))
        return there.gradient.combined(one / 2, back.gradient, one / 2), here


def build(settings: Settings, lanes: int, device: str) -> RandomRule:
    """The rule for a number of lanes."""
    return RandomRule(**vars(constant_rule(settings, lanes, device, blend=1.0, radius=settings.rho)))
