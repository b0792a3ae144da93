"""Random displacement: as far as `layer_rescaling` moves the weights.

The weights move in a direction drawn from (seed, "random displacement", task), uniform on the sphere, by the length by which
`layer_rescaling` moves them at the same level. So the function changes, and the sharpness as it happens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from study.config import Listed, StrictSettings
from study.contracts import HiddenLayer, Operated, Subject
from study.lanes import add, generator, norm, reciprocal
from study.operations._rescaling import check, rescalings
from study.operations.layer_rescaling import Place


class Settings(StrictSettings):
    """Settings of random displacement."""

    levels: Annotated[tuple[Place, ...], Listed] = Field(
        (0.0, 1.0), min_length=1, description="Levels of the layer rescaling whose displacement has the same length."
    )


@dataclass(frozen=True)
class RandomDisplacement:
    """The operation.

    Attributes:
        level: of the layer rescaling.
    """

    level: float

    def check(self, layers: tuple[HiddenLayer, ...]) -> None:
        """Raises StudyError if these layers cannot be rescaled."""
        check(layers)

    def operate(self, subject: Subject) -> Operated:
        """The displaced networks."""
        found = rescalings(subject)
        rescaled = found.params(found.level(self.level))
        length = norm({name: rescaled[name] - value for name, value in subject.params.items()})  # [lane]
        draws = [generator(seed, "random displacement", subject.task) for seed in subject.seeds]
        direction = {
            name: torch.stack([torch.randn(value.shape[1:], generator=draw) for draw in draws]).to(value.device)
            for name, value in subject.params.items()
        }
        return Operated(add(subject.params, direction, length * reciprocal(norm(direction))))


def build(settings: Settings) -> Sequence[RandomDisplacement]:
    """An operation for each level."""
    return [RandomDisplacement(level) for level in dict.fromkeys(settings.levels)]
