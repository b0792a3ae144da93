"""Ordinary training of one seed, to compare the lanes with.

There are two ways to feed it: a torchvision data set with transforms behind a DataLoader, as in tutorials, and tensors in
memory on the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from study.contracts import Dataset, Shape


@dataclass(frozen=True)
class Method:
    """A row of the equation in `study.optimizers`.

    Attributes:
        name: of the method.
        blend: a in the equation.
        radius: r in the equation; not used if a is 0.
    """

    name: str
    blend: float
    radius: float


def network(features: int, widths: tuple[int, ...], outputs: int) -> nn.Sequential:
    """A fully connected network with ReLU.

    Args:
        features, outputs: units of the first and the last layer.
        widths: units of each hidden layer.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip((features, *widths), (*widths, outputs), strict=True):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


CONVOLUTIONS = ((16, 5, 2), (16, 5, 2))
"""Maps, kernel and pooling of each convolutional layer: the defaults of the study's `cnn`."""


def convolutional_network(shape: Shape, widths: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Convolutions with ReLU and pooling, then fully connected layers.

    It takes rows of features.

    Args:
        shape: channels, height and width of a picture.
        widths: units of each fully connected hidden layer.
        outputs: units of the last layer.
    """
    channels, height, width = shape
    layers: list[nn.Module] = [nn.Unflatten(1, shape)]
    for maps, kernel, pool in CONVOLUTIONS:
        layers += [nn.Conv2d(channels, maps, kernel), nn.ReLU(), nn.MaxPool2d(pool)]
        channels, height, width = maps, (height - kernel + 1) // pool, (width - kernel + 1) // pool
    return nn.Sequential(*layers, nn.Flatten(), *network(channels * height * width, widths, outputs))


def step(net: nn.Sequential, optimizer: torch.optim.Optimizer, method: Method, x: Tensor, y: Tensor) -> Tensor:
    """Takes one step and returns the logits before it.

    Args:
        net: whose parameters change.
        optimizer: of torch.optim.
        method: that computes the gradient.
        x: images [batch, pixel].
        y: labels [batch].

    Returns:
        Logits [batch, class].
    """
    optimizer.zero_grad()
    logits: Tensor = net(x)
    cross_entropy(logits, y).backward()
    if method.blend:
        _second_gradient(net, method, x, y)
    optimizer.step()
    return logits.detach()


def _second_gradient(net: nn.Sequential, method: Method, x: Tensor, y: Tensor) -> None:
    """Computes the second gradient as the usual two-step SAM does.

    It moves uphill, computes the gradient there, and moves back.
    """
    params = list(net.parameters())
    gradients = [param.grad.clone() for param in params if param.grad is not None]
    with torch.no_grad():
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        uphill = [gradient * (method.radius / norm) for gradient in gradients]  # r g / |g|
        for param, move in zip(params, uphill, strict=True):
            param.add_(move)
    net.zero_grad()
    cross_entropy(net(x), y).backward()
    with torch.no_grad():
        for param, move, gradient in zip(params, uphill, gradients, strict=True):
            param.sub_(move)
            if method.blend != 1 and param.grad is not None:
                param.grad.mul_(method.blend).add_(gradient, alpha=1 - method.blend)  # a g' + (1 - a) g


def trained(
    net: nn.Sequential, method: Method, lr: float, minibatches: Iterable[tuple[Tensor, Tensor]], device: str
) -> Tensor:
    """Takes a step for each minibatch and counts correct predictions.

    They are counted on each minibatch before the step on it; the count is int64 [].
    """
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in minibatches:
        x, y = images.to(device), labels.to(device)
        hits += (step(net, optimizer, method, x, y).argmax(1) == y).sum()
    return hits


def loader(dataset: Dataset, batch_size: int, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless minibatches from a DataLoader, as in tutorials.

    Pictures go through transforms one by one, and are shuffled anew in each pass.

    Args:
        dataset: on the CPU.
        batch_size: images in a minibatch.
        order: of the pixels, int64 [pixel].
    """
    from PIL import Image  # comes with torchvision
    from torchvision import transforms
    from torchvision.datasets import VisionDataset

    class Pictures(VisionDataset):  # type: ignore[misc]
        """A data set that works like torchvision.datasets.MNIST."""

        def __init__(self, transform: Callable[[Any], Tensor]) -> None:
            super().__init__("", transform=transform)
            pictures = dataset.train_images.cpu().view(-1, *dataset.shape).permute(0, 2, 3, 1)
            self.data = pictures.squeeze(3).contiguous()  # [image, height, width], and channels if they are three
            self.targets = dataset.train_labels.cpu()

        def __len__(self) -> int:
            return len(self.data)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            picture = Image.fromarray(self.data[index].numpy())
            return self.transform(picture), int(self.targets[index])

    permuted = transforms.Compose([transforms.ToTensor(), transforms.Lambda(lambda x: x.view(-1)[order])])
    shuffled: Iterable[tuple[Tensor, Tensor]] = torch.utils.data.DataLoader(
        Pictures(permuted), batch_size=batch_size, shuffle=True
    )
    return (minibatch for _ in cycle([None]) for minibatch in shuffled)


def in_memory(
    dataset: Dataset, batch_size: int, order: Tensor, draw: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless minibatches, cut out of tensors in memory.

    Pixels are permuted and scaled beforehand; each pass has a new order.

    Args:
        dataset: on the device.
        batch_size: images in a minibatch.
        order: of the pixels, int64 [pixel].
        draw: source of the order of the images.
    """
    images, labels = dataset.train_images[:, order.to(dataset.train_images.device)].float() / 255, dataset.train_labels
    while True:
        shuffled = torch.randperm(len(images), generator=draw).to(images.device)
        for chosen in shuffled.split(batch_size):
            yield images[chosen], labels[chosen]


def seconds(
    net: nn.Sequential, method: Method, minibatches: Iterator[tuple[Tensor, Tensor]], steps: int, device: str
) -> float:
    """Seconds of that many steps."""
    began = time.perf_counter()
    int(trained(net, method, 0.01, islice(minibatches, steps), device))  # waits for the device
    return time.perf_counter() - began
