"""Gradients of connected layers with a spectral pull, kept factored.

With d h^T the gradient of the minibatch's loss and e p^T, p = W^T u, that of the pull, see `study.models._outer_products` and
`study.pulls`, the gradient of a layer is again one outer product, with one more column:

    G = [d, e] [h, p]^T.

The bias has no share in that column. Of weights that have moved by s G, p is known without reading them once more:

    W'^T u = p + s [h, p] [d, e]^T u.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from study.lanes import Tensors, per_lane
from study.models._outer_products import OuterProduct, OuterProducts, Signal
from study.pulls import SpectralPull


def pulled(products: OuterProducts, pull: SpectralPull, backs: Tensors) -> OuterProducts:
    """The gradient of minibatch and pull.

    Args:
        products: of the minibatch alone.
        pull: the pull.
        backs: p [lane, 1, in] by the name of a layer's weights.
    """
    errors = pull.errors(backs)
    last = products.layers[-1].errors
    biased = last.new_ones(last.shape[2] + 1)
    biased[-1:].zero_()  # with torch 2.11, `biased[-1] = 0` copies from the host, which a CUDA graph cannot record
    layers = [
        _with(layer, errors[layer.weight], backs[layer.weight], biased) if layer.weight in errors else layer
        for layer in products.layers
    ]
    return replace(products, layers=tuple(layers))


def moved_backs(pull: SpectralPull, backs: Tensors, direction: Sequence[OuterProduct], scale: Tensor) -> Tensors:
    """W'^T u of weights that have moved.

    Args:
        pull: the pull.
        backs: W^T u [lane, 1, in], before they moved.
        direction: along which, a gradient.
        scale: how far, [lane].
    """
    by_weight = {layer.weight: layer for layer in direction}
    moved = {}
    for name, back in backs.items():
        layer, u = by_weight[name], pull.directions[name]
        across = torch.bmm(per_lane(scale, u).mul(u).unsqueeze(1), layer.errors)  # s u^T [d, e], [lane, 1, batch + 1]
        moved[name] = torch.baddbmm(back, across, layer.signal.values.mT)
    return moved


def _with(layer: OuterProduct, errors: Tensor, back: Tensor, biased: Tensor) -> OuterProduct:
    """The layer with one more column: e [lane, out] and p [lane, 1, in]."""
    images = layer.signal
    if images.values.is_contiguous():
        values = torch.cat([images.values, back.mT], dim=2)
    else:  # the pictures, whose pixels are next to each other
        values = torch.cat([images.values.mT, back], dim=1).mT
    errors = torch.cat([layer.errors, errors.unsqueeze(2)], dim=2)
    return replace(layer, signal=Signal(values, biased, images), errors=errors)
