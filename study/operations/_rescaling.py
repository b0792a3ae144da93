"""Rescaled layers: networks of one function, and their sharpness.

A network whose activation functions are homogeneous does not change as a function if the weights of layer l are multiplied by
a_l > 0 with a_1 a_2 ... a_L = 1, and its biases by a_1 ... a_l (Neyshabur et al. 2015, arXiv 1506.02617). With D the diagonal
matrix of these factors, L(D w) = L(w) for all w, so the Hessian H of the loss becomes

    H(D w) = D^-1 H(w) D^-1,

and the sharpness, its largest eigenvalue, changes (Dinh et al. 2017, arXiv 1703.04933). It is computed from products with H(w),
so the networks themselves need not be made. To know where to look, the leading eigenvectors V of H(w) and their eigenvalues E
are found once by Lanczos' method; the largest eigenvalue of E^1/2 V^T D^-2 V E^1/2, a small matrix, is an estimate.

Let x = log a. The squared norm of all weights is a sum of exponentials of linear functions of x, so it is convex, and has one
minimum m. Networks of a greater norm are a closed surface around m, which every ray from m meets in one point. So a direction
names a network of that norm, and the sharpness is a continuous function of the direction: between the flattest and the sharpest
network every sharpness is reached on the way from one direction to the other. With three layers the surface is a closed line.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from study.contracts import HiddenLayer, Subject
from study.curvature import Landscape, Product, largest_eigenvalue
from study.errors import StudyError
from study.lanes import MATRIX, Tensors, generator, per_lane, reciprocal

DIRECTIONS = 180
"""Directions whose sharpness is estimated, for each free factor but one."""

PLACES = 65
"""Networks whose sharpness is estimated on the way from the flattest to the sharpest."""

LANCZOS_STEPS = 40
EIGENVECTORS = 16
"""How many leading ones estimate a sharpness."""

ACCURACY = 0.005
"""Relative error up to which a network has the sharpness asked for."""

MOST_CORRECTIONS = 8
"""Of an estimate by the true sharpness; two or three suffice as a rule."""


@dataclass(frozen=True, eq=False)
class Rescaled:
    """A rescaling of each lane's network.

    Attributes:
        logarithms: log a_l, float64 [lane, layer].
        sharpness: largest eigenvalue after it, float64 [lane]; NaN where it is unknown.
    """

    logarithms: Tensor
    sharpness: Tensor


class Rescalings:
    """All rescalings of a subject's networks.

    Attributes:
        norms: norm of all weights and biases of each network, float64 [lane].
        unchanged: the networks as they are.
    """

    def __init__(self, subject: Subject) -> None:
        """Raises StudyError if the networks cannot be rescaled."""
        check(subject.model.hidden_layers)
        self._params = subject.params
        self._product = Landscape(subject.model, subject.params, subject.inputs, subject.labels).hessian_product
        hidden = [layer.incoming for layer in subject.model.hidden_layers]
        layer_of = {name: place for place, names in enumerate(hidden) for name in names}
        # A factor is exp(x . row); rows are [parameter, layer].
        rows = [
            _row(layer_of.get(name, len(hidden)), value.dim() < MATRIX, len(hidden) + 1)
            for name, value in self._params.items()
        ]
        self._rows = torch.stack(rows)
        squares = [value.flatten(1).double().square().sum(1).cpu() for value in self._params.values()]
        self._squares = torch.stack(squares, dim=1)  # squared norms, [lane, parameter]
        self.norms = self._squares.sum(1).sqrt()
        # Columns span the free factors: x = basis y with sum x = 0, [layer, free].
        self._basis = torch.linalg.svd(torch.ones(1, len(hidden) + 1, dtype=torch.float64)).Vh[1:].T
        self._centre = self._least_norm()  # m, as y [lane, free]
        weights = sum(value[0].numel() for value in self._params.values())
        start = [torch.randn(weights, generator=generator(seed, "sharpness")) for seed in subject.seeds]
        self._start = torch.stack(start).to(subject.inputs.device)  # [lane, weight]
        self._grams = self._leading()
        self._levels: dict[float, Rescaled] = {}
        self.unchanged = self._at(torch.zeros_like(self._centre))

    def params(self, rescaled: Rescaled) -> Tensors:
        """The rescaled networks, [lane, ...]."""
        factors = self._factors(rescaled.logarithms)
        return {name: value * per_lane(factors[name], value) for name, value in self._params.items()}

    def rates(self, rescaled: Rescaled) -> Tensors:
        """Multiples a^2 of the learning rate that undo it, [lane].

        With D the factors, gradient descent takes D w to D (w - lr g(w)) if its rates are lr D^2. So it trains the rescaled
        network exactly as it would have trained the other.
        """
        return {name: factor.square() for name, factor in self._factors(rescaled.logarithms).items()}

    def level(self, place: float) -> Rescaled:
        """Networks of the same norm, by their place in sharpness.

        Args:
            place: from 0, the flattest that can be reached, to 1, the sharpest, on the scale of logarithms.
        """
        if place not in self._levels:
            way = self._way
            low, high = way.flattest.sharpness.log(), way.sharpest.sharpness.log()
            ends = {0.0: way.flattest, 1.0: way.sharpest}
            self._levels[place] = ends[place] if place in ends else way.at((low + place * (high - low)).exp())
        return self._levels[place]

    def at_norm(self, factor: float) -> Rescaled:
        """Networks of another norm and the same sharpness.

        Where no network of that norm has the sharpness, one that comes near. Where no network has so small a norm, the one with
        the least.

        Args:
            factor: of the norm.
        """
        return _Way(self, factor * self.norms).at(self.unchanged.sharpness)

    @functools.cached_property
    def _way(self) -> _Way:
        return _Way(self, self.norms)

    def found(self, direction: Tensor, norms: Tensor) -> Tensor:
        """The y in a direction that has a norm.

        It is the centre where the least norm is greater.

        Args:
            direction: [..., lane, free].
            norms: [lane].
        """

        def exceeds(distance: Tensor) -> Tensor:
            squared = self._squares * (2 * (self._centre + distance.unsqueeze(-1) * direction) @ self._exponents).exp()
            return squared.sum(-1) > norms.square()

        distance = _crossing(exceeds, direction.shape[:-1])
        point: Tensor = self._centre + distance.unsqueeze(-1) * direction
        return point

    def onto(self, free: Tensor, norms: Tensor) -> Tensor:
        """The y [lane, free], moved outwards to a norm."""
        offset = free - self._centre
        length = torch.linalg.vector_norm(offset, dim=1, keepdim=True)
        return self.found(offset * reciprocal(length), norms)

    def estimate(self, free: Tensor) -> Tensor:
        """Estimated sharpness [..., lane] at y [..., lane, free]."""
        weights = (-2 * free @ self._exponents).exp()  # a^-2 of each parameter, [..., lane, parameter]
        values: Tensor = torch.linalg.eigvalsh(torch.einsum("...lp,lpij->...lij", weights, self._grams))
        return values[..., -1]

    def _at(self, free: Tensor) -> Rescaled:
        """The rescaling at y [lane, free], with its true sharpness."""
        logarithms = free @ self._basis.T
        inverse = self._factors(-logarithms)
        # D^-1 as one row for each lane, [lane, weight]
        pieces = [inverse[name].unsqueeze(1).expand(-1, value[0].numel()) for name, value in self._params.items()]
        scale = torch.cat(pieces, dim=1)
        with torch.no_grad():
            sharpness = largest_eigenvalue(lambda vector: scale * self._product(scale * vector), self._start)
        return Rescaled(logarithms, sharpness.cpu())

    @property
    def _exponents(self) -> Tensor:
        """Maps y to the logarithms of all factors, [free, parameter]."""
        exponents: Tensor = self._basis.T @ self._rows.T
        return exponents

    def _factors(self, logarithms: Tensor) -> Tensors:
        """The factor of each parameter, [lane], by name."""
        sample = next(iter(self._params.values()))
        factors = (logarithms @ self._rows.T).exp().to(sample.device, sample.dtype)  # [lane, parameter]
        return {name: factors[:, place] for place, name in enumerate(self._params)}

    def _leading(self) -> Tensor:
        """E^1/2 V_p^T V_p E^1/2, float64 [lane, parameter, i, j].

        V_p are the rows of V that belong to parameter p.
        """
        with torch.no_grad():
            values, vectors = leading_eigenvectors(self._product, self._start, LANCZOS_STEPS, EIGENVECTORS)
        scaled = vectors * values.clamp(min=0).sqrt().unsqueeze(2).to(vectors.dtype)  # [lane, eigenvector, weight]
        pieces = scaled.split([value[0].numel() for value in self._params.values()], dim=2)
        return torch.stack([(piece @ piece.mT).double().cpu() for piece in pieces], dim=1)

    def _least_norm(self) -> Tensor:
        """The y [lane, free] of the least norm, by Newton's method."""
        rows = self._exponents.T  # [parameter, free]
        free = torch.zeros(len(self._squares), rows.shape[1], dtype=torch.float64)
        for _ in range(100):
            terms = self._squares * (2 * free @ rows.T).exp()
            slope = 2 * terms @ rows
            bend = 4 * torch.einsum("lp,pi,pj->lij", terms, rows, rows)
            step = torch.linalg.lstsq(bend, slope.unsqueeze(2)).solution.squeeze(2)
            length = torch.linalg.vector_norm(step, dim=1, keepdim=True)
            free = free - step / length.clamp(min=1)  # Newton's step alone may overshoot
            if bool((length < 1e-12).all()):
                break
        return free


