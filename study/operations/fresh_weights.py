"""Fresh weights: the positive control.

All weights are drawn anew from (seed, "fresh weights", task), as at the start of training. So it is what a network learns that
has lost nothing, and has nothing to build on either.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from study.config import StrictSettings
from study.contracts import HiddenLayer, Operated, Subject


class Settings(StrictSettings):
    """Fresh weights have no settings."""


@dataclass(frozen=True)
class FreshWeights:
    """The operation."""

    level: None = None

    def check(self, layers: tuple[HiddenLayer, ...]) -> None:
        """Every network has weights."""

    def operate(self, subject: Subject) -> Operated:
        """New networks."""
        drawn = subject.model.initial(subject.seeds, "fresh weights", subject.task)
        return Operated({name: drawn[name].to(value.device) for name, value in subject.params.items()})


def build(settings: Settings) -> Sequence[FreshWeights]:
    """The operation, which has no levels."""
    return [FreshWeights()]
