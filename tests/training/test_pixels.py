"""The scale of pixels: 0 to 1, -1 to 1, or standardised."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import twins
from torch import Tensor

from study import parts
from study.config import LATER_PART_SETTINGS, LATER_SETTINGS, Choice, TrialConfig, later_settings
from study.errors import StudyError
from study.experiment import build, load_dataset, stacks
from study.pixels import scale_of
from study.training import checkpoint
from study.training.minibatches import Feed
from study.training.steps import Steps
from study.training.trainer import initial_state

WORDS = ("unit", "symmetric", "standardized")
COLOURS = {"shape": (2, 7, 6)}


def plainly(word: str, images: Tensor, all_images: Tensor, channels: int) -> np.ndarray:
    """Images [image, feature] in float64, by NumPy."""
    x, of = (each.numpy().astype(float).reshape(len(each), channels, -1) / 255 for each in (images, all_images))
    if word == "standardized":
        deviation = of.std(axis=(0, 2), keepdims=True)
        deviation[deviation == 0] = 1
        x = (x - of.mean(axis=(0, 2), keepdims=True)) / deviation
    return (2 * x - 1 if word == "symmetric" else x).reshape(len(images), -1)


def scaled(word: str, images):
    """A data set whose pixels have that scale."""
    return replace(images, scale=scale_of(word, images.train_images, images.shape[0]))


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 3, 2)])
def test_pixels_are_scaled_as_numpy_does_it_and_moved_afterwards(word, shape):
    images = tiny.dataset(shape=shape)
    first = scaled(word, images).scale
    order = torch.stack([torch.randperm(images.train_images.shape[1]) for _ in range(2)])
    for some in (images.train_images[:6], images.test_images[:6]):
        expected = torch.from_numpy(plainly(word, some, images.train_images, shape[0]))
        lanes = some.view(2, 3, -1)
        inputs, moved = first.inputs(lanes), first.inputs(lanes, order)
        assert inputs.dtype == torch.float32
        torch.testing.assert_close(inputs.flatten(0, 1).double(), expected, rtol=1e-6, atol=1e-6)
        for lane in range(2):
            assert torch.equal(moved[lane], inputs[lane][:, order[lane]])


def test_standardized_training_images_have_mean_0_and_deviation_1_in_each_channel():
    images = tiny.dataset(shape=(3, 4, 4))
    x = scaled("standardized", images).scale.inputs(images.train_images.unsqueeze(0)).double().view(-1, 3, 16)
    torch.testing.assert_close(x.mean((0, 2)), torch.zeros(3).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(x.std((0, 2), correction=0), torch.ones(3).double(), rtol=1e-6, atol=0)


def test_symmetric_pixels_reach_from_minus_1_to_1():
    ends = scale_of("symmetric", torch.zeros(1, 1, dtype=torch.uint8), 1).inputs(
        torch.tensor([0, 255]).byte().view(1, 1, 2)
    )
    torch.testing.assert_close(ends.flatten(), torch.tensor([-1.0, 1.0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("grey", [0, 77, 255])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_channel_without_variation_is_moved_to_0_and_divides_nothing_by_0(grey, channels):
    images = tiny.dataset(shape=(channels, 3, 3)).train_images.clone()
    images[:, :9] = grey
    scale = scale_of("standardized", images, channels)
    assert scale.inputs(images.unsqueeze(0))[..., :9].abs().max() == 0
    others = (torch.arange(256).byte().view(1, 256, 1)).expand(1, 256, images.shape[1])
    assert scale.inputs(others)[..., :9].abs().max() <= 1, "a test image may differ"


@pytest.mark.parametrize("moves", [False, True])
def test_unit_is_what_it_always_was_to_the_last_bit(moves):
    images = torch.arange(256, dtype=torch.uint8).view(2, 4, 32)
    order = torch.stack([torch.randperm(32) for _ in range(2)]) if moves else None
    expected = torch.stack([lane[:, order[i]] if moves else lane for i, lane in enumerate(images)]).float() * (1 / 255)
    assert torch.equal(scale_of("unit", images, 1).inputs(images, order), expected)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    ("given", "tasks", "task_settings"),
    [
        ({}, "permuted_pixels", {}),
        ({}, "class_pairs", {}),
        ({"images": COLOURS}, "permuted_pixels", {}),
        (tiny.CNN, "permuted_pixels", {"whole_pixels": True}),
        (tiny.CNN, "permuted_pixels", {"whole_pixels": False}),
        (tiny.CNN, "class_pairs", {}),
    ],
    ids=["mlp, permuted", "mlp, pairs", "mlp, colours", "cnn, whole pixels", "cnn, all values", "cnn, pairs"],
)
@tiny.float64()
def test_training_equals_a_plain_loop_on_pixels_scaled_by_numpy(word, given, tasks, task_settings, monkeypatch):
    """Training, held-out and test images; some pixels are always black, which are not 0 in each scale."""
    images = tiny.dataset(**given.get("images", {}))
    black = torch.arange(images.train_images.shape[1]) % 2 == 1
    images = replace(
        images, **{name: getattr(images, name).where(~black, 0) for name in ("train_images", "test_images")}
    )

    def pictures(some, chosen, task, lane):
        x = torch.from_numpy(plainly(word, some[chosen], images.train_images, images.shape[0]))
        return x if task.pixel_order is None else x[:, task.pixel_order[lane]]

    monkeypatch.setattr(twins, "pictures", pictures)
    experiment = tiny.experiment(
        "sam", tasks=tasks, task_settings=task_settings, **given | {"images": scaled(word, images)}
    )
    make_step, _ = twins.plain_step("sam", 0.1)
    twins.assert_twins(experiment, make_step, {"rtol": 1e-4, "atol": 1e-5})


def test_black_pixels_are_left_out_only_where_black_is_0():
    images = tiny.dataset()
    images.train_images[:, :3] = 0
    counts = {}
    for word in WORDS:
        experiment = tiny.experiment(images=scaled(word, images), tasks="class_pairs")
        counts[word] = (
            Steps(experiment, initial_state(experiment).weights).feed(experiment.tasks.task(0)).pictures.pixels
        )
    assert counts["unit"] is not None
    assert counts["symmetric"] is counts["standardized"] is None


@pytest.mark.parametrize("word", WORDS)
def test_an_experiment_has_the_scale_of_its_configuration(word):
    config = TrialConfig.from_plain({"tasks": {"count": 1}, "training": {"pixels": word, "device": "cpu"}})
    experiment = tiny.built(config)
    inputs, _ = Feed(experiment.dataset, experiment.tasks.task(0), "cpu").sample((0,), 20)
    assert float(inputs.min()) == pytest.approx({"unit": 0, "symmetric": -1, "standardized": -0.424}[word], abs=0.02)
    assert float(inputs.max()) == pytest.approx({"unit": 1, "symmetric": 1, "standardized": 2.8}[word], abs=0.1)
    assert build(config, load_dataset(config, Path("nowhere"))).dataset is experiment.dataset, "measured once"


def test_trials_of_different_scales_are_not_stacked():
    configs = {word: parts.complete(TrialConfig.from_plain({"training": {"pixels": word}})) for word in WORDS}
    assert stacks(configs | {"again": configs["symmetric"]}) == [["unit"], ["symmetric", "again"], ["standardized"]]


def test_another_scale_is_refused_with_those_that_there_are():
    with pytest.raises(
        StudyError, match=r"training/pixels='raw' is not possible: .*'unit', 'symmetric' or 'standardized'"
    ):
        TrialConfig.from_plain({"training": {"pixels": "raw"}})


# --- what earlier versions wrote -------------------------------------------------------------------------------------

EARLIER = {
    "data": {"name": "mnist5k"},
    "tasks": {"name": "class_pairs", "count": 2, "images_per_task": None, "validation_fraction": 0.25},
    "model": {"name": "mlp", "widths": [5]},
    "optimizer": {"name": "sam", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "rho": 0.05},
    "interventions": {},
    "training": {"batch_size": 8, "passes": 1, "device": "auto"},
    "diagnostics": {
        "images": 1000,
        "units_every": 1,
        "curvature_every": 10,
        "forgetting_every": 10,
        "rho": 0.05,
        "probes": 10,
        "dormant_below": 0.025,
        "leave_out": [],
    },
    "seeds": [0, 1],
}
"""A configuration as a record has it that knows no scale of pixels."""


def test_a_checkpoint_from_before_there_were_scales_stays_valid():
    config = TrialConfig.from_plain(EARLIER)
    assert config.training.pixels == LATER_SETTINGS["training/pixels"] == "unit"
    assert checkpoint.identity(config, "f" * 16) == "a12b07f2f2cef7be", "as that version computed it"
    words = [config.model_copy(update={"training": config.training.model_copy(update={"pixels": w})}) for w in WORDS]
    assert len({checkpoint.identity(each, "f" * 16) for each in words}) == 3


@pytest.mark.parametrize(("name", "written"), [("sam", "07472e666b4839b2"), ("gnp", "7ce53d0adcc26e67")])
def test_a_checkpoint_from_before_a_rule_had_a_base_and_a_schedule_stays_valid(name, written):
    config = parts.complete(TrialConfig.from_flat({"optimizer/name": name, "seeds": [0, 1]}))
    later = later_settings(config.flat())
    earlier = TrialConfig.from_flat(
        {key: value for key, value in config.flat().items() if key not in later} | {"seeds": [0, 1]}
    )
    assert later.keys() >= {"optimizer/base", "optimizer/beta1", "optimizer/schedule", "optimizer/schedule_factors"}
    for each in (config, earlier, parts.complete(earlier)):
        assert checkpoint.identity(each, "f" * 16) == written, "as that version computed it"
    for given in ({"base": "adamw"}, {"schedule": "linear"}):
        optimizer = Choice.model_validate(config.optimizer.model_dump() | given)
        other = parts.complete(config.model_copy(update={"optimizer": optimizer}))
        assert checkpoint.identity(other, "f" * 16) != written


def test_every_later_setting_has_the_value_of_earlier_versions_by_default():
    assert TrialConfig().flat().items() >= LATER_SETTINGS.items()
    for (section, part), later in LATER_PART_SETTINGS.items():
        config = parts.complete(TrialConfig.from_flat({f"{section}/name": part})).flat()
        assert config.items() >= {f"{section}/{name}": value for name, value in later.items()}.items()
