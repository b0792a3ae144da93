"""Full reset: a new network for each task.

Before each task but the first all weights are drawn anew, from (seed, "full reset", task), as at the start of training, and the
rule forgets everything. So it is what a network learns that has lost nothing: the reference for every other intervention.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from study.config import StrictSettings
from study.contracts import Boundary, Intervention, Learner


class Settings(StrictSettings):
    """The full reset has no settings."""


@dataclass(frozen=True)
class FullReset(Intervention):
    """The intervention for some seeds; it has no state.

    Attributes:
        seeds: one for each lane.
    """

    seeds: tuple[int, ...]

    def before_task(self, learner: Learner, boundary: Boundary) -> Learner:
        """Fresh weights, and an empty memory."""
        fresh = boundary.model.initial(self.seeds, "full reset", boundary.task)
        params = {name: fresh[name].to(value.device) for name, value in learner.params.items()}
        return replace(
            learner,
            params=params,
            memory={name: torch.zeros_like(value) for name, value in learner.memory.items()},
        )


def build(settings: Settings, seeds: Sequence[int], device: str) -> FullReset:
    """The intervention for these lanes."""
    return FullReset(tuple(seeds))
