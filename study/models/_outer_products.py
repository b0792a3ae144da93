"""Gradients of fully connected layers, kept as outer products.

A layer maps the outputs h of the layer below to z = W h + b. With d the gradient of the loss with respect to z, summed over the
minibatch,

    dL/dW = d h^T,      dL/db = d 1.

Both are determined by two thin matrices, h [in, batch] and d [out, batch], and everything a rule needs is computed from these:

    squared norm            sum((h^T h + 1) * (d^T d))      two products of size batch x batch; the 1 belongs to the bias
    displaced layer         W h' + b + s d (h^T h' + 1)     the output for inputs h' if W moves by s d h^T and b by s d 1
    update                  W += s d h^T, b += s d 1        one `baddbmm` and a sum

So neither the gradient nor the displaced weights need to exist. This pays off while a minibatch is narrower than the layer.

Rounding: terms of the squared norm cancel where the gradients of the images do. Its relative error is that of the number format
times sum(|terms|) / |sum(terms)|.
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
    """The input h of a layer: `values` [lane, unit, batch].

    The image is the last axis.

    Attributes:
        biased: 1 for each column that the bias has a share in, [batch]; None: all of them.
        images: the images alone, if they are the first columns of this signal.
    """

    values: Tensor
    biased: Tensor | None = None
    images: Signal | None = None

    @cached_property
    def gram(self) -> Tensor:
        """h^T h + 1, [lane, batch, batch]."""
        products = torch.bmm(self.values.mT, self.values)
        return products.add_(1 if self.biased is None else torch.outer(self.biased, self.biased))

    def against(self, others: Signal) -> Tensor:
        """h^T h' + 1 for inputs h', [lane, batch, image]."""
        if others is self:
            return self.gram
        if others is self.images:
            return self.gram[:, :, : others.values.shape[2]]
        products = torch.bmm(self.values.mT, others.values)
        return products.add_(1 if self.biased is None else self.biased.unsqueeze(1))

    def joined(self, other: Signal) -> Signal:
        """The columns of both, [lane, unit, 2 batch]."""
        values = torch.cat([self.values, other.values], dim=2)
        if self.biased is None and other.biased is None:
            return Signal(values)
        ones = [values.new_ones(each.values.shape[2]) if each.biased is None else each.biased for each in (self, other)]
        return Signal(values, torch.cat(ones))


@dataclass(frozen=True)
class OuterProduct:
    """The gradient of one layer.

    Attributes:
        weight, bias: names of the parameters W [lane, out, in] and b [lane, out].
        signal: h, the input of the layer, [lane, in, batch].
        errors: d [lane, out, batch], divided by the batch size, so that the sum over the minibatch is a mean.
        outputs: of each unit below; with several, W is kept as [lane, out, output, unit].
    """

    weight: str
    bias: str
    signal: Signal
    errors: Tensor
    outputs: int = 1

    def squared_norm(self) -> Tensor:
        """Squared L2 norm over weight and bias, [lane]."""
        return (self.signal.gram * torch.bmm(self.errors.mT, self.errors)).sum((1, 2))  # of [lane, batch, batch]

    def output_change(self, signal: Signal, scale: Tensor) -> Tensor:
        """Change of the layer's output when its weights move.

        s d (h^T h' + 1) [lane, out, image], for weights that move by `scale * self`.

        Args:
            signal: h' [lane, in, image], the input of the layer.
            scale: s [lane].
        """
        return torch.bmm(self.errors * per_lane(scale, self.errors), self.signal.against(signal))

    def error_change(self, errors: Tensor, scale: Tensor) -> Tensor:
        """Change of W^T d' when the layer's weights move.

        s h d^T d' [lane, in, image], for weights that move by `scale * self`.

        Args:
            errors: d' [lane, out, image], errors at the layer's output.
            scale: s [lane].
        """
        scaled = self.errors * per_lane(scale, self.errors)  # s d, [lane, out, batch]
        return torch.bmm(self.signal.values, torch.bmm(scaled.mT, errors))  # [lane, in, batch] x [lane, batch, image]

    def moved_output(self, output: Tensor, signal: Signal, scale: Tensor) -> Tensor:
        """The layer's output when its weights have moved.

        Args:
            output: W h' + b [lane, out, image], before they moved.
            signal, scale: see `output_change`.
        """
        return output + self.output_change(signal, scale)

    def moved_errors(self, back: Tensor, errors: Tensor, scale: Tensor) -> Tensor:
        """W^T d' when the layer's weights have moved.

        Args:
            back: W^T d' [lane, in, image], before they moved; it may be overwritten.
            errors, scale: see `error_change`.
        """
        return back.add_(self.error_change(errors, scale))

    def combined(self, share: Tensor, other: OuterProduct, weight: Tensor) -> OuterProduct:
        """`share * self + weight * other`.

        Again one outer product, of twice the width if the signals differ.
        """
        mine, theirs = self.errors * per_lane(share, self.errors), other.errors * per_lane(weight, other.errors)
        if self.signal is other.signal:
            return replace(self, errors=mine + theirs)
        errors = torch.cat([mine, theirs], dim=2)  # [lane, out, 2 batch]
        return replace(self, signal=self.signal.joined(other.signal), errors=errors)

    def add_to(self, tensors: Tensors, scale: Tensor) -> None:
        """Adds `scale * self` to weight and bias, in place."""
        errors = self.errors * per_lane(scale, self.errors)  # s d, [lane, out, batch]
        weight = tensors[self.weight]
        if self.outputs > 1:
            weight = weight.view(*weight.shape[:2], -1)  # never a copy, which would lose the sum
        weight.baddbmm_(errors, self.signal.values.mT)  # [lane, out, batch] x [lane, batch, in]
        tensors[self.bias].add_(self._for_bias(errors))

    def tensors(self) -> Tensors:
        """The gradient written out."""
        weight = torch.bmm(self.errors, self.signal.values.mT)  # d h^T, [lane, out, in]
        written = weight if self.outputs == 1 else weight.unflatten(2, (self.outputs, -1))
        return {self.weight: written, self.bias: self._for_bias(self.errors)}

    def _for_bias(self, errors: Tensor) -> Tensor:
        """The bias's part of `d 1`, [lane, out]."""
        biased = self.signal.biased
        return errors.sum(dim=2) if biased is None else errors.matmul(biased)


@dataclass(frozen=True)
class OuterProducts:
    """A `Gradient` with one outer product for each layer."""

    layers: tuple[OuterProduct, ...]

    def norm(self) -> Tensor:
        """L2 norm over all parameters together, [lane]."""
        squares = torch.stack([layer.squared_norm() for layer in self.layers], dim=1)  # [lane, layer]
        return squares.sum(dim=1).clamp_(min=0).sqrt_()  # rounding may leave a sum just below 0

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
        return {name: value for layer in self.layers for name, value in layer.tensors().items()}
