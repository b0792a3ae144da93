"""Rescaled layers: networks of one function, and their sharpness.

A network whose activation functions are homogeneous does not change as a function if the weights of layer l are multiplied by
a_l > 0 with a_1 a_2 ... a_L = 1, and its biases by a_1 ... a_l (Neyshabur et al. 2015, arXiv 1506.02617). With D the diagonal
matrix of these factors, L(D w) = L(w) for all w, so the Hessian H of the loss becomes

    H(D w) = D^-1 H(w) D^-1,

and the sharpness, its largest eigenvalue, changes (Dinh et al. 2017, arXiv 1703.04933). It is computed from products with H(w),
so the networks themselves need not be made.

Let x = log a. The squared norm of all weights is a sum of exponentials of linear functions of x, so it is convex, and has one
minimum m. Networks of a greater norm are a closed surface around m, which every ray from m meets in one point. So a direction
names a network of that norm, and the sharpness is a continuous function of the direction: between the flattest and the sharpest
network every sharpness is reached on the way from one direction to the other. With three layers the surface is a closed line.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from study.contracts import Subject
from study.curvature import Landscape, largest_eigenvalue
from study.errors import StudyError
from study.lanes import Tensors, generator, per_lane

MATRIX = 3
"""Axes of a layer's weights [lane, unit, input]; those of a convolution have more, biases fewer."""

DIRECTIONS = 12
"""Directions that are tried for each free factor but one."""

ROUNDS = 3
"""Rounds in which the flattest and the sharpest direction are refined; each halves the step."""

ACCURACY = 0.005
"""Relative error of the sharpness that a rescaled network has, against the one asked for."""

