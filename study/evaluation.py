"""How many images a network tells."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from study import metrics
from study.contracts import Model
from study.lanes import Tensors


def evaluate(model: Model, params: Tensors, batches: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    """Accuracy over all batches together, float64 [lane]; NaN in a lane that has a non-finite logit."""
    hits, sound, images = torch.zeros(()), torch.ones((), dtype=torch.bool), 0
    with torch.no_grad():
        for inputs, labels in batches:
            logits, _ = model.forward(params, inputs)
            hits = metrics.correct(logits, labels) + hits.to(labels.device)
            sound = logits.isfinite().flatten(1).all(dim=1) & sound.to(labels.device)
            images += labels.shape[1]
    return (hits.to(torch.float64) / images).where(sound, torch.nan)
