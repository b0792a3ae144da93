"""Shrink and perturb at every step.

The form in which the codes of Dohare et al. 2024 (arXiv 2306.13812) and of L2 Init (Kumar et al. 2023, arXiv 2308.11958) have it;
Ash and Adams 2020, arXiv 1910.08475, did it once, between two sets of data: `shrink_and_perturb`. After each step

    w <- (1 - decay) w + noise n,      n standard normal

for all weights and biases. In the code of Dohare et al. the decay is the optimizer's: `optimizer/weight_decay=1e-4` with
`decay=0`, and noise 1e-4 to 1e-6. In the code of L2 Init decay is the same as here, 1e-2 to 1e-5, and n is a network as at the
start of training; here n is normal.

Noise cannot be drawn within a step. So as many normal numbers as there are parameters, but at least 4,096, are drawn from (seed,
"shrink and perturb per step", task) before each task and kept in the state, as a ring. A step reads them from one place further
on than the step before. So a weight gets new numbers until the ring has gone round, after as many steps of a task as it has
numbers; then it gets the same ones again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from pydantic import Field
from torch import Tensor

from study import interventions
from study.config import LARGEST, StrictSettings
from study.contracts import Boundary, Intervention, Learner, Model, Step
from study.lanes import Tensors, generator, per_lane

SHORTEST_RING = 4096


class Settings(StrictSettings):
    """Settings of shrink and perturb at every step."""

    decay: float = Field(1e-4, ge=0, le=1, description="Share of each weight that is taken away after each step.")
    noise: float = Field(
        1e-4, ge=0, le=LARGEST, description="Standard deviation of the noise added to each weight after each step."
    )


@dataclass(frozen=True)
class ShrinkAndPerturbPerStep(Intervention):
    """The intervention for some seeds; its state is the noise.

    The noise of a weight goes by its place, so inputs stay in their order.

    Attributes:
        decay, noise: [lane].
        seeds: one for each lane.
    """

    decay: Tensor
    noise: Tensor
    seeds: tuple[int, ...]

    def initial_state(self, params: Tensors, model: Model) -> Tensors:
        """The ring of noise, and the next place in it.

        They are [lane, number] and int64 [lane].
        """
        return self._ring(params, 0)

    def _ring(self, params: Tensors, task: int) -> Tensors:
        like = next(iter(params.values()))
        size = max(SHORTEST_RING, sum(value[0].numel() for value in params.values()))
        draws = [generator(seed, "shrink and perturb per step", task) for seed in self.seeds]
        ring = torch.stack([torch.randn(size, generator=draw) for draw in draws])
        scaled = ring.to(like) * self.noise.unsqueeze(1)  # once a task: a step then takes two thirds of the time
        return {"ring": scaled, "place": torch.zeros(len(like), dtype=torch.int64, device=like.device)}

    def after_step(self, learner: Learner, step: Step) -> Learner:
        """The weights with less of themselves and with noise."""
        ring, place, values = learner.state["ring"], learner.state["place"], list(learner.params.values())
        share = 1 - self.decay
        for value, noise in zip(values, _read(ring, place, [value[0].numel() for value in values]), strict=True):
            torch.addcmul(noise.view_as(value), per_lane(share, value), value, out=value)
        place.add_(1).remainder_(ring.shape[1])
        return learner

    def before_task(self, learner: Learner, boundary: Boundary) -> Learner:
        """New noise for the task."""
        return replace(learner, state=self._ring(learner.params, boundary.task))


def _read(ring: Tensor, place: Tensor, counts: list[int]) -> list[Tensor]:
    """Numbers of each ring from its place on, each [lane, count].

    Slices are faster than an index for each number.
    """
    size = ring.shape[1]
    if not interventions.readable(ring):
        index = (place.unsqueeze(1) + torch.arange(sum(counts), device=ring.device)) % size
        return list(ring.gather(1, index).split(counts, dim=1))
    start = int(place[0])  # all lanes have taken the same steps
    firsts = accumulate(counts, initial=start)
    return [_slice(ring, first % size, count) for first, count in zip(firsts, counts, strict=False)]


def _slice(ring: Tensor, first: int, count: int) -> Tensor:
    """Numbers of a ring from `first` on, [lane, count]."""
    whole = ring[:, first : first + count]
    return whole if whole.shape[1] == count else torch.cat([whole, ring[:, : count - whole.shape[1]]], dim=1)


def build(settings: Settings, seeds: Sequence[int], device: str) -> ShrinkAndPerturbPerStep:
    """The intervention for these lanes."""
    decay, noise = (torch.full((len(seeds),), value, device=device) for value in (settings.decay, settings.noise))
    return ShrinkAndPerturbPerStep(decay, noise, tuple(seeds))
