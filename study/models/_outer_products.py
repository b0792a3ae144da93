"""Gradients of fully connected layers that are never written out.

A layer computes z = W h + b from the outputs h of the layer below. With d the gradient of the loss at z, the gradient of W
is the outer product d h^T summed over the minibatch, and that of b is d, summed likewise. It is all in the two thin
matrices h [in, batch] and d [out, batch]:

- its squared norm is sum((h^T h + 1) * (d^T d)), the 1 for the bias: two products of size batch x batch;
- a layer whose weights are displaced by s d h^T, and its bias by s d, gives W h' + b + s d (h^T h' + 1) for inputs h', so
  the displaced weights need not exist either;
- adding it to the weights is one `baddbmm`.

This pays while a minibatch is narrower than the layer. The squared norm is a sum whose terms cancel when the images'
gradients do: its relative error is the float's, times the ratio of that sum without signs to the sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from study.lanes import Tensors, per_lane


@dataclass(frozen=True)
class Signal:
    """What enters a layer: `values` [lane, unit, batch], the image last."""

    values: Tensor

    @cached_property
    def gram(self) -> Tensor:
        """h^T h + 1, [lane, batch, batch]."""
        return self.against(self.values)

    def against(self, others: Tensor) -> Tensor:
        """h^T h' + 1 with `others` h' [lane, unit, image], [lane, batch, image]."""
        return torch.bmm(self.values.mT, others).add_(1)


@dataclass(frozen=True)
class OuterProduct:
    """The gradient of one layer.

    Attributes:
        weight, bias: names of the parameters, [lane, out, in] and [lane, out].
        signal: what enters the layer, `in` units.
        errors: d, [lane, out, batch]; its mean over the minibatch is taken, that is, it is divided by the batch size.
    """

    weight: str
    bias: str
    signal: Signal
    errors: Tensor

    def squared_norm(self) -> Tensor:
        """[lane]."""
        return (self.signal.gram * torch.bmm(self.errors.mT, self.errors)).sum((1, 2))

    def displaces(self, signal: Signal, scale: Tensor) -> Tensor:
        """What `scale * self` adds to the layer's output [lane, out, image] when `signal` enters it; `scale` is [lane]."""
        gram = self.signal.gram if signal is self.signal else self.signal.against(signal.values)
        return torch.bmm(self.errors * per_lane(scale, self.errors), gram)

    def displaces_back(self, errors: Tensor, scale: Tensor) -> Tensor:
        """What `scale * self` adds to W^T d, [lane, in, image], when `errors` d [lane, out, image] come back through it."""
        return torch.bmm(self.signal.values, torch.bmm((self.errors * per_lane(scale, self.errors)).mT, errors))

    def combined(self, share: Tensor, other: OuterProduct, weight: Tensor) -> OuterProduct:
        """`share * self + weight * other`: one outer product, of twice the width where the signals differ."""
        mine, theirs = self.errors * per_lane(share, self.errors), other.errors * per_lane(weight, other.errors)
        if self.signal is other.signal:
            return replace(self, errors=mine + theirs)
        signal = Signal(torch.cat([self.signal.values, other.signal.values], dim=2))
        return replace(self, signal=signal, errors=torch.cat([mine, theirs], dim=2))

    def add_to(self, tensors: Tensors, scale: Tensor) -> None:
        """Adds `scale * self` to the layer's weight and bias, in place."""
        errors = self.errors * per_lane(scale, self.errors)
        tensors[self.weight].baddbmm_(errors, self.signal.values.mT)
        tensors[self.bias].add_(errors.sum(dim=2))


@dataclass(frozen=True)
class OuterProducts:
    """A `Gradient` as one outer product for each layer."""

    layers: tuple[OuterProduct, ...]

    def norm(self) -> Tensor:
        """L2 norm over all parameters together, [lane]."""
        squares = torch.stack([layer.squared_norm() for layer in self.layers], dim=1)
        return squares.sum(dim=1).clamp_(min=0).sqrt_()

    def combined(self, share: Tensor, other: Self, weight: Tensor) -> Self:
        """`share * self + weight * other`."""
        pairs = zip(self.layers, other.layers, strict=True)
        return replace(self, layers=tuple(mine.combined(share, theirs, weight) for mine, theirs in pairs))

    def add_to(self, tensors: Tensors, scale: Tensor) -> None:
        """Adds `scale * self`, in place."""
        for layer in self.layers:
            layer.add_to(tensors, scale)

    def tensors(self) -> Tensors:
        """The gradient written out."""
        written = {}
        for layer in self.layers:
            written[layer.weight] = torch.bmm(layer.errors, layer.signal.values.mT)
            written[layer.bias] = layer.errors.sum(dim=2)
        return written
