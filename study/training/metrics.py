"""Measures of lanes, as pure functions of tensors [lane, ...]."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from study.contracts import Model, not_positive
from study.lanes import Tensors
from study.schema import after_warmup, tenth


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Number of images classified correctly, [lane].

    An image is correct if its largest logit, the first of equal ones, is that of its label. One with a NaN logit is wrong.

    Args:
        logits: [lane, image, output]; fastest if the image is the last axis in memory.
        labels: int64, [lane, image] or [image].
    """
    outputs = logits.shape[2]
    before_end = torch.arange(outputs, 0, -1, device=logits.device)  # outputs - k for output k, [output]
    largest = logits == logits.amax(dim=2, keepdim=True)  # [lane, image, output]; all false in a row with a NaN
    first = torch.where(largest, before_end, 0).amax(dim=2)  # [lane, image]; on a CPU much faster than argmax
    return (first == outputs - labels).sum(dim=1)


def chance_accuracy(outputs: int) -> float:
    """Expected accuracy of a uniform guess."""
    return 1 / outputs


def chance_loss(outputs: int) -> float:
    """Cross-entropy of the uniform distribution, in nats."""
    return math.log(outputs)


def first_tenth(values: Tensor) -> Tensor:
    """Mean of `values` [task, lane] over the first tenth, [lane]."""
    return values[: tenth(len(values))].mean(dim=0)


def last_tenth(values: Tensor) -> Tensor:
    """Mean of `values` [task, lane] over the last tenth, [lane]."""
    return values[-tenth(len(values)) :].mean(dim=0)


def decline(values: Tensor) -> Tensor:
    """First tenth minus last tenth of `values` [task, lane], [lane].

    Positive if they fall.
    """
    return first_tenth(values) - last_tenth(values)


def decline_after_warmup(values: Tensor) -> Tensor:
    """Early tenth minus last tenth of `values` [task, lane], [lane].

    The early tenth is that of `study.schema.after_warmup`.
    """
    return values[after_warmup(len(values))].mean(dim=0) - last_tenth(values)


def dead_units(hidden: Tensor, is_flat: Callable[[Tensor], Tensor] = not_positive) -> Tensor:
    """Share of dead units, float64 [lane].

    The activation function is flat at a dead unit on every image, so no gradient reaches its weights. With ReLU it is positive on
    no image.

    Args:
        hidden: the activations of a layer, [lane, image, unit].
        is_flat: see `study.contracts.HiddenLayer`.
    """
    return is_flat(hidden).all(dim=1).double().mean(dim=1)


def dormant_units(hidden: Tensor, threshold: float) -> Tensor:
    """Share of dormant units, float64 [lane].

    Their score is at most tau. The score of unit i of a layer, with E the mean over images (Sokar et al. 2023, arXiv 2302.12902,
    equation 1), is

        s_i = E|h_i| / (mean over units k of E|h_k|).

    If all activations of a layer are 0, all its units are dormant. The score knows nothing of the activation function: a unit of
    tanh that is 1 on every image, through which no gradient passes, is dead, but not dormant.

    Args:
        hidden: h [lane, image, unit].
        threshold: tau, at least 0.
    """
    strength = hidden.abs().mean(dim=1, dtype=torch.float64)  # E|h_i|, [lane, unit]
    mean = strength.mean(dim=1, keepdim=True)  # [lane, 1]
    return (strength <= threshold * mean).double().mean(dim=1)


def singular_values(features: Tensor) -> Tensor:
    """Singular values in descending order, float64 [lane, unit].

    Of A = `features` [lane, image, unit], not centred. They are computed as the roots of the eigenvalues of A^T A, so those below
    1e-8 of the largest are noise.
    """
    double = features.double()
    squares: Tensor = torch.linalg.eigvalsh(double.mT @ double)  # ascending, [lane, unit]
    return squares.clamp(min=0).sqrt().flip(dims=(1,))


def effective_rank(values: Tensor) -> Tensor:
    """Effective rank from singular values [lane, unit], [lane].

    exp(-sum_i p_i log p_i) with p_i = s_i / sum_k s_k (Roy and Vetterli 2007); 0 for a matrix of zeros.
    """
    total = values.sum(dim=1)  # [lane]
    shares = values / total.unsqueeze(1)  # p, [lane, unit]
    entropy = -torch.special.xlogy(shares, shares).sum(dim=1)  # with 0 log 0 = 0
    rank: Tensor = entropy.exp().where(total > 0, 0)
    return rank


def stable_rank(values: Tensor) -> Tensor:
    """Stable rank from singular values [lane, unit], [lane].

    |A|_F^2 / |A|_2^2 = sum_i s_i^2 / s_1^2, with the largest singular value first; 0 for a matrix of zeros.
    """
    squares = values.square()
    rank: Tensor = (squares.sum(dim=1) / squares[:, 0]).where(squares[:, 0] > 0, 0)
    return rank


def srank(values: Tensor, share: float) -> Tensor:
    """Number of singular values that sum to `share`, float64 [lane].

    min k with s_1 + ... + s_k >= share * sum_i s_i, of singular values [lane, unit], the largest first (Kumar et al. 2021, arXiv
    2010.14498, with delta = 1 - share); 0 for a matrix of zeros.
    """
    sums = values.cumsum(dim=1)  # [lane, unit]
    return ((sums < share * sums[:, -1:]).sum(dim=1) + 1).double().where(sums[:, -1] > 0, 0)


def evaluate(model: Model, params: Tensors, batches: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    """Classification accuracy of a model, float64 [lane].

    NaN in a lane with a non-finite logit.

    Args:
        model: the network.
        params: [lane, ...].
        batches: inputs [lane, batch, feature], or [1, batch, feature], and labels [lane, batch]; all count together.
    """
    hits, sound, images = torch.zeros(()), torch.ones((), dtype=torch.bool), 0
    with torch.no_grad():
        for inputs, labels in batches:
            logits, _ = model.forward(params, inputs)  # [lane, batch, output]
            hits = correct(logits, labels) + hits.to(labels.device)
            sound = logits.isfinite().flatten(1).all(dim=1) & sound.to(labels.device)
            images += labels.shape[1]
    return (hits.to(torch.float64) / images).where(sound, torch.nan)
