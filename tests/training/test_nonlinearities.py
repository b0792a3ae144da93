"""Activation functions, layer norm and initialisation against torch's own layers, one seed after the other."""

import itertools
import math
from typing import get_args

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from study import parts
from study.config import LATER_PART_SETTINGS, TrialConfig, later_settings, without_later_settings
from study.contracts import DirectModel, Portable
from study.errors import StudyError
from study.experiment import stacks
from study.gradients import MinibatchGradient, direct_gradient
from study.lanes import per_lane
from study.models import cnn
from study.models._nonlinearities import ACTIVATIONS as FUNCTIONS
from study.models._nonlinearities import ActivationName, LayerNorm
from study.training import checkpoint, metrics
from study.training.trainer import train

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
    given = {"activation": activation, "layer_norm": layer_norm, **SIZES[name], **given}
    module, settings = tiny.part("models", name, given)
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
    for mine, other in zip(here.hidden(), expected.hidden(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)
    with torch.enable_grad():  # and autograd itself, against the plain network
        leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
        loss = sum(
            cross_entropy(plain(model, leaves, lane, activation, layer_norm, inputs[lane]), labels[lane])
            for lane in range(LANES)
        )
        slopes = torch.autograd.grad(loss, list(leaves.values()))
    for key, slope in zip(leaves, slopes, strict=True):
        torch.testing.assert_close(here.gradient.tensors()[key], slope, rtol=1e-9, atol=1e-11)


# --- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "activation", "layer_norm"), COMBINATIONS)
@tiny.float64()
def test_a_hidden_layer_names_all_weights_of_its_units(name, activation, layer_norm):
    """Where they are 0, all that leaves a unit is cut, of several outputs too, and nothing of another unit."""
    model = built(name, activation, layer_norm)
    params, inputs = moved(model), draw(LANES, BATCH, math.prod(SHAPES[name]))
    logits, hidden = model.forward(params, inputs)
    for layer, activations in zip(model.hidden_layers, hidden, strict=True):
        units = activations.shape[2]
        assert all(params[key].shape[1] == units for key in layer.incoming)
        assert params[layer.outgoing].shape[-1] == units
        assert layer.outputs == 1 or params[layer.outgoing].shape[-2] == layer.outputs
        cut, rest = (params | {layer.outgoing: params[layer.outgoing].clone()} for _ in range(2))
        cut[layer.outgoing][..., 0] = 0
        rest[layer.outgoing][..., 1:] = 0
        otherwise = {key: params[key].clone() for key in layer.incoming}
        for value in otherwise.values():
            value[:, 0] += 0.5  # the unit alone
        fed = model.forward(params | otherwise, inputs)[0]
        assert not torch.allclose(fed, logits)
        if layer_norm == "none":  # otherwise a unit acts on its layer
            expected, found = model.forward(cut, inputs)[0], model.forward(cut | otherwise, inputs)[0]
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
            others = {key: params[key].clone() for key in layer.incoming}
            for value in others.values():
                value[:, 1:] += 0.5
            expected, found = model.forward(rest, inputs)[0], model.forward(rest | others, inputs)[0]
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_unit_is_dead_exactly_if_no_image_has_a_gradient_for_it(name, activation):
    """Units that are 0, positive, negative or far out on all images, or none of it."""
    model = built(name, activation, **({"widths": [8, 3]} if name == "mlp" else {"channels": [8, 3], "widths": [3]}))
    params, inputs = moved(model), draw(LANES, BATCH, math.prod(SHAPES[name])).abs()
    params["0/weight"] *= 0.01
    biases = [0.0, 0.1, 3.0, -3.0, 30.0, -30.0, 300.0, -300.0][: params["0/bias"].shape[1]]
    params["0/bias"] = torch.tensor(biases).expand(LANES, -1).clone()
    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    logits, hidden = model.forward(leaves, inputs)
    (slope,) = torch.autograd.grad(logits.square().sum(), [leaves["0/bias"]])
    layer = model.hidden_layers[0]
    reached = slope.abs() > 1e-6  # the tail of GELU at -30 is far smaller
    assert torch.equal(layer.is_flat(hidden[0]).all(dim=1), ~reached)
    dead = metrics.dead_units(hidden[0].detach(), layer.is_flat)
    torch.testing.assert_close(dead, (~reached).double().mean(dim=1))
    assert bool(dead.any()) == (activation in ("relu", "gelu", "tanh"))


def test_ranks_are_those_of_all_outputs():
    for name in SIZES:
        model = built(name, "crelu", shape=(1, 9, 9), widths=[6], **({"channels": [4, 4]} if name == "cnn" else {}))
        params, inputs = moved(model), draw(LANES, BATCH, 81)
        features = model.features(params, inputs)
        _, hidden = model.forward(params, inputs)
        assert features.shape[2] == 2 * hidden[-1].shape[2]
        torch.testing.assert_close(
            features[:, :, : hidden[-1].shape[2]] + features[:, :, hidden[-1].shape[2] :], hidden[-1]
        )
    results = tiny.results(tiny.experiment("sgd", widths=(12,), model_settings={"widths": [12], "activation": "crelu"}))
    assert float(results[-1].diagnostics["rank/effective"].max()) > 0


@pytest.mark.parametrize("optimizer", ["sgd with momentum and weight decay", "sam", "gnp exact"])
@pytest.mark.parametrize(
    ("name", "activation", "layer_norm"),
    [("mlp", "crelu", "plain"), ("mlp", "gelu", "learnt"), ("cnn", "deep_fourier", "plain"), ("cnn", "tanh", "learnt")],
)
def test_trials_resume_bit_by_bit_and_a_lane_alone_equals_the_lane_in_company(optimizer, name, activation, layer_norm):
    chosen = {**(tiny.CNN["model_settings"] if name == "cnn" else {"widths": [7, 5]})}
    given = {
        **(tiny.CNN if name == "cnn" else {}),
        "model": name,
        "model_settings": chosen | {"activation": activation, "layer_norm": layer_norm, "initialisation": "kaiming"},
    }
    straight = tiny.results(tiny.experiment(optimizer, seeds=(5, 0, 77), **given))
    resumed = list(train(tiny.experiment(optimizer, seeds=(5, 0, 77), **given), straight[0].state))
    others = tiny.state_tensors(straight[-1].state)
    for key, value in tiny.state_tensors(resumed[-1].state).items():
        assert torch.equal(value, others[key]), key
    for key, value in straight[-1].diagnostics.items():
        assert torch.equal(value.nan_to_num(-1), resumed[-1].diagnostics[key].nan_to_num(-1)), key
    alone = tiny.results(tiny.experiment(optimizer, seeds=(77,), **given))
    for key, value in alone[-1].state.params.items():
        torch.testing.assert_close(value[0], straight[-1].state.params[key][2], rtol=0, atol=1e-5)


# --- initial weights and sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", SIZES)
def test_kaiming_weights_have_the_bound_of_their_fan_in_and_biases_are_0(name, activation):
    """Weights of layer i have the variance gain^2 / fan_in, and the output layer has gain 1."""
    wide = {"mlp": {"widths": [300, 200]}, "cnn": {"channels": [40, 60], "widths": [200]}}[name]
    model = built(name, activation, initialisation="kaiming", **wide)
    params = model.initial((0, 1))
    gain = {"tanh": 5 / 3}.get(activation, 2**0.5)
    for i in range(model.depth):
        weight, bias = params[f"{i}/weight"], params[f"{i}/bias"]
        assert not bias.any()
        fan_in = weight[0, 0].numel()
        bound = (gain if i < model.depth - 1 else 1) * math.sqrt(3 / fan_in)
        assert 0.99 * bound < float(weight.abs().max()) < 1.001 * bound
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    assert all(torch.equal(value[0], model.initial((1,))[key][0]) for key, value in model.initial((1, 2)).items())


def test_kaiming_draws_as_torch_does():
    """The bound of torch.nn.init.kaiming_uniform_, which loss-of-plasticity uses."""
    for activation, known_as in {"relu": "relu", "leaky_relu": "leaky_relu", "tanh": "tanh"}.items():
        weight = torch.empty(2000, 50)
        draws = torch.Generator().manual_seed(0)
        nn.init.kaiming_uniform_(weight, a=0.01, nonlinearity=known_as, generator=draws)
        model = built("mlp", activation, shape=(1, 5, 10), widths=[2000], initialisation="kaiming")
        drawn = model.initial((0,))["0/weight"]
        torch.testing.assert_close(drawn.abs().max(), weight.abs().max(), rtol=1e-3, atol=0)


def test_a_learnt_layer_norm_starts_as_a_plain_one():
    for name in SIZES:
        plain_one, learnt = built(name, layer_norm="plain"), built(name, layer_norm="learnt")
        params, inputs = learnt.initial((0, 1)), draw(2, BATCH, math.prod(SHAPES[name]))
        own = {key: value for key, value in params.items() if not key.endswith(("/scale", "/shift"))}
        assert own.keys() == plain_one.initial((0, 1)).keys()
        torch.testing.assert_close(learnt.forward(params, inputs)[0], plain_one.forward(own, inputs)[0])


@pytest.mark.parametrize("activation", ["crelu", "deep_fourier"])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("mlp", {"widths": [100, 100]}),
        ("mlp", {"widths": [300, 50, 80]}),
        ("mlp", {"widths": [1000]}),
        ("cnn", {"channels": [16, 16], "kernels": [5, 5], "pools": [2, 2], "widths": [100, 100]}),
    ],
)
def test_widths_are_cut_so_that_the_number_of_weights_is_equal(name, given, activation):
    """Within 1 %, as widths are whole numbers."""
    shape = (3, 32, 32) if name == "cnn" else (1, 28, 28)
    whole, cut = (
        built(name, shape=shape, outputs=10, **given),
        built(name, activation, shape=shape, outputs=10, **given),
    )
    assert cut.parameter_count == pytest.approx(whole.parameter_count, rel=0.01)
    assert 0.7 * whole.sizes[1] < cut.sizes[1] < whole.sizes[1]
    kept = cut.sizes[1] / whole.sizes[1]
    assert all(abs(size - kept * before) < 2 for size, before in zip(cut.sizes[1:-1], whole.sizes[1:-1], strict=True))
    assert built(name, "tanh", shape=shape, outputs=10, **given).sizes == whole.sizes


