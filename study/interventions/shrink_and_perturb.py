"""Shrink and perturb.

Before each new task the weights shrink and get noise. Ash and Adams 2020, arXiv 1910.08475:

    w <- shrink w + noise n,      n standard normal

Nothing happens before the first task. The noise of a lane before task t is drawn from (seed, "shrink and perturb", t).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor

from study.config import LARGEST, StrictSettings
from study.contracts import Boundary, Intervention, Learner
from study.lanes import generator, per_lane


class Settings(StrictSettings):
    """Settings of shrink and perturb."""

    shrink: float = Field(0.9, ge=0, le=1, description="Factor on the weights at each boundary between tasks.")
    noise: float = Field(
        0.01, ge=0, le=LARGEST, description="Standard deviation of the noise added to each weight at each boundary."
    )


@dataclass(frozen=True)
class ShrinkAndPerturb(Intervention):
    """The intervention for some seeds; it has no state.

    Attributes:
        shrink, noise: [lane].
        seeds: one for each lane.
    """

    shrink: Tensor
    noise: Tensor
    seeds: tuple[int, ...]

    def before_task(self, learner: Learner, boundary: Boundary) -> Learner:
        """Shrinks and perturbs every lane."""
        draws = [generator(seed, "shrink and perturb", boundary.task) for seed in self.seeds]
        changed = {}
        for name, value in learner.params.items():
            normal = torch.stack([torch.randn(value.shape[1:], generator=draw) for draw in draws])  # [lane, ...]
            shrink, noise = per_lane(self.shrink, value), per_lane(self.noise, value)
            changed[name] = shrink * value + noise * normal.to(value.device)
        return replace(learner, params=changed)


def build(settings: Settings, seeds: Sequence[int], device: str) -> ShrinkAndPerturb:
    """The intervention for these lanes."""
    shrink, noise = (torch.full((len(seeds),), value, device=device) for value in (settings.shrink, settings.noise))
    return ShrinkAndPerturb(shrink, noise, tuple(seeds))
