"""The landscape of the loss around some weights: gradient, sharpness, and the Hessian without its matrix.

With L the mean cross-entropy of a fixed sample of images as a function of all weights w of one lane, g its gradient and H its
Hessian, a product H v is the gradient of g.v (Pearlmutter 1994), so that H itself, of millions of millions of numbers, need not
exist. From such products come

- the largest eigenvalue, by power iteration: v <- H v / |H v|, lambda = v.H v;
- the trace, by Hutchinson's estimate (1990): the mean of z.H z over random signs z.

SAM's sharpness is max L(w + e) - L(w) over |e| <= rho, taken at e = rho g / |g| (Foret et al. 2021, arXiv 2010.01412).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from study.contracts import Model
from study.lanes import Tensors, reciprocal

Product = Callable[[Tensor], Tensor]
"""Maps v [lane, weight] to H v."""

TOLERANCE = 1e-3
"""Relative change of an eigenvalue at which its iteration ends."""

LARGEST_RESIDUAL = 0.02
"""|H v - lambda v| / |lambda| up to which v counts as an eigenvector; lambda is as near to an eigenvalue then, or nearer."""

LONGEST_ITERATION = 200


def flattened(tensors: Tensors) -> Tensor:
    """All weights of each lane in a row, [lane, weight]."""
    return torch.cat([value.flatten(1) for value in tensors.values()], dim=1)


class Landscape:
    """The loss of a sample around some parameters.

    Attributes:
        loss: L there in nats, [lane].
        gradient: g there, [lane, weight].
    """

    def __init__(self, model: Model, params: Tensors, inputs: Tensor, labels: Tensor) -> None:
        """`inputs` [lane, image, feature] and int64 `labels` [lane, image] are the sample."""
        self._model, self._inputs, self._labels = model, inputs, labels
        self._shapes = {name: value.shape for name, value in params.items()}
        self._weights = flattened(params).detach().requires_grad_()
        with torch.enable_grad():
            loss = self._loss(self._weights)
            (self._slope,) = torch.autograd.grad(loss.sum(), self._weights, create_graph=True)
        self.loss = loss.detach()
        self.gradient = self._slope.detach()

    def at(self, displacement: Tensor) -> Tensor:
        """The loss [lane] at the parameters plus `displacement` [lane, weight]."""
        with torch.no_grad():
            return self._loss(self._weights + displacement)

    def hessian_product(self, vector: Tensor) -> Tensor:
        """H v, [lane, weight]."""
        if not self._slope.requires_grad:  # the loss is linear in all weights
            return torch.zeros_like(vector)
        (product,) = torch.autograd.grad(self._slope, self._weights, vector, retain_graph=True, materialize_grads=True)
        return product

    def _loss(self, weights: Tensor) -> Tensor:
        parts = weights.split([shape[1:].numel() for shape in self._shapes.values()], dim=1)
        params = {name: part.reshape(shape) for part, (name, shape) in zip(parts, self._shapes.items(), strict=True)}
        logits, _ = self._model.forward(params, self._inputs)
        losses = cross_entropy(logits.flatten(0, 1), self._labels.flatten(), reduction="none")
        return losses.view(self._labels.shape).mean(dim=1)


def sam_sharpness(landscape: Landscape, rho: float) -> Tensor:
    """`L(w + rho g / |g|) - L(w)` in nats, [lane]; 0 where the gradient is 0."""
    scale = rho * reciprocal(torch.linalg.vector_norm(landscape.gradient, dim=1))
    return landscape.at(landscape.gradient * scale.unsqueeze(1)) - landscape.loss


def largest_eigenvalue(product: Product, start: Tensor) -> Tensor:
    """The largest eigenvalue of a symmetric matrix, [lane]; NaN in a lane where the iteration has come to no end.

    Power iteration finds the eigenvalue of the largest magnitude. Where that is negative, the matrix minus it has none below
    0, and is iterated on as well.

    Args:
        product: of the matrix with vectors.
        start: random, [lane, weight]; which one changes the result within the tolerance only.
    """
    extreme = _extreme_eigenvalue(product, start)
    if not bool((extreme < 0).any()):
        return extreme
    shift = extreme.clamp(max=0).nan_to_num(0.0)
    span = _extreme_eigenvalue(lambda v: product(v) - (shift.unsqueeze(1) * v).to(v.dtype), start)
    return torch.where(extreme < 0, span + shift, extreme)


def _extreme_eigenvalue(product: Product, start: Tensor) -> Tensor:
    """The eigenvalue of the largest magnitude, float64 [lane]. Each lane ends by itself, whatever the others do."""
    value = torch.full(start.shape[:1], torch.nan, dtype=torch.float64, device=start.device)
    ended = torch.zeros_like(value, dtype=torch.bool)
    vector = start
    for _ in range(LONGEST_ITERATION):
        vector = vector * reciprocal(torch.linalg.vector_norm(vector, dim=1)).unsqueeze(1)
        image = product(vector)
        found = (vector.double() * image).sum(dim=1)
        rest = torch.linalg.vector_norm(image - found.unsqueeze(1).to(image.dtype) * vector, dim=1)
        steady = (found - value).abs() <= TOLERANCE * found.abs()
        ends = steady & (rest <= LARGEST_RESIDUAL * found.abs())
        value = torch.where(ended, value, found)
        ended |= ends | ~found.isfinite()
        if bool(ended.all()):
            break
        vector = image
    return value.where(ended, torch.nan)


def hutchinson_trace(product: Product, probes: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The trace of a symmetric matrix and the standard error of the estimate, both float64 [lane].

    Args:
        product: of the matrix with vectors.
        probes: at least two of random signs, each [lane, weight].
    """
    values = torch.stack([(probe.double() * product(probe)).sum(dim=1) for probe in probes])
    return values.mean(dim=0), values.std(dim=0) / len(values) ** 0.5