def test_the_narrowest_network_keeps_its_width():
    assert built("mlp", "crelu", widths=[1, 1]).sizes == (20, 1, 1, OUTPUTS)
    assert built("mlp", "crelu", widths=[]).sizes == (20, OUTPUTS)


# --- the settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("setting", ["activation", "layer_norm", "initialisation"])
def test_another_word_is_refused_with_those_that_there_are(name, setting):
    with pytest.raises(StudyError, match=rf"model/{setting}='swish' is not possible: .*'"):
        parts.settings("models", name, {setting: "swish"}, "model/")


@pytest.mark.parametrize("part", [part for part in LATER_PART_SETTINGS if part[0] == "model"])
def test_networks_of_earlier_versions_have_the_same_checkpoints_and_stacks(part):
    """And every later setting has the value of earlier versions by default."""
    now = parts.complete(TrialConfig.from_plain({"model": {"name": part[1]}}))
    earlier = TrialConfig.from_plain(without_later_settings(now.plain()))
    assert not earlier.model.settings.keys() & LATER_PART_SETTINGS[part].keys()
    assert parts.complete(earlier) == now
    assert checkpoint.identity(earlier, "f" * 16) == checkpoint.identity(now, "f" * 16)
    assert stacks({"earlier": earlier, "now": now}) == [["earlier", "now"]]
    for setting, other in {"activation": "tanh", "layer_norm": "plain", "initialisation": "kaiming"}.items():
        changed = parts.complete(TrialConfig.from_plain({"model": {"name": part[1], setting: other}}))
        assert checkpoint.identity(changed, "f" * 16) != checkpoint.identity(now, "f" * 16)
        assert stacks({"changed": changed, "now": now}) == [["changed"], ["now"]]


