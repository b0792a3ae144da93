"""Quantities measured on lanes: pure functions of tensors [lane, ...]."""

import math

import torch
from torch import Tensor

from study.schema import tenth


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Number of images whose largest logit is their label's, [lane]; of equal ones the first is the largest.

    Args:
        logits: [lane, image, output], in memory best with the image last. A row with a NaN counts as wrong.
        labels: int64, [lane, image] or [image].
    """
    outputs = logits.shape[2]
    before_end = torch.arange(outputs, 0, -1, device=logits.device)
    largest = logits == logits.amax(dim=2, keepdim=True)  # nowhere when there is a NaN
    first = torch.where(largest, before_end, 0).amax(dim=2)  # on a CPU much faster than argmax
    return (first == outputs - labels).sum(dim=1)


def chance_accuracy(outputs: int) -> float:
    """Expected accuracy of a uniform guess."""
    return 1 / outputs


def chance_loss(outputs: int) -> float:
    """Cross-entropy of the uniform distribution, in nats."""
    return math.log(outputs)


def first_tenth(values: Tensor) -> Tensor:
    """Mean over the first tenth of the tasks of `values` [task, lane], [lane]."""
    return values[: tenth(len(values))].mean(dim=0)


def last_tenth(values: Tensor) -> Tensor:
    """Mean over the last tenth of the tasks of `values` [task, lane], [lane]."""
    return values[-tenth(len(values)) :].mean(dim=0)


def decline(values: Tensor) -> Tensor:
    """First tenth minus last tenth of `values` [task, lane], [lane]; above 0 when they fall."""
    return first_tenth(values) - last_tenth(values)
