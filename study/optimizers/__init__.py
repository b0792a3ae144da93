"""Optimizers: one equation, of which each file is a row.

A file exposes `Settings` and `build(settings, lanes, device) -> Rule`.

With g(w) the gradient of the minibatch loss, H(w) its Hessian and |.| the L2 norm over all parameters of one lane,

    G = (1 - a) g(w) + a g(w + r g(w) / |g(w)|),      w <- w - lr G        (the same minibatch in both terms)

| rule | blend a | radius r | source |
|---|---|---|---|
| `sgd` | 0 | - | one gradient a step, not two |
| `sam` | 1 | rho | Foret, Kleiner, Mobahi and Neyshabur 2021, arXiv 2010.01412 |
| `gnp` | lambda / r | r | Zhao, Zhang and Hu 2022, arXiv 2202.03599 |
| `gnp`, r = 0 | - | the limit: G = g + lambda H g / |g| | the same, exact, by double backprop |

A blend above 1 extrapolates. With a zero gradient there is no uphill step: 0/0 counts as 0.

Momentum and weight decay are those of torch.optim.SGD, applied to G:

    d = G + weight_decay w,      m <- momentum m + d (m = d at the first step),      w <- w - lr m

So the uphill step of SAM and GNP, and the norm |g(w)|, are those of the loss alone. Weight decay shrinks the weights once a step,
is not part of the sharpness, and is taken at w, not at the uphill weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from study import config, schema
from study.config import StrictSettings, setting
from study.contracts import Evaluation, Gradient, GradientFunction
from study.gradients import DenseGradient
from study.lanes import Tensors, multiply, reciprocal

LARGEST = config.LARGEST
"""Upper bound of the settings of optimizers."""


class RuleSettings(StrictSettings):
    """Settings of every optimizer."""

    lr: float = setting(
        0.01,
        "Learning rate: length of a step per unit of gradient.",
        short="lr",
        unit="1",
        role="learning rate",
        gt=0,
        le=LARGEST,
    )
    momentum: float = Field(0.0, ge=0, lt=1, description="Share of the last update kept in the next.")
    weight_decay: float = Field(
        0.0, ge=0, le=LARGEST, description="Multiple of the weights added to the blended gradient."
    )


@dataclass(frozen=True)
class BlendedRule:
    """One row of the package's equation.

    The booleans are known before training, so that no step reads a value from the device.

    Attributes:
        lr, momentum, weight_decay: [lane].
        blend: a [lane].
        radius: r [lane], above 0 unless the rule is exact.
        penalty: lambda of the exact penalty, [lane]; None if the rule is a blend.
        sharpness: whether any lane needs the second gradient.
        mixed: whether any lane blends both gradients; otherwise the second is taken alone.
        momentous, decaying: whether any lane has momentum, weight decay.
    """

    lr: Tensor
    momentum: Tensor
    weight_decay: Tensor
    blend: Tensor
    radius: Tensor
    penalty: Tensor | None
    sharpness: bool
    mixed: bool
    momentous: bool
    decaying: bool

    @property
    def evaluations_per_step(self) -> int:
        """1 for SGD, 2 for all others."""
        return 2 if self.sharpness else 1

    @property
    def rests_where_flat(self) -> bool:
        """Whether the rule has neither momentum nor weight decay.

        Both move weights whose gradient is 0.
        """
        return not self.momentous and not self.decaying

    @property
    def constants(self) -> dict[str, float]:
        """Blend and radius, or exact penalty, of the first lane."""
        if self.penalty is not None:
            return {schema.PENALTY: float(self.penalty[0]), schema.RADIUS: 0.0}
        return {schema.BLEND: float(self.blend[0]), schema.RADIUS: float(self.radius[0])}

    def initial_memory(self, params: Tensors) -> Tensors:
        """Momentum buffers of zeros; empty if no lane has momentum."""
        if not self.momentous:
            return {}
        return {name: torch.zeros_like(value) for name, value in params.items()}

    def descent(self, gradient_at: GradientFunction, params: Tensors) -> tuple[Gradient, Evaluation]:
        """G, and the evaluation at `params`.

        A rule with another equation overrides this method.
        """
        return blended_gradient(gradient_at, params, self)

    def step(
        self, params: Tensors, memory: Tensors, gradient_at: GradientFunction
    ) -> tuple[Tensors, Tensors, Evaluation]:
        """One step of the equation, in place; see the package.

        Momentum buffers start at zero, so the first step has m = d, as in torch.
        """
        update, evaluation = self.descent(gradient_at, params)  # G
        if memory:
            multiply(memory, self.momentum)  # m <- momentum m + G + weight_decay w
            update.add_to(memory, torch.ones_like(self.lr))
            if self.decaying:
                DenseGradient(params).add_to(memory, self.weight_decay)
            DenseGradient(memory).add_to(params, -self.lr)  # w <- w - lr m
        else:
            if self.decaying:
                multiply(params, 1 - self.lr * self.weight_decay)  # w <- w - lr weight_decay w - lr G
            update.add_to(params, -self.lr)
        return params, memory, evaluation


def blended_gradient(gradient_at: GradientFunction, params: Tensors, rule: BlendedRule) -> tuple[Gradient, Evaluation]:
    """G of the package's equation, and the evaluation at `params`."""
    if rule.penalty is not None:  # G = g + lambda H g / |g|
        here, product = gradient_at.with_hessian_product(params)
        return here.gradient.combined(torch.ones_like(rule.penalty), product, rule.penalty), here
    here = gradient_at(params)  # g(w)
    if not rule.sharpness:  # a = 0
        return here.gradient, here
    uphill = gradient_at.displaced(params, here, rule.radius * reciprocal(here.gradient.norm()))  # g(w + r g / |g|)
    if not rule.mixed:  # a = 1
        return uphill.gradient, here
    # G = (1 - a) g(w) + a g(w + r g / |g|)
    return here.gradient.combined(1 - rule.blend, uphill.gradient, rule.blend), here


def constant_rule(
    settings: RuleSettings,
    lanes: int,
    device: str,
    *,
    blend: float = 0.0,
    radius: float = 0.0,
    penalty: float | None = None,
) -> BlendedRule:
    """The rule with the same settings in every lane."""

    def fill(value: float) -> Tensor:
        return torch.full((lanes,), value, device=device)

    return BlendedRule(
        lr=fill(settings.lr),
        momentum=fill(settings.momentum),
        weight_decay=fill(settings.weight_decay),
        blend=fill(blend),
        radius=fill(radius),
        penalty=None if penalty is None else fill(penalty),
        sharpness=blend != 0 or penalty is not None,
        mixed=blend != 1,
        momentous=settings.momentum != 0,
        decaying=settings.weight_decay != 0,
    )