def test_a_model_of_ones_own_keeps_a_setting_of_the_same_name():
    """Its identity has always contained it."""
    own = TrialConfig.from_plain({"model": {"name": "./own.py", "activation": "relu"}})
    assert without_later_settings(own.plain())["model"] == {"name": "./own.py", "activation": "relu"}
    assert "model/activation" not in later_settings(own.flat())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_activation_of_a_feature_map_is_the_mean_of_its_absolute_values(activation):
    """Both maps of a unit with two outputs together; of a connected unit it has its sign if it has one output."""
    model = built("cnn", activation)
    params, inputs = moved(model), draw(LANES, BATCH, math.prod(SHAPES["cnn"]))
    _, hidden = model.forward(params, inputs)
    outputs = FUNCTIONS[activation].outputs
    for lane in range(LANES):
        net = nn.Sequential(*model.layers(params, lane))
        with torch.no_grad():
            maps, connected = (
                net[:4](inputs[lane]),
                net[:10](inputs[lane]),
            )  # after the first convolution; the first linear
        of_units = maps.abs().mean(dim=(2, 3)).unflatten(1, (outputs, -1)).sum(1)
        torch.testing.assert_close(hidden[0][lane], of_units)
        apart = connected.unflatten(1, (outputs, -1))
        torch.testing.assert_close(hidden[2][lane], apart[:, 0] if outputs == 1 else apart.abs().sum(1))


