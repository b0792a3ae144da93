"""Remedies on the stack against their authors' codes, on one network after the other."""

import itertools
import math
from dataclasses import replace

import pytest
import tiny
import torch
from plain_remedies import (
    PlainClipping,
    PlainContinualBackprop,
    PlainNoise,
    PlainProjection,
    PlainReDo,
    PlainSNR,
    hidden_of,
)
from torch import nn
from torch.nn.functional import cross_entropy
from twins import assert_twins

from study.config import Diagnostics
from study.interventions import fire, snr
from study.lanes import generator
from study.training.trainer import initial_state

UNMEASURED = Diagnostics(units_every=0, curvature_every=0, forgetting_every=0)
NETWORKS = {"mlp": {}, "cnn": tiny.CNN}
SGD = {"lr": 0.3, "momentum": 0.8}


def steps_of_a_task(experiment) -> int:
    return math.ceil(experiment.tasks.task(0).train.shape[1] / experiment.batch_size) * experiment.passes


def assert_remedied_alike(experiment, make_plain, extra_loss=None) -> list:
    """Asserts that an experiment equals a loop over single networks, each with a remedy; returns the remedies.

    `make_plain(net, optimizer, seed)` makes the remedy. Its `after(hidden)` acts after each step, and `draw(task)` before a task.
    """
    seeds, made = iter(experiment.seeds), []

    def make_step(net):
        optimizer = torch.optim.SGD(net.parameters(), **SGD)
        plain, taken = make_plain(net, optimizer, next(seeds)), itertools.count()
        made.append(plain)

        def step(x, y):
            number = next(taken)
            if number and number % steps_of_a_task(experiment) == 0 and hasattr(plain, "draw"):
                plain.draw(number // steps_of_a_task(experiment))
            hidden = hidden_of(net, x)
            optimizer.zero_grad()
            logits = net(x)
            (cross_entropy(logits, y) + (extra_loss(net) if extra_loss else 0)).backward()
            optimizer.step()
            plain.after(hidden)
            return logits.detach()

        return step

    assert_twins(experiment, make_step)
    return made


def experiment_with(name: str, given: dict, network: str = "mlp", **words):
    common = {"interventions": {name: given}, "diagnostics": UNMEASURED, "passes": 2, "seeds": (3, 1)}
    return tiny.experiment("sgd", SGD, **common, **NETWORKS[network], **words)


# --- units -----------------------------------------------------------------------------------------------------------

RESETS = [
    ("redo", PlainReDo, {"threshold": 0.4, "every": 3}, {}),
    (
        "continual_backprop",
        PlainContinualBackprop,
        {"rate": 0.03, "maturity": 5, "decay": 0.9},
        {"utility": "contribution"},
    ),
    (
        "continual_backprop",
        PlainContinualBackprop,
        {"rate": 0.1, "maturity": 2, "decay": 0.7},
        {"utility": "adaptable_contribution"},
    ),
    ("snr", PlainSNR, {"percentile": 0.7, "first": 4, "expansion": 1.5, "shortest": 2, "longest": 7}, {}),
]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("name", "plain", "numbers", "words"), RESETS)
@tiny.float64()
def test_resets_of_units_are_those_of_their_authors_codes(name, plain, numbers, words, network):
    """Weights, momentum and accuracies, over tasks, with more resets than a layer has units."""
    experiment = experiment_with(name, numbers | words, network)
    model, purpose = tiny.in_float64(experiment).model, experiment.interventions[0].purpose

    def make_plain(net, optimizer, seed):
        return plain(net, optimizer, model, seed, purpose, **numbers, **words)

    made = assert_remedied_alike(experiment, make_plain)
    assert any(taken > 0 for each in made for taken in each._taken), "units were reset in the last task"


