"""What is told about the code of a result: its fingerprint, its commit, where it lies, and what changed."""

import importlib.util
import json
import site
import subprocess
from pathlib import Path

import pytest

from study import provenance
from study.fingerprint import fingerprint_of

FIRST = {
    "source_fingerprint": "a" * 16,
    "git_commit": "c" * 40,
    "versions": {
        "python": "3.11.7",
        "torch": "2.10.0",
        "numpy": "2.3.0",
        "ray": "2.50.0",
        "optuna": "4.5.0",
        "mlflow": "3.8.0",
    },
}


def with_version(package, version):
    return {**FIRST, "versions": {**FIRST["versions"], package: version}}


def small_source(folder):
    """A folder with the two packages in small: this module, a part and a search space."""
    own = Path(provenance.__file__).read_text(encoding="utf-8")
    files = {
        "study/__init__.py": "",
        "study/provenance.py": own,
        "study/optimizers/sgd.py": "LR = 1\n",
        "search_spaces/__init__.py": "",
        "notes.txt": "mine\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", ["study/optimizers/mine.py", "study/data/_own/deep.py", "search_spaces/mine.py"])
def test_a_new_file_of_code_changes_the_fingerprint_and_its_removal_brings_it_back(tmp_path, name):
    before = fingerprint_of(small_source(tmp_path))
    assert len(before) == 16
    (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / name).write_text("")
    assert fingerprint_of(tmp_path) != before
    (tmp_path / name).rename(tmp_path / "elsewhere.py")
    assert fingerprint_of(tmp_path) == before


def test_a_changed_or_renamed_file_changes_the_fingerprint(tmp_path):
    before = fingerprint_of(small_source(tmp_path))
    part = tmp_path / "study" / "optimizers" / "sgd.py"
    part.write_text("LR = 2\n")
    changed = fingerprint_of(tmp_path)
    part.rename(part.with_name("sgd2.py"))
    assert len({before, changed, fingerprint_of(tmp_path)}) == 3


def test_what_is_no_code_leaves_the_fingerprint_alone(tmp_path):
    before = fingerprint_of(small_source(tmp_path))
    (tmp_path / "study" / ".#sgd.py").symlink_to("nobody@nowhere")  # the lock of an editor
    (tmp_path / "study" / "README.md").write_text("words")
    (tmp_path / "study" / "__pycache__").mkdir()
    (tmp_path / "study" / "__pycache__" / "sgd.pyc").write_bytes(b"compiled")
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "load.py").write_text("")
    assert fingerprint_of(tmp_path) == before


def commit_of(folder):
    """What this module says about its commit where it lies in that folder."""
    spec = importlib.util.spec_from_file_location("provenance_elsewhere", folder / "study" / "provenance.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.git_commit()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A small clone with one commit."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    folder = small_source(tmp_path / "clone")
    (folder / ".gitignore").write_text("ignored_*.py\n__pycache__/\nstudy-results/\n")
    author = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    for words in (("init", "-q"), ("add", "-A"), (*author, "commit", "-q", "-m", "first")):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def test_a_clean_clone_is_its_commit_whatever_lies_beside_the_code(clone):
    commit = commit_of(clone)
    assert len(commit) == 40
    for name in ("todo.txt", "study-results/mlflow.db", "my_space.py", "study/__pycache__/sgd.pyc", "study/todo.md"):
        (clone / name).parent.mkdir(exist_ok=True)
        (clone / name).write_text("")
    assert commit_of(clone) == commit


@pytest.mark.parametrize(
    "name",
    ["study/optimizers/mine.py", "study/optimizers/ignored_mine.py", "search_spaces/mine.py", "study/new/part.py"],
)
def test_a_part_that_git_does_not_track_is_a_change(clone, name):
    (clone / name).parent.mkdir(exist_ok=True)
    (clone / name).write_text("")
    assert commit_of(clone).endswith("+changes")


def test_a_tracked_file_that_differs_is_a_change(clone):
    (clone / "study" / "optimizers" / "sgd.py").write_text("LR = 2\n")
    assert commit_of(clone).endswith("+changes")


def installed(folder, monkeypatch, direct_url=None):
    """Makes `folder` the one of installed packages, with the study in it."""
    record = folder / "plasticity_study-0.1.0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: plasticity-study\nVersion: 0.1.0\n")
    if direct_url is not None:
        (record / "direct_url.json").write_text(json.dumps(direct_url))
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(folder)])


