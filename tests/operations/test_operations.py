"""Operations keep what they say they keep, and change what they say they change."""

import functools
import math
from dataclasses import replace

import pytest
import tiny
import torch
from torch.func import hessian
from torch.nn.functional import cross_entropy

from study import parts
from study.contracts import Subject
from study.lanes import norm
from study.operations._rescaling import Rescalings, _Way, leading_eigenvectors
from study.training.minibatches import Feed
from study.training.trainer import train

NETWORKS = {
    "relu": {"widths": (6, 5)},
    "three hidden layers": {"widths": (5, 4, 5)},
    "leaky_relu": {"model_settings": {"widths": [6, 5], "activation": "leaky_relu"}},
    "crelu": {"model_settings": {"widths": [6, 5], "activation": "crelu"}},
    "cnn": tiny.CNN,
}
ALL = {
    "layer_rescaling": {},
    "norm_rescaling": {},
    "unit_permutation": {},
    "idle_units": {},
    "fresh_weights": {},
    "random_displacement": {},
}
LEVELS = (0.0, 0.3, 0.5, 1.0)


@functools.cache
def subject(network: str = "relu", seeds: tuple[int, ...] = (0, 1, 2)) -> Subject:
    """Networks that have learnt one task, before the next."""
    experiment = tiny.experiment("sgd", {"lr": 0.3}, seeds=seeds, passes=3, **NETWORKS[network])
    state = next(train(experiment)).state
    inputs, labels = Feed(experiment.dataset, experiment.tasks.task(1), "cpu").sample(seeds, 30)
    return Subject(experiment.model, state.params, seeds, 1, inputs, labels)


def operations(name: str, **given):
    module, settings = tiny.part("operations", name, given)
    return module.build(settings)


def logits(of: Subject, params) -> torch.Tensor:
    return of.model.forward(params, of.inputs)[0]


def sharpest_curvature(of: Subject, params, lane: int) -> float:
    """The largest eigenvalue of the whole Hessian of one lane, by autograd, in float64."""
    own = {name: value[lane : lane + 1].double() for name, value in params.items()}
    sizes = [value.numel() for value in own.values()]
    flat = torch.cat([value.flatten() for value in own.values()])

    def loss(weights):
        pieces = weights.split(sizes)
        shaped = {name: piece.view_as(value) for piece, (name, value) in zip(pieces, own.items(), strict=True)}
        out, _ = of.model.forward(shaped, of.inputs[lane : lane + 1].double())
        return cross_entropy(out[0], of.labels[lane])

    return float(torch.linalg.eigvalsh(hessian(loss)(flat))[-1])


def test_every_operation_is_tested_here():
    assert set(parts.built_in("operations")) == set(ALL)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", ["layer_rescaling", "norm_rescaling", "unit_permutation"])
def test_the_function_stays_the_same(name, network):
    of = subject(network)
    before = {key: value.clone() for key, value in of.params.items()}
    for operation in operations(name):
        params = operation.operate(of).params
        torch.testing.assert_close(logits(of, params), logits(of, of.params), rtol=1e-5, atol=1e-5)
        assert any(not torch.equal(params[key], value) for key, value in of.params.items())
    assert all(torch.equal(of.params[key], value) for key, value in before.items())


@pytest.mark.parametrize("network", ["relu", "three hidden layers", "crelu"])
def test_rescaled_networks_have_the_norm_of_the_others_and_the_sharpness_that_was_asked_for(network):
    of = subject(network)
    found = [operation.operate(of).params for operation in operations("layer_rescaling", levels=list(LEVELS))]
    for params in found:
        torch.testing.assert_close(norm(params), norm(of.params), rtol=1e-5, atol=0)
    for lane in range(3):
        sharpness = [sharpest_curvature(of, params, lane) for params in found]
        low, high = math.log(sharpness[0]), math.log(sharpness[-1])
        wanted = [math.exp(low + level * (high - low)) for level in LEVELS]
        assert sharpness == pytest.approx(wanted, rel=0.012)
        assert 0.999 * sharpness[0] <= sharpest_curvature(of, of.params, lane) <= 1.001 * sharpness[-1]
        assert sharpness[-1] > 1.005 * sharpness[0]


def test_no_network_of_that_norm_is_much_flatter_or_sharper():
    of = subject()
    flattest, sharpest = operations("layer_rescaling", levels=[0.0, 1.0])
    ends = [sharpest_curvature(of, each.operate(of).params, 0) for each in (flattest, sharpest)]
    scan = Rescalings(of)
    draw = torch.Generator().manual_seed(0)
    for _ in range(40):
        direction = torch.randn(1, 2, generator=draw, dtype=torch.float64).expand(3, -1)
        direction = direction / torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        factors = (scan.found(direction, scan.norms) @ scan._basis.T)[0].exp()
        params = {name: value.clone() for name, value in of.params.items()}
        for layer in range(3):
            params[f"{layer}/weight"] = params[f"{layer}/weight"] * factors[layer]
            params[f"{layer}/bias"] = params[f"{layer}/bias"] * factors[: layer + 1].prod()
        params = {name: value.float() for name, value in params.items()}
        torch.testing.assert_close(norm(params)[0], norm(of.params)[0], rtol=1e-5, atol=0)
        assert 0.98 * ends[0] <= sharpest_curvature(of, params, 0) <= 1.02 * ends[1]


def test_another_norm_keeps_the_sharpness():
    of = subject()
    (operation,) = operations("norm_rescaling", levels=[1.1])
    params = operation.operate(of).params
    torch.testing.assert_close(norm(params), 1.1 * norm(of.params), rtol=1e-5, atol=0)
    for lane in range(3):
        assert sharpest_curvature(of, params, lane) == pytest.approx(sharpest_curvature(of, of.params, lane), rel=0.012)


