"""Places of checkpoints: folders and addresses."""

import pytest

from study.errors import StudyError
from study.sweep import storage


@pytest.mark.parametrize(
    ("place", "inside"),
    [
        ("/data/sweeps", "/data/sweeps/a/b"),
        ("s3://bucket/prefix/", "s3://bucket/prefix/a/b"),
        ("s3://bucket?endpoint_override=h%3A1&scheme=http", "s3://bucket/a/b?endpoint_override=h%3A1&scheme=http"),
    ],
)
def test_a_place_within_a_place_keeps_the_query_of_an_address(place, inside):
    assert storage.within(place, "a", "b") == inside


@pytest.mark.parametrize(
    ("place", "path", "full"),
    [
        ("/data", "/data/x", "/data/x"),
        ("s3://bucket/prefix", "bucket/prefix/x", "s3://bucket/prefix/x"),
        ("s3://bucket/prefix?region=x", "bucket/prefix/x", "s3://bucket/prefix/x?region=x"),
    ],
)
def test_a_path_of_a_file_system_has_a_full_place(place, path, full):
    assert storage.address_of(place, path) == full


def test_a_folder_becomes_a_path_in_full(here):
    assert storage.check("sub/folder") == str(here / "sub" / "folder")
    assert not (here / "sub").exists()


@pytest.mark.parametrize("place", ["nosuch://bucket/x", "s3://", "://x"])
def test_an_address_that_no_file_system_belongs_to_is_refused(place):
    with pytest.raises(StudyError, match=r"^--storage .* cannot be used .*s3://BUCKET/PREFIX[.]$"):
        storage.check(place)


def test_a_mark_that_is_left_is_found_and_removed(tmp_path):
    place = str(tmp_path / "new" / "folder")
    storage.leave(place, "mark", "text")
    assert storage.read(place, "mark") == b"text"
    for _ in range(2):
        storage.remove(place, "mark")
    with pytest.raises(OSError, match="mark"):
        storage.read(place, "mark")


def test_what_cannot_be_a_folder_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        storage.leave(str(tmp_path / "file"), "mark", "text")


@pytest.mark.parametrize("address", [str, lambda path: path.as_uri()], ids=["folder", "address"])
def test_a_folder_is_measured_and_deleted_alike_in_a_folder_and_at_an_address(tmp_path, address):
    place = address(tmp_path / "place")
    assert (storage.entries(place), storage.usage(place)) == ([], storage.Usage())
    for name in ("b/c/state", "b/other", "a"):
        path = tmp_path / "place" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    assert storage.entries(place) == ["a", "b"]
    assert storage.usage(place) == storage.Usage(3, 3000)
    assert str(storage.usage(storage.within(place, "a"))) == "0.0 MB in 1 file"
    storage.delete(storage.within(place, "b"))
    assert storage.entries(place) == ["a"]
    storage.delete(storage.within(place, "a"))
    storage.delete(storage.within(place, "gone"))
    assert storage.entries(place) == []