def test_the_installed_study_is_found_in_the_clone_it_was_installed_from(tmp_path, monkeypatch):
    clone = small_source(tmp_path / "my clone, 100%")
    installed(tmp_path / "packages", monkeypatch, {"url": clone.as_uri(), "dir_info": {"editable": True}})
    assert provenance.installed_folder() == clone
    assert provenance.hidden_installation() == clone


@pytest.mark.parametrize("place", ["packages", "elsewhere"])
def test_the_commit_of_an_installation_is_told_of_the_installed_code_alone(tmp_path, monkeypatch, place):
    vcs = {"url": "https://example.org/clone", "vcs_info": {"vcs": "git", "commit_id": "c" * 40}}
    installed(small_source(tmp_path / "packages"), monkeypatch, vcs)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit_of(small_source(tmp_path / place)) == ("c" * 40 if place == "packages" else None)


@pytest.mark.parametrize("direct_url", [None, {"url": "file:///gone", "dir_info": {}}], ids=["index", "folder"])
def test_the_installed_study_is_found_among_the_packages(tmp_path, monkeypatch, direct_url):
    packages = small_source(tmp_path / "packages")
    installed(packages, monkeypatch, direct_url)
    assert provenance.installed_folder() == packages


def test_an_installed_study_with_the_same_code_is_not_hidden(tmp_path, monkeypatch):
    packages, same = (small_source(tmp_path / name) for name in ("packages", "same"))
    installed(packages, monkeypatch)
    monkeypatch.setattr(provenance, "source_folder", lambda: same)
    assert provenance.hidden_installation() is None
    (same / "analysis").mkdir()
    (same / "analysis" / "load.py").write_text("")
    assert provenance.hidden_installation() == packages


def test_nothing_is_hidden_where_nothing_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path)])
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    assert provenance.installed_folder() is None
    assert provenance.hidden_installation() is None


@pytest.mark.parametrize(
    ("later", "words"),
    [
        (with_version("torch", "2.11.0+cpu"), "torch 2.10.0, then 2.11.0+cpu"),
        (with_version("python", "3.12.1"), "python 3.11.7, then 3.12.1"),
        (with_version("ray", "2.60.0"), "ray 2.50.0, then 2.60.0"),
        ({**FIRST, "source_fingerprint": "b" * 16}, f"source {'a' * 16}, then {'b' * 16}"),
        (with_version("mlflow", "3.9.0"), ""),  # shows numbers and computes none
        ({**FIRST, "git_commit": "d" * 40}, ""),  # another commit of the same code
        ({**FIRST, "host": "elsewhere"}, ""),
    ],
)
def test_a_change_of_software_is_told_with_the_old_and_the_new(later, words):
    assert provenance.software_changes([FIRST, later]) == words
    assert provenance.software_changes([FIRST, FIRST]) == ""


def test_several_changes_are_told_together_in_the_order_of_time():
    facts = [FIRST, with_version("torch", "2.11.0"), {**with_version("torch", "2.9.0"), "source_fingerprint": "b" * 16}]
    told = f"torch 2.10.0, then 2.11.0, then 2.9.0; source {'a' * 16}, then {'b' * 16}"
    assert provenance.software_changes(facts) == told


def test_records_from_before_the_fingerprint_are_compared_by_their_commit():
    before = {name: value for name, value in FIRST.items() if name != "source_fingerprint"}
    assert provenance.software_changes([before, FIRST]) == ""
    other = {**FIRST, "git_commit": "d" * 40}
    assert provenance.software_changes([before, other]) == f"commit {'c' * 40}, then {'d' * 40}"
    assert provenance.software_changes([{"rule": {}, "versions": {}}, FIRST]) == ""
