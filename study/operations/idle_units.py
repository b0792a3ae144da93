"""Idle units redrawn: dead units get fresh weights.

A unit is dead if no gradient passes it on any image of the sample of the new task. Its incoming weights and bias are drawn from
(seed, "idle units", task) as at the start of training, and its outgoing weights become 0. So the function stays the same on the
sample for units whose activation was 0 there, as with ReLU; on other images it may change where such a unit was alive:
`probe/function_change` says by how much on the sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from study.config import StrictSettings
from study.contracts import HiddenLayer, Operated, Subject
from study.lanes import over_columns, over_rows
from study.operations import check_units


class Settings(StrictSettings):
    """Idle units have no settings."""


@dataclass(frozen=True)
class IdleUnits:
    """The operation."""

    level: None = None

    def check(self, layers: tuple[HiddenLayer, ...]) -> None:
        """Raises StudyError if there are no hidden layers."""
        check_units(layers)

    def operate(self, subject: Subject) -> Operated:
        """The networks with fresh units in place of dead ones."""
        _, hidden = subject.model.forward(subject.params, subject.inputs)  # each [lane, image, unit]
        drawn = subject.model.initial(subject.seeds, "idle units", subject.task)
        params, layers = dict(subject.params), subject.model.hidden_layers
        dead = [layer.is_flat(own).all(dim=1) for layer, own in zip(layers, hidden, strict=True)]  # each [lane, unit]
        for layer, mask in zip(layers, dead, strict=True):
            for name in layer.incoming:
                fresh = drawn[name].to(params[name].device)
                params[name] = torch.where(over_rows(mask, fresh), fresh, params[name])
        for layer, mask in zip(layers, dead, strict=True):  # last, so that what reads a redrawn unit ignores it
            outgoing = params[layer.outgoing]
            params[layer.outgoing] = outgoing.masked_fill(over_columns(mask, outgoing), 0)
        return Operated(params)


def build(settings: Settings) -> Sequence[IdleUnits]:
    """The operation, which has no levels."""
    return [IdleUnits()]