class _Way:
    """Networks of one norm, from the flattest to the sharpest.

    Attributes:
        flattest, sharpest: its ends, among the directions that were estimated.
    """

    def __init__(self, rescalings: Rescalings, norms: Tensor) -> None:
        self._rescalings, self._norms = rescalings, norms
        free = rescalings._basis.shape[1]
        directions = _directions(free).unsqueeze(1).expand(-1, len(norms), -1)  # [direction, lane, free]
        estimates = rescalings.estimate(rescalings.found(directions, norms))  # [direction, lane]
        lanes = torch.arange(len(norms))
        ends = [directions[place, lanes] for place in (estimates.argmin(0), estimates.argmax(0))]
        where = torch.linspace(0, 1, PLACES, dtype=torch.float64)
        self._points = rescalings.found(_arc(ends[0], ends[1], where), norms)  # y [place, lane, free]
        self._estimates = rescalings.estimate(self._points).log()  # [place, lane]

    @functools.cached_property
    def flattest(self) -> Rescaled:
        """Its beginning."""
        return self._rescalings._at(self._points[0])

    @functools.cached_property
    def sharpest(self) -> Rescaled:
        """Its end."""
        return self._rescalings._at(self._points[-1])

    def at(self, wanted: Tensor) -> Rescaled:
        """Networks of a sharpness [lane], or the nearest to it.

        The estimate says where they are. The true sharpness there corrects the estimate, until both agree.
        """
        correction = torch.zeros_like(wanted)
        best: Rescaled | None = None
        for _ in range(MOST_CORRECTIONS):
            free = self._rescalings.onto(
                _point_at(self._points, self._estimates + correction, wanted.log()), self._norms
            )
            tried = self._rescalings._at(free)
            if best is None:
                best = tried
            else:
                nearer = (tried.sharpness / wanted).log().abs() < (best.sharpness / wanted).log().abs()
                best = Rescaled(
                    torch.where(nearer.unsqueeze(1), tried.logarithms, best.logarithms),
                    torch.where(nearer, tried.sharpness, best.sharpness),
                )
            miss = (best.sharpness / wanted).log().abs()
            change = tried.sharpness.log() - self._rescalings.estimate(free).log() - correction
            correction = correction + change.nan_to_num(0)
            # A lane is done if it has the sharpness, or if the corrected estimate does not move it any more.
            if not bool(((miss > ACCURACY) & (change.abs() > ACCURACY / 10)).any()):
                break
        assert best is not None
        return best


