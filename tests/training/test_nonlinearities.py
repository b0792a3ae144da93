"""Activation functions, layer norm and initialisation against torch's own layers, one seed after the other."""

import itertools
import math
from typing import get_args

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from study.contracts import DirectModel, Portable
from study.gradients import MinibatchGradient
from study.lanes import per_lane
from study.models import cnn
from study.models._nonlinearities import ActivationName, LayerNorm

ACTIVATIONS = get_args(ActivationName)
NORMS = get_args(LayerNorm)
PLAIN = {
    "relu": lambda z: z.clamp(min=0),
    "leaky_relu": lambda z: torch.where(z > 0, z, 0.01 * z),
    "gelu": lambda z: z * (1 + torch.erf(z / 2**0.5)) / 2,
    "tanh": lambda z: (z.exp() - (-z).exp()) / (z.exp() + (-z).exp()),
    "crelu": lambda z: torch.cat([z.clamp(min=0), (-z).clamp(min=0)], 1),
    "deep_fourier": lambda z: torch.cat([z.sin(), z.cos()], 1),
}
"""The activation functions, written out, of values [image, unit, ...]."""

SHAPES = {"mlp": (1, 4, 5), "cnn": (2, 9, 8)}
SIZES = {"mlp": {"widths": [7, 6]}, "cnn": {"channels": [3, 4], "kernels": [3, 2], "pools": [2, 1], "widths": [6, 5]}}
LANES, BATCH, OUTPUTS = 3, 5, 4
COMBINATIONS = list(itertools.product(SIZES, ACTIVATIONS, NORMS))


def built(name: str, activation: str = "relu", layer_norm: str = "none", shape=None, outputs: int = OUTPUTS, **given):
    sizes = SIZES[name] if not given.keys() & {"widths", "channels"} else {}
    module, settings = tiny.part("models", name, {"activation": activation, "layer_norm": layer_norm, **sizes, **given})
    return module.build(settings, shape or SHAPES[name], outputs)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moved(model) -> dict[str, Tensor]:
    """Parameters some way from the initial ones, those of layer norm too."""
    params = model.initial(tuple(range(LANES)))
    return {name: value + 0.1 * draw(*value.shape, seed=i) for i, (name, value) in enumerate(params.items())}


def plain(model, params: dict[str, Tensor], lane: int, activation: str, layer_norm: str, images: Tensor) -> Tensor:
    """Logits of one lane, by torch's own layers."""
    own = {name: value[lane] for name, value in params.items()}
    depth = sum(name.endswith("/weight") for name in own)
    stages = getattr(model, "stages", ())
    signal = images.unflatten(1, model.shape) if stages else images
    for i in range(depth):
        weight, bias = own[f"{i}/weight"], own[f"{i}/bias"]
        if i < len(stages):
            filters = weight.flatten(3).permute(0, 3, 1, 2)
            signal = nn.functional.max_pool2d(nn.functional.conv2d(signal, filters, bias), stages[i].pool)
        else:
            if i == len(stages) > 0:
                signal = signal.permute(0, 2, 3, 1).flatten(1)  # position after position, as the weight
            signal = nn.functional.linear(signal, weight.flatten(1), bias)
        if i == depth - 1:
            return signal
        if layer_norm != "none":
            signal = nn.LayerNorm(signal.shape[1:], elementwise_affine=False)(signal)
        if layer_norm == "learnt":
            each = (-1, *[1] * (signal.dim() - 2))
            signal = signal * own[f"{i}/scale"].view(each) + own[f"{i}/shift"].view(each)
        signal = PLAIN[activation](signal)
    raise AssertionError


@pytest.mark.parametrize(("name", "activation", "layer_norm"), COMBINATIONS)
@tiny.float64()
def test_a_network_equals_torchs_layers_one_seed_after_the_other(name, activation, layer_norm, monkeypatch):
    """As the stack computes it on a CPU and on a GPU, and as it is exported."""
    model = built(name, activation, layer_norm)
    params, inputs = moved(model), draw(LANES, BATCH, math.prod(SHAPES[name]))
    expected = torch.stack([plain(model, params, lane, activation, layer_norm, inputs[lane]) for lane in range(LANES)])
    logits, hidden = model.forward(params, inputs)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    monkeypatch.setattr(cnn, "at_once", lambda _: True)
    at_once, hidden_at_once = model.forward(params, inputs)
    for one, other in zip((logits, *hidden), (at_once, *hidden_at_once), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert isinstance(model, Portable)
    for lane in range(LANES):
        exported = torch.fx.symbolic_trace(nn.Sequential(*model.layers(params, lane)))
        torch.testing.assert_close(exported(inputs[lane]), expected[lane], rtol=1e-10, atol=1e-12)
    assert model.parameter_count == sum(value[0].numel() for value in params.values())


@pytest.mark.parametrize(("name", "activation", "layer_norm"), COMBINATIONS)
@pytest.mark.parametrize("batch", [1, BATCH, 130])
@tiny.float64()
def test_the_gradient_equals_autograd(name, activation, layer_norm, batch):
    """At the weights, displaced along the gradient, combined, and its product with the Hessian."""
    model = built(name, activation, layer_norm)
    assert isinstance(model, DirectModel)
    params, inputs = moved(model), draw(LANES, batch, math.prod(SHAPES[name]))
    labels = torch.randint(0, OUTPUTS, (LANES, batch), generator=torch.Generator().manual_seed(1))
    scale, weight = torch.tensor([0.3, 0.0, -2.0]), torch.tensor([1.5, 0.25, -1.0])
    ours, theirs = model.gradient_function(inputs, labels), MinibatchGradient(model, inputs, labels)
    assert (type(ours) is MinibatchGradient) == (layer_norm == "learnt"), "only what learns a scale is left to autograd"
    before = {key: value.clone() for key, value in params.items()}
    here, expected = ours(params), theirs(params)
    uphill, expected_uphill = ours.displaced(params, here, scale), theirs.displaced(params, expected, scale)
    assert all(torch.equal(value, before[key]) for key, value in params.items()), "asking changes nothing"
    mixed = here.gradient.combined(scale, uphill.gradient, weight)
    wanted = expected.gradient.combined(scale, expected_uphill.gradient, weight)
    for mine, other in (
        (here.gradient, expected.gradient),
        (uphill.gradient, expected_uphill.gradient),
        (mixed, wanted),
    ):
        torch.testing.assert_close(mine.norm(), other.norm(), rtol=1e-9, atol=1e-11)
        changed = {key: value.clone() for key, value in params.items()}
        mine.add_to(changed, scale)
        written = mine.tensors()
        for key, value in other.tensors().items():
            torch.testing.assert_close(written[key], value, rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(changed[key], params[key] + per_lane(scale, value) * value)
    torch.testing.assert_close(uphill.logits, expected_uphill.logits, rtol=1e-10, atol=1e-12)
    (_, product), (_, other_product) = ours.with_hessian_product(params), theirs.with_hessian_product(params)
    for key, value in other_product.tensors().items():
        torch.testing.assert_close(product.tensors()[key], value, rtol=1e-9, atol=1e-11)
    with torch.enable_grad():  # and autograd itself, against the plain network
        leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
        loss = sum(
            cross_entropy(plain(model, leaves, lane, activation, layer_norm, inputs[lane]), labels[lane])
            for lane in range(LANES)
        )
        slopes = torch.autograd.grad(loss, list(leaves.values()))
    for key, slope in zip(leaves, slopes, strict=True):
        torch.testing.assert_close(here.gradient.tensors()[key], slope, rtol=1e-9, atol=1e-11)
