"""Weight projection of NaP: layers keep their initial length.

Lyle et al. 2024, "Normalization and effective learning rates in reinforcement learning", arXiv 2407.01800. Every so many steps,
with W_0 the initial weights of a layer and |.| the Frobenius norm,

    W <- W |W_0| / |W|      (0/0 counts as 0)

Normalize-and-Project is this together with a layer norm before each nonlinearity, `model/layer_norm=plain`: the network then does
not depend on the length of W, which would only shrink the steps in effect. The weights of all layers are projected, the output
layer's too; biases, scales and shifts are left alone. There is no official code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from study.config import StrictSettings, setting
from study.contracts import Intervention, Learner, Model, Step
from study.interventions import idle
from study.interventions._matrices import matrices
from study.lanes import Tensors, per_lane, reciprocal


class Settings(StrictSettings):
    """Settings of weight projection."""

    every: int = setting(1, "Steps from one projection to the next.", short="every", unit="steps", ge=1, le=2**31)


@dataclass(frozen=True)
class WeightProjection(Intervention):
    """The intervention; its state is initial lengths and steps taken.

    Attributes:
        every: int64 [lane].
    """

    every: Tensor

    any_input_order = True

    def initial_state(self, params: Tensors, model: Model) -> Tensors:
        """`length NAME` of each layer's weights, and `steps`, [lane]."""
        lengths = {f"length {name}": length(params[name]) for name in matrices(params)}
        return {"steps": torch.zeros_like(self.every), **lengths}

    def after_step(self, learner: Learner, step: Step) -> Learner:
        """The weights in their initial lengths, if due, in place."""
        due = learner.state["steps"].add_(1) % self.every == 0  # [lane]
        if idle(due):
            return learner
        for name in matrices(learner.params):
            value = learner.params[name]
            factor = learner.state[f"length {name}"] * reciprocal(length(value))
            value.mul_(per_lane(torch.where(due, factor, 1), value))
        return learner


def length(weights: Tensor) -> Tensor:
    """Frobenius norm of weights [lane, ...], [lane]."""
    norms: Tensor = torch.linalg.vector_norm(weights.flatten(1), dim=1)
    return norms


def build(settings: Settings, seeds: Sequence[int], device: str) -> WeightProjection:
    """The intervention; nothing in it is random."""
    return WeightProjection(torch.full((len(seeds),), settings.every, device=device))
