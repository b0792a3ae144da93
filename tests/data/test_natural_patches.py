"""The natural patches: sizes, no pixel in both parts, and nothing to learn from colour and contrast alone."""

from pathlib import Path

import pytest
import tiny
import torch

from study import parts
from study.config import TrialConfig
from study.data import natural_patches
from study.errors import StudyError
from study.training.trainer import train

PIXELS = 32 * 32


@pytest.fixture(scope="module")
def patches():
    module, settings = tiny.part("data", "natural_patches")
    return module.build(settings, Path("no such folder"))


def test_each_photograph_has_400_training_and_100_test_patches_in_colour(patches):
    assert patches.shape == (3, 32, 32)
    assert patches.train_labels.bincount().tolist() == [400] * 10
    assert patches.test_labels.bincount().tolist() == [100] * 10
    assert patches.fingerprint == natural_patches.FINGERPRINT


def test_no_pixel_of_a_photograph_is_in_a_training_and_in_a_test_tile():
    photograph = torch.arange(200 * 330).view(1, 200, 330)
    train, test = natural_patches._tiles(photograph)
    assert train.shape[1:] == test.shape[1:] == (1, 64, 64)
    assert (len(train), len(test)) == (11, 4)
    together = torch.cat([train, test]).flatten()
    assert len(together.unique()) == len(together) == 15 * 64 * 64
    columns = {int(tile[0, 0, 0]) % 330 // 64 for tile in test}
    assert len(columns) > 1, "the test tiles are not one side of the picture"


def test_patches_are_cut_within_a_tile_and_flat_ones_are_left_out():
    tiles = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    cut = natural_patches._cut(tiles)
    assert cut.shape == (2 * 25, 3, 32, 32)
    assert torch.equal(cut[1], tiles[0, :, :32, 8:40])
    assert torch.equal(cut[25], tiles[1, :, :32, :32])
    tiles[1, 2] = 7
    assert len(natural_patches._cut(tiles)) == 25


def test_every_channel_of_every_patch_has_the_same_mean_and_contrast(patches):
    """Up to the values that are clipped, as those of bright stars are."""
    values = torch.cat([patches.train_images, patches.test_images]).view(-1, 3, PIXELS).double()
    kept = ((values > 0) & (values < 255)).all(dim=2)
    assert kept.float().mean() > 0.05
    assert (values.mean(dim=2)[kept] - 128).abs().max() < 0.5
    assert (values.std(dim=2, correction=0)[kept] - 64).abs().max() < 0.5
    assert (values.mean(dim=2) - 128).abs().max() < 8


def test_colour_and_contrast_before_standardising_would_have_told_the_photographs_apart():
    """Two photographs that differ in colour alone give the same patches."""
    draw = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 100, (4, 3, 32, 32), generator=draw).to(torch.uint8)
    brighter = pictures * 2 + torch.tensor([5, 30, 55]).view(3, 1, 1).to(torch.uint8)
    assert torch.equal(natural_patches._standardised(pictures), natural_patches._standardised(brighter))


@pytest.mark.parametrize("damage", ["gone", "cut", "another"])
def test_a_damaged_photograph_is_named_with_its_package(damage, tmp_path, monkeypatch):
    for _, file in natural_patches.PHOTOGRAPHS:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(natural_patches._path(file))
    broken = tmp_path / "skimage/data/coffee.png"
    content = broken.read_bytes()
    broken.unlink()
    if damage == "cut":
        broken.write_bytes(content[:100_000])
    elif damage == "another":
        broken.symlink_to(natural_patches._path("skimage/data/ihc.png"))
    monkeypatch.setattr(natural_patches, "_path", lambda file: tmp_path / file)
    natural_patches._patches.cache_clear()
    module, settings = tiny.part("data", "natural_patches")
    try:
        with pytest.raises(StudyError, match="scikit-image") as refusal:
            module.build(settings, tmp_path)
    finally:
        natural_patches._patches.cache_clear()
    message = str(refusal.value)
    assert message.endswith(".")
    assert len(message) <= 300
    assert damage == "another" or "'skimage/data/coffee.png'" in message


def test_a_convolutional_network_learns_to_tell_two_photographs_apart():
    plain = {
        "data": {"name": "natural_patches"},
        "tasks": {"name": "class_pairs", "count": 1, "order_seed": 1},
        "model": {"name": "cnn"},
        "optimizer": {"name": "sgd", "lr": 0.05},
        "training": {"passes": 5, "device": "cpu", "pixels": "standardized"},
        "diagnostics": {"units_every": 0, "curvature_every": 0, "forgetting_every": 0},
        "seeds": [0, 1, 2],
    }
    (result,) = train(tiny.built(parts.complete(TrialConfig.from_plain(plain))))
    assert result.test_accuracy.min() > 0.7  # of test tiles that no training patch overlaps