@pytest.mark.parametrize(("name", "activation", "layer_norm"), COMBINATIONS)
@tiny.float64()
def test_the_gradient_with_a_pull_equals_autograd(name, activation, layer_norm):
    """With L2 Init: at the weights, displaced along the gradient, and combined."""
    model = built(name, activation, layer_norm)
    params, inputs = moved(model), draw(LANES, BATCH, math.prod(SHAPES[name]))
    labels = torch.randint(0, OUTPUTS, (LANES, BATCH), generator=torch.Generator().manual_seed(1))
    module, settings = tiny.part("interventions", "l2_init", {"strength": 0.05})
    acting = ((module.build(settings, tuple(range(LANES)), "cpu"), model.initial(tuple(range(LANES)))),)
    ours, theirs = direct_gradient(model, inputs, labels, acting), MinibatchGradient(model, inputs, labels, acting)
    scale, share = torch.tensor([0.3, 0.0, -2.0]), torch.tensor([1.5, 0.25, -1.0])
    here, expected = ours(params), theirs(params)
    uphill, expected_uphill = ours.displaced(params, here, scale), theirs.displaced(params, expected, scale)
    pairs = [
        (here.gradient, expected.gradient),
        (uphill.gradient, expected_uphill.gradient),
        (
            here.gradient.combined(scale, uphill.gradient, share),
            expected.gradient.combined(scale, expected_uphill.gradient, share),
        ),
    ]
    for mine, other in pairs:
        torch.testing.assert_close(mine.norm(), other.norm(), rtol=1e-9, atol=1e-11)
        written = mine.tensors()
        for key, value in other.tensors().items():
            torch.testing.assert_close(written[key], value, rtol=1e-9, atol=1e-11)
        changed = dict(params) | {key: value.clone() for key, value in params.items()}
        mine.add_to(changed, scale)
        for key, value in other.tensors().items():
            torch.testing.assert_close(changed[key], params[key] + per_lane(scale, value) * value)
    torch.testing.assert_close(uphill.logits, expected_uphill.logits, rtol=1e-10, atol=1e-12)
