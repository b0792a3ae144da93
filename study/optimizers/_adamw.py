"""The step of AdamW, for lanes.

Loshchilov and Hutter 2019, arXiv 1711.05101, as torch.optim.AdamW computes it. With G the gradient and t the number of the step
from 1 on,

    m <- beta1 m + (1 - beta1) G,      v <- beta2 v + (1 - beta2) G^2
    w <- (1 - lr weight_decay) w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)

Weight decay is decoupled: it shrinks the weights, and neither m nor v sees it. The paper has a schedule factor in place of lr
before the decay; torch multiplies by lr, and so does this. Moments go on from task to task. The memory has v / (1 - beta2), which
saves a pass over it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from study.config import StrictSettings
from study.contracts import Gradient
from study.lanes import Tensors, per_lane

STEP = "adamw step"
"""Name of the number of steps in the memory."""


class AdamWSettings(StrictSettings):
    """Settings of AdamW besides learning rate and weight decay."""

    beta1: float = Field(0.9, ge=0, lt=1, description="Share of AdamW's mean gradient kept in the next.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Share of AdamW's mean squared gradient kept in the next.")
    epsilon: float = Field(1e-8, gt=0, le=1, description="Added to the root of AdamW's mean squared gradient.")


@dataclass(frozen=True)
class AdamW:
    """The moments and what is done with them.

    Attributes:
        beta1, beta2, epsilon: float64 [lane]. In float32, 1 - 0.999 would be wrong in its fifth digit.
    """

    beta1: Tensor
    beta2: Tensor
    epsilon: Tensor

    @classmethod
    def of(cls, settings: AdamWSettings, lanes: int, device: str) -> AdamW:
        """The same settings in every lane."""
        values = (settings.beta1, settings.beta2, settings.epsilon)
        return cls(*(torch.full((lanes,), value, dtype=torch.float64, device=device) for value in values))

    def initial_memory(self, params: Tensors) -> Tensors:
        """Moments of zeros, `m:` and `v:` before the parameter's name."""
        moments = {f"{moment}:{name}": torch.zeros_like(value) for moment in "mv" for name, value in params.items()}
        return moments | {STEP: torch.zeros_like(self.beta1)}

    def step(self, params: Tensors, memory: Tensors, update: Gradient, lr: Tensor, weight_decay: Tensor | None) -> None:
        """One step, in place.

        Args:
            params: [lane, ...].
            memory: see `initial_memory`.
            update: G.
            lr: [lane].
            weight_decay: [lane]; None: no lane has any.
        """
        taken = memory[STEP].add_(1)  # t [lane]
        root = (1 - self.beta2**taken).sqrt()
        size = -lr * root / (1 - self.beta1**taken)
        # w <- w + m / (sqrt(v) / size + epsilon root / size), with one large new tensor: new memory takes longer than arithmetic
        inverse, floor = (1 - self.beta2).sqrt() / size, self.epsilon * root / size
        for name, gradient in update.tensors().items():
            weight, m, v = params[name], memory[f"m:{name}"], memory[f"v:{name}"]

            def each(values: Tensor, like: Tensor = weight) -> Tensor:
                return per_lane(values.to(like.dtype), like)

            if weight_decay is not None:
                weight.mul_(each(1 - lr * weight_decay))
            m.lerp_(gradient, each(1 - self.beta1))
            v.mul_(each(self.beta2)).addcmul_(gradient, gradient)
            weight.addcdiv_(m, v.sqrt().mul_(each(inverse)).add_(each(floor)))
