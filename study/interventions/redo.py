"""ReDo: recycles dormant units.

Sokar, Agarwal, Castro and Evci 2023, arXiv 2302.12902. With h_i the activation of unit i and the mean over the images of a
minibatch, the score of a unit among the units of its layer is

    s_i = mean|h_i| / mean_j mean|h_j|      (0/0 counts as 0)

Every so many steps, the units with s_i <= threshold are reset, see `study.interventions._units`: incoming weights are drawn
anew, outgoing weights become 0, and the rule forgets both. The activations are those of the step's minibatch, before the step.

The authors' code starts with biases of 0 and resets them to 0; here they are drawn as at the start, which is 0 if the network's
are. It resets on a minibatch of its own and adds 1e-9 to the layer's mean. The code of L2 Init gives a unit its own initial
weights once more. The score of a feature map is that of its mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from study.config import LARGEST, StrictSettings, setting
from study.contracts import Boundary, Learner, Model, Step
from study.interventions import idle
from study.interventions._units import ResetsUnits, reset
from study.lanes import Tensors, reciprocal


class Settings(StrictSettings):
    """Settings of ReDo."""

    threshold: float = setting(
        0.025, "Highest score at which a unit is reset.", short="threshold", unit="1", ge=0, le=LARGEST
    )
    every: int = setting(1000, "Steps from one reset to the next.", short="every", unit="steps", ge=1, le=2**31)


@dataclass(frozen=True)
class ReDo(ResetsUnits):
    """The intervention for some seeds.

    Attributes:
        threshold: [lane].
        every: int64 [lane].
    """

    threshold: Tensor
    every: Tensor

    purpose = "redo"

    def initial_state(self, params: Tensors, model: Model) -> Tensors:
        """Fresh rows, and the number of steps, int64 [lane]."""
        return {"steps": torch.zeros_like(self.every), **self.fresh(model, 0, self.every.device)}

    def after_step(self, learner: Learner, step: Step) -> Learner:
        """The learner without dormant units, if it is time."""
        steps = learner.state["steps"].add_(1)
        due = steps % self.every == 0  # [lane]
        if idle(due):
            return learner
        masks = [due.unsqueeze(1) & (score(each) <= self.threshold.unsqueeze(1)) for each in step.evaluation.hidden()]
        return reset(learner, step.model.hidden_layers, masks)

    def before_task(self, learner: Learner, boundary: Boundary) -> Learner:
        """New rows for the resets of the task."""
        rows = self.fresh(boundary.model, boundary.task, self.every.device)
        return replace(learner, state=learner.state | rows)


def score(hidden: Tensor) -> Tensor:
    """Scores [lane, unit] of activations [lane, batch, unit]."""
    means = hidden.abs().mean(dim=1)
    return means * reciprocal(means.mean(dim=1, keepdim=True))


def build(settings: Settings, seeds: Sequence[int], device: str) -> ReDo:
    """The intervention for these lanes."""
    threshold = torch.full((len(seeds),), settings.threshold, device=device)
    return ReDo(tuple(seeds), threshold, torch.full((len(seeds),), settings.every, device=device))
