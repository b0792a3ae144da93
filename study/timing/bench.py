"""Images a second of lanes and of ordinary training.

Every way of training is timed in turn, round after round in one process. The best round counts, since other work on the
machine can only slow it down. Each image counts once per seed and step, however often a method uses it. Work done once per
task is left out.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from study.contracts import Dataset
from study.models import StackedModule
from study.timing import plain_torch, speed, stacked_jax, stacked_torch

Way = TypeVar("Way")

ROUNDS = 3
METHODS = {
    "sgd": plain_torch.Method("sgd", 0.0, 0.0),
    "sam": plain_torch.Method("sam", 1.0, 0.05),
    "gnp": plain_torch.Method("gnp", 2.0, 0.05),
}
GRADIENTS = {"sgd": 1, "sam": 2, "gnp": 2}
LOADER, MEMORY, VMAP, COMPILED, JAX, LANES = "DataLoader", "in memory", "vmap", "compiled", "jax", "lanes"
MODELS = ("mlp", "cnn")
"""Networks that are timed; the second with the convolutions of its defaults."""


@dataclass(frozen=True)
class Setting:
    """Hidden widths and batch size of what is timed."""

    widths: tuple[int, ...]
    batch_size: int


@dataclass(frozen=True)
class Speed:
    """One way of training, timed.

    Attributes:
        setting: network and batch size.
        way: "DataLoader" and "in memory" are the usual ways with one seed; "vmap", "compiled" and "jax" are those with several,
            see `stacked_torch` and `stacked_jax`, and of the CNN "vmap" is `study.models.StackedModule`; "lanes" is the study's.
        lanes: seeds trained at once.
        method: "sgd", "sam" or "gnp".
        images_per_second: over all lanes.
        ratio: to the DataLoader's images a second with the same method and setting.
        share: of the device's rate of matrix products, with operations counted by `per_image`.
    """

    setting: Setting
    way: str
    lanes: int
    method: str
    images_per_second: float
    ratio: float
    share: float


def measured(
    dataset: Dataset,
    settings: list[Setting],
    lane_counts: list[int],
    device: str,
    seconds: float,
    rate: float,
    model: str = "mlp",
    *,
    compiled: bool = False,
) -> Iterator[list[Speed]]:
    """The speeds of one setting after the other.

    Args:
        dataset: on the CPU.
        settings: networks and batch sizes.
        lane_counts: how many seeds to train at once.
        device: "cpu" or "cuda".
        seconds: for each way, method and round, about.
        rate: floating-point operations a second, see `product_rate`.
        model: one of `MODELS`.
        compiled: whether to time torch.compile, too; of the MLP only.
    """
    on_device = dataset if device == "cpu" else dataset.to(device)
    order = torch.randperm(dataset.train_images.shape[1], generator=torch.Generator().manual_seed(0))
    for setting in settings:
        network = partial(_network, model, dataset, setting.widths)
        operations = layer_operations(model, dataset, setting.widths)
        timed: dict[tuple[str, int, str], Callable[[int], float]] = {}  # seconds of so many steps
        for name, method in METHODS.items():
            minibatches = plain_torch.loader(dataset, setting.batch_size, order)
            timed[LOADER, 1, name] = _usual(network(), method, minibatches, device)
            draw = torch.Generator().manual_seed(0)
            minibatches = plain_torch.in_memory(on_device, setting.batch_size, order, draw)
            timed[MEMORY, 1, name] = _usual(network(), method, minibatches, device)
            for count in lane_counts:
                named = {"name": model, "widths": list(setting.widths)}
                lanes = speed.lanes_of(dataset, name, count, setting.widths, setting.batch_size, device, model=named)
                if model == "cnn":
                    own = StackedModule(partial(_flattened, network), dataset.shape)
                    timed[VMAP, count, name] = speed.entered(replace(lanes.experiment, model=own)).seconds
                else:
                    stacked = _stacked(network, count, method, on_device, setting.batch_size, order, compiled=compiled)
                    timed |= {(way, count, name): time_of for way, time_of in stacked.items()}
                timed[LANES, count, name] = lanes.seconds
        best = best_rates(timed, seconds)
        images = {key: per_second * key[1] * setting.batch_size for key, per_second in best.items()}
        yield [
            Speed(
                setting,
                way,
                count,
                name,
                per_second,
                per_second / images[LOADER, 1, name],
                per_second * per_image(operations, GRADIENTS[name]) / rate,
            )
            for (way, count, name), per_second in images.items()
        ]


def _stacked(
    make: Callable[[], nn.Sequential],
    count: int,
    method: plain_torch.Method,
    dataset: Dataset,
    batch_size: int,
    order: Tensor,
    *,
    compiled: bool,
) -> dict[str, Callable[[int], float]]:
    """The usual ways with several seeds."""
    device = dataset.train_images.device
    nets: list[nn.Module] = [make().to(device) for _ in range(count)]
    ways = {VMAP: stacked_torch.timed(nets, method, dataset, batch_size, order)}
    if compiled:
        ways[COMPILED] = stacked_torch.timed(nets, method, dataset, batch_size, order, compiled=True)
    if device.type == "cpu" and stacked_jax.is_installed():
        ways[JAX] = stacked_jax.timed(nets, method, dataset, batch_size, order, torch.get_num_threads())
    return ways


def _flattened(make: Callable[[], nn.Module]) -> nn.Sequential:
    """A network on rows of features, as one on pictures."""
    return nn.Sequential(nn.Flatten(), make())


def _network(model: str, dataset: Dataset, widths: tuple[int, ...]) -> nn.Sequential:
    """The network written the usual way, on rows of features."""
    features = math.prod(dataset.shape)
    if model == "mlp":
        return plain_torch.network(features, widths, dataset.class_count)
    return plain_torch.convolutional_network(dataset.shape, widths, dataset.class_count)


def _usual(
    net: nn.Sequential, method: plain_torch.Method, minibatches: Iterator[tuple[Tensor, Tensor]], device: str
) -> Callable[[int], float]:
    net = net.to(device)
    return lambda steps: plain_torch.seconds(net, method, minibatches, steps, device)


def best_rates(timed: Mapping[Way, Callable[[int], float]], seconds: float, rounds: int = ROUNDS) -> dict[Way, float]:
    """Steps a second of each way, best of several rounds.

    Args:
        timed: by way, a function that takes so many steps and returns their seconds.
        seconds: for each way and round, about.
        rounds: number of rounds.
    """
    steps = {key: _steps_in(seconds, time_of) for key, time_of in timed.items()}
    rates = dict.fromkeys(timed, 0.0)
    for _ in range(rounds):
        for key, time_of in timed.items():
            rates[key] = max(rates[key], steps[key] / time_of(steps[key]))
    return rates


def _steps_in(seconds: float, time_of: Callable[[int], float]) -> int:
    """How many steps take about that long."""
    time_of(1)
    steps = 4
    while (taken := time_of(steps)) < seconds / 4:
        steps = max(2 * steps, min(10 * steps, int(steps * seconds / 2 / max(taken, 1e-9))))
    return max(1, round(steps * seconds / taken))


def peak_bytes(device: str) -> int:
    """The most memory that this process has held so far.

    On the GPU, that of its tensors; on the CPU, that of the whole process with its libraries.
    """
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


SQUARE = 1024
"""Rows and columns of the matrices whose product is timed."""


def layer_operations(model: str, dataset: Dataset, widths: tuple[int, ...]) -> list[int]:
    """Floating-point operations of each layer on an image, forward."""
    channels, height, width = dataset.shape
    operations = []
    features = math.prod(dataset.shape)
    if model == "cnn":
        for maps, kernel, pool in plain_torch.CONVOLUTIONS:
            height, width = height - kernel + 1, width - kernel + 1
            operations.append(2 * channels * kernel**2 * maps * height * width)
            channels, height, width = maps, height // pool, width // pool
        features = channels * height * width
    sizes = (features, *widths, dataset.class_count)
    return operations + [2 * fan_in * fan_out for fan_in, fan_out in pairwise(sizes)]


def per_image(operations: list[int], gradients: int) -> int:
    """Floating-point operations of one training image in one step.

    Args:
        operations: of each layer forward, see `layer_operations`.
        gradients: that the method takes in a step.
    """
    return gradients * (3 * sum(operations) - operations[0])


def product_rate(device: str, seconds: float) -> float:
    """Floating-point operations a second of matrix products on `device`.

    The best of several measurements within about `seconds`; the matrices are float32, 1024 x 1024.
    """
    left, right = (torch.randn(SQUARE, SQUARE, device=device) for _ in range(2))
    out = torch.empty_like(left)

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    count, best, until = 1, 0.0, time.perf_counter() + seconds
    while not best or time.perf_counter() < until:
        wait()
        began = time.perf_counter()
        for _ in range(count):
            torch.mm(left, right, out=out)
        wait()
        taken = time.perf_counter() - began
        best = max(best, 2 * SQUARE**3 * count / taken)
        count = max(1, round(count * 0.02 / taken))
    return best