def test_resets_take_one_fresh_row_after_the_other_and_go_round_after_as_many_as_units():
    model = tiny.mlp(9, 4, [3])
    acting = tiny.intervention("redo", (7, 8), every=1, threshold=0.0)
    params = {name: torch.zeros_like(value) for name, value in model.initial((7, 8)).items()}  # all units are dormant
    state = acting.initial_state(params, model)
    fresh = model.initial((7, 8), "redo")["0/weight"]
    learner = tiny.stepped(acting, model, params, {}, state)
    assert torch.equal(learner.params["0/weight"], fresh)
    one = {name: value.clone() for name, value in learner.params.items()}
    for name in ("0/weight", "0/bias"):
        one[name][:, :2], one[name][:, 2] = 1, 0  # the last unit alone dies
    again = tiny.stepped(acting, model, one, {}, learner.state).params["0/weight"]
    assert torch.equal(again[:, 2], fresh[:, 0]), "three rows were taken, so the first comes again"
    assert (again[:, :2] == 1).all()
    renewed = tiny.crossed(acting, model, one, {}, learner.state).state["fresh:0/weight"]
    assert torch.equal(renewed, model.initial((7, 8), "redo", 1)["0/weight"])


def test_the_memory_of_adam_is_cleared_where_units_are_reset_and_its_steps_are_kept():
    model = tiny.mlp(9, 4, [3, 2])
    acting = tiny.intervention("redo", (7,), every=1, threshold=0.0)
    params = model.initial((7,))
    for name in ("0/weight", "0/bias"):
        params[name][:, 1] = -1  # one unit of the first layer is silent
    params["1/bias"] += 5
    names = [f"{moment}:{name}" for moment in ("first", "second") for name in params]
    memory = {name: torch.ones_like(params[name.partition(":")[2]]) for name in names} | {
        "steps": torch.full((1,), 9.0)
    }
    after = tiny.stepped(acting, model, params, memory, acting.initial_state(params, model)).memory
    for moment in ("first", "second"):
        cleared = {name: torch.ones_like(value) for name, value in params.items()}
        cleared["0/weight"][:, 1], cleared["0/bias"][:, 1], cleared["1/weight"][:, :, 1] = 0, 0, 0
        assert all(torch.equal(after[f"{moment}:{name}"], value) for name, value in cleared.items())
    assert after["steps"].tolist() == [9]


@pytest.mark.parametrize(
    ("spells", "share", "expected"),
    [
        ([], 0.9, 1),
        ([5], 0.9, 5),
        ([1, 2, 3, 4], 0.5, 2),
        ([4, 3, 2, 1], 0.51, 3),
        ([2, 2, 9, 9], 0.5, 2),
        ([9, 9, 1, 1, 1, 1], 0.99, 1),  # only the last four are kept
    ],
)
def test_a_percentile_is_the_first_age_that_so_many_spells_do_not_exceed(spells, share, expected):
    window = torch.zeros(1, 1, 4, dtype=torch.int32)
    for place, age in enumerate(spells):
        window[0, 0, place % 4] = age
    found = snr.percentile(window, torch.tensor([[len(spells)]]), torch.tensor([share]))
    assert found.tolist() == [[expected]]


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("output_layer", [True, False])
@tiny.float64()
def test_weights_are_clipped_as_in_the_authors_code(network, output_layer):
    given = {"kappa": 0.8, "output_layer": output_layer}
    experiment = experiment_with("weight_clipping", given, network, task_settings={"count": 1})
    assert_remedied_alike(experiment, lambda net, *_: PlainClipping(net, **given))


@pytest.mark.parametrize("network", NETWORKS)
@tiny.float64()
def test_weights_are_projected_to_their_first_length(network):
    experiment = experiment_with("weight_projection", {"every": 3}, network, task_settings={"count": 2})
    assert_remedied_alike(experiment, lambda net, *_: PlainProjection(net, every=3))


@pytest.mark.parametrize("network", NETWORKS)
@tiny.float64()
def test_shrink_and_perturb_acts_at_every_step_with_new_noise(network):
    given = {"decay": 0.01, "noise": 0.05}
    experiment = experiment_with("shrink_and_perturb_per_step", given, network, task_settings={"count": 2})

    def make_plain(net, optimizer, seed):
        draws = [generator(seed, "shrink and perturb per step", task) for task in range(2)]
        return PlainNoise(net, [torch.randn(4096, generator=draw) for draw in draws], **given)

    assert_remedied_alike(experiment, make_plain)