MOST_STEPS = 30
"""Steps of a search for a sharpness; each at least halves its range every second time."""


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
        norms: total norm of weights and biases of each network, float64 [lane].
        unchanged: the networks as they are.
    """

    def __init__(self, subject: Subject) -> None:
        """Raises StudyError if the network is not homogeneous."""
        check(subject.model.hidden_layers)
        self._subject = subject
        self._layers = _layers(subject)
        self._landscape = Landscape(subject.model, subject.params, subject.inputs, subject.labels)
        depth, lanes = max(layer for layer, _ in self._layers.values()) + 1, len(subject.seeds)
        self._levels: dict[float, Rescaled] = {}
        # Squared norms [lane, group] of groups of parameters with one factor exp(x . row) each, rows [group, layer].
        self._rows = torch.stack([_row(*place, depth) for place in self._layers.values()])
        squares = [subject.params[name].flatten(1).double().square().sum(1).cpu() for name in self._layers]
        self._squares = torch.stack(squares, dim=1)
        self._start = torch.stack(
            [torch.randn(self._weights, generator=generator(s, "sharpness")) for s in subject.seeds]
        )
        self._start = self._start.to(subject.inputs.device)
        self.norms = self._squares.sum(1).sqrt()
        # Columns span the free factors: x = basis y with sum x = 0, [layer, free].
        self._basis = torch.linalg.svd(torch.ones(1, depth, dtype=torch.float64)).Vh[1:].T
        self._centre = self._least_norm()  # m, as y [lane, free]
        self.unchanged = self._at(torch.zeros(lanes, depth - 1, dtype=torch.float64))

    @property
    def _weights(self) -> int:
        return sum(value[0].numel() for value in self._subject.params.values())

    def params(self, rescaled: Rescaled) -> Tensors:
        """The rescaled networks, [lane, ...]."""
        factors = self._factors(rescaled.logarithms)
        return {name: value * per_lane(factors[name], value) for name, value in self._subject.params.items()}

    def rates(self, rescaled: Rescaled) -> Tensors:
        """Multiples a^2 of the learning rate that undo it, [lane].

        With D the factors, gradient descent on L takes D w to D (w - lr g(w)) with the rates lr D^2, so it trains the rescaled
        network exactly as it would have trained the other.
        """
        return {name: factor.square() for name, factor in self._factors(rescaled.logarithms).items()}

    def level(self, place: float) -> Rescaled:
        """Networks of the same norm, by their place in sharpness.

        Args:
            place: from 0, the flattest that can be reached, to 1, the sharpest, on the scale of logarithms.
        """
        if place not in self._levels:
            self._levels[place] = self._between(*self._extremes, place)
        return self._levels[place]

    def at_norm(self, factor: float) -> Rescaled:
        """Networks of another norm and the same sharpness.

        Where no network of that norm has the sharpness, one that comes near. Where no network has so small a norm, the one with
        the least.

        Args:
            factor: of the total norm.
        """
        norms = factor * self.norms
        flattest, sharpest = self._searched(norms)
        wanted = self.unchanged.sharpness.clamp(flattest.at.sharpness, sharpest.at.sharpness)
        return self._on_the_way(flattest, sharpest, wanted, norms)

    @functools.cached_property
    def _extremes(self) -> tuple[_Found, _Found]:
        return self._searched(self.norms, ROUNDS)

    def _between(self, flattest: _Found, sharpest: _Found, place: float) -> Rescaled:
        if place in (0, 1):
            return (sharpest if place else flattest).at
        low, high = flattest.at.sharpness.log(), sharpest.at.sharpness.log()
        return self._on_the_way(flattest, sharpest, (low + place * (high - low)).exp(), self.norms)

    def _searched(self, norms: Tensor, rounds: int = 0) -> tuple[_Found, _Found]:
        """The flattest and the sharpest networks of a norm.

        A few directions are tried, and the best refined. So they are close to the extremes, not exactly there.
        """
        free = self._basis.shape[1]
        tried = [self._found(direction.expand(len(norms), -1), norms) for direction in _directions(free)]
        best = [_chosen(tried, sign) for sign in (-1.0, 1.0)]
        step = math.pi / DIRECTIONS
        for _ in range(rounds):
            for place, sign in enumerate((-1.0, 1.0)):
                around = [
                    self._found(_turned(best[place].direction, axis, side * step), norms)
                    for axis in range(free - 1)
                    for side in (-1, 1)
                ]
                best[place] = _chosen([best[place], *around], sign)
            step /= 2
        return best[0], best[1]

    def _on_the_way(self, flattest: _Found, sharpest: _Found, wanted: Tensor, norms: Tensor) -> Rescaled:
        """Networks of a wanted sharpness between two extremes.

        By the Illinois method (Dowell and Jarratt 1971) on the way from one direction to the other.
        """
        low, high = torch.zeros_like(norms), torch.ones_like(norms)
        below = (flattest.at.sharpness / wanted).log()
        above = (sharpest.at.sharpness / wanted).log()
        found = _merged(below.abs() <= above.abs(), flattest.at, sharpest.at)
        last = torch.zeros_like(norms)
        for _ in range(MOST_STEPS):
            miss = (found.sharpness / wanted).log().abs()
            if not bool((miss > ACCURACY / 2).any()):
                break
            share = torch.where(above > below, -below / (above - below), 0.5).clamp(0, 1)
            where = low + share * (high - low)
            tried = self._found(_on_arc(flattest.direction, sharpest.direction, where), norms).at
            value = (tried.sharpness / wanted).log()
            found = _merged(value.abs() < miss, tried, found)
            is_above = value > 0
            # The end that stays for the second time counts half, so that it moves at last.
            below = torch.where(is_above, torch.where(last > 0, below / 2, below), value)
            above = torch.where(is_above, value, torch.where(last < 0, above / 2, above))
            low, high = torch.where(is_above, low, where), torch.where(is_above, where, high)
            last = torch.where(is_above, 1.0, -1.0)
        return found

    def _found(self, direction: Tensor, norms: Tensor) -> _Found:
        """The network [lane] in a direction [lane, free], of a norm."""
        return _Found(direction, self._at(self._centre + self._distance(direction, norms).unsqueeze(1) * direction))

    def _at(self, free: Tensor) -> Rescaled:
        """The rescaling at y [lane, free], with its sharpness."""
        logarithms = free @ self._basis.T
        inverse = self._factors(-logarithms)
        # D^-1 as one row for each lane, [lane, weight]
        scale = torch.cat(
            [inverse[name].unsqueeze(1).expand(-1, value[0].numel()) for name, value in self._subject.params.items()],
            dim=1,
        )
        product = self._landscape.hessian_product
        with torch.no_grad():
            sharpness = largest_eigenvalue(lambda vector: scale * product(scale * vector), self._start)
        return Rescaled(logarithms, sharpness.cpu())

    def _factors(self, logarithms: Tensor) -> Tensors:
        """The factor of each parameter, [lane], by name."""
        sample = next(iter(self._subject.params.values()))
        exponents = logarithms @ self._rows.T  # [lane, group]
        factors = exponents.exp().to(sample.device, sample.dtype)
        return {name: factors[:, place] for place, name in enumerate(self._layers)}

    def _squared(self, free: Tensor) -> Tensor:
        """Squared norms of groups [lane, group] at y [lane, free]."""
        factors: Tensor = (2 * free @ self._basis.T @ self._rows.T).exp()
        return self._squares * factors

    def _least_norm(self) -> Tensor:
        """The y [lane, free] of the least norm, by Newton's method."""
        rows = self._rows @ self._basis  # [group, free]
        free = torch.zeros(len(self._squares), rows.shape[1], dtype=torch.float64)
        for _ in range(100):
            terms = self._squared(free)
            slope = 2 * terms @ rows
            bend = 4 * torch.einsum("lg,gi,gj->lij", terms, rows, rows)
            step = torch.linalg.lstsq(bend, slope.unsqueeze(2)).solution.squeeze(2)
            length = torch.linalg.vector_norm(step, dim=1, keepdim=True)
            step = step / length.clamp(min=1)  # Newton's step alone may overshoot
            free = free - step
            if bool((length < 1e-12).all()):
                break
        return free

    def _distance(self, direction: Tensor, norms: Tensor) -> Tensor:
        """How far from the centre the norm is reached, [lane].

        0 where the least norm is greater.
        """

        def exceeds(distance: Tensor) -> Tensor:
            return self._squared(self._centre + distance.unsqueeze(1) * direction).sum(1) > norms.square()

        return _crossing(exceeds, len(norms))


