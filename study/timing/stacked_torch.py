"""Training of many seeds by `torch.func.vmap`.

The step of one seed is written the usual way, as a function of its parameters, and mapped over the seeds. `torch.compile` can
fuse its kernels, if there is a compiler on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from study.contracts import Dataset
from study.errors import StudyError, first_line
from study.lanes import Tensors
from study.timing.plain_torch import Method

Step = Callable[[Tensors, Tensor, Tensor], tuple[Tensors, Tensor]]
"""From parameters [lane, ...], images [lane, batch, pixel] and labels [lane, batch] to new parameters and old logits."""

LR = 0.01


def step_of(net: nn.Module, method: Method, lr: float = LR) -> Step:
    """A step of all seeds at once.

    Args:
        net: whose parameters are given to the step; its own are not used.
        method: that computes the gradient.
        lr: learning rate.
    """

    def loss(params: Tensors, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(net, params, (x,))
        return cross_entropy(logits, y), logits

    gradient = grad(loss, has_aux=True)

    def of_one(params: Tensors, x: Tensor, y: Tensor) -> tuple[Tensors, Tensor]:
        slopes, logits = gradient(params, x, y)
        if method.blend:
            norm = torch.stack([value.square().sum() for value in slopes.values()]).sum().sqrt()
            uphill = {name: value + method.radius / norm * slopes[name] for name, value in params.items()}
            second, _ = gradient(uphill, x, y)
            slopes = {name: method.blend * second[name] + (1 - method.blend) * value for name, value in slopes.items()}
        return {name: value - lr * slopes[name] for name, value in params.items()}, logits

    step: Step = vmap(of_one)
    return step


def timed(
    nets: list[nn.Module], method: Method, dataset: Dataset, batch_size: int, order: Tensor, *, compiled: bool = False
) -> Callable[[int], float]:
    """A function that takes steps and returns their seconds.

    Pixels are permuted and scaled beforehand, in the same way for all seeds; each seed has its own order of the images.

    Args:
        nets: the network of each seed.
        method: that computes the gradient.
        dataset: on the device.
        batch_size: images in a minibatch of each seed.
        order: of the pixels, int64 [pixel].
        compiled: whether the step is compiled, which takes many seconds.

    Raises:
        StudyError: it cannot be compiled here.
    """
    step = step_of(nets[0], method)
    if compiled:
        step = torch.compile(step, dynamic=False)
    params: Tensors = {name: value.detach() for name, value in stack_module_state(nets)[0].items()}
    device = dataset.train_images.device
    images, labels = dataset.train_images[:, order.to(device)].float() / 255, dataset.train_labels
    batches = _choices(len(nets), len(images), batch_size)

    def seconds(steps: int) -> float:
        nonlocal params
        began = time.perf_counter()
        hits = torch.zeros((), dtype=torch.int64, device=device)
        for _ in range(steps):
            chosen = next(batches).to(device)
            y = labels[chosen]
            params, logits = step(params, images[chosen], y)
            hits += (logits.argmax(2) == y).sum()
        int(hits)  # waits for the device
        return time.perf_counter() - began

    try:
        seconds(1)
    except Exception as error:
        if compiled:  # whatever a compiler raises that is missing or too old
            raise StudyError(f"torch.compile cannot be used here ({first_line(error)}); leave out --compile.") from None
        raise
    return seconds


def _choices(lanes: int, count: int, batch_size: int) -> Iterator[Tensor]:
    """Endless minibatches of full size, int64 [lane, batch]."""
    draw = torch.Generator().manual_seed(0)
    while True:
        shuffled = torch.stack([torch.randperm(count, generator=draw) for _ in range(lanes)])
        whole = count - count % batch_size or count
        yield from shuffled[:, :whole].split(batch_size, dim=1)
