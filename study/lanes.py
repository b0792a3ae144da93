"""Arithmetic on stacked lanes, and where every random number of the study comes from.

The tensors of all lanes are stacked: axis 0 of every tensor in a `Tensors` dict is the lane. Nothing here mixes lanes.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
"""Tensors by name, each of shape [lane, ...]."""


def generator(seed: int, purpose: str, task: int = 0) -> torch.Generator:
    """The random stream that belongs to (seed, purpose, task), on the CPU whatever the device.

    There is no global generator: a task can be rebuilt alone, and all methods draw the same numbers seed by seed. torch
    seeds its CPU generator with 32 bits, so two of a trial's few thousand streams coincide with odds of about 1 in 1,000; as
    they then serve different purposes or tasks, this does no harm.
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}/{task}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def per_lane(values: Tensor, like: Tensor) -> Tensor:
    """Shapes `values` [lane] so that it broadcasts over `like` [lane, ...]."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def norm(tensors: Mapping[str, Tensor]) -> Tensor:
    """L2 norm over all tensors together, [lane].

    The lane stays the first axis throughout: a sum along it would round differently with one lane than with many.
    """
    lengths = [torch.linalg.vector_norm(t.flatten(1), dim=1) for t in tensors.values()]
    total: Tensor = torch.linalg.vector_norm(torch.stack(lengths, dim=1), dim=1)
    return total


def add(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor], scale: Tensor) -> Tensors:
    """`tensors + scale * others` with `scale` [lane]."""
    return {k: torch.addcmul(t, per_lane(scale, t), others[k]) for k, t in tensors.items()}


def multiply(tensors: Mapping[str, Tensor], scale: Tensor) -> None:
    """Multiplies by `scale` [lane], in place."""
    for value in tensors.values():
        value.mul_(per_lane(scale, value))


def reciprocal(length: Tensor) -> Tensor:
    """1 / length, and 0 where length is 0. A non-finite length stays visible as a non-finite or zero result."""
    return torch.where(length == 0, torch.zeros_like(length), 1 / length)


def select(mask: Tensor, tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Tensors:
    """Lanes of `tensors` where `mask` [lane] is true, lanes of `others` elsewhere."""
    return {k: torch.where(per_lane(mask, t), t, others[k]) for k, t in tensors.items()}


def finite(tensors: Mapping[str, Tensor]) -> Tensor:
    """Whether every element of a lane is finite, [lane]."""
    return torch.stack([t.isfinite().flatten(1).all(dim=1) for t in tensors.values()]).all(dim=0)
