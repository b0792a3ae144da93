"""Unit permutation: the placebo.

The units of each hidden layer change places, with the weights that enter and leave them. The order is drawn from (seed, "unit
permutation", task). Nothing that can be measured changes but the order in which sums are rounded, so the effect must be 0 to
rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from study.config import StrictSettings
from study.contracts import HiddenLayer, Operated, Subject
from study.lanes import generator, over_columns, over_rows
from study.operations import check_units


class Settings(StrictSettings):
    """Unit permutation has no settings."""


@dataclass(frozen=True)
class UnitPermutation:
    """The operation."""

    level: None = None

    def check(self, layers: tuple[HiddenLayer, ...]) -> None:
        """Raises StudyError if there are no hidden layers."""
        check_units(layers)

    def operate(self, subject: Subject) -> Operated:
        """The networks with units in another order."""
        params = dict(subject.params)
        draws = [generator(seed, "unit permutation", subject.task) for seed in subject.seeds]
        for layer in subject.model.hidden_layers:
            units = params[layer.incoming[0]].shape[1]
            order = torch.stack([torch.randperm(units, generator=draw) for draw in draws])  # [lane, unit]
            order = order.to(subject.inputs.device)
            for name in layer.incoming:
                params[name] = params[name].gather(1, over_rows(order, params[name]).expand_as(params[name]))
            outgoing = params[layer.outgoing]
            params[layer.outgoing] = outgoing.gather(-1, over_columns(order, outgoing).expand_as(outgoing))
        return Operated(params)


def build(settings: Settings) -> Sequence[UnitPermutation]:
    """The operation, which has no levels."""
    return [UnitPermutation()]
