"""Terms of interventions in a model's own gradient, against autograd."""

from dataclasses import dataclass, replace

import pytest
import tiny
import torch
from torch import Tensor

from study import parts
from study.contracts import Intervention, Model
from study.gradients import MinibatchGradient, direct_gradient
from study.lanes import Tensors, add, per_lane
from study.models._outer_products import OuterProducts
from study.pulls import Pull, SpectralPull

STRENGTH = torch.tensor([0.02, 0.0, 0.5])
LANES = len(STRENGTH)
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


@dataclass(frozen=True)
class ToZero(Intervention):
    """A pull to 0."""

    strength: Tensor
    any_input_order = True

    def pull(self, state: Tensors) -> Pull:
        return Pull(self.strength)


@dataclass(frozen=True)
class ToStart(ToZero):
    """A pull to the weights before the first task, drawn apart."""

    def initial_state(self, params: Tensors, model: Model) -> Tensors:
        return {name: value * 0.7 - 0.01 for name, value in params.items()}

    def pull(self, state: Tensors) -> Pull:
        return Pull(self.strength, state)


@dataclass(frozen=True)
class Spectral(ToZero):
    """A pull of a singular value of each layer."""

    def initial_state(self, params: Tensors, model: Model) -> Tensors:
        draw = torch.Generator().manual_seed(2)
        return {
            f"u of {name}": torch.randn(value.shape[:2], generator=draw, dtype=torch.float64)
            for name, value in params.items()
            if value.dim() > 2
        }

    def pull(self, state: Tensors) -> SpectralPull:
        directions = {name.removeprefix("u of "): u for name, u in state.items()}
        return SpectralPull(self.strength, torch.tensor([2, 1, 3]), directions)


@dataclass(frozen=True)
class SpectralInOne(Spectral):
    """The same in one layer."""

    def initial_state(self, params: Tensors, model: Model) -> Tensors:
        return dict([list(super().initial_state(params, model).items())[1]])


@dataclass(frozen=True)
class Quartic(Intervention):
    """A term that is no pull: its Hessian changes with the weights."""

    strength: Tensor
    any_input_order = True

    def loss_term(self, params: Tensors, state: Tensors) -> Tensor:
        return self.strength * torch.stack([value.pow(4).flatten(1).sum(1) for value in params.values()]).sum(0)

    def loss_gradient(self, params: Tensors, state: Tensors) -> Tensors:
        return {name: 4 * per_lane(self.strength, value) * value**3 for name, value in params.items()}


TERMS = {
    "to 0": (ToZero(STRENGTH),),
    "to a point": (ToStart(STRENGTH),),
    "to two points": (ToStart(STRENGTH + 0.01), ToZero(STRENGTH)),
    "spectral": (Spectral(STRENGTH),),
    "spectral in one layer": (SpectralInOne(STRENGTH),),
    "spectral and to a point": (ToStart(STRENGTH), Spectral(STRENGTH)),
    "no pull": (Quartic(STRENGTH),),
    "both": (ToStart(STRENGTH), Quartic(STRENGTH)),
}


def functions(model, batch: int, terms: tuple[Intervention, ...]):
    """The direct gradient, that of autograd, and parameters."""
    draw = torch.Generator().manual_seed(1)
    shape = getattr(model, "shape", (1, 1, 9))
    inputs = torch.rand(LANES, batch, int(torch.tensor(shape).prod()), generator=draw, dtype=torch.float64)
    labels = torch.randint(0, 4, (LANES, batch), generator=draw)
    params = model.initial((0, 1, 2))
    acting = tuple((term, term.initial_state(params, model)) for term in terms)
    return direct_gradient(model, inputs, labels, acting), MinibatchGradient(model, inputs, labels, acting), params


def networks():
    """A fully connected and a convolutional network."""
    module, settings = tiny.part("models", "cnn", tiny.CNN["model_settings"])
    return {"mlp": tiny.mlp(9, 4, [7, 5]), "cnn": module.build(settings, (2, 7, 6), 4)}


def close(ours: Tensors, theirs: Tensors) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, **CLOSE)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("batch", [6, 140])
@tiny.float64()
def test_terms_in_the_own_gradient_agree_with_autograd(name, terms, batch):
    """At the parameters, displaced once and twice, combined, written out, as a norm, as an update and in a Hessian product."""
    terms = tuple(replace(term, strength=term.strength.double()) for term in TERMS[terms])
    ours, theirs, params = functions(networks()[name], batch, terms)
    scale, weight = torch.tensor([0.3, 0.0, -2.0]), torch.tensor([1.5, 0.25, -1.0])

    def gradients(gradient_at):
        here = gradient_at(params)
        uphill = gradient_at.displaced(params, here, scale)
        mixed = here.gradient.combined(scale, uphill.gradient, weight)
        along = gradient_at.displaced(params, replace(here, gradient=mixed), weight)
        elsewhere = gradient_at(add(params, params, scale))
        apart = here.gradient.combined(weight, elsewhere.gradient, scale)
        after = gradient_at.displaced(params, replace(here, gradient=apart), weight)
        return [here.gradient, uphill.gradient, mixed, along.gradient, apart, after.gradient]

    for mine, expected in zip(gradients(ours), gradients(theirs), strict=True):
        torch.testing.assert_close(mine.norm(), expected.norm(), **CLOSE)
        close(mine.tensors(), expected.tensors())
    (_, product), (_, expected_product) = ours.with_hessian_product(params), theirs.with_hessian_product(params)
    close(product.tensors(), expected_product.tensors())
    gradient, expected = ours(params).gradient, theirs(params).gradient.tensors()
    moved = {key: value.clone() for key, value in params.items()}
    wanted = add(params, expected, scale)
    gradient.add_to(moved, scale)  # other tensors than the parameters, as those of momentum are
    gradient.add_to(params, scale)
    close(moved, wanted)
    close(params, wanted)


