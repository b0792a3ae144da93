"""Any folder has an address, and an address leads back to it."""

import os
from pathlib import Path

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from study import addresses

NAMES = [
    "plain",
    "two words",
    "a?b",
    "a?b=c",
    "x%20y",
    "100%",
    "%",
    "#1",
    'it\'s "so"',
    "a&b;c",
    "Größe 大",
    "~",
    "~nobody",
    "-x",
    "[bold]",
    "user:pw@host",
    "file:x",
    "back\\slash",
]


def tables(address):
    engine = sqlalchemy.create_engine(address)
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("create table t (x)"))
    finally:
        engine.dispose()


@pytest.mark.parametrize("name", NAMES)
def test_a_database_is_made_in_the_folder_and_nothing_beside_it(tmp_path, name):
    folder = tmp_path / "only" / name
    folder.mkdir(parents=True)
    address = addresses.database(folder / "m.db")
    tables(address)
    assert sorted(tmp_path.rglob("*")) == sorted([tmp_path / "only", folder, folder / "m.db"])
    assert addresses.database_file(address) == folder / "m.db"
    assert addresses.absolute(address) == address


@pytest.mark.parametrize("name", NAMES)
def test_a_connection_that_only_reads_neither_makes_nor_changes_a_file(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    address = addresses.read_only(addresses.database(folder / "m.db"))
    with pytest.raises(sqlalchemy.exc.OperationalError, match="unable to open"):
        tables(address)
    assert list(folder.iterdir()) == []
    (folder / "m.db").touch()
    with pytest.raises(sqlalchemy.exc.OperationalError, match="readonly"):
        tables(address)
    assert addresses.database_file(address) == folder / "m.db"


@pytest.mark.parametrize("name", NAMES)
def test_a_relative_address_is_made_absolute_in_the_folder_of_the_command(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    address = addresses.absolute("sqlite:///deep/mine.db")
    monkeypatch.chdir(tmp_path)
    assert addresses.database_file(address) == folder / "deep" / "mine.db"
    assert addresses.database_file(addresses.absolute("sqlite:////deep/a?b/m.db")) == Path("/deep/a?b/m.db")


@pytest.mark.parametrize(
    "address", ["http://host:5000", "postgresql://host/db", "mlruns", "file:///x", "sqlite://", ""]
)
def test_other_addresses_stay_as_they_are(address):
    assert addresses.absolute(address) == addresses.read_only(address) == address
    assert addresses.database_file(address) is None


def test_options_of_an_address_are_kept(tmp_path):
    address = addresses.absolute(f"sqlite:///{tmp_path}/m.db?timeout=3")
    assert addresses.database_file(address) == tmp_path / "m.db"
    assert sqlalchemy.make_url(address).query["timeout"] == "3"


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1), min_size=1))
def test_paths_come_back_from_their_addresses(parts):
    path = Path(os.path.normpath("/" + "/".join(part for part in parts if part not in (".", ".."))))
    if len(path.parts) > 1:
        assert addresses.local_folder(path.as_uri()) == path
        assert addresses.database_file(addresses.database(path)) == path
        system, found = fs.FileSystem.from_uri(path.as_uri())  # as checkpoints of `--storage file://...` are read
        assert (system.type_name, found) == ("local", str(path))


@pytest.mark.parametrize("name", NAMES)
def test_what_lies_in_a_folder_moves_with_it_and_nothing_else(name):
    before, now = Path("/old") / name, Path("/new") / name
    for inside in (str, Path.as_uri, addresses.database):
        assert addresses.moved(inside(before / "a b"), before, now) == inside(now / "a b")
        assert addresses.moved(inside(Path("/old/other")), before, now) == inside(Path("/old/other"))
        assert addresses.moved(inside(Path(f"{before}2")), before, now) == inside(Path(f"{before}2"))
    assert addresses.moved("s3://old/x", before, now) == "s3://old/x"


def test_a_leading_tilde_is_home_only_before_a_slash(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    assert addresses.full_path("~/data") == tmp_path / "me" / "data"
    assert addresses.full_path("~data") == tmp_path / "~data"
    assert addresses.full_path("~root/data") == tmp_path / "~root" / "data"
