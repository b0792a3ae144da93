"""Hidden units that are reset, within a step.

A unit that is reset gets incoming weights and bias as at the start of training, and outgoing weights of 0. What the rule
remembers of these weights, such as momentum or Adam's moments, becomes 0; a number of steps that the rule has taken stays. If a
unit and one that reads it are reset at once, the weight between them is 0. A unit of a convolutional layer is a feature map.

Fresh rows cannot be drawn within a step. So a whole network is drawn from (seed, purpose, task) before each task and kept in the
state. The rows of one layer have one distribution, so any of its units may get any row: the resets of a layer take one row after
the other. Only after as many resets in one task as the layer has units do they take the same rows once more, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from study.contracts import HiddenLayer, Intervention, Learner, Model
from study.interventions import idle
from study.lanes import Tensors, over_columns, over_rows

FRESH = "fresh:"
"""Prefix of the rows to come."""


@dataclass(frozen=True)
class ResetsUnits(Intervention):
    """An intervention that resets units.

    Attributes:
        seeds: one for each lane.
    """

    seeds: tuple[int, ...]

    any_input_order = True
    acts_on_units = True
    purpose = "fresh units"
    """Of the random numbers."""

    def fresh(self, model: Model, task: int, device: torch.device) -> Tensors:
        """The rows for the resets of one task.

        Rows are named after their parameters, and `taken I`, int64 [lane], is how many were taken in hidden layer I.
        """
        drawn = model.initial(self.seeds, self.purpose, task)
        rows = {FRESH + name: drawn[name].to(device) for layer in model.hidden_layers for name in layer.incoming}
        taken = {
            f"taken {i}": torch.zeros(len(self.seeds), dtype=torch.int64, device=device)
            for i in range(len(model.hidden_layers))
        }
        return rows | taken


def reset(learner: Learner, layers: Sequence[HiddenLayer], masks: Sequence[Tensor]) -> Learner:
    """Resets units in all layers.

    Args:
        learner: its state has the fresh rows, see `ResetsUnits.fresh`.
        layers: the hidden layers.
        masks: bool [lane, unit] for each, the units to reset.
    """
    params, memory, state = dict(learner.params), dict(learner.memory), dict(learner.state)
    chosen = [(i, layer, mask) for i, (layer, mask) in enumerate(zip(layers, masks, strict=True)) if not idle(mask)]
    for i, layer, mask in chosen:
        units, taken = mask.shape[1], state[f"taken {i}"]
        order = (taken.unsqueeze(1) + mask.cumsum(1) - 1) % units  # the row for each unit that is reset, [lane, unit]
        state[f"taken {i}"] = taken + mask.sum(1)
        for name in layer.incoming:
            fresh = state[FRESH + name]
            rows = fresh.gather(1, over_rows(order, fresh).expand_as(fresh))
            params[name] = torch.where(over_rows(mask, fresh), rows, params[name])
            for key in _remembered(memory, name):
                memory[key] = memory[key].masked_fill(over_rows(mask, memory[key]), 0)
    for _, layer, mask in chosen:
        params[layer.outgoing] = params[layer.outgoing].masked_fill(over_columns(mask, params[layer.outgoing]), 0)
        for key in _remembered(memory, layer.outgoing):
            memory[key] = memory[key].masked_fill(over_columns(mask, memory[key]), 0)
    return Learner(params, memory, state)


def _remembered(memory: Tensors, parameter: str) -> list[str]:
    """Names of the tensors of the memory that belong to a parameter.

    Whole numbers are the state of a random generator and stay: 0 would stop it.
    """
    return [
        name for name, value in memory.items() if name.rpartition(":")[2] == parameter and value.is_floating_point()
    ]
