"""Optimizers: a gradient, and a base that steps along it.

A file exposes `Settings` and `build(settings, lanes, device) -> Rule`.

With g(w) the gradient of the minibatch loss, H(w) its Hessian and |.| the L2 norm over all parameters of one lane, most files are
a row of one equation:

    G = (1 - a) g(w) + a g(w + r g(w) / |g(w)|),      w <- w - lr G        (the same minibatch in both terms)

| rule | blend a | radius r | source |
|---|---|---|---|
| `sgd` | 0 | - | one gradient a step, not two |
| `sam` | 1 | rho | Foret, Kleiner, Mobahi and Neyshabur 2021, arXiv 2010.01412 |
| `gnp` | lambda / r | r | Zhao, Zhang and Hu 2022, arXiv 2202.03599 |
| `gnp`, r = 0 | - | the limit: G = g + lambda H g / |g| | the same, exact, by double backprop |

A blend above 1 extrapolates. With a zero gradient there is no uphill step: 0/0 counts as 0. Others move the weights another way,
by e with |e| = rho or so, before they take the gradient:

| rule | G | e | source |
|---|---|---|---|
| `asam` | g(w + e) | rho T^2 g / |T g|, T = |w| + eta | Kwon, Kim, Park and Choi 2021, arXiv 2102.11600 |
| `friendly_sam` | g(w + e) | rho d / |d|, d = g - sigma m, m a running mean of g | Li et al. 2024, arXiv 2403.12350 |
| `random_sam` | (g(w + e) + g(w - e)) / 2 | random signs, |e| = rho | Zhang, Li and Ju 2023, arXiv 2306.08553 |

The base takes a step along G. With `optimizer/base=sgd`, momentum and weight decay are those of torch.optim.SGD:

    d = G + weight_decay w,      m <- momentum m + d (m = d at the first step),      w <- w - lr m

With `optimizer/base=adamw` it is that of torch.optim.AdamW, see `study.optimizers._adamw`, and `adamw` is that base alone, with
G = g(w). The uphill step, and the norm |g(w)|, are those of the loss alone. Weight decay shrinks the weights once a step, is not
part of the sharpness, and is taken at w, not at the uphill weights.

rho, or the lambda of GNP, may follow a schedule over the tasks or within each task, see `study.optimizers._schedule`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from study import config, schema
from study.config import StrictSettings, setting
from study.contracts import Beginning, Evaluation, Gradient, GradientFunction
from study.errors import StudyError
from study.gradients import DenseGradient
from study.lanes import Tensors, multiply, per_lane, reciprocal
from study.optimizers._adamw import AdamW, AdamWSettings
from study.optimizers._schedule import Schedule, ScheduleSettings

LARGEST = config.LARGEST
"""Upper bound of the settings of optimizers."""


class RuleSettings(StrictSettings):
    """Settings of SGD, and of every rule on it."""

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
        0.0,
        ge=0,
        le=LARGEST,
        description="Multiple of the weights added to the blended gradient, or decoupled from it by AdamW.",
    )


def not_zero(value: float) -> float:
    """The value; raises ValueError if it is 0."""
    if value == 0:
        raise ValueError("Value should not be 0, which would be SGD at twice the cost")
    return value


class SharpnessSettings(ScheduleSettings, AdamWSettings, RuleSettings):
    """Settings of every rule that takes more than one gradient."""

    base: Literal["sgd", "adamw"] = Field(
        "sgd", description="What steps along the gradient of the rule: SGD, with momentum, or AdamW, with its betas."
    )

    @model_validator(mode="after")
    def _have_an_effect(self) -> Self:
        """Raises StudyError if a setting has no effect."""
        self.check_schedule()
        if self.base == "adamw" and self.momentum:
            raise StudyError("momentum has no effect with base=adamw; set beta1 instead.")
        for name, known in AdamWSettings.model_fields.items():
            if self.base == "sgd" and getattr(self, name) != known.default:
                raise StudyError(f"{name} has no effect with base=sgd; choose base=adamw.")
        return self


@dataclass(frozen=True)
class BlendedRule:
    """One row of the package's equation, on a base.

    The booleans are known before training, so that no step reads a value from the device.

    Attributes:
        lr, momentum, weight_decay: [lane].
        blend: a [lane].
        radius: r [lane], above 0 unless the rule is exact.
        penalty: lambda of the exact penalty, [lane]; None if the rule is a blend.
        sharpness: whether any lane needs the second gradient.
        mixed: whether any lane blends both gradients; otherwise the second is taken alone.
        momentous, decaying: whether any lane has momentum, weight decay.
        adamw: the base, if it is not SGD.
        schedule: of the setting named `scheduled`; None if it is constant.
        scheduled: "radius", "blend" or "penalty".
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
    adamw: AdamW | None = field(default=None, kw_only=True)
    schedule: Schedule | None = field(default=None, kw_only=True)
    scheduled: str = field(default="radius", kw_only=True)

    @property
    def evaluations_per_step(self) -> int:
        """1 for SGD, 2 for all others."""
        return 2 if self.sharpness else 1

    @property
    def rests_where_flat(self) -> bool:
        """Whether the rule has no momentum, weight decay or AdamW.

        They move weights whose gradient is 0.
        """
        return not self.momentous and not self.decaying and self.adamw is None

    @property
    def constants(self) -> dict[str, float]:
        """Blend and radius, or exact penalty, of the first lane."""
        if self.penalty is not None:
            return {schema.PENALTY: float(self.penalty[0]), schema.RADIUS: 0.0}
        return {schema.BLEND: float(self.blend[0]), schema.RADIUS: float(self.radius[0])}

    def initial_memory(self, params: Tensors) -> Tensors:
        """Zeros for momentum or moments; the place in a schedule.

        Empty if no lane needs any.
        """
        memory = {} if self.schedule is None else self.schedule.initial_memory()
        if self.adamw is not None:
            return memory | self.adamw.initial_memory(params)
        return memory | {name: torch.zeros_like(value) for name, value in params.items() if self.momentous}

    def check_tasks(self, count: int) -> None:
        """Raises StudyError if a list of factors has another length."""
        if self.schedule is not None:
            self.schedule.check_tasks(count)

    def before_task(self, memory: Tensors, beginning: Beginning) -> Tensors:
        """The memory with the task's place in the schedule."""
        return memory if self.schedule is None else memory | self.schedule.before_task(beginning)

    def descent(self, gradient_at: GradientFunction, params: Tensors) -> tuple[Gradient, Evaluation]:
        """G, and the evaluation at `params`.

        A rule with another equation overrides this method.
        """
        return blended_gradient(gradient_at, params, self)

    def descent_with_memory(
        self, gradient_at: GradientFunction, params: Tensors, memory: Tensors
    ) -> tuple[Gradient, Evaluation]:
        """The same; the rule's own memory changes in place.

        A rule that remembers something overrides this method.
        """
        return self.descent(gradient_at, params)

    def step(
        self, params: Tensors, memory: Tensors, gradient_at: GradientFunction
    ) -> tuple[Tensors, Tensors, Evaluation]:
        """One step of the base along G, in place.

        See the package.

        Momentum buffers start at zero, so the first step has m = d, as in torch.
        """
        now = self if self.schedule is None else self._scheduled(self.schedule.next_factor(memory))
        update, evaluation = now.descent_with_memory(gradient_at, params, memory)  # G
        if self.adamw is not None:
            self.adamw.step(params, memory, update, self.lr, self.weight_decay if self.decaying else None)
        elif self.momentous:
            buffers = {name: memory[name] for name in params}
            multiply(buffers, self.momentum)  # m <- momentum m + G + weight_decay w
            update.add_to(buffers, torch.ones_like(self.lr))
            if self.decaying:
                DenseGradient(params).add_to(buffers, self.weight_decay)
            DenseGradient(buffers).add_to(params, -self.lr)  # w <- w - lr m
        else:
            if self.decaying:  # w <- w - lr weight_decay w - lr G; in new tensors, as G may read the old ones
                share = 1 - self.lr * self.weight_decay
                params = {name: value * per_lane(share, value) for name, value in params.items()}
            update.add_to(params, -self.lr)
        return params, memory, evaluation

    def _scheduled(self, factor: Tensor) -> Self:
        """The rule with the factor [lane] on its scheduled setting."""
        return replace(self, **{self.scheduled: getattr(self, self.scheduled) * factor})


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
    """The rule with the same settings in every lane.

    Base and schedule are those of the settings, if they are `SharpnessSettings`; the schedule is one of the radius.
    """

    def fill(value: float) -> Tensor:
        return torch.full((lanes,), value, device=device)

    sharp = settings if isinstance(settings, SharpnessSettings) else None
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
        adamw=AdamW.of(sharp, lanes, device) if sharp is not None and sharp.base == "adamw" else None,
        schedule=None if sharp is None else Schedule.of(sharp, lanes, device),
    )