def check(layers: tuple[HiddenLayer, ...]) -> None:
    """Raises StudyError unless layers can be rescaled."""
    if len(layers) < 2 or not all(layer.is_homogeneous for layer in layers):
        raise StudyError(
            "layers can be rescaled only in a network with two hidden layers or more, of relu, leaky_relu or crelu and without "
            "layer norm; choose another network, or leave the operation out."
        )


def rescalings(subject: Subject) -> Rescalings:
    """The rescalings of a subject, computed once for all operations."""
    if subject not in _KEPT:
        _KEPT[subject] = Rescalings(subject)
    return _KEPT[subject]


_KEPT: weakref.WeakKeyDictionary[Subject, Rescalings] = weakref.WeakKeyDictionary()
"""They are large, and end with their subject."""


def leading_eigenvectors(product: Product, start: Tensor, steps: int, count: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvalues of a symmetric matrix, with eigenvectors.

    By Lanczos' method with full orthogonalisation (Lanczos 1950, Paige 1972).

    Args:
        product: of the matrix with vectors.
        start: random, [lane, weight].
        steps: products; eigenvalues far apart from the rest converge first.
        count: of eigenvalues.

    Returns:
        Eigenvalues float64 [lane, count], the largest last, and eigenvectors [lane, count, weight], as float32 as `start`.
    """
    steps = min(steps, start.shape[1])
    basis = start.new_zeros(len(start), steps, start.shape[1])
    small = torch.zeros(len(start), steps, steps, dtype=torch.float64)  # b_i.H b_j for i <= j, [lane, i, j]
    vector = start
    for step in range(steps):
        for _ in range(2):  # once is not enough in float32
            vector = vector - torch.bmm(torch.bmm(vector.unsqueeze(1), basis.mT), basis).squeeze(1)
        basis[:, step] = vector * reciprocal(torch.linalg.vector_norm(vector, dim=1)).unsqueeze(1)
        vector = product(basis[:, step])
        small[:, :, step] = torch.bmm(basis, vector.unsqueeze(2)).squeeze(2)  # later vectors are still 0
    values, mixing = torch.linalg.eigh(small, UPLO="U")
    return values[:, -count:], torch.bmm(mixing[:, :, -count:].mT.to(basis.device, basis.dtype), basis)


def _row(layer: int, is_bias: bool, depth: int) -> Tensor:
    """Which log a_l add up to the logarithm of a factor, [layer]."""
    row = torch.zeros(depth, dtype=torch.float64)
    row[slice(0, layer + 1) if is_bias else layer] = 1
    return row


def _directions(free: int) -> Tensor:
    """Directions of length 1, [direction, free]."""
    if free == 2:
        angles = 2 * math.pi * torch.arange(DIRECTIONS, dtype=torch.float64) / DIRECTIONS
        return torch.stack([angles.cos(), angles.sin()], dim=1)
    drawn = torch.randn(DIRECTIONS * (free - 1), free, generator=generator(0, "directions"), dtype=torch.float64)
    return drawn * reciprocal(torch.linalg.vector_norm(drawn, dim=1, keepdim=True))


def _arc(first: Tensor, second: Tensor, where: Tensor) -> Tensor:
    """Directions [place, lane, free] on the arc between two.

    Args:
        first, second: [lane, free].
        where: from 0 to 1, [place].
    """
    cosine = (first * second).sum(1).clamp(-1, 1)  # [lane]
    across = second - cosine.unsqueeze(1) * first
    length = torch.linalg.vector_norm(across, dim=1, keepdim=True)
    # Opposite directions are joined by many arcs; any will do.
    other = torch.linalg.svd(first.unsqueeze(1)).Vh[:, 1]
    across = torch.where(length > 1e-9, across * reciprocal(length), other)
    turn = (where.unsqueeze(1) * torch.acos(cosine)).unsqueeze(2)  # [place, lane, 1]
    return turn.cos() * first + turn.sin() * across


def _point_at(points: Tensor, values: Tensor, wanted: Tensor) -> Tensor:
    """Where values on a way first rise through a wanted one, [lane, free].

    The end that is nearer in value where they do not.

    Args:
        points: [place, lane, free].
        values: [place, lane].
        wanted: [lane].
    """
    lanes = torch.arange(len(wanted))
    rises = (values[:-1] <= wanted) & (values[1:] > wanted)  # [place, lane]
    place = rises.int().argmax(0)
    low, high = values[place, lanes], values[place + 1, lanes]
    share = ((wanted - low) * reciprocal(high - low)).unsqueeze(1)
    between = points[place, lanes].lerp(points[place + 1, lanes], share)
    is_below = (values[0] - wanted).abs() <= (values[-1] - wanted).abs()
    end = torch.where(is_below.unsqueeze(1), points[0], points[-1])
    return torch.where(rises.any(0).unsqueeze(1), between, end)


def _crossing(exceeds: Callable[[Tensor], Tensor], shape: torch.Size) -> Tensor:
    """The least distance, of a shape, that exceeds; 0 if all do."""
    low, high = torch.zeros(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64)
    for _ in range(60):
        short = ~exceeds(high)
        if not bool(short.any()):
            break
        high = torch.where(short, 2 * high, high)
    for _ in range(60):
        middle = (low + high) / 2
        over = exceeds(middle)
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return low
