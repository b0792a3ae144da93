"""Gradients of fully connected layers with a pull, kept factored.

With d h^T the gradient of the minibatch's loss, see `study.models._outer_products`, and a pull of rate r towards the centre C,
see `study.pulls`, the gradient of a layer is

    G = d h^T + r (W - C).

W and C are there already, so again nothing needs to be written out. With z = W h and y = C h, which are thin,

    squared norm            |d h^T|^2 + 2 r sum(d * (z - y)) + r^2 |W - C|^2
    moved by s G            W' = W + s r (W - C) + s d h^T,      W' h' = z' + s r (z' - y') + s d (h^T h')
    gradient there          d' h'^T + r (W' - C) = d' h'^T + r s d h^T + r (1 + s r) (W - C)
    update                  W += s r (W - C), W += s d h^T      one `lerp` and one `baddbmm`

Biases are part of all this, as the weights of an input that is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from study.lanes import Tensors, per_lane
from study.models._outer_products import OuterProduct, OuterProducts, Signal
from study.pulls import Pull


@dataclass(frozen=True, eq=False)
class Offset:
    """W - C of a layer, at the evaluation's parameters.

    Attributes:
        weight, bias: W [lane, out, in], or [lane, out, output, unit], and b [lane, out], the parameters themselves.
        centre: C likewise; None: 0.
        signal: h, the input of the layer; None for a combination of several.
        output: z [lane, out, batch], what the layer makes of it.
    """

    weight: Tensor
    bias: Tensor
    centre: tuple[Tensor, Tensor] | None
    signal: Signal | None = None
    output: Tensor | None = None
    _versions: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_versions", self._now)

    @property
    def _now(self) -> tuple[int, int]:
        """Numbers that grow when the parameters are changed in place."""
        return self.weight._version, self.bias._version

    def check(self) -> None:
        """Raises RuntimeError if the parameters have changed."""
        if self._now != self._versions:
            raise RuntimeError("A gradient was used after the parameters that it was taken at had changed.")

    def applied(self, output: Tensor, signal: Signal) -> Tensor:
        """What W - C makes of h', [lane, out, image].

        Args:
            output: W h', with the bias.
            signal: h'.
        """
        if self.centre is None:
            return output
        return output - (self._centre_output if signal is self.signal else self._applied_centre(signal))

    def applied_back(self, back: Tensor, errors: Tensor) -> Tensor:
        """`(W - C)^T d'`, [lane, in, image]."""
        return back if self.centre is None else torch.baddbmm(back, self.centre[0].flatten(2).mT, errors, alpha=-1)

    @cached_property
    def _centre_output(self) -> Tensor:
        assert self.signal is not None
        return self._applied_centre(self.signal)

    def _applied_centre(self, signal: Signal) -> Tensor:
        assert self.centre is not None
        return _output(*self.centre, signal)

    def output_of(self, signal: Signal) -> Tensor:
        """The layer's output for h', [lane, out, image]."""
        if signal is self.signal and self.output is not None:
            return self.output
        return _output(self.weight, self.bias, signal)

    def parts(self) -> list[Tensor]:
        """W - C, and that of the bias, written out."""
        own = [self.weight, self.bias]
        return own if self.centre is None else [value - c for value, c in zip(own, self.centre, strict=True)]

    def add_to(self, tensors: tuple[Tensor, Tensor], scale: Tensor) -> None:
        """Adds `scale * (W - C)`, in place."""
        centre = self.centre or (None, None)
        for own, value, c in zip((self.weight, self.bias), tensors, centre, strict=True):
            factor = per_lane(scale, value)
            if value is not own:
                value.addcmul_(factor, own if c is None else own - c)
            elif c is None:
                value.mul_(1 + factor)
            else:
                value.lerp_(c, -factor)


@dataclass(frozen=True)
class PulledProduct(OuterProduct):
    """The gradient of one layer, with a pull.

    Attributes:
        offset: W - C.
        rate: r [lane]; the gradient is d h^T + r (W - C).
    """

    offset: Offset = field(kw_only=True)
    rate: Tensor = field(kw_only=True)

    def across(self) -> Tensor:
        """`d h^T . (W - C)`, [lane].

        Over weight and bias.
        """
        self.offset.check()
        output = self.offset.applied(self.offset.output_of(self.signal), self.signal)
        return (self.errors * output).sum((1, 2))  # of [lane, out, batch]

    def moved_output(self, output: Tensor, signal: Signal, scale: Tensor) -> Tensor:
        """The layer's output when its weights have moved."""
        share = per_lane(scale * self.rate, output)
        moved = torch.addcmul(output, share, self.offset.applied(output, signal))
        return moved.add_(self.output_change(signal, scale))

    def moved_errors(self, back: Tensor, errors: Tensor, scale: Tensor) -> Tensor:
        """W^T d' when the layer's weights have moved."""
        share = per_lane(scale * self.rate, back)
        moved = torch.addcmul(back, share, self.offset.applied_back(back, errors))
        return moved.add_(self.error_change(errors, scale))

    def combined(self, share: Tensor, other: OuterProduct, weight: Tensor) -> PulledProduct:
        """`share * self + weight * other`."""
        assert isinstance(other, PulledProduct), "both have the pull"
        mine, theirs = share * self.rate, weight * other.rate
        products = super().combined(share, other, weight)
        assert isinstance(products, PulledProduct)
        if other.offset is self.offset:
            return replace(products, rate=mine + theirs)
        # Taken at different parameters: their offsets are written out.
        weights, biases = (
            torch.addcmul(a * per_lane(mine, a), per_lane(theirs, b), b)
            for a, b in zip(self.offset.parts(), other.offset.parts(), strict=True)
        )
        return replace(products, offset=Offset(weights, biases, None), rate=torch.ones_like(mine))

    def add_to(self, tensors: Tensors, scale: Tensor) -> None:
        """Adds `scale * self` to weight and bias, in place."""
        self.offset.check()
        self.offset.add_to((tensors[self.weight], tensors[self.bias]), scale * self.rate)
        super().add_to(tensors, scale)

    def tensors(self) -> Tensors:
        """The gradient written out."""
        self.offset.check()
        written = super().tensors()
        for value, part in zip(written.values(), self.offset.parts(), strict=True):
            value.addcmul_(per_lane(self.rate, value), part)
        return written


