"""Continual backprop: replaces the least useful units.

Dohare, Hernandez-Garcia, Lan, Rahman, Mahmood and Sutton 2024, Nature 632, 768-774, arXiv 2306.13812. After each step, with h the
activation of a unit before it, w_in and w_out its incoming and outgoing weights, and the mean over the minibatch,

    age <- age + 1,      u <- decay u + (1 - decay) y

    contribution               y = mean|h| sum|w_out|
    adaptable_contribution     y = mean|h - m| sum|w_out| / sum|w_in|
                               with m = f / (1 - decay^age) and f <- decay f + (1 - decay) mean h

Of the units of a layer that are older than `maturity`, the share `rate` is replaced: n <- n + rate (number of mature units), and
of these the floor(n) units with the smallest u / (1 - decay^age) are reset, see `study.interventions._units`; n keeps the rest.
The age, u and f of a unit that is reset become 0.

The authors' code is followed where it differs from the paper: the utility is corrected for its start at 0 as in Adam. The sums
over weights are means in the code, which ranks the units of a layer alike. `contribution` is the utility of the paper,
`adaptable_contribution` that of the code's permuted MNIST (rate 1e-4 to 1e-6, maturity 100); the first needs no pass over the
incoming weights. The code would add what a replaced unit contributed on average to the biases of the next layer, but has set that
average to 0 before; nothing is added here. It replaces by chance or by an accumulated number (`accumulate`), here by the latter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from study.config import StrictSettings, setting
from study.contracts import Boundary, HiddenLayer, Learner, Model, Step
from study.interventions import idle
from study.interventions._units import ResetsUnits, reset
from study.lanes import Tensors, reciprocal

VECTOR = 2
"""Axes of a parameter with one number for each unit, [lane, unit]; biases do not count as incoming weights."""


class Settings(StrictSettings):
    """Settings of continual backprop."""

    rate: float = setting(
        1e-4, "Share of the mature units of a layer replaced after each step.", short="rate", unit="1", gt=0, le=1
    )
    maturity: int = setting(
        100, "Steps for which a new unit is not replaced.", short="maturity", unit="steps", ge=0, le=2**31
    )
    decay: float = Field(0.99, ge=0, lt=1, description="Share of the last utility kept in the next.")
    utility: Literal["contribution", "adaptable_contribution"] = Field(
        "contribution", description="How the use of a unit is measured: as in the paper, or as in its permuted MNIST."
    )


@dataclass(frozen=True)
class ContinualBackprop(ResetsUnits):
    """The intervention for some seeds.

    Attributes:
        rate, decay: [lane].
        maturity: int64 [lane].
        adaptable: whether the utility is `adaptable_contribution`.
    """

    rate: Tensor
    maturity: Tensor
    decay: Tensor
    adaptable: bool

    purpose = "continual backprop"

    def initial_state(self, params: Tensors, model: Model) -> Tensors:
        """Fresh rows, and what is known of the units.

        For each hidden layer I, `age I` is int64 [lane, unit], `utility I` and `mean I` (f) are [lane, unit], and `due I` (n)
        is float64 [lane].
        """
        state = self.fresh(model, 0, self.rate.device)
        for i, layer in enumerate(model.hidden_layers):
            zeros = torch.zeros_like(params[layer.outgoing].flatten(1, -2)[:, 0])  # [lane, unit]
            state |= {f"age {i}": zeros.to(torch.int64), f"utility {i}": zeros}
            state |= {f"mean {i}": zeros.clone()} if self.adaptable else {}
            state |= {f"due {i}": torch.zeros_like(self.rate, dtype=torch.float64)}
        return state

    def after_step(self, learner: Learner, step: Step) -> Learner:
        """The learner with the least useful units replaced."""
        state, layers, masks = learner.state, step.model.hidden_layers, []
        for i, (layer, hidden) in enumerate(zip(layers, step.evaluation.hidden(), strict=True)):
            age = state[f"age {i}"].add_(1)
            started = 1 - self.decay.unsqueeze(1) ** age  # 1 - decay^age, [lane, unit]
            utility = self._averaged(state[f"utility {i}"], self._use(learner, i, layer, hidden, started))
            mature = age > self.maturity.unsqueeze(1)
            due = state[f"due {i}"].add_(self.rate * mature.sum(1))
            count = due.floor()
            due.sub_(count)
            if idle(count > 0):
                masks.append(torch.zeros_like(mature))
                continue
            ranked = torch.where(mature, utility / started, torch.inf).argsort(dim=1, stable=True)
            rank = ranked.argsort(dim=1)  # of each unit, from 0 for the least useful
            mask = mature & (rank < count.unsqueeze(1))
            for name in (f"age {i}", f"utility {i}", f"mean {i}"):
                if name in state:
                    state[name].masked_fill_(mask, 0)
            masks.append(mask)
        return reset(learner, layers, masks)

    def _use(self, learner: Learner, i: int, layer: HiddenLayer, hidden: Tensor, started: Tensor) -> Tensor:
        """The use y of a layer's units, [lane, unit]."""
        out = learner.params[layer.outgoing].flatten(1, -2).abs().sum(1)  # sum|w_out|
        if not self.adaptable:
            return hidden.abs().mean(dim=1) * out
        mean = self._averaged(learner.state[f"mean {i}"], hidden.mean(dim=1)) / started
        weights = [learner.params[name] for name in layer.incoming if learner.params[name].dim() > VECTOR]
        into = torch.stack([each.flatten(2).abs().sum(2) for each in weights]).sum(0)  # sum|w_in|
        return (hidden - mean.unsqueeze(1)).abs().mean(dim=1) * out * reciprocal(into)

    def _averaged(self, average: Tensor, values: Tensor) -> Tensor:
        """The moving average with new values, in place, [lane, unit]."""
        decay = self.decay.unsqueeze(1)
        return average.mul_(decay).add_((1 - decay) * values)

    def before_task(self, learner: Learner, boundary: Boundary) -> Learner:
        """New rows for the resets of the task."""
        rows = self.fresh(boundary.model, boundary.task, self.rate.device)
        return replace(learner, state=learner.state | rows)


def build(settings: Settings, seeds: Sequence[int], device: str) -> ContinualBackprop:
    """The intervention for these lanes."""
    rate, maturity, decay = (
        torch.full((len(seeds),), value, device=device) for value in (settings.rate, settings.maturity, settings.decay)
    )
    return ContinualBackprop(
        tuple(seeds), rate, maturity, decay, adaptable=settings.utility == "adaptable_contribution"
    )
