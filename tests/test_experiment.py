"""Experiments built from configurations."""

from pathlib import Path

import pytest
import tiny
import torch

from study import experiment, parts, provenance
from study.config import TrialConfig
from study.errors import StudyError

FLAT = {
    "tasks/name": "class_pairs",
    "tasks/count": 2,
    "tasks/images_per_task": 40,
    "tasks/validation_fraction": 0.1,
    "model/name": "mlp",
    "model/widths": [6],
    "optimizer/name": "gnp",
    "optimizer/lambda": 0.2,
    "optimizer/r": 0.1,
    "interventions/l2_init": {},
    "training/batch_size": 8,
    "training/device": "cpu",
    "seeds": [3, 1],
}


def test_a_configuration_becomes_the_experiment_that_it_describes():
    built = tiny.built(TrialConfig.from_flat(FLAT))
    assert (built.seeds, built.batch_size, built.passes, built.device) == ((3, 1), 8, 1, "cpu")
    assert built.dataset.name == "mnist5k"
    assert (built.tasks.count, built.tasks.output_count) == (2, 2)
    assert built.tasks.task(0).train.shape == (2, 40)
    assert built.rule.blend.tolist() == [2.0, 2.0]
    assert len(built.interventions) == 1
    results = tiny.results(built)
    assert [result.name for result in results] == ["0-1", "0-2"]
    assert results[0].state.params["0/weight"].shape == (2, 6, 784)


def test_a_complete_configuration_trains_to_the_same_bits_as_the_short_one():
    short = TrialConfig.from_flat(FLAT)
    one, other = (tiny.results(tiny.built(config)) for config in (short, parts.complete(short)))
    for name, value in one[-1].state.params.items():
        assert torch.equal(value, other[-1].state.params[name])


def test_the_settings_of_a_part_are_validated_once_when_completed_and_once_when_built(monkeypatch):
    config = TrialConfig.from_flat(FLAT)
    dataset = experiment.load_dataset(config, Path("nowhere"))
    validate, validated = parts.settings, []

    def recorded(kind, name, given, prefix):
        validated.append(prefix)
        return validate(kind, name, given, prefix)

    monkeypatch.setattr(parts, "settings", recorded)
    complete = parts.complete(config)
    assert sorted(validated) == ["data/", "interventions/l2_init/", "model/", "optimizer/", "tasks/"]
    validated.clear()
    experiment.build(complete, dataset)
    assert sorted(validated) == ["interventions/l2_init/", "model/", "optimizer/", "tasks/"]


def test_a_complete_configuration_is_what_its_plain_form_is_read_as():
    complete = parts.complete(TrialConfig.from_flat(FLAT))
    assert TrialConfig.from_plain(complete.plain()) == complete


def test_an_experiment_does_not_depend_on_the_global_random_state():
    params = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        params.append(tiny.results(tiny.built(TrialConfig.from_flat(FLAT)))[-1].state.params)
    assert all(torch.equal(value, params[1][name]) for name, value in params[0].items())


@pytest.mark.parametrize(("has_gpu", "device"), [(False, "cpu"), (True, "cuda")])
def test_auto_takes_a_gpu_when_there_is_one(has_gpu, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert experiment.device_of(TrialConfig.from_flat({"training/device": "auto"})) == device
    assert experiment.device_of(TrialConfig.from_flat({"training/device": "cpu"})) == "cpu"


def test_a_gpu_that_is_not_there_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudyError, match=r"^training/device=cuda, but .*[.]$"):
        tiny.built(TrialConfig.from_flat(FLAT | {"training/device": "cuda"}))


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_that_rounds_to_tf32_is_refused(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = TrialConfig.from_flat({"training/device": device})
    assert experiment.device_of(config) == "cuda"
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(StudyError, match="TF32"):
            experiment.device_of(config)
        assert experiment.device_of(TrialConfig.from_flat({"training/device": "cpu"})) == "cpu"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("device", "sees_gpu", "refused"),
    [("cpu", False, True), ("cpu", True, True), ("auto", False, True), ("auto", True, False)],
)
def test_the_weights_of_a_trial_must_fit_into_the_memory_of_the_machine_that_has_them(
    device, sees_gpu, refused, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: sees_gpu)
    monkeypatch.setattr(provenance, "memory_bytes", lambda: 10**6)  # enough for all but the weights
    config = TrialConfig.from_flat({**FLAT, "model/widths": [1000], "training/device": device})
    dataset = experiment.load_dataset(config, Path())
    if refused:
        with pytest.raises(StudyError, match="A trial of this size needs at least"):
            experiment.check_memory(config, dataset)
    else:
        experiment.check_memory(config, dataset)


@pytest.mark.parametrize("kind", ["optimizers", "interventions", "models"])
def test_a_part_that_cannot_be_built_is_left_to_its_trial(kind, monkeypatch):
    """The checks before a sweep pass over it; they refuse what can be built and does not fit."""

    def fail(*_):
        raise RuntimeError("This part is broken.")

    name = {"optimizers": "sam", "interventions": "redo", "models": "mlp"}[kind]
    config = TrialConfig.from_flat(
        {
            "optimizer/name": "sam",
            "optimizer/schedule": "list",
            "optimizer/schedule_factors": [1.0, 0.5],
            "interventions/redo/every": 5,
        }
    )
    experiment.check_acting(config, tiny.dataset(), 2)
    with pytest.raises(StudyError, match="schedule"):
        experiment.check_acting(config, tiny.dataset(), 3)
    monkeypatch.setattr(parts.find(kind, name), "build", fail)
    experiment.check_acting(config, tiny.dataset(), 3)
