"""Self-normalised resets of units that are silent for too long.

Farias and Jozefiak 2024, arXiv 2410.20098. What is too long, each unit's own history tells. A unit fires in a step if it is above
0 on any image of the minibatch. With its age the number of steps since it last fired, after each step

    units with age >= limit are reset, see `study.interventions._units`; their age becomes 0

and before each new task, with q the `percentile` of the ages above 0 at which the unit fired or was reset in the task that ends,

    limit <- q  if q < limit,  else  expansion limit,      then at least `shortest` and at most `longest`.

The percentile is the smallest of these ages that is not below the share `percentile` of them. A unit that was never silent has
q = 1 step. Units with several outputs, as of CReLU, are never silent: their activation is a sum of absolute values.

This is the authors' code, which differs from the paper's test by having limits, and changing them between tasks. It counts images
where steps are counted here, and its `shortest` is 100 images, a little over 6 steps of 16. It keeps all ages of a task, as a
histogram; here the last `window` of each unit are kept. It resets biases to 0, with which its network starts; here they are drawn
as at the start.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor

from study.config import LARGEST, StrictSettings, setting
from study.contracts import Boundary, Learner, Model, Step
from study.interventions import idle
from study.interventions._units import ResetsUnits, reset
from study.lanes import Tensors

MOST_STEPS = 2**30
"""Largest limit."""


class Settings(StrictSettings):
    """Settings of self-normalised resets."""

    percentile: float = setting(
        0.98,
        "Share of a unit's silent spells that are not longer than its limit.",
        short="percentile",
        unit="1",
        gt=0,
        lt=1,
    )
    first: int = Field(500, ge=1, le=MOST_STEPS, description="Limit of every unit in the first task, in steps.")
    expansion: float = Field(
        2.0, ge=1, le=LARGEST, description="Factor on the limit of a unit whose silent spells reach it."
    )
    shortest: int = Field(7, ge=1, le=MOST_STEPS, description="Smallest limit, in steps.")
    longest: int = Field(10_000, ge=1, le=MOST_STEPS, description="Largest limit, in steps.")
    window: int = Field(64, ge=1, le=10_000, description="Silent spells of a task that are kept for each unit.")


@dataclass(frozen=True)
class SelfNormalizedResets(ResetsUnits):
    """The intervention for some seeds.

    Attributes:
        percentile, expansion: [lane].
        first, shortest, longest: int64 [lane].
        window: see `Settings`.
    """

    percentile: Tensor
    expansion: Tensor
    first: Tensor
    shortest: Tensor
    longest: Tensor
    window: int

    purpose = "self-normalized resets"

    def initial_state(self, params: Tensors, model: Model) -> Tensors:
        """Fresh rows, and what is known of the units.

        For each hidden layer I, `age I` and `limit I` are int64 [lane, unit]. `spells I`, int32 [lane, unit, window], has the
        last ages, and `count I`, int64 [lane, unit], how many there were in this task.
        """
        state = self.fresh(model, 0, self.percentile.device)
        for i, layer in enumerate(model.hidden_layers):
            lanes, *_, units = params[layer.outgoing].shape
            none = torch.zeros(lanes, units, dtype=torch.int64, device=self.percentile.device)
            state |= {f"age {i}": none, f"limit {i}": none + self.first.unsqueeze(1), f"count {i}": none.clone()}
            state |= {f"spells {i}": none.to(torch.int32).unsqueeze(2).repeat(1, 1, self.window)}
        return state

    def after_step(self, learner: Learner, step: Step) -> Learner:
        """The learner without units that were silent for too long."""
        state, masks = learner.state, []
        for i, hidden in enumerate(step.evaluation.hidden()):
            age = state[f"age {i}"]
            fired = (hidden > 0).any(dim=1)  # [lane, unit]
            silent = (age + 1).masked_fill_(fired, 0)
            mask = silent >= state[f"limit {i}"]
            self._keep(state, i, mask | (fired & (age > 0)), age + mask)
            age.copy_(silent).masked_fill_(mask, 0)
            masks.append(mask)
        return reset(learner, step.model.hidden_layers, masks)

    def _keep(self, state: Tensors, i: int, ended: Tensor, age: Tensor) -> None:
        """Keeps the ages of units whose silence has ended, in place."""
        if idle(ended):
            return
        spells, count = state[f"spells {i}"], state[f"count {i}"]
        place = (count % self.window).unsqueeze(2)
        before = spells.gather(2, place)
        spells.scatter_(2, place, torch.where(ended.unsqueeze(2), age.unsqueeze(2).to(spells.dtype), before))
        count.add_(ended)

    def before_task(self, learner: Learner, boundary: Boundary) -> Learner:
        """New limits for units, new rows for resets."""
        state = dict(learner.state)
        for i in range(len(boundary.model.hidden_layers)):
            count, limit = state[f"count {i}"], state[f"limit {i}"]
            q = percentile(state[f"spells {i}"], count, self.percentile)
            longer = (self.expansion.unsqueeze(1) * limit).clamp(max=MOST_STEPS).to(torch.int64)
            bounded = torch.where(q < limit, q, longer).minimum(self.longest.unsqueeze(1))
            state |= {f"limit {i}": bounded.maximum(self.shortest.unsqueeze(1)), f"count {i}": torch.zeros_like(count)}
        return replace(learner, state=state | self.fresh(boundary.model, boundary.task, self.percentile.device))


def percentile(spells: Tensor, count: Tensor, share: Tensor) -> Tensor:
    """Percentile of each unit's silent spells, int64 [lane, unit].

    1 for a unit without any.

    Args:
        spells: int32 [lane, unit, window].
        count: how many there were; the window has the last of them. int64 [lane, unit].
        share: [lane].
    """
    window = spells.shape[2]
    kept = count.clamp(max=window)
    unused = torch.arange(window, device=spells.device) >= kept.unsqueeze(2)  # [lane, unit, window]
    ordered = spells.to(torch.int64).masked_fill(unused, torch.iinfo(torch.int64).max).sort(dim=2).values
    ranks = torch.arange(1, window + 1, device=spells.device, dtype=torch.float64)
    reached = ranks >= share.view(-1, 1, 1) * kept.unsqueeze(2)  # whether so many spells are the share of all
    place = reached.to(torch.int8).argmax(dim=2, keepdim=True)
    return torch.where(kept > 0, ordered.gather(2, place).squeeze(2), 1)


def build(settings: Settings, seeds: Sequence[int], device: str) -> SelfNormalizedResets:
    """The intervention for these lanes."""

    def fill(value: float) -> Tensor:
        return torch.full((len(seeds),), value, device=device)

    return SelfNormalizedResets(
        tuple(seeds),
        percentile=fill(settings.percentile),
        expansion=fill(settings.expansion),
        first=fill(settings.first),
        shortest=fill(settings.shortest),
        longest=fill(settings.longest),
        window=settings.window,
    )
