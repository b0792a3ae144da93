"""Training of many seeds in JAX: vmap, jit and scan.

JAX is no dependency of the study. Where it is installed, `study bench` times it: the step of one seed is written the usual way
and mapped over the seeds, and many steps are compiled into one loop.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from study.contracts import Dataset
from study.timing.plain_torch import Method

LR = 0.01

STEPS = 50
"""Steps of one compiled loop."""

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def is_installed() -> bool:
    """Whether JAX can be imported."""
    return importlib.util.find_spec("jax") is not None


def layers(nets: Sequence[nn.Module]) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each linear layer, [lane, out, ...].

    `nets` are the fully connected networks of the lanes.
    """
    linear = [[each for each in net.modules() if isinstance(each, nn.Linear)] for net in nets]
    return [
        (torch.stack([each.weight.detach() for each in lanes]), torch.stack([each.bias.detach() for each in lanes]))
        for lanes in zip(*linear, strict=True)
    ]


def step_of(depth: int, method: Method, lr: float = LR) -> Callable[..., Any]:
    """A step of one seed of a fully connected network.

    It maps parameters, images [batch, pixel] and labels [batch] to new parameters and logits before the step. Parameters are a
    list of (weight [out, in], bias [out]).

    Args:
        depth: number of layers.
        method: that computes the gradient.
        lr: learning rate.
    """
    import jax
    import jax.numpy as jnp

    def forward(params: Any, x: Any) -> Any:
        for i, (weight, bias) in enumerate(params):
            x = x @ weight.T + bias
            if i < depth - 1:
                x = jax.nn.relu(x)
        return x

    def loss(params: Any, x: Any, y: Any) -> tuple[Any, Any]:
        logits = forward(params, x)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean(), logits

    gradient = jax.grad(loss, has_aux=True)

    def step(params: Any, x: Any, y: Any) -> tuple[Any, Any]:
        slopes, logits = gradient(params, x, y)
        if method.blend:
            norm = jnp.sqrt(sum(jnp.sum(value**2) for value in jax.tree.leaves(slopes)))
            uphill = jax.tree.map(lambda value, slope: value + method.radius / norm * slope, params, slopes)
            second, _ = gradient(uphill, x, y)
            slopes = jax.tree.map(lambda a, b: method.blend * a + (1 - method.blend) * b, second, slopes)
        return jax.tree.map(lambda value, slope: value - lr * slope, params, slopes), logits

    return step


def timed(
    nets: Sequence[nn.Module], method: Method, dataset: Dataset, batch_size: int, order: Tensor, threads: int
) -> Callable[[int], float]:
    """A function that takes steps and returns their seconds.

    Steps are taken in loops of `STEPS`. Pixels are permuted and scaled beforehand, in the same way for all seeds.

    Args:
        nets: the fully connected network of each seed.
        method: that computes the gradient.
        dataset: on the CPU.
        batch_size: images in a minibatch of each seed.
        order: of the pixels, int64 [pixel].
        threads: on the CPU: 1, or as many as JAX likes. It counts at the first import of JAX in a process.
    """
    if threads == 1 and ONE_THREAD not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {ONE_THREAD}".strip()
    import jax
    import jax.numpy as jnp

    params = layers(nets)
    step = jax.vmap(step_of(len(params), method))
    images = jnp.asarray((dataset.train_images[:, order].float() / 255).numpy())
    labels = jnp.asarray(dataset.train_labels.numpy())
    lanes, count = len(params[0][0]), len(images)

    @jax.jit  # type: ignore[untyped-decorator]
    def loop(weights: Any, chosen: Any) -> tuple[Any, Any]:
        def body(carry: Any, picked: Any) -> tuple[Any, None]:
            weights, hits = carry
            y = labels[picked]
            weights, logits = step(weights, images[picked], y)
            return (weights, hits + (logits.argmax(2) == y).sum()), None

        result: tuple[Any, Any] = jax.lax.scan(body, (weights, 0), chosen)[0]
        return result

    weights = [(jnp.asarray(weight.numpy()), jnp.asarray(bias.numpy())) for weight, bias in params]
    draw = torch.Generator().manual_seed(0)

    def seconds(steps: int) -> float:
        nonlocal weights
        loops = -(-steps // STEPS)
        began = time.perf_counter()
        for _ in range(loops):
            chosen = torch.randint(count, (STEPS, lanes, batch_size), generator=draw, dtype=torch.int32)
            weights, hits = loop(weights, jnp.asarray(chosen.numpy()))
        int(hits)  # waits
        return (time.perf_counter() - began) * steps / (loops * STEPS)

    seconds(1)  # compiles
    return seconds