def test_a_sharpness_that_no_network_of_that_norm_has_is_approached():
    of = subject()
    (operation,) = operations("norm_rescaling", levels=[1.4])
    found, own = (sharpest_curvature(of, params, 1) for params in (operation.operate(of).params, of.params))
    way = _Way(Rescalings(of), 1.4 * Rescalings(of).norms)
    assert found == pytest.approx(float(way.flattest.sharpness[1]), rel=0.012)
    assert found > 1.02 * own


def test_a_norm_below_all_gives_the_least():
    of = subject()
    least, smaller = (operation.operate(of).params for operation in operations("norm_rescaling", levels=[0.02, 0.01]))
    torch.testing.assert_close(norm(least), norm(smaller))
    for params in (operation.operate(of).params for operation in operations("layer_rescaling")):
        assert (norm(least) < norm(params)).all()
    torch.testing.assert_close(logits(of, least), logits(of, of.params), rtol=1e-5, atol=1e-5)


def test_permuted_units_are_the_same_units_elsewhere():
    of = subject()
    (operation,) = operations("unit_permutation")
    params = operation.operate(of).params
    for name, value in of.params.items():
        assert torch.equal(params[name].flatten(1).sort().values, value.flatten(1).sort().values)
    _, hidden = of.model.forward(params, of.inputs)
    _, before = of.model.forward(of.params, of.inputs)
    for after, layer in zip(hidden, before, strict=True):
        torch.testing.assert_close(after.sort(dim=2).values, layer.sort(dim=2).values)
        assert not torch.allclose(after, layer)


@pytest.mark.parametrize("network", ["relu", "cnn"])
def test_dead_units_are_redrawn_and_others_stay(network):
    of = subject(network)
    dead = torch.tensor([2, 0, 1])  # a unit of the first layer, in each lane
    params = {name: value.clone() for name, value in of.params.items()}
    for lane, unit in enumerate(dead):
        params["0/weight"][lane, unit] = -1.0
        params["0/bias"][lane, unit] = -1.0
    killed = replace(of, params=params)
    (operation,) = operations("idle_units")
    after = operation.operate(killed).params
    _, hidden = of.model.forward(params, of.inputs)
    idle = (hidden[0] <= 0).all(dim=1)  # [lane, unit]
    assert idle[torch.arange(3), dead].all()
    drawn = of.model.initial(of.seeds, "idle units", of.task)
    assert torch.equal(after["0/weight"][idle], drawn["0/weight"][idle])
    assert torch.equal(after["0/weight"][~idle], params["0/weight"][~idle])
    for lane, unit in enumerate(dead):
        assert not after["1/weight"][lane, ..., unit].any()
    assert torch.equal(logits(of, after), logits(of, params))


def test_a_network_without_dead_units_stays_as_it_is():
    of = subject("leaky_relu")
    (operation,) = operations("idle_units")
    assert all(torch.equal(value, of.params[name]) for name, value in operation.operate(of).params.items())


def test_displaced_networks_are_as_far_away_as_the_rescaled_ones_and_elsewhere():
    of = subject()

    def moved(name):
        return [
            {key: value - of.params[key] for key, value in operation.operate(of).params.items()}
            for operation in operations(name, levels=[0.0, 1.0])
        ]

    for rescaled, displaced in zip(moved("layer_rescaling"), moved("random_displacement"), strict=True):
        torch.testing.assert_close(norm(displaced), norm(rescaled), rtol=1e-4, atol=0)
    first, second = moved("random_displacement")
    assert not torch.allclose(logits(of, {k: v + of.params[k] for k, v in second.items()}), logits(of, of.params))
    ratio = (norm(second) / norm(first))[:, None, None]
    torch.testing.assert_close(second["0/weight"], ratio * first["0/weight"], rtol=1e-3, atol=1e-6)


def test_fresh_weights_are_a_new_network():
    of = subject()
    (operation,) = operations("fresh_weights")
    drawn = of.model.initial(of.seeds, "fresh weights", of.task)
    assert all(torch.equal(value, drawn[name]) for name, value in operation.operate(of).params.items())


@pytest.mark.parametrize("name", ALL)
def test_a_lane_does_not_depend_on_those_beside_it(name):
    of = subject()
    alone = replace(
        of,
        params={key: value[1:2] for key, value in of.params.items()},
        seeds=of.seeds[1:2],
        inputs=of.inputs[1:2],
        labels=of.labels[1:2],
    )
    for beside, single in zip(operations(name), operations(name), strict=True):
        together, own = beside.operate(of), single.operate(alone)
        for key, value in own.params.items():
            torch.testing.assert_close(together.params[key][1:2], value, rtol=2e-3, atol=1e-5)


def test_leading_eigenvalues_are_those_of_the_matrix():
    draw = torch.Generator().manual_seed(0)
    matrix = torch.randn(2, 60, 60, generator=draw)
    matrix = matrix + matrix.mT
    start = torch.randn(2, 60, generator=draw)
    values, vectors = leading_eigenvectors(lambda v: torch.einsum("lij,lj->li", matrix, v), start, 60, 3)
    expected, _ = torch.linalg.eigh(matrix.double())
    torch.testing.assert_close(values, expected[:, -3:], rtol=1e-4, atol=1e-3)
    image = torch.einsum("lij,lkj->lki", matrix, vectors)
    torch.testing.assert_close(image, values.unsqueeze(2).float() * vectors, rtol=1e-2, atol=2e-2)
