"""Arithmetic on stacked lanes, and the source of all randomness.

The tensors of all lanes are stacked: axis 0 of every tensor in a `Tensors` dict is the lane. Nothing here mixes lanes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
"""Tensors by name, each of shape [lane, ...]."""

Part = TypeVar("Part")

MATRIX = 3
"""Axes of a layer's weights [lane, unit, input]; those of a convolution have more, biases fewer."""

SEEDS = "seeds"
"""A field of this name has a seed for each lane."""


def generator(seed: int, purpose: str, task: int = 0) -> torch.Generator:
    """The random stream of (seed, purpose, task).

    It is on the CPU whatever the device, and there is no global generator. So a task can be rebuilt alone, and all methods draw
    the same numbers seed by seed.

    torch seeds its CPU generator with 32 bits, so two of a trial's few thousand streams coincide with odds of about 1 in 1,000.
    As they then serve different purposes or tasks, this does no harm.
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}/{task}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def per_lane(values: Tensor, like: Tensor) -> Tensor:
    """`values` [lane], reshaped to broadcast over `like` [lane, ...]."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def over_rows(values: Tensor, like: Tensor) -> Tensor:
    """`values` [lane, unit], shaped to broadcast over [lane, unit, ...]."""
    return values.reshape(*values.shape, *[1] * (like.dim() - 2))


def over_columns(values: Tensor, like: Tensor) -> Tensor:
    """`values` [lane, unit], shaped to broadcast over [lane, ..., unit]."""
    return values.reshape(len(values), *[1] * (like.dim() - 2), -1)


def norm(tensors: Mapping[str, Tensor]) -> Tensor:
    """L2 norm over all tensors together, [lane].

    The lane stays the first axis throughout: a sum along it would round differently with one lane than with many.
    """
    lengths = [torch.linalg.vector_norm(t.flatten(1), dim=1) for t in tensors.values()]  # each [lane]
    total: Tensor = torch.linalg.vector_norm(torch.stack(lengths, dim=1), dim=1)  # of [lane, tensor]
    return total


def add(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor], scale: Tensor) -> Tensors:
    """`tensors + scale * others` with `scale` [lane]."""
    return {k: torch.addcmul(t, per_lane(scale, t), others[k]) for k, t in tensors.items()}


def multiply(tensors: Mapping[str, Tensor], scale: Tensor) -> None:
    """Multiplies by `scale` [lane], in place."""
    for value in tensors.values():
        value.mul_(per_lane(scale, value))


def reciprocal(length: Tensor) -> Tensor:
    """1 / length, and 0 where length is 0.

    A non-finite length stays visible: infinity gives 0 and NaN gives NaN.
    """
    return torch.where(length == 0, torch.zeros_like(length), 1 / length)


def select(mask: Tensor, tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Tensors:
    """Lanes of `tensors` where `mask` [lane] is true, else `others`."""
    return {k: torch.where(per_lane(mask, t), t, others[k]) for k, t in tensors.items()}


def finite(tensors: Mapping[str, Tensor]) -> Tensor:
    """Whether every element of a lane is finite, [lane]."""
    return torch.stack([t.isfinite().flatten(1).all(dim=1) for t in tensors.values()]).all(dim=0)


def stackable(parts: Sequence[object]) -> bool:
    """Whether `stacked` can put the lanes of the parts together.

    They are dataclasses of one type, and all that is not a setting of each lane is equal. A field may be such a dataclass.
    """
    first = parts[0]
    if (
        not dataclasses.is_dataclass(first)
        or isinstance(first, type)
        or any(type(part) is not type(first) for part in parts)
    ):
        return False
    return all(
        _field_stackable(field.name, [getattr(part, field.name) for part in parts])
        for field in dataclasses.fields(first)
    )


def _field_stackable(name: str, values: list[Any]) -> bool:
    tensors = [isinstance(value, Tensor) for value in values]
    if any(tensors):
        return all(tensors)
    if dataclasses.is_dataclass(values[0]):
        return stackable(values)
    return name == SEEDS or all(value == values[0] for value in values)


def stacked(parts: Sequence[Part]) -> Part:
    """One part for the lanes of all parts.

    They keep their order. The parts must be `stackable`. Their tensors are [lane] or [lane, ...].
    """
    first: Any = parts[0]
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(first):
        values = [getattr(part, field.name) for part in parts]
        if isinstance(values[0], Tensor):
            changes[field.name] = torch.cat(values)
        elif dataclasses.is_dataclass(values[0]):
            changes[field.name] = stacked(values)
        elif field.name == SEEDS:
            changes[field.name] = tuple(seed for seeds in values for seed in seeds)
    joint: Part = dataclasses.replace(first, **changes)
    return joint


def joined(groups: Sequence[Tensors]) -> Tensors:
    """The lanes of all groups, one after the other."""
    return {name: torch.cat([group[name] for group in groups]) for name in groups[0]}


def taken(tensors: Mapping[str, Tensor], lanes: slice) -> Tensors:
    """Some of the lanes, in new tensors."""
    return {name: value[lanes].clone() for name, value in tensors.items()}
