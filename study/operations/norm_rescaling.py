"""Norm rescaling: another total norm, the same function.

As `layer_rescaling`, but the norm of all weights is multiplied by the level, and of all networks with that norm one is taken
whose sharpness is that of the network before. Where there is none, the nearest in sharpness is taken. Where no rescaling has so
small a norm, the one with the least norm is taken: so look at the norm that was reached, `onset/weights/norm`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from study.config import Listed, StrictSettings
from study.contracts import HiddenLayer, Operated, Subject
from study.operations._rescaling import check, rescalings

Factor = Annotated[float, Field(gt=0, le=100)]


class Settings(StrictSettings):
    """Settings of norm rescaling."""

    levels: Annotated[tuple[Factor, ...], Listed] = Field(
        (0.75, 1.25), min_length=1, description="Factors of the total norm of all weights and biases."
    )


@dataclass(frozen=True)
class NormRescaling:
    """The operation.

    Attributes:
        level: factor of the total norm.
    """

    level: float

    def check(self, layers: tuple[HiddenLayer, ...]) -> None:
        """Raises StudyError if these layers cannot be rescaled."""
        check(layers)

    def operate(self, subject: Subject) -> Operated:
        """The rescaled networks."""
        found = rescalings(subject)
        return Operated(found.params(found.at_norm(self.level)))


def build(settings: Settings) -> Sequence[NormRescaling]:
    """An operation for each level."""
    return [NormRescaling(level) for level in dict.fromkeys(settings.levels)]
