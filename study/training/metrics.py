"""Quantities measured on lanes: pure functions of tensors [lane, ...]."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from study.contracts import Model
from study.lanes import Tensors
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


def dead_units(hidden: Tensor) -> Tensor:
    """Share of a layer's units that are above 0 on no image, float64 [lane]; `hidden` is [lane, image, unit]."""
    return (hidden <= 0).all(dim=1).double().mean(dim=1)


def dormant_units(hidden: Tensor, threshold: float) -> Tensor:
    """Share of a layer's units whose score is at or below the threshold, float64 [lane].

    The score of unit i is E|h_i| over the images, divided by the mean of that over the units of the layer (Sokar et al. 2023,
    arXiv 2302.12902, equation 1). In a layer that is 0 throughout all units are dormant.

    Args:
        hidden: h, [lane, image, unit].
        threshold: tau, from 0.
    """
    strength = hidden.abs().mean(dim=1, dtype=torch.float64)
    mean = strength.mean(dim=1, keepdim=True)
    return (strength <= threshold * mean).double().mean(dim=1)


def singular_values(features: Tensor) -> Tensor:
    """Singular values of A = `features` [lane, image, unit], not centred, in descending order, float64 [lane, unit].

    They are the roots of the eigenvalues of A^T A, so those below 1e-8 of the largest are noise.
    """
    wide = features.double()
    squares: Tensor = torch.linalg.eigvalsh(wide.mT @ wide)
    return squares.clamp(min=0).sqrt().flip(dims=(1,))


def effective_rank(values: Tensor) -> Tensor:
    """Exp of the entropy of the normalised singular values [lane, unit] (Roy and Vetterli 2007); 0 of a matrix of zeros."""
    total = values.sum(dim=1)
    shares = values / total.unsqueeze(1)
    entropy = -torch.special.xlogy(shares, shares).sum(dim=1)
    rank: Tensor = entropy.exp().where(total > 0, 0)
    return rank


def stable_rank(values: Tensor) -> Tensor:
    """|A|_F^2 / |A|_2^2 of the singular values [lane, unit], the largest first, [lane]; 0 of a matrix of zeros."""
    squares = values.square()
    rank: Tensor = (squares.sum(dim=1) / squares[:, 0]).where(squares[:, 0] > 0, 0)
    return rank


def srank(values: Tensor, share: float) -> Tensor:
    """How many of the singular values [lane, unit], the largest first, make up `share` of their sum, float64 [lane].

    Kumar et al. 2021, arXiv 2010.14498, with delta = 1 - share. 0 of a matrix of zeros.
    """
    sums = values.cumsum(dim=1)
    return ((sums < share * sums[:, -1:]).sum(dim=1) + 1).double().where(sums[:, -1] > 0, 0)


def evaluate(model: Model, params: Tensors, batches: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    """Accuracy over all batches together, float64 [lane]; NaN in a lane that has a non-finite logit."""
    hits, sound, images = torch.zeros(()), torch.ones((), dtype=torch.bool), 0
    with torch.no_grad():
        for inputs, labels in batches:
            logits, _ = model.forward(params, inputs)
            hits = correct(logits, labels) + hits.to(labels.device)
            sound = logits.isfinite().flatten(1).all(dim=1) & sound.to(labels.device)
            images += labels.shape[1]
    return (hits.to(torch.float64) / images).where(sound, torch.nan)