@pytest.mark.parametrize("pull", [ToStart, Spectral])
@tiny.float64()
def test_a_pull_keeps_the_gradient_of_a_fully_connected_network_in_outer_products(pull):
    ours, _, params = functions(networks()["mlp"], 6, (pull(STRENGTH.double()),))
    here = ours(params)
    assert isinstance(here.gradient, OuterProducts)
    assert isinstance(ours.displaced(params, here, STRENGTH.double()).gradient, OuterProducts)


@tiny.float64()
def test_a_gradient_that_reads_changed_parameters_is_refused():
    ours, _, params = functions(tiny.mlp(9, 4, [7, 5]), 6, (ToZero(STRENGTH.double()),))
    gradient = ours(params).gradient
    params["1/weight"].mul_(2)
    for use in (gradient.norm, gradient.tensors, lambda: gradient.add_to(params, STRENGTH)):
        with pytest.raises(RuntimeError, match="had changed"):
            use()


STEPS = [
    *((optimizer, *case) for case in (("mlp", "to two points"), ("cnn", "both")) for optimizer in tiny.OPTIMIZERS),
    *((optimizer, "mlp", "spectral") for optimizer in ("sam with momentum and weight decay", "gnp", "gnp exact")),
]


@pytest.mark.parametrize(("optimizer", "network", "terms"), STEPS)
@tiny.float64()
def test_steps_with_terms_take_the_own_gradient_and_equal_those_by_autograd(network, optimizer, terms, monkeypatch):
    shape = tiny.CNN if network == "cnn" else {}
    chosen = tuple(replace(term, strength=term.strength.double() / 10) for term in TERMS[terms])
    experiment = tiny.experiment(optimizer, task_settings={"count": 1}, **shape)
    experiment = replace(
        experiment, interventions=chosen, rule=tiny.rule(optimizer, LANES, **tiny.OPTIMIZERS[optimizer])
    )
    plain = tiny.results(tiny.in_float64(experiment, plain=True))
    if optimizer != "gnp exact":
        monkeypatch.setattr(MinibatchGradient, "_loss", None)  # autograd would need it
    for ours, theirs in zip(tiny.results(tiny.in_float64(experiment)), plain, strict=True):
        expected = tiny.state_tensors(theirs.state)
        for name, value in tiny.state_tensors(ours.state).items():
            torch.testing.assert_close(value, expected[name], **CLOSE, msg=lambda m, n=name: f"{n}: {m}")


@tiny.float64()
def test_an_intervention_sees_the_gradient_of_a_step_whose_loss_has_a_pull():
    seen = []

    class Seeing(Intervention):
        def after_step(self, learner, step):
            seen.append(step.evaluation.gradient.tensors())
            return learner

    experiment = tiny.in_float64(tiny.experiment("sgd", {"lr": 0.1}, task_settings={"count": 1}))
    experiment = replace(experiment, interventions=(ToZero(STRENGTH.double()), Seeing()))
    (result,) = tiny.results(experiment)
    start = experiment.model.initial(experiment.seeds)
    total = {name: sum(gradient[name] for gradient in seen) for name in start}
    for name, value in result.state.params.items():
        torch.testing.assert_close(value, start[name] - 0.1 * total[name], **CLOSE)


def built(name):
    """An intervention for three lanes."""
    module, settings = tiny.part("interventions", name)
    return module.build(settings, (0, 1, 2), "cpu")


ON_LOSS = [name for name in parts.names("interventions") if built(name).acts_on_loss]


def test_some_interventions_act_on_the_loss():
    assert {"l2", "l2_init", "spectral_regularization"} <= set(ON_LOSS)


@pytest.mark.parametrize("name", ON_LOSS)
@tiny.float64()
def test_the_gradient_that_an_intervention_knows_is_that_of_its_term(name):
    intervention = built(name)
    assert intervention.knows_gradient, "otherwise training goes through autograd: say why, and leave it out here"
    model = networks()["cnn"]
    start = model.initial((0, 1, 2))
    state = intervention.initial_state(start, model)
    leaves = {key: (value * 1.3 + 0.1).requires_grad_() for key, value in start.items()}
    term = intervention.loss_term(leaves, state)
    expected = torch.autograd.grad(term.sum(), list(leaves.values()), materialize_grads=True)
    with torch.no_grad():
        found = intervention.loss_gradient(leaves, state)
    assert found.keys() <= leaves.keys()
    close(
        found | {key: torch.zeros_like(value) for key, value in start.items() if key not in found},
        dict(zip(leaves, expected, strict=True)),
    )
