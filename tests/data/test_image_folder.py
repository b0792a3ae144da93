"""Folders of one's own images: classes, both ways to split, resizing, the cache, and what is wrong told by name."""

import os

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from study.data import image_folder
from study.errors import StudyError


def build(folder, **given):
    module, settings = tiny.part("data", "image_folder", {"size": 4, **given})
    return module.build(settings, folder)


def cached(folder):
    return sorted((folder / "image_folder").iterdir())


def test_train_and_test_folders_are_the_two_parts_and_classes_are_in_alphabetical_order(tmp_path):
    tiny.image_files(tmp_path / "images/train", ("zebra", "ant"), 3, (4, 4))
    tiny.image_files(tmp_path / "images/test", ("ant", "zebra"), 2, (4, 4))
    built = build(tmp_path)
    assert built.shape == (3, 4, 4)
    assert built.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert built.test_labels.tolist() == [0, 0, 1, 1]
    pixels = np.asarray(Image.open(tmp_path / "images/train/zebra/1.png"))
    assert torch.equal(built.train_images[4], torch.from_numpy(pixels.transpose(2, 0, 1).copy()).flatten())


def test_without_these_folders_a_share_of_each_class_tests(tmp_path):
    tiny.image_files(tmp_path / "own", ("ant", "bee", "cat"), 10)
    built = build(tmp_path, path=str(tmp_path / "own"), test_fraction=0.3, colour=False)
    assert built.shape == (1, 4, 4)
    assert built.train_labels.bincount().tolist() == [7] * 3
    assert built.test_labels.bincount().tolist() == [3] * 3
    images = torch.cat([built.train_images, built.test_images])
    assert len(images.unique(dim=0)) == 30, "no image is in both parts"
    assert build(tmp_path, path="own", test_fraction=0.3, colour=False).fingerprint == built.fingerprint


def test_images_are_turned_cut_to_a_square_and_resized(tmp_path):
    tiny.image_files(tmp_path / "images", ("ant", "bee"), 2)
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = (10, 20, 30)
    wide[:4, 8:16, 0] = 110
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    for name in ("0", "1"):
        Image.fromarray(wide).save(tmp_path / f"images/ant/{name}.png", exif=turned if name == "1" else None)
    built = build(tmp_path, test_fraction=0.5, size=8)
    found = {tuple(row.tolist()) for row in torch.cat([built.train_images[:1], built.test_images[:1]])}
    bright, dark, other = (110,) * 32, (10,) * 32, (20,) * 64 + (30,) * 64
    assert found == {bright + dark + other, dark + bright + other}
    smaller = build(tmp_path, test_fraction=0.5, size=2)
    assert smaller.shape == (3, 2, 2)
    assert (smaller.train_images[0].view(3, 4)[1:] > 10).all(), "the black sides are cut off"


def test_other_files_and_hidden_ones_are_passed_over_and_images_may_lie_deeper(tmp_path):
    tiny.image_files(tmp_path / "images", ("ant/images", "bee"), 4)
    (tmp_path / "images/ant/boxes.txt").write_text("no image")
    (tmp_path / "images/ant/._0.png").write_bytes(b"what some file systems leave")
    (tmp_path / "images/README.md").write_text("no class")
    (tmp_path / "images/empty").mkdir()
    built = build(tmp_path, test_fraction=0.25)
    assert built.train_labels.bincount().tolist() == [3, 3]


def test_images_are_read_once_until_a_file_or_a_setting_changes(tmp_path, monkeypatch):
    tiny.image_files(tmp_path / "images", ("ant", "bee"), 5)
    first = build(tmp_path)
    assert len(cached(tmp_path)) == 1
    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "_picture", lambda *_: pytest.fail("the image was read again"))
        again = build(tmp_path)
    assert again.fingerprint == first.fingerprint
    assert build(tmp_path, size=5).fingerprint != first.fingerprint
    Image.new("RGB", (4, 3), (1, 2, 3)).save(tmp_path / "images/ant/0.png")
    os.utime(tmp_path / "images/ant/0.png", (1, 1))
    assert build(tmp_path).fingerprint != first.fingerprint
    assert len(cached(tmp_path)) == 3


def test_a_damaged_cache_is_read_anew(tmp_path):
    tiny.image_files(tmp_path / "images", ("ant", "bee"), 5)
    first = build(tmp_path)
    (cache,) = cached(tmp_path)
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2])
    assert build(tmp_path).fingerprint == first.fingerprint
    assert cached(tmp_path) == [cache], "and nothing unfinished is left"
    assert len(cache.read_bytes()) == len(whole)


def test_where_nothing_can_be_kept_images_are_read_all_the_same(tmp_path):
    tiny.image_files(tmp_path / "images", ("ant", "bee"), 5)
    (tmp_path / "image_folder").write_text("a file in the way")
    assert build(tmp_path).class_count == 2


def only_one_class(images):
    tiny.image_files(images, ("ant",), 5)
    return ["at least two classes", "it has 1"]


def no_folder(images):
    return ["There is no folder", "data/path"]


def a_class_without_test_images(images):
    tiny.image_files(images / "train", ("ant", "bee"), 2)
    tiny.image_files(images / "test", ("ant",), 2)
    return ["'bee'", "`train` and `test`"]


def too_few_to_split(images):
    tiny.image_files(images, ("ant", "bee"), 1)
    return ["data/test_fraction=0.2", "'ant'"]


def a_cut_image(images):
    tiny.image_files(images, ("ant", "bee"), 5, (40, 40))
    path = images / "bee" / "3.png"
    path.write_bytes(path.read_bytes()[:1000])
    return ["bee/3.png", "delete or replace"]


def text_in_an_image(images):
    tiny.image_files(images, ("ant", "bee"), 5)
    (images / "ant" / "2.png").write_text("no image")
    return ["ant/2.png", "cannot be read"]


@pytest.mark.parametrize(
    "wrong",
    [only_one_class, no_folder, a_class_without_test_images, too_few_to_split, a_cut_image, text_in_an_image],
)
def test_what_is_wrong_is_told_by_name_and_leaves_nothing(wrong, tmp_path):
    words = wrong(tmp_path / "images")
    with pytest.raises(StudyError) as refusal:
        build(tmp_path)
    message = str(refusal.value)
    assert all(word in message for word in words), message
    assert message.endswith(".")
    assert "\n" not in message
    assert not (tmp_path / "image_folder").exists()


def test_more_images_than_memory_are_refused_before_one_is_read(tmp_path, monkeypatch):
    tiny.image_files(tmp_path / "images", ("ant", "bee"), 5)
    monkeypatch.setattr(image_folder.provenance, "memory_bytes", lambda: 10 * 48 - 1)
    with pytest.raises(StudyError, match="GiB of memory at data/size=4"):
        build(tmp_path)