def test_the_ring_of_noise_goes_round():
    acting, model = (
        tiny.intervention("shrink_and_perturb_per_step", (3,), decay=0.0, noise=1.0),
        tiny.mlp(9, 4, []),
    )
    params = {name: torch.zeros_like(value) for name, value in model.initial((3,)).items()}
    state = acting.initial_state(params, model)
    for place in (0, 4070, 4095):
        state["place"].fill_(place)
        learner = tiny.stepped(acting, model, params, {}, state)
        numbers = torch.cat([value.flatten() for value in learner.params.values()])
        assert torch.equal(numbers, state["ring"][0].roll(-place)[: len(numbers)])
        assert learner.state["place"].tolist() == [(place + 1) % 4096]


# --- terms of the loss -----------------------------------------------------------------------------------------------


class Nothing:
    """A remedy that acts on the loss alone."""

    def after(self, hidden) -> None:
        pass


@tiny.float64()
def test_l2_is_half_the_weight_decay_of_sgd():
    given = {"strength": 0.03}
    experiment = experiment_with("l2", given)
    common = {"diagnostics": UNMEASURED, "passes": 2, "seeds": experiment.seeds}
    decaying = tiny.experiment("sgd", SGD | {"weight_decay": 0.06}, **common)
    ours, theirs = (tiny.results(tiny.in_float64(each))[-1].state.params for each in (experiment, decaying))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("name", "from_start"), [("l2", False), ("l2_init", True)])
@tiny.float64()
def test_the_code_of_l2_init_has_half_of_its_weight(name, from_start):
    """`loss += l2_weight * 0.5 * sum of squares`: `strength` is half of `l2_weight`."""
    l2_weight, starts = 0.06, {}

    def penalty(net):
        start = starts.setdefault(id(net), [param.detach().clone() * from_start for param in net.parameters()])
        squares = sum(((param - first) ** 2).sum() for param, first in zip(net.parameters(), start, strict=True))
        return l2_weight * 0.5 * squares

    keep = []  # an id is of a living network only
    experiment = experiment_with(name, {"strength": l2_weight / 2})
    assert_remedied_alike(experiment, lambda net, *_: keep.append(net) or Nothing(), penalty)


class PlainSpectral:
    """One power iteration a step for each layer, as torch's spectral norm has it."""

    def __init__(self, net, seed: int):
        draw = generator(seed, "spectral regularization")
        layers = [layer for layer in net if isinstance(layer, nn.Linear | nn.Conv2d)]
        self.pairs = [[layer, torch.randn(len(layer.weight), generator=draw)] for layer in layers]

    def penalty(self, strength: float, k: int):
        total = 0.0
        for layer, u in self.pairs:
            matrix, left = layer.weight.flatten(1), u / u.norm()
            v = (matrix.T @ left).detach()
            total = total + (((left @ matrix @ v) / v.norm()) ** k - 1) ** 2
        return strength * total

    def after(self, hidden) -> None:
        for pair in self.pairs:
            matrix = pair[0].weight.detach().flatten(1)
            pair[1] = matrix @ (matrix.T @ pair[1])
            pair[1] /= pair[1].norm()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("exponent", [1, 2, 3])
@tiny.float64()
def test_spectral_regularisation_is_a_power_iteration_and_a_term(network, exponent):
    made = {}
    given = {"strength": 0.05, "exponent": exponent}
    experiment = experiment_with("spectral_regularization", given, network, task_settings={"count": 1})

    def make_plain(net, optimizer, seed):
        return made.setdefault(id(net), PlainSpectral(net, seed))

    assert_remedied_alike(experiment, make_plain, lambda net: made[id(net)].penalty(0.05, exponent))


@tiny.float64()
def test_the_power_iteration_finds_the_largest_singular_value():
    model = tiny.mlp(9, 4, [7])
    acting, params = (
        tiny.intervention("spectral_regularization", (0, 1), strength=1.0, exponent=2),
        model.initial((0, 1)),
    )
    state = acting.initial_state(params, model)
    for _ in range(200):
        state = tiny.stepped(acting, model, params, {}, state).state
    singular = torch.stack([torch.linalg.svdvals(params[f"{i}/weight"])[:, 0] for i in range(2)])
    torch.testing.assert_close(acting.loss_term(params, state), ((singular**2 - 1) ** 2).sum(0))


