"""A damaged or swapped file of a published data set is named, wherever the data set is used."""

import dataclasses
import gzip
import shutil
import urllib.error
import urllib.request

import pytest
import tiny
import torchvision.datasets.mnist

from study.data import fashion_mnist, from_torchvision, mnist5k
from study.errors import StudyError

TRAIN, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
FILES = (TRAIN, TRAIN_LABELS, TEST, TEST_LABELS)


@pytest.fixture
def raw(tmp_path, data_dir):
    """A folder of MNIST whose files are links to the intact ones; a test replaces some of them."""
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).symlink_to(data_dir / "MNIST" / "raw" / name)
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def one_label_200(raw):
    content = bytearray((raw / TRAIN_LABELS).read_bytes())
    content[8 + 41_000] = 200
    replace(raw / TRAIN_LABELS, content)
    return [TRAIN_LABELS]


def half_of_the_images_zero(raw):
    content = (raw / TRAIN).read_bytes()
    replace(raw / TRAIN, content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    return [TRAIN]


def one_pixel_of_a_test_image(raw):
    content = bytearray((raw / TEST).read_bytes())
    content[-1] ^= 1
    replace(raw / TEST, content)
    return [TEST]


def two_labels_swapped(raw):
    content = bytearray((raw / TEST_LABELS).read_bytes())
    content[8], content[9] = content[9], content[8]
    replace(raw / TEST_LABELS, content)
    return [TEST_LABELS]


def cut_short(raw):
    replace(raw / TRAIN, (raw / TRAIN).read_bytes()[:1_000_000])
    return [TRAIN]


def something_appended(raw):
    replace(raw / TEST_LABELS, (raw / TEST_LABELS).read_bytes() + b"\n")
    return [TEST_LABELS]


def packed_under_the_unpacked_name(raw):
    replace(raw / TEST_LABELS, gzip.compress((raw / TEST_LABELS).read_bytes()))
    return [TEST_LABELS]


def images_of_training_and_test_swapped(raw):
    (raw / TRAIN).rename(raw / "other")
    (raw / TEST).rename(raw / TRAIN)
    (raw / "other").rename(raw / TEST)
    return [TRAIN, TEST]


def training_and_test_swapped(raw):
    images_of_training_and_test_swapped(raw)
    (raw / TRAIN_LABELS).rename(raw / "other")
    (raw / TEST_LABELS).rename(raw / TRAIN_LABELS)
    (raw / "other").rename(raw / TEST_LABELS)
    return ["none of its files"]


def fashion_mnist_in_its_place(raw):
    shutil.rmtree(raw)
    raw.symlink_to((raw.parent.parent / "intact").readlink() / "FashionMNIST" / "raw")
    return ["none of its files"]


def labels_of_fashion_mnist(raw):
    replace(raw / TEST_LABELS, ((raw.parent.parent / "intact") / "FashionMNIST" / "raw" / TEST_LABELS).read_bytes())
    return [TEST_LABELS]


DAMAGES = (
    one_label_200,
    half_of_the_images_zero,
    one_pixel_of_a_test_image,
    two_labels_swapped,
    cut_short,
    something_appended,
    packed_under_the_unpacked_name,
    images_of_training_and_test_swapped,
    training_and_test_swapped,
    fashion_mnist_in_its_place,
    labels_of_fashion_mnist,
)


def build(name, folder):
    module, settings = tiny.part("data", name)
    return module.build(settings, folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_swapped_file_is_named(damage, raw, data_dir):
    (raw.parent.parent / "intact").symlink_to(data_dir)
    damaged = damage(raw)
    with pytest.raises(StudyError) as refusal:
        build("mnist", raw.parent.parent)
    message = str(refusal.value)
    assert f"The data set 'mnist' in {str(raw)!r} is damaged (" in message
    assert len(message) - len(str(raw)) < 240
    for name in FILES:
        assert (name in message) == (name in damaged), message
    assert all(word in message for word in damaged)


def test_intact_files_are_accepted_and_a_later_damage_is_noticed(raw):
    before = {path.name: path.stat() for path in raw.iterdir()}
    assert build("mnist", raw.parent.parent).fingerprint == "1e35582d42a90940"
    assert {path.name: path.stat() for path in raw.iterdir()} == before, "nothing is written beside the data"
    one_label_200(raw)
    with pytest.raises(StudyError, match=TRAIN_LABELS):
        build("mnist", raw.parent.parent)


def test_a_damaged_packed_file_is_named(raw):
    """torchvision unpacks a packed file where the unpacked one is missing."""
    (raw / TEST_LABELS).unlink()
    (raw / f"{TEST_LABELS}.gz").write_bytes(b"cut short")
    with pytest.raises(StudyError, match=rf"damaged [(]{TEST_LABELS}.gz is not the published file[)]"):
        build("mnist", raw.parent.parent)


def test_a_missing_file_is_not_called_damaged(raw):
    (raw / TEST_LABELS).unlink()
    with pytest.raises(StudyError, match=r"cannot be downloaded .*unpack its files there"):
        build("mnist", raw.parent.parent)


@pytest.mark.parametrize(
    "words",
    [
        ("run", "quickstart", "--set", "data/name=mnist"),
        ("run", "quickstart", "--set", "data/name=mnist", "--dry-run"),
        ("trial", "mine.yaml"),
    ],
)
def test_commands_refuse_a_damaged_file_before_any_training(words, raw, here, run):
    one_label_200(raw)
    (here / "mine.yaml").write_text("data: {name: mnist}\n")
    before = sorted(here.iterdir())
    code, out, err = run(*words, "--data-dir", raw.parent.parent)
    assert (code, out) == (2, "")
    assert f"is damaged ({TRAIN_LABELS} is not the published file)" in err
    assert sorted(here.iterdir()) == before


def test_the_doctor_calls_a_damaged_file_a_problem(raw, here, run):
    half_of_the_images_zero(raw)
    code, out, err = run("doctor", "--address", "127.0.0.1:1", "--data-dir", raw.parent.parent)
    assert code == 1
    assert any(line.split() == ["mnist", "damaged"] for line in out.splitlines())
    assert f"is damaged ({TRAIN} is not the published file)" in err


@pytest.mark.parametrize("damage", ["label", "pixel", "row", "cut", "gone"])
def test_a_damaged_file_of_mnist5k_is_named(damage, tmp_path, monkeypatch):
    content = mnist5k.FILE.read_bytes()
    lines = gzip.decompress(content).splitlines(keepends=True)
    if damage == "label":
        lines[7] = lines[7].rstrip()[:-1] + b"9\n"
    elif damage == "pixel":
        lines[4999] = b"1" + lines[4999][1:]
    elif damage == "row":
        lines.pop()
    file = tmp_path / "mnist_5k.csv.gz"
    if damage != "gone":
        file.write_bytes(content[:-1000] if damage == "cut" else gzip.compress(b"".join(lines), 1))
    monkeypatch.setattr(mnist5k, "FILE", file)
    with pytest.raises(StudyError, match=r"'mnist5k' in '.*mnist_5k.csv.gz' is damaged .*reinstall"):
        build("mnist5k", tmp_path)


def test_fashion_mnist_of_the_operating_system_is_found_unless_it_was_downloaded(tmp_path, data_dir):
    place = tmp_path / "packaged"
    published = dataclasses.replace(fashion_mnist.PUBLISHED, packaged=place)
    assert published.place(tmp_path) == published.raw(tmp_path)
    place.mkdir()
    for name in FILES:
        content = (data_dir / "FashionMNIST" / "raw" / name).read_bytes()
        (place / f"{name}.gz").write_bytes(gzip.compress(content, 1))
    assert published.place(tmp_path) == place
    assert published.place(data_dir) == published.raw(data_dir)
    assert from_torchvision(published, tmp_path).fingerprint == published.fingerprint
    for content in (b"", gzip.compress(b"other"), b"no gzip"):
        replace(place / f"{TEST_LABELS}.gz", content)
        with pytest.raises(
            StudyError, match=f"{TEST_LABELS}.gz of the data set 'fashion_mnist' in .* is not the published"
        ):
            from_torchvision(published, tmp_path)
