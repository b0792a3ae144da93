"""Rules by hand, one network at a time: torch's optimizer along a weighted sum of gradients at moved weights."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from study.lanes import generator

Named = dict[str, Tensor]
"""Tensors by names of parameters."""


@dataclass(frozen=True)
class Place:
    """Where a step of the plain loop is; `plain_run` hangs it on the network."""

    seed: int
    task: int
    tasks: int
    step: int
    steps: int


def step(net: nn.Module, name: str, given: dict):
    """A step of the rule of that name and these settings."""
    named = dict(net.named_parameters())
    base = base_of(named.values(), name, given)
    points = {
        "adamw": plain,
        "sam": uphill,
        "gnp": blended,
        "asam": adaptive,
        "friendly_sam": Friendly(),
        "random_sam": Random(),
    }[name]

    def gradient(x: Tensor, y: Tensor) -> tuple[Tensor, Named]:
        logits = net(x)
        slopes = torch.autograd.grad(cross_entropy(logits, y), list(named.values()))
        return logits.detach(), dict(zip(named, slopes, strict=True))

    def take(x: Tensor, y: Tensor) -> Tensor:
        home = {key: weight.detach().clone() for key, weight in named.items()}
        logits, here = gradient(x, y)
        sums = {key: torch.zeros_like(value) for key, value in home.items()}
        for share, move in points(net, home, here, given):
            with torch.no_grad():
                for key, weight in named.items():
                    weight.copy_(home[key] + move[key] if move else home[key])
            for key, slope in gradient(x, y)[1].items():
                sums[key] += share * slope
        with torch.no_grad():
            for key, weight in named.items():
                weight.copy_(home[key])
                weight.grad = sums[key]
        base.step()
        return logits

    return take


def base_of(params, name: str, given: dict) -> torch.optim.Optimizer:
    """torch's optimizer for the base of a rule."""
    common = {"lr": given["lr"], "weight_decay": given.get("weight_decay", 0.0)}
    if name == "adamw" or given.get("base") == "adamw":
        return torch.optim.AdamW(params, betas=(given.get("beta1", 0.9), given.get("beta2", 0.999)), **common)
    return torch.optim.SGD(params, momentum=given.get("momentum", 0.0), **common)


def factor(given: dict, place: Place) -> float:
    """The factor of a schedule over all tasks or steps."""
    if "schedule" not in given:
        return 1.0
    over_tasks = given.get("schedule_over", "tasks") == "tasks"
    at, last = (place.task, place.tasks - 1) if over_tasks else (place.step, place.steps - 1)
    share = at / last if last else 0.0
    start, end = given.get("schedule_from", 1.0), given.get("schedule_to", 0.0)
    if given["schedule"] == "cosine":
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
    return start + (end - start) * share


def length(values: Named) -> Tensor:
    """L2 norm of all values together."""
    return torch.cat([value.flatten() for value in values.values()]).norm()


def plain(net: nn.Module, weights: Named, slopes: Named, given: dict) -> list[tuple[float, Named]]:
    """The gradient at the weights."""
    return [(1.0, {})]


def uphill(net: nn.Module, home: Named, slopes: Named, given: dict) -> list[tuple[float, Named]]:
    """SAM."""
    rho = given["rho"] * factor(given, net.place)
    return [(1.0, {key: rho * slope / length(slopes) for key, slope in slopes.items()})]


def blended(net: nn.Module, weights: Named, slopes: Named, given: dict) -> list[tuple[float, Named]]:
    """GNP: a blend of two gradients."""
    share = given["lambda"] / given["r"] * factor(given, net.place)
    move = {key: given["r"] * slope / length(slopes) for key, slope in slopes.items()}
    return [(1 - share, {}), (share, move)]


def adaptive(net: nn.Module, weights: Named, slopes: Named, given: dict) -> list[tuple[float, Named]]:
    """ASAM: only what is called a weight is adapted, unless biases are to be."""
    biases, eta = given.get("adapt_biases", False), given.get("eta", 0.01)
    sizes = {
        key: value.abs() + eta if biases or "weight" in key else torch.ones_like(value)
        for key, value in weights.items()
    }
    rho = given["rho"] * factor(given, net.place)
    steepness = length({key: sizes[key] * slope for key, slope in slopes.items()})
    return [(1.0, {key: rho * sizes[key] ** 2 * slope / steepness for key, slope in slopes.items()})]


@dataclass
class Friendly:
    """Friendly SAM, with the mean before the step, as in nblt/F-SAM."""

    mean: Named = field(default_factory=dict)

    def __call__(self, net: nn.Module, weights: Named, slopes: Named, given: dict) -> list[tuple[float, Named]]:
        way = {
            key: slope - given.get("sigma", 1.0) * self.mean[key] if self.mean else slope
            for key, slope in slopes.items()
        }
        kept = given.get("ema", 0.9)
        self.mean = {
            key: kept * self.mean[key] + (1 - kept) * slope if self.mean else slope for key, slope in slopes.items()
        }
        rho = given["rho"] * factor(given, net.place)
        return [(1.0, {key: rho * value / length(way) for key, value in way.items()})]


@dataclass
class Random:
    """Random SAM, its noise computed number by number with Python's integers.

    Weights are counted in the order and with the axes of the stack.
    """

    numbers: dict[str, list[int]] = field(default_factory=dict)

    def __call__(self, net: nn.Module, home: Named, slopes: Named, given: dict) -> list[tuple[float, Named]]:
        signs = copy.deepcopy(net)
        stacked = weights(signs)
        if net.place.step == 0:
            draw = generator(net.place.seed, "random sam", net.place.task)
            for key, value in stacked.items():
                drawn = torch.randint(-(2**31), 2**31, value.shape, dtype=torch.int32, generator=draw)
                self.numbers[key] = [(number | 1) % 2**32 for number in drawn.flatten().tolist()]
        for key, value in stacked.items():
            self.numbers[key] = [0x93D765DD * number % 2**32 for number in self.numbers[key]]
            own = torch.tensor([1.0 if number < 2**31 else -1.0 for number in self.numbers[key]])
            value.copy_(own.view(value.shape))  # a view of the network's weight
        sigma = given["rho"] * factor(given, net.place) / math.sqrt(sum(value.numel() for value in home.values()))
        move = {key: sigma * value.detach() for key, value in signs.named_parameters()}
        return [(0.5, move), (0.5, {key: -value for key, value in move.items()})]


def weights(net: nn.Sequential) -> dict[str, Tensor]:
    """The weights of a network by the names of the stack."""
    if isinstance(net[-1], nn.Sequential):  # a module of one's own
        return {name: param.detach() for name, param in net[-1].named_parameters()}
    named = {}
    maps = 0  # of the convolution before
    for i, layer in enumerate(layer for layer in net if isinstance(layer, nn.Linear | nn.Conv2d)):
        weight = layer.weight.detach()
        if isinstance(layer, nn.Conv2d):
            weight, maps = weight.permute(0, 2, 3, 1), len(weight)
        elif maps:
            weight, maps = weight.unflatten(1, (maps, -1)).transpose(1, 2), 0
        named |= {f"{i}/weight": weight, f"{i}/bias": layer.bias.detach()}
    return named
