"""CUDA: recorded steps and agreement with the CPU; skipped without a GPU."""

from dataclasses import fields, replace

import pytest
import tiny
import torch

from study import parts
from study.training.steps import Steps

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU on this machine")


def on_gpu(experiment, optimizer: str):
    """The same experiment on the GPU."""
    rule = tiny.rule(optimizer, len(experiment.seeds), device="cuda", **{"lr": 0.1, **tiny.OPTIMIZERS[optimizer]})
    interventions = tuple(map(moved, experiment.interventions))
    return replace(
        experiment, device="cuda", dataset=experiment.dataset.to("cuda"), rule=rule, interventions=interventions
    )


def moved(part):
    """A part with its tensors on the GPU."""
    tensors = {field.name: getattr(part, field.name) for field in fields(part)}
    return replace(
        part, **{name: value.to("cuda") for name, value in tensors.items() if isinstance(value, torch.Tensor)}
    )


def assert_alike(some, others, tolerance: float) -> None:
    for ours, theirs in zip(some, others, strict=True):
        torch.testing.assert_close(ours.online_loss, theirs.online_loss, rtol=0, atol=tolerance)
        expected = tiny.state_tensors(theirs.state)
        for name, value in tiny.state_tensors(ours.state).items():
            torch.testing.assert_close(
                value.cpu(), expected[name].cpu(), rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("optimizer", tiny.OPTIMIZERS)
@pytest.mark.parametrize("interventions", [{}, {"l2_init": {"strength": 0.01}}])
def test_the_gpu_agrees_with_the_cpu(optimizer, interventions):
    experiment = tiny.experiment(optimizer, interventions=interventions, passes=2)
    assert_alike(tiny.results(on_gpu(experiment, optimizer)), tiny.results(experiment), 1e-4)


@pytest.mark.parametrize("name", parts.names("interventions"))
@pytest.mark.parametrize("model", [{}, tiny.CNN])
def test_the_gpu_agrees_with_the_cpu_on_every_intervention(name, model):
    """Steps are recorded."""
    optimizer = "sgd with momentum and weight decay"
    experiment = tiny.experiment(optimizer, interventions={name: {}}, **model)
    assert_alike(tiny.results(on_gpu(experiment, optimizer)), tiny.results(experiment), 1e-3)


@pytest.mark.parametrize("layer_norm", ["none", "plain", "learnt"])
@pytest.mark.parametrize("activation", ["leaky_relu", "gelu", "tanh", "crelu", "deep_fourier"])
@pytest.mark.parametrize("model", [{}, tiny.CNN])
def test_the_gpu_agrees_with_the_cpu_with_other_nonlinearities(layer_norm, activation, model):
    """Steps are recorded.

    On one task: on three, a change of 1e-7 in the first weights grows to 0.05 with deep_fourier and learnt layer norm.
    """
    optimizer = "gnp exact" if layer_norm == "plain" else "sam"
    sizes = model.get("model_settings", {"widths": [7, 5]})
    chosen = {"model_settings": {**sizes, "activation": activation, "layer_norm": layer_norm}}
    experiment = tiny.experiment(optimizer, task_settings={"count": 1}, **{**model, **chosen})
    assert_alike(tiny.results(on_gpu(experiment, optimizer)), tiny.results(experiment), 1e-3)


@pytest.mark.parametrize("optimizer", tiny.OPTIMIZERS)
@pytest.mark.parametrize("interventions", [{}, {"l2_init": {"strength": 0.01}}])
def test_recorded_steps_equal_steps_taken_anew(optimizer, interventions, monkeypatch):
    experiment = on_gpu(tiny.experiment(optimizer, interventions=interventions, passes=2, batch_size=7), optimizer)
    recorded = tiny.results(experiment)

    class Anew(Steps):
        def __init__(self, *words) -> None:
            super().__init__(*words)
            self._recorded = None

    monkeypatch.setattr("study.training.trainer.Steps", Anew)
    assert_alike(recorded, tiny.results(experiment), 1e-6)
