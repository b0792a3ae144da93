"""Data sets of torchvision, read from tiny files in the data sets' own formats."""

import gzip
import hashlib
import pickle
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
import tiny
import torch
import torchvision

from study import parts
from study.errors import StudyError

SETS = ("cifar10", "cifar100", "emnist", "kmnist", "svhn")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no network\nin this test")

    for module in (torchvision.datasets.mnist, torchvision.datasets.cifar):
        monkeypatch.setattr(module, "download_and_extract_archive", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def coloured(count: int, seed: int) -> np.ndarray:
    """Pictures uint8 [image, channel, row, column] whose red is 200 and more, green 100 to 199 and blue below 100."""
    pictures = np.random.default_rng(seed).integers(0, 56, (count, 3, 32, 32), dtype=np.uint8)
    return pictures + np.array([200, 100, 0], dtype=np.uint8).reshape(1, 3, 1, 1)


def write_cifar(monkeypatch, folder, name: str, labels: str, train: list[str], test: str, meta: str, classes: int):
    """Batches as CIFAR has them: a dict with `data` [image, 3072], channel after channel, and a list of labels."""
    source = getattr(torchvision.datasets, parts.find("data", name).SOURCE.class_name)
    where = folder / source.base_folder
    where.mkdir()
    pictures, truth = coloured((len(train) + 1) * classes, 0), list(range(classes)) * (len(train) + 1)
    digests = {}
    for index, file in enumerate([*train, test]):
        part = slice(index * classes, (index + 1) * classes)
        content = pickle.dumps({"data": pictures[part].reshape(classes, 3072), labels: truth[part]})
        (where / file).write_bytes(content)
        digests[file] = hashlib.md5(content).hexdigest()
    content = pickle.dumps({source.meta["key"]: [f"class {label}" for label in range(classes)]})
    (where / meta).write_bytes(content)
    monkeypatch.setattr(source, "train_list", [[file, digests[file]] for file in train])
    monkeypatch.setattr(source, "test_list", [[test, digests[test]]])
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": hashlib.md5(content).hexdigest()})
    return pictures[: len(train) * classes], truth[: len(train) * classes], pictures[-classes:], truth[-classes:]


def write_svhn(monkeypatch, folder):
    """MATLAB files with X [row, column, channel, image] and labels from 1 to 10, where 10 is the digit 0."""
    source = torchvision.datasets.SVHN
    (folder / "SVHN").mkdir()
    found, listed = [], {}
    for seed, part in enumerate(("train", "test")):
        pictures, digits = coloured(20 - 10 * seed, seed), np.arange(20 - 10 * seed) % 10
        path = folder / "SVHN" / f"{part}_32x32.mat"
        labels = np.where(digits == 0, 10, digits).astype(np.uint8).reshape(-1, 1)
        scipy.io.savemat(path, {"X": pictures.transpose(2, 3, 1, 0), "y": labels})
        listed[part] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
        found += [pictures, digits]
    monkeypatch.setattr(source, "split_list", {**source.split_list, **listed})
    return tuple(found)


def write_idx(folder, name: str, train: str, test: str, classes: int, *, exchanged: bool):
    """The four files of MNIST's format: a header of big-endian numbers, then bytes."""
    where = folder / name / "raw"
    where.mkdir(parents=True)
    found = []
    for seed, (part, count) in enumerate(((train, 2 * classes), (test, classes))):
        pictures = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % classes).astype(np.uint8)
        stored = pictures.transpose(0, 2, 1) if exchanged else pictures
        (where / f"{part}-images-idx3-ubyte").write_bytes(
            bytes([0, 0, 8, 3])
            + np.array([count, 28, 28], dtype=">i4").tobytes()
            + np.ascontiguousarray(stored).tobytes()
        )
        (where / f"{part}-labels-idx1-ubyte").write_bytes(
            bytes([0, 0, 8, 1]) + np.array([count], dtype=">i4").tobytes() + labels.tobytes()
        )
        found += [pictures[:, None], labels]
    return tuple(found)