@dataclass(frozen=True, eq=False)
class _Found:
    """A direction [lane, free], and the network that it names."""

    direction: Tensor
    at: Rescaled


def check(hidden_layers: tuple[object, ...]) -> None:
    """Raises StudyError unless layers can be rescaled."""
    if len(hidden_layers) < 2 or not all(getattr(layer, "is_homogeneous", False) for layer in hidden_layers):
        raise StudyError(
            "layers can be rescaled only in a network with two hidden layers or more, of relu, leaky_relu or crelu and without "
            "layer norm; choose another network, or leave the operation out."
        )


@functools.lru_cache(maxsize=1)
def rescalings(subject: Subject) -> Rescalings:
    """The rescalings of a subject, computed once for all operations."""
    return Rescalings(subject)


def _layers(subject: Subject) -> dict[str, tuple[int, bool]]:
    """The layer of each parameter, and whether it is a bias."""
    hidden = [layer.incoming for layer in subject.model.hidden_layers]
    of = {name: place for place, names in enumerate(hidden) for name in names}
    return {name: (of.get(name, len(hidden)), value.dim() < MATRIX) for name, value in subject.params.items()}


def _row(layer: int, is_bias: bool, depth: int) -> Tensor:
    """Which log a_l add up to the logarithm of a factor, [layer]."""
    row = torch.zeros(depth, dtype=torch.float64)
    row[slice(0, layer + 1) if is_bias else layer] = 1
    return row


def _directions(free: int) -> list[Tensor]:
    """Directions [free] of length 1 to begin a search with."""
    if free == 2:
        angles = 2 * math.pi * torch.arange(DIRECTIONS, dtype=torch.float64) / DIRECTIONS
        return list(torch.stack([angles.cos(), angles.sin()], dim=1))
    drawn = torch.randn(DIRECTIONS * (free - 1), free, generator=generator(0, "directions"), dtype=torch.float64)
    return list(drawn / torch.linalg.vector_norm(drawn, dim=1, keepdim=True))


def _turned(direction: Tensor, axis: int, angle: float) -> Tensor:
    """Directions [lane, free] turned by an angle, along an axis of their own."""
    frame = torch.linalg.svd(direction.unsqueeze(1)).Vh[:, 1:]  # orthogonal to the direction, [lane, free - 1, free]
    turned: Tensor = math.cos(angle) * direction + math.sin(angle) * frame[:, axis]
    return turned


def _on_arc(first: Tensor, second: Tensor, where: Tensor) -> Tensor:
    """Directions [lane, free] on the arc between two, at `where` [lane]."""
    cosine = (first * second).sum(1).clamp(-1, 1)
    angle = torch.acos(cosine)
    across = second - cosine.unsqueeze(1) * first
    length = torch.linalg.vector_norm(across, dim=1, keepdim=True)
    # opposite directions are joined by no one arc; any that is orthogonal will do
    other = torch.linalg.svd(first.unsqueeze(1)).Vh[:, 1]
    across = torch.where(length > 1e-9, across / length.clamp(min=1e-30), other)
    turn = (where * angle).unsqueeze(1)
    return turn.cos() * first + turn.sin() * across


def _chosen(found: list[_Found], sign: float) -> _Found:
    """Of each lane the sharpest, or with sign -1 the flattest."""
    best = found[0]
    for other in found[1:]:
        better = sign * other.at.sharpness > sign * best.at.sharpness
        better |= best.at.sharpness.isnan() & ~other.at.sharpness.isnan()
        best = _Found(
            torch.where(better.unsqueeze(1), other.direction, best.direction), _merged(better, other.at, best.at)
        )
    return best


def _merged(mask: Tensor, first: Rescaled, second: Rescaled) -> Rescaled:
    """Lanes of the first where `mask` [lane], else of the second."""
    return Rescaled(
        torch.where(mask.unsqueeze(1), first.logarithms, second.logarithms),
        torch.where(mask, first.sharpness, second.sharpness),
    )


def _crossing(exceeds: Callable[[Tensor], Tensor], lanes: int) -> Tensor:
    """The least distance [lane] that exceeds; 0 if all do."""
    low, high = torch.zeros(lanes, dtype=torch.float64), torch.ones(lanes, dtype=torch.float64)
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