@pytest.mark.parametrize("name", ["l2", "spectral_regularization"])
@tiny.float64()
def test_a_gradient_in_closed_form_is_that_of_the_term(name):
    model = tiny.mlp(9, 4, [7])
    acting = tiny.intervention(name, (0, 1), strength=0.7)
    leaves = {key: value.requires_grad_() for key, value in model.initial((0, 1)).items()}
    state = {key: value.detach() for key, value in acting.initial_state(leaves, model).items()}
    expected = torch.autograd.grad(acting.loss_term(leaves, state).sum(), list(leaves.values()), materialize_grads=True)
    found = acting.loss_gradient({key: value.detach() for key, value in leaves.items()}, state)
    for key, value in zip(leaves, expected, strict=True):
        torch.testing.assert_close(found.get(key, torch.zeros_like(value)), value)


# --- at boundaries ---------------------------------------------------------------------------------------------------


def test_a_full_reset_trains_every_task_as_a_new_network_would():
    experiment = tiny.experiment("sgd", SGD, interventions={"full_reset": {}}, diagnostics=UNMEASURED)
    plain = replace(experiment, interventions=())
    for result in tiny.results(experiment)[1:]:
        fresh = experiment.model.initial(experiment.seeds, "full reset", result.task)
        start = replace(initial_state(plain), params=fresh, next_task=result.task)
        alone = tiny.results(plain, start)[0]
        assert torch.equal(result.test_accuracy, alone.test_accuracy)
        for ours, theirs in ((result.state.params, alone.state.params), (result.state.memory, alone.state.memory)):
            assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def officially(weight: torch.Tensor, iterations: int) -> torch.Tensor:
    """FIRE's code for the weight of a torch module, place by place."""
    found = torch.zeros_like(weight)
    places = list(itertools.product(*map(range, weight.shape[2:])))
    for place in places:
        x = weight[(..., *place)]
        turned = x.shape[1] > x.shape[0]
        x = (x.T if turned else x) / x.norm()
        for _ in range(iterations):
            x = 1.5 * x - 0.5 * x @ (x.T @ x)
        found[(..., *place)] = x.T if turned else x
    return found * math.sqrt(weight.shape[0] / weight.shape[1]) / len(places)


def test_fire_is_that_of_its_authors_code_and_near_the_polar_factor():
    torch.manual_seed(0)
    with tiny.float64():
        conv, connected = torch.randn(5, 3, 4, 4), torch.randn(6, 5 * 2)  # as torch has them
        ours = {
            "0/weight": conv.permute(0, 2, 3, 1)[None],
            "0/bias": torch.ones(1, 5),
            "1/weight": connected.unflatten(1, (5, 2)).mT[None],
            "2/weight": torch.randn(1, 4, 6),
        }
        own = {"conv.weight": conv[None], "2.weight": ours["2/weight"]}
        acting, model = tiny.intervention("fire", (0,), iterations=10), tiny.mlp(9, 4, [])
        memory = {"0/weight": torch.ones(1, 2)}
        found = tiny.crossed(acting, model, ours, memory, {})
        torch.testing.assert_close(found.params["0/weight"][0], officially(conv, 10).permute(0, 2, 3, 1))
        torch.testing.assert_close(found.params["1/weight"][0].mT.flatten(1), officially(connected, 10))
        torch.testing.assert_close(found.params["2/weight"][0], officially(ours["2/weight"][0], 10))
        assert torch.equal(found.params["0/bias"], ours["0/bias"])
        assert not found.memory["0/weight"].any()
        torch_order = tiny.crossed(acting, model, own, {}, {}).params
        torch.testing.assert_close(torch_order["conv.weight"][0], officially(conv, 10))
        matrices = torch.randn(2, 6, 4)
        u, _, v = torch.linalg.svd(matrices, full_matrices=False)
        torch.testing.assert_close(fire.newton_schulz(matrices, 40), u @ v)
        assert not fire.newton_schulz(torch.zeros(1, 3, 2), 5).any(), "0/0 counts as 0"
