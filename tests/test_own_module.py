"""A torch module of one's own on lanes equals the same module trained alone, seed after seed."""

from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn
from twins import assert_twins, plain_step

from study.contracts import DirectModel, HiddenLayer
from study.errors import StudyError
from study.models import StackedModule
from study.training.trainer import train

SHAPE = (2, 7, 6)


def module() -> nn.Module:
    """A network with layers that the study's own do not have."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.LayerNorm(36), nn.Linear(36, 4)
    )


def experiment(optimizer: str, **given):
    """A tiny experiment with that module."""
    whole = tiny.experiment(optimizer, images={"shape": SHAPE}, **given)
    return replace(whole, model=StackedModule(module, SHAPE))


@pytest.mark.parametrize(
    "optimizer", ["sgd", "sgd with momentum and weight decay", "sam", "gnp with momentum", "gnp exact"]
)
@tiny.float64()
def test_a_module_on_lanes_equals_the_module_alone_with_other_optimizers(optimizer):
    make_step, tolerance = plain_step(optimizer, 0.1)
    assert_twins(experiment(optimizer, task_settings={"count": 2}), make_step, tolerance)


def test_a_lane_of_a_module_alone_equals_the_lane_in_company_and_resumes_bit_by_bit():
    given = {"interventions": {"l2_init": {"strength": 0.01}, "shrink_and_perturb": {}}}
    company = tiny.results(experiment("sam", seeds=(5, 0, 77), **given))
    alone = tiny.results(experiment("sam", seeds=(77,), **given))
    for name, value in alone[-1].state.params.items():
        torch.testing.assert_close(value[0], company[-1].state.params[name][2], rtol=0, atol=1e-6)
    resumed = list(train(experiment("sam", seeds=(5, 0, 77), **given), company[0].state))
    for name, value in tiny.state_tensors(resumed[-1].state).items():
        assert torch.equal(value, tiny.state_tensors(company[-1].state)[name]), name


def test_initial_weights_are_those_of_the_seed_and_the_global_generator_stays():
    model = StackedModule(module, SHAPE)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    params = model.initial((4, 0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    for name, value in model.initial((0,)).items():
        assert torch.equal(value[0], params[name][1]), name
    assert not torch.equal(params["0.weight"][0], params["0.weight"][1])
    assert model.parameter_count == sum(value[0].numel() for value in params.values())
    assert not isinstance(model, DirectModel)


class Declared(nn.Module):
    """A module that returns the activations of its hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(84, 6), nn.Linear(6, 4)

    def forward(self, pictures):
        hidden = self.first(pictures.flatten(1)).relu()
        return self.last(hidden), [hidden]


def test_declared_hidden_layers_are_measured_and_undeclared_are_not():
    layers = (HiddenLayer(("first.weight", "first.bias"), "last.weight"),)
    declared = replace(experiment("sgd"), model=StackedModule(Declared, SHAPE, layers))
    assert "units/dead/layer_0" in tiny.results(declared)[0].diagnostics
    assert not any(name.startswith(("units", "rank")) for name in tiny.results(experiment("sgd"))[0].diagnostics)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (
            lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(60, 4)),
            "BatchNorm2d '1' keeps",
        ),
        (lambda: nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False)), "BatchNorm2d '0' keeps"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(84, 4), nn.Dropout(0.1)), "Dropout '2' draws"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(80, 4)), "fails on pictures of 2 x 7 x 6"),
        (lambda: nn.Conv2d(2, 4, 9), "fails on pictures of 2 x 7 x 6"),
        (lambda: nn.Conv2d(2, 4, 3), "must return logits"),
        (nn.Flatten, "no parameters"),
        (Declared, "must return logits"),
        (dict, "must make a torch.nn.Module"),
    ],
)
def test_a_module_that_lanes_cannot_train_is_refused_in_one_sentence(factory, words):
    with pytest.raises(StudyError) as refusal:
        StackedModule(factory, SHAPE)
    assert words in str(refusal.value)
    assert len(str(refusal.value)) <= 300
    assert "\n" not in str(refusal.value)


def test_functional_dropout_and_foreign_random_numbers_are_refused():
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(84, 4)

        def forward(self, pictures):
            return nn.functional.dropout(self.last(pictures.flatten(1)))

    with pytest.raises(StudyError, match="fails on pictures"):
        StackedModule(Dropping, SHAPE)
    other = torch.Generator().manual_seed(0)

    def foreign() -> nn.Module:
        made = nn.Sequential(nn.Flatten(), nn.Linear(84, 4))
        nn.init.normal_(made[1].weight, generator=other)
        return made

    with pytest.raises(StudyError, match="torch's random numbers alone"):
        StackedModule(foreign, SHAPE)
