"""How many floating-point operations training takes by the book, and how many a second this device does.

A gradient of one image costs, for each layer of the network, 2 in out operations forward, as many for the gradient of its
weights, and as many again, but for the first layer, to carry the errors back. SAM and GNP take two gradients a step. All
else (biases, ReLU, softmax, the update, moving data) is not counted, and neither is it subtracted where a method is computed
with fewer products than the book has, so a share of the rate is that of useful work.
"""

from __future__ import annotations

import time
from itertools import pairwise

import torch

SQUARE = 1024
"""Rows and columns of the matrices whose product is timed."""


def per_image(sizes: tuple[int, ...], gradients: int) -> int:
    """Floating-point operations of one training image in one step; `sizes` are units from input to output."""
    layers = [2 * fan_in * fan_out for fan_in, fan_out in pairwise(sizes)]
    return gradients * (3 * sum(layers) - layers[0])


def product_rate(device: str, seconds: float) -> float:
    """Floating-point operations a second of float32 products of two 1024 x 1024 matrices, the best of some, on `device`."""
    left, right = (torch.randn(SQUARE, SQUARE, device=device) for _ in range(2))
    out = torch.empty_like(left)

    def waits() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    count, best, until = 1, 0.0, time.perf_counter() + seconds
    while not best or time.perf_counter() < until:
        waits()
        began = time.perf_counter()
        for _ in range(count):
            torch.mm(left, right, out=out)
        waits()
        taken = time.perf_counter() - began
        best = max(best, 2 * SQUARE**3 * count / taken)
        count = max(1, round(count * 0.02 / taken))
    return best
