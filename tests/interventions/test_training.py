"""Every intervention in training: lane by lane, resumed, on feature maps and on modules, and where there are no units."""

from dataclasses import replace

import pytest
import tiny
import torch
from torch import nn

from study import parts
from study.config import Diagnostics
from study.models import StackedModule
from study.training import checkpoint

UNMEASURED = Diagnostics(units_every=0, curvature_every=0, forgetting_every=0)
SEEDS = (5, 0, 77)
SHAPE = tiny.CNN["images"]["shape"]
MOMENTOUS = {"lr": 0.2, "momentum": 0.8}

NAMES = parts.names("interventions")
ON_UNITS = [name for name in NAMES if tiny.intervention(name, (0,)).acts_on_units]


def trained(name: str, seeds=SEEDS, start=None) -> list:
    """Results of a tiny convolutional network under one intervention."""
    words = {"interventions": {name: {}}, "diagnostics": UNMEASURED, "seeds": seeds, **tiny.CNN}
    return tiny.results(tiny.experiment("sgd", MOMENTOUS, **words), start)


@pytest.mark.parametrize("name", NAMES)
def test_an_intervention_on_feature_maps_resumes_bit_by_bit_and_keeps_lanes_apart(name, tmp_path):
    straight = trained(name)
    checkpoint.save(tmp_path / "state.pt", straight[0].state, "identity")
    resumed = trained(name, start=tiny.load_checkpoint(tmp_path / "state.pt", "identity"))
    for ours, theirs in zip(resumed, straight[1:], strict=True):
        others = tiny.state_tensors(theirs.state)
        assert all(torch.equal(value, others[key]) for key, value in tiny.state_tensors(ours.state).items())
    for ours, theirs in zip(trained(name, SEEDS[1:2]), straight, strict=True):
        others = tiny.state_tensors(theirs.state)
        for key, value in tiny.state_tensors(ours.state).items():
            one, other = (value[:, 0], others[key][:, 1]) if key in tiny.BY_TASK else (value[0], others[key][1])
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5, msg=lambda m, n=key: f"{n}: {m}")


def module() -> nn.Module:
    """A module that declares no hidden layers, with a layer norm."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.LayerNorm(80), nn.Linear(80, 5), nn.ReLU(), nn.Linear(5, 4)
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ON_UNITS])
def test_an_intervention_acts_on_a_module_of_ones_own(name):
    built = tiny.experiment("sgd", {"lr": 0.1}, interventions={name: {}}, images={"shape": SHAPE})
    params = tiny.results(replace(built, model=StackedModule(module, SHAPE), diagnostics=UNMEASURED))[-1].state.params
    assert all(value.isfinite().all() for value in params.values())
    assert name != "weight_clipping" or float(params["3.weight"].min()) > 0.5, "the scales of a layer norm stay"


@pytest.mark.parametrize("name", ON_UNITS)
def test_a_reset_of_units_that_are_not_there_is_refused_before_any_work(name, refused):
    message = refused("run", "quickstart", "--set", "model/widths=[]", "--set", f"interventions/{name}={{}}")
    assert message.startswith(
        f"study: interventions/{name} resets hidden units, but this 'mlp' declares no hidden layers;"
    )


@pytest.mark.parametrize("name", [*ON_UNITS, "fire", "spectral_regularization"])
def test_units_with_several_outputs_and_learnt_scales_are_acted_on(name):
    sizes = tiny.CNN["model_settings"] | {"activation": "crelu", "layer_norm": "learnt"}
    words = {"interventions": {name: {}}, "diagnostics": UNMEASURED, **tiny.CNN, "model_settings": sizes}
    before, after = (result.state for result in tiny.results(tiny.experiment("sgd", MOMENTOUS, **words))[1:])
    assert all(value.isfinite().all() for value in after.params.values())
    assert any(not torch.equal(value, before.params[key]) for key, value in after.params.items())


def test_a_reset_unit_with_several_outputs_has_no_outgoing_weight_and_the_first_scale():
    module, settings = tiny.part("models", "mlp", {"widths": [8], "activation": "crelu", "layer_norm": "learnt"})
    model = module.build(settings, (1, 3, 3), 4)
    acting, params = tiny.intervention("redo", (0, 1), every=1, threshold=1.0), model.initial((0, 1))
    params["0/scale"] += 1
    after = tiny.stepped(acting, model, params, {}, acting.initial_state(params, model))
    reset = after.params["0/scale"] == 1  # [lane, unit]
    assert reset.any()
    assert not reset.all()
    assert torch.equal((after.params["1/weight"] == 0).all(dim=1).all(dim=1), reset)
    assert torch.equal(after.state["taken 0"], reset.sum(1))