def _output(weight: Tensor, bias: Tensor, signal: Signal) -> Tensor:
    """The layer's output, [lane, out, image]."""
    return torch.baddbmm(bias.unsqueeze(2), weight.flatten(2), signal.values)


LARGE = 2**14
"""Weights of a lane's layer from which on lanes take turns: a difference then stays in the processor's cache."""


def _squared(offsets: Sequence[Offset]) -> Tensor:
    """|W - C|^2 of all layers together, [lane]."""
    squares, small, small_centres = [], [], []
    for offset in offsets:
        own = (offset.weight, offset.bias)
        for value, c in zip(own, offset.centre or (None, None), strict=True):
            if value[0].numel() < LARGE or value.is_cuda:
                small.append(value.flatten(1))
                small_centres += [] if c is None else [c.flatten(1)]
            elif c is None:
                squares.append(torch.linalg.vector_norm(value.flatten(1), dim=1).square())
            else:
                lanes = zip(value.unbind(0), c.unbind(0), strict=True)
                squares.append(
                    torch.stack([torch.linalg.vector_norm(mine - theirs) for mine, theirs in lanes]).square()
                )
    rest = torch.cat(small, dim=1)
    if small_centres:
        rest = rest - torch.cat(small_centres, dim=1)
    squares.append(torch.linalg.vector_norm(rest, dim=1).square())
    return torch.stack(squares, dim=1).sum(dim=1)


@dataclass(frozen=True)
class PulledProducts(OuterProducts):
    """A `Gradient` with a pull, equal in each layer."""

    layers: tuple[PulledProduct, ...]

    def is_at(self, params: Tensors) -> bool:
        """Whether it was taken at these parameters."""
        return all(layer.offset.weight is params[layer.weight] for layer in self.layers)

    def norm(self) -> Tensor:
        """L2 norm over all parameters together, [lane]."""
        rate = self.layers[0].rate
        products = torch.stack([layer.squared_norm() for layer in self.layers], dim=1).sum(dim=1)
        across = torch.stack([layer.across() for layer in self.layers], dim=1).sum(dim=1)
        offsets = _squared([layer.offset for layer in self.layers])
        square = products + rate * (2 * across + rate * offsets)
        return square.clamp_(min=0).sqrt_()  # rounding may leave a sum just below 0


def pulled(products: OuterProducts, pull: Pull, params: Tensors, outputs: Sequence[Tensor]) -> PulledProducts:
    """The gradient of minibatch and pull.

    Args:
        products: of the minibatch alone.
        pull: the pull.
        params: [lane, ...], where it was taken.
        outputs: z of each layer, [lane, out, batch].
    """
    layers, rate = [], pull.rate
    for product, output in zip(products.layers, outputs, strict=True):
        names = (product.weight, product.bias)
        weight, bias = (params[name] for name in names)
        centre = None if pull.centre is None else (pull.centre[names[0]], pull.centre[names[1]])
        layers.append(_with(product, Offset(weight, bias, centre, product.signal, output), rate))
    return PulledProducts(tuple(layers))


def displaced(products: OuterProducts, pull: Pull, direction: Sequence[OuterProduct], scale: Tensor) -> PulledProducts:
    """The gradient of minibatch and pull at displaced weights.

    Args:
        products: of the minibatch alone, there.
        pull: the pull.
        direction: along which the weights have moved, a gradient with the pull.
        scale: how far, [lane].
    """
    further = pull.rate * scale  # r s
    layers: list[PulledProduct] = []
    for product, before in zip(products.layers, direction, strict=True):
        assert isinstance(before, PulledProduct), "every gradient has the pull"
        share = per_lane(further, before.errors)
        if product.signal is before.signal:
            own = replace(product, errors=torch.addcmul(product.errors, share, before.errors))
        else:
            signal = product.signal.joined(before.signal)
            own = replace(product, signal=signal, errors=torch.cat([product.errors, share * before.errors], dim=2))
        layers.append(_with(own, before.offset, torch.addcmul(pull.rate, further, before.rate)))  # r (1 + r s)
    return PulledProducts(tuple(layers))


def _with(product: OuterProduct, offset: Offset, rate: Tensor) -> PulledProduct:
    own = (product.weight, product.bias, product.signal, product.errors, product.outputs)
    return PulledProduct(*own, offset=offset, rate=rate)
