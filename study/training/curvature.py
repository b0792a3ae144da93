"""The landscape of the loss around some weights: gradient, sharpness, and the Hessian without its matrix.

With L the mean cross-entropy of a fixed sample of images as a function of all weights w of one lane, g its gradient and H its
Hessian, a product H v is the gradient of g.v (Pearlmutter 1994), so that H itself, of millions of millions of numbers, need not
exist. From such products come

- the largest eigenvalue, by power iteration that keeps its last step: lambda = v.H v / v.v;
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
"""Relative change of an eigenvalue from one step to the next at which its iteration ends."""

LARGEST_RESIDUAL = 1e-3
"""|H v - lambda v| / |lambda| up to which v counts as an eigenvector; lambda is as near to an eigenvalue then, or nearer. With
ten times that, one lane in 400 of small networks ended at the second largest one."""

NEGLIGIBLE = 1e-3
"""The share of the largest |H v| met up to which |lambda| and the residual together end the iteration as well."""

ROUNDING = 1e-5
"""The share of it, or of a unit vector, below which a difference is taken for rounding."""

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
        with torch.enable_grad():
            along = torch.linalg.vecdot(self._slope, vector).sum()  # with grad_outputs instead, torch would load sympy
        (product,) = torch.autograd.grad(along, self._weights, retain_graph=True, materialize_grads=True)
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
    """The largest eigenvalue of a symmetric matrix, float64 [lane]; NaN in a lane where the iteration has come to no end.

    Power iteration goes from v to H v; here each step goes to the vector of the largest v.H v / v.v among all combinations of
    v, H v and the step before it, which needs no more products, finds the largest eigenvalue whatever the sign of the one of
    the largest magnitude, and gets on where the largest ones are close together (Knyazev 2001, LOBPCG of one vector). Each
    lane ends by itself, whatever the others do.

    Args:
        product: of the matrix with vectors.
        start: random, [lane, weight]. One that has hardly any of the eigenvector looked for can end at the next eigenvalue.
    """
    value = torch.full(start.shape[:1], torch.nan, dtype=torch.float64, device=start.device)
    scale = torch.zeros_like(value)
    ended = torch.zeros_like(value, dtype=torch.bool)
    # H v, less its part along v; v itself; the step before. Memory of this size is slow to get anew, so it is used again.
    basis, images, spare = (start.new_zeros(len(start), 3, start.shape[1]) for _ in range(3))
    rest, vector = 0, 1
    basis[:, vector] = start * reciprocal(torch.linalg.vector_norm(start, dim=1)).unsqueeze(1)
    images[:, vector] = product(basis[:, vector])
    for _ in range(LONGEST_ITERATION):
        found = torch.linalg.vecdot(basis[:, vector], images[:, vector])
        torch.addcmul(images[:, vector], -found.unsqueeze(1), basis[:, vector], out=basis[:, rest])
        size = torch.linalg.vector_norm(basis[:, rest], dim=1)
        found = torch.where(size.isfinite(), found, torch.nan)
        scale = torch.maximum(scale, found.abs() + size)
        steady = ((found - value).abs() <= TOLERANCE * found.abs()) & (size <= LARGEST_RESIDUAL * found.abs())
        value = torch.where(ended, value, found)
        ended |= steady | (found.abs() + size <= NEGLIGIBLE * scale) | ~found.isfinite()
        if bool(ended.all()):
            break
        seen = torch.where(size > ROUNDING * scale, reciprocal(size), 0)  # a smaller one points anywhere
        basis[:, rest] *= seen.to(basis.dtype).unsqueeze(1)
        images[:, rest] = product(basis[:, rest])
        turn = _next_vectors(torch.bmm(basis, basis.mT), torch.bmm(basis, images.mT))
        basis, spare = torch.bmm(turn, basis, out=spare), basis
        images, spare = torch.bmm(turn, images, out=spare), images
    return value.where(ended & value.isfinite(), torch.nan)


def _next_vectors(gram: Tensor, small: Tensor) -> Tensor:
    """What makes the next vector and the step to it out of basis vectors, [lane, vector, basis vector].

    Args:
        gram: b_i.b_j of the basis vectors, [lane, i, j].
        small: b_i.H b_j.
    """
    on, dtype = small.device, small.dtype
    gram, small = gram.cpu().double(), small.cpu().double()
    sound = (gram.isfinite() & small.isfinite()).flatten(1).all(dim=1)[:, None, None]
    gram, small = gram.where(sound, 0), ((small + small.mT) / 2).where(sound, 0)
    squares, turn = torch.linalg.eigh(gram)
    there = squares > ROUNDING  # the others are 0, or as good as a combination of those
    turn = turn * torch.where(there, squares, torch.inf).rsqrt().unsqueeze(1)
    within = turn.mT @ small @ turn
    below_all = -1 - 2 * within.abs().sum(dim=(1, 2))
    within = within + torch.diag_embed(torch.where(there, 0, below_all.unsqueeze(1)))
    vector = (turn @ torch.linalg.eigh(within).eigenvectors[:, :, -1:]).squeeze(2)
    step = vector.clone()
    step[:, 1] = 0
    step = step * reciprocal((step.unsqueeze(1) @ gram @ step.unsqueeze(2)).flatten().sqrt()).unsqueeze(1)
    return torch.stack([torch.zeros_like(vector), vector, step], dim=1).to(on, dtype)


def hutchinson_trace(product: Product, probes: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The trace of a symmetric matrix and the standard error of the estimate, both float64 [lane].

    Args:
        product: of the matrix with vectors.
        probes: at least two of random signs, each [lane, weight].
    """
    values = torch.stack([(probe.double() * product(probe)).sum(dim=1) for probe in probes])
    return values.mean(dim=0), values.std(dim=0) / len(values) ** 0.5
