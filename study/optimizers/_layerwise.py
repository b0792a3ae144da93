"""SGD with a learning rate for each parameter, for probes.

    w <- w - lr m g(w)

with m a multiple for each parameter, in the memory. It is plain SGD, without momentum or weight decay; `study.operations` says
what it undoes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from study.contracts import RATE, Evaluation, GradientFunction
from study.lanes import Tensors, per_lane


@dataclass(frozen=True)
class LayerwiseSGD:
    """The rule.

    Attributes:
        lr: [lane].
    """

    lr: Tensor

    evaluations_per_step = 1
    rests_where_flat = True

    @property
    def constants(self) -> dict[str, float]:
        """It has none."""
        return {}

    def initial_memory(self, params: Tensors) -> Tensors:
        """Multiples of 1, [lane], named after the parameters."""
        return {RATE + name: torch.ones_like(self.lr) for name in params}

    def step(
        self, params: Tensors, memory: Tensors, gradient_at: GradientFunction
    ) -> tuple[Tensors, Tensors, Evaluation]:
        """New parameters after one step."""
        evaluation = gradient_at(params)
        for name, slope in evaluation.gradient.tensors().items():
            params[name].addcmul_(per_lane(-self.lr * memory[RATE + name], slope), slope)
        return params, memory, evaluation
