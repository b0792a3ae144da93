"""Layer rescaling: another sharpness, the same function and total norm.

Layers are multiplied by factors whose product is 1, biases along with them, see `study.operations._rescaling`. The sharpness is
the largest Hessian eigenvalue of the sample's loss on the new task. Levels are places between the flattest and the sharpest
network that can be reached without a change of the norm of all weights; on the scale of logarithms they are evenly spaced.

A factor a of a layer divides the layer's gradient by a, so a step changes the function as if its learning rate were divided by
a^2. With `undone`, copies are trained a second time with rates a^2 for each layer: training is then that of the network that
was not rescaled, to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from study.config import Listed, StrictSettings
from study.contracts import HiddenLayer, Operated, Subject
from study.operations._rescaling import check, rescalings

Place = Annotated[float, Field(ge=0, le=1)]


class Settings(StrictSettings):
    """Settings of layer rescaling."""

    levels: Annotated[tuple[Place, ...], Listed] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0),
        min_length=1,
        description="Places from 0, the flattest network that can be reached, to 1, the sharpest.",
    )
    undone: bool = Field(
        True, description="Whether copies are also trained with learning rates of each layer that undo the rescaling."
    )


@dataclass(frozen=True)
class LayerRescaling:
    """The operation.

    Attributes:
        level: the place of its network.
        undone: see `Settings`.
    """

    level: float
    undone: bool

    def check(self, layers: tuple[HiddenLayer, ...]) -> None:
        """Raises StudyError if these layers cannot be rescaled."""
        check(layers)

    def operate(self, subject: Subject) -> Operated:
        """The rescaled networks."""
        found = rescalings(subject)
        rescaled = found.level(self.level)
        return Operated(found.params(rescaled), found.rates(rescaled) if self.undone else None)


def build(settings: Settings) -> Sequence[LayerRescaling]:
    """An operation for each level."""
    return [LayerRescaling(level, settings.undone) for level in dict.fromkeys(settings.levels)]
