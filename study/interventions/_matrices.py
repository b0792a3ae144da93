"""Which parameters of a network are weights of layers."""

from __future__ import annotations

import math

from study.lanes import MATRIX, Tensors


def matrices(params: Tensors) -> list[str]:
    """Names of the weights of layers, without biases and scales."""
    return [name for name, value in params.items() if value.dim() >= MATRIX]


def stem(name: str) -> str:
    """The layer of a parameter, as `0/` of `0/weight`."""
    return name[: max(name.rfind("/"), name.rfind(".")) + 1]


def fan_in(params: Tensors, name: str) -> int:
    """Inputs of each unit of a layer with these weights."""
    return math.prod(params[name].shape[2:])
