"""Gradient, sharpness and Hessian of the loss at given weights.

With L the mean cross-entropy of a fixed sample of images as a function of all weights w of one lane, g its gradient and H its
Hessian:

    H v = d(g . v)/dw                                       (Pearlmutter 1994)
    largest eigenvalue = max over v of v.H v / v.v          (power iteration that keeps its last step, Knyazev 2001)
    trace = E[z.H z] over random signs z                    (Hutchinson 1990)
    sharpness = L(w + rho g / |g|) - L(w)                   (SAM, Foret et al. 2021, arXiv 2010.01412)
    adaptive sharpness = L(w + rho T^2 g / |T g|) - L(w), T = |w|    (ASAM, Kwon et al. 2021, arXiv 2102.11600)

H itself has as many rows and columns as there are weights, so it is never formed: everything comes from products H v. SAM's
sharpness is max L(w + e) - L(w) over |e| <= rho, to first order in e.
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
"""|H v - lambda v| / |lambda| up to which v counts as an eigenvector; then lambda is at most as far from an eigenvalue. With ten
times this value, one lane in 400 of small networks ended at the second largest eigenvalue."""

NEGLIGIBLE = 1e-3
"""The iteration also ends when |lambda| plus the residual is at most this share of the largest |H v| so far."""

ROUNDING = 1e-5
"""Residuals below this share of the largest |H v|, and squared lengths below this share of 1, count as rounding."""

LONGEST_ITERATION = 200


def flattened(tensors: Tensors) -> Tensor:
    """All weights of each lane in one row, [lane, weight]."""
    return torch.cat([value.flatten(1) for value in tensors.values()], dim=1)


class Landscape:
    """The loss of a sample around some parameters.

    Attributes:
        loss: L at the parameters in nats, [lane].
        gradient: g at the parameters, [lane, weight].
    """

    def __init__(self, model: Model, params: Tensors, inputs: Tensor, labels: Tensor) -> None:
        """The sample: `inputs` [lane, image, feature], int64 `labels` [lane, image]."""
        self._model, self._inputs, self._labels = model, inputs, labels
        self._shapes = {name: value.shape for name, value in params.items()}
        self._weights = flattened(params).detach().requires_grad_()  # w, [lane, weight]
        with torch.enable_grad():
            loss = self._loss(self._weights)  # [lane]
            (self._slope,) = torch.autograd.grad(loss.sum(), self._weights, create_graph=True)  # g, differentiable
        self.loss = loss.detach()
        self.gradient = self._slope.detach()

    @property
    def weights(self) -> Tensor:
        """w, [lane, weight]."""
        return self._weights.detach()

    def at(self, displacement: Tensor) -> Tensor:
        """The loss [lane] at the parameters plus `displacement` [lane, weight]."""
        with torch.no_grad():
            return self._loss(self._weights + displacement)

    def hessian_product(self, vector: Tensor) -> Tensor:
        """H v, [lane, weight], for v = `vector` [lane, weight]."""
        if not self._slope.requires_grad:  # the loss is linear in all weights
            return torch.zeros_like(vector)
        with torch.enable_grad():
            # g . v, summed over lanes, which do not interact. With grad_outputs instead, torch would import sympy.
            along = torch.linalg.vecdot(self._slope, vector).sum()
        (product,) = torch.autograd.grad(along, self._weights, retain_graph=True, materialize_grads=True)
        return product

    def _loss(self, weights: Tensor) -> Tensor:
        """The loss [lane] at weights [lane, weight]."""
        pieces = weights.split([shape[1:].numel() for shape in self._shapes.values()], dim=1)
        params = {name: piece.reshape(shape) for piece, (name, shape) in zip(pieces, self._shapes.items(), strict=True)}
        logits, _ = self._model.forward(params, self._inputs)  # [lane, image, output]
        losses = cross_entropy(logits.flatten(0, 1), self._labels.flatten(), reduction="none")  # [lane * image]
        return losses.view(self._labels.shape).mean(dim=1)


def sam_sharpness(landscape: Landscape, rho: float) -> Tensor:
    """SAM's sharpness in nats, [lane].

    L(w + rho g / |g|) - L(w); 0 where the gradient is 0.
    """
    scale = rho * reciprocal(torch.linalg.vector_norm(landscape.gradient, dim=1))  # rho / |g|, [lane]
    return landscape.at(landscape.gradient * scale.unsqueeze(1)) - landscape.loss


def adaptive_sharpness(landscape: Landscape, rho: float) -> Tensor:
    """Sharpness independent of the scale of layers, [lane].

    In nats; 0 where T g is 0. With T = |w| for each weight, biases included, it is

        L(w + rho T^2 g / |T g|) - L(w)

    which is the step of ASAM (Kwon et al. 2021, arXiv 2102.11600) without its eta, a constant added to T. If a layer's weights
    are multiplied by c and the network computes the same, its part of g is divided by c. So T g stays as it is, and the step
    grows with the weights.
    """
    size = landscape.weights.abs()  # T, [lane, weight]
    slope = size * landscape.gradient  # T g
    scale = rho * reciprocal(torch.linalg.vector_norm(slope, dim=1))  # rho / |T g|, [lane]
    return landscape.at(size * slope * scale.unsqueeze(1)) - landscape.loss


def gradient_reliability(gradients: Iterable[Tensor]) -> Tensor:
    """How far minibatches agree on the gradient, float64 [lane].

    |mean g_b|^2 / mean |g_b|^2 over minibatches b: 1 if their gradients are equal, 1 / n if n of them are orthogonal, 0 if they
    cancel. NaN where all are 0.

    Args:
        gradients: g_b of two or more minibatches, each [lane, weight].
    """
    total, squares, count = torch.zeros(()), torch.zeros(()), 0
    for gradient in gradients:
        total = gradient + total.to(gradient.device)  # [lane, weight]
        squares = torch.linalg.vector_norm(gradient, dim=1).double().square() + squares.to(gradient.device)  # [lane]
        count += 1
    share: Tensor = torch.linalg.vector_norm(total, dim=1).double().square() / (count * squares)
    return share.clamp(max=1)  # rounding may exceed it


def largest_eigenvalue(product: Product, start: Tensor) -> Tensor:
    """The largest eigenvalue of a symmetric matrix, float64 [lane].

    NaN in a lane whose iteration does not converge. With v the current vector, lambda = v.H v / v.v, r = H v - lambda v the
    residual and p the last step, each iteration takes

        v <- the combination of r, v and p with the largest v.H v / v.v

    instead of power iteration's v <- H v (Knyazev 2001, LOBPCG with one vector). It needs no more products, finds the largest
    eigenvalue even if one of larger magnitude is negative, and converges where the largest eigenvalues are close together. Each
    lane ends on its own, whatever the others do.

    Args:
        product: of the matrix with vectors.
        start: random, [lane, weight]. A start nearly orthogonal to the leading eigenvector can end at the next eigenvalue.
    """
    value = torch.full(start.shape[:1], torch.nan, dtype=torch.float64, device=start.device)  # lambda, [lane]
    scale = torch.zeros_like(value)  # bound of the largest |H v| so far, [lane]
    ended = torch.zeros_like(value, dtype=torch.bool)  # [lane]
    # Rows of `basis` are r / |r|, v and p, those of `images` their products with H, both [lane, 3, weight]. Tensors of this size
    # are slow to allocate, so results go to `spare`, which then changes places with its source.
    basis, images, spare = (start.new_zeros(len(start), 3, start.shape[1]) for _ in range(3))
    residual, vector = 0, 1  # rows; the third is p
    basis[:, vector] = start * reciprocal(torch.linalg.vector_norm(start, dim=1)).unsqueeze(1)
    images[:, vector] = product(basis[:, vector])
    for _ in range(LONGEST_ITERATION):
        quotient = torch.linalg.vecdot(basis[:, vector], images[:, vector])  # v.H v with |v| = 1, [lane]
        torch.addcmul(images[:, vector], -quotient.unsqueeze(1), basis[:, vector], out=basis[:, residual])
        size = torch.linalg.vector_norm(basis[:, residual], dim=1)  # |r|, [lane]
        quotient = torch.where(size.isfinite(), quotient, torch.nan)
        scale = torch.maximum(scale, quotient.abs() + size)
        steady = (quotient - value).abs() <= TOLERANCE * quotient.abs()
        steady &= size <= LARGEST_RESIDUAL * quotient.abs()
        value = torch.where(ended, value, quotient)
        ended |= steady | (quotient.abs() + size <= NEGLIGIBLE * scale) | ~quotient.isfinite()
        if bool(ended.all()):
            break
        factor = torch.where(size > ROUNDING * scale, reciprocal(size), 0)  # a residual of rounding has no direction
        basis[:, residual] *= factor.to(basis.dtype).unsqueeze(1)
        images[:, residual] = product(basis[:, residual])
        mixing = _next_vectors(torch.bmm(basis, basis.mT), torch.bmm(basis, images.mT))  # [lane, 3, 3]
        basis, spare = torch.bmm(mixing, basis, out=spare), basis
        images, spare = torch.bmm(mixing, images, out=spare), images  # H of a combination is the combination of H
    return value.where(ended & value.isfinite(), torch.nan)


def _next_vectors(gram: Tensor, small: Tensor) -> Tensor:
    """Coefficients of the next v and p.

    They are [lane, row, basis vector]. Row 0 is zero, row 1 gives the vector of the largest quotient within the span of the
    basis, and row 2 its part without the old vector, normalised.

    Args:
        gram: b_i.b_j of the basis vectors, [lane, i, j].
        small: b_i.H b_j, [lane, i, j].
    """
    device, dtype = small.device, small.dtype
    gram, small = gram.cpu().double(), small.cpu().double()
    sound = (gram.isfinite() & small.isfinite()).flatten(1).all(dim=1)[:, None, None]  # [lane, 1, 1]
    gram, small = gram.where(sound, 0), ((small + small.mT) / 2).where(sound, 0)
    # Squared lengths [lane, 3] of orthogonal combinations of the basis, which are the columns of `turn` [lane, 3, 3].
    squares, turn = torch.linalg.eigh(gram)
    independent = squares > ROUNDING  # the others are 0, or nearly a combination of these
    turn = turn * torch.where(independent, squares, torch.inf).rsqrt().unsqueeze(1)  # columns of length 1, or 0
    within = turn.mT @ small @ turn  # H in the orthonormal basis, [lane, 3, 3]
    # A value below every eigenvalue [lane], so that dependent columns are never chosen.
    below_all = -1 - 2 * within.abs().sum(dim=(1, 2))
    within = within + torch.diag_embed(torch.where(independent, 0, below_all.unsqueeze(1)))
    vector = (turn @ torch.linalg.eigh(within).eigenvectors[:, :, -1:]).squeeze(2)  # [lane, basis vector]
    step = vector.clone()
    step[:, 1] = 0
    step = step * reciprocal((step.unsqueeze(1) @ gram @ step.unsqueeze(2)).flatten().sqrt()).unsqueeze(1)
    return torch.stack([torch.zeros_like(vector), vector, step], dim=1).to(device, dtype)


def hutchinson_trace(product: Product, probes: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Estimated trace of a symmetric matrix and its standard error.

    The mean of z.H z over the probes z; both results are float64 [lane].

    Args:
        product: of the matrix with vectors.
        probes: at least two, of random signs, each [lane, weight].
    """
    values = torch.stack([(probe.double() * product(probe)).sum(dim=1) for probe in probes])  # z.H z, [probe, lane]
    return values.mean(dim=0), values.std(dim=0) / len(values) ** 0.5