def write(name: str, monkeypatch, folder):
    """Tiny files of a data set; returns their images [image, channel, row, column] and labels."""
    if name == "cifar10":
        batches = [f"data_batch_{number}" for number in range(1, 6)]
        return write_cifar(monkeypatch, folder, name, "labels", batches, "test_batch", "batches.meta", 10)
    if name == "cifar100":
        return write_cifar(monkeypatch, folder, name, "fine_labels", ["train"], "test", "meta", 100)
    if name == "svhn":
        return write_svhn(monkeypatch, folder)
    if name == "emnist":
        return write_idx(folder, "EMNIST", "emnist-balanced-train", "emnist-balanced-test", 47, exchanged=True)
    return write_idx(folder, "KMNIST", "train", "t10k", 10, exchanged=False)


@pytest.mark.parametrize("name", SETS)
def test_both_parts_are_read_from_the_data_sets_own_files(name, tmp_path, monkeypatch, capfd):
    train, train_labels, test, test_labels = write(name, monkeypatch, tmp_path)
    module, settings = tiny.part("data", name)
    monkeypatch.setattr(module, "SOURCE", replace(module.SOURCE, counts=(len(train), len(test))))
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    built = module.build(settings, tmp_path)
    assert built.shape == module.SOURCE.shape == train.shape[1:]
    assert built.class_count == module.SOURCE.classes
    assert torch.equal(built.train_images, torch.from_numpy(train).flatten(1)), "channel after channel, row after row"
    assert torch.equal(built.test_images, torch.from_numpy(test).flatten(1))
    assert built.train_labels.tolist() == list(train_labels)
    assert built.test_labels.tolist() == list(test_labels)
    assert built.train_images.is_contiguous()
    assert module.files(tmp_path).is_dir()
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", SETS)
def test_files_with_other_numbers_of_images_are_refused(name, tmp_path, monkeypatch):
    write(name, monkeypatch, tmp_path)
    module, settings = tiny.part("data", name)
    with pytest.raises(StudyError, match=f"'{name}' in .* is damaged: it has .* images of .* delete its files"):
        module.build(settings, tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_an_impossible_download_is_one_sentence_and_leaves_nothing(name, tmp_path, capfd):
    module, settings = tiny.part("data", name)
    folder = tmp_path / "data"
    with pytest.raises(StudyError, match=rf"'{name}' .*not there or damaged.*natural_patches[.]$") as refusal:
        module.build(settings, folder)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) - 2 * len(str(tmp_path)) < 300
    assert not folder.exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "file"), [("cifar10", "data_batch_3"), ("cifar100", "test"), ("svhn", "test_32x32.mat")]
)
def test_a_damaged_file_is_named(name, file, tmp_path, monkeypatch):
    write(name, monkeypatch, tmp_path)
    module, settings = tiny.part("data", name)
    path = module.files(tmp_path) / file
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(StudyError, match=rf"'{name}' .* is {file} damaged and cannot be downloaded"):
        module.build(settings, tmp_path)


@pytest.mark.parametrize("name", ["emnist", "kmnist"])
def test_a_file_that_was_cut_short_is_refused(name, tmp_path, monkeypatch):
    write(name, monkeypatch, tmp_path)
    module, settings = tiny.part("data", name)
    path = next(module.files(tmp_path).glob("*images*"))
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(StudyError, match=f"'{name}'.*damaged"):
        module.build(settings, tmp_path)


@pytest.mark.parametrize(
    ("name", "train", "test", "classes"),
    [("cifar10", 50_000, 10_000, 10), ("emnist", 112_800, 18_800, 47), ("kmnist", 60_000, 10_000, 10)],
)
def test_parts_of_the_published_sizes_divide_among_their_classes(name, train, test, classes):
    source = parts.find("data", name).SOURCE
    assert (source.counts, source.classes) == ((train, test), classes)
    assert train % classes == test % classes == 0


def test_a_stand_in_has_the_shape_of_the_data(monkeypatch):
    module, _ = tiny.part("data", "cifar100")
    monkeypatch.setattr(module, "SOURCE", replace(module.SOURCE, counts=(200, 100)))
    stand_in = module.stand_in()
    assert (stand_in.shape, stand_in.class_count) == ((3, 32, 32), 100)
