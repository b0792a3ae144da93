"""The command runs the installed code, whatever folder, PYTHONPATH or clone is around."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from sweep_fixtures import REPOSITORY, assert_one_sentence, clean_environment

from study import provenance

COMMAND = Path(sys.executable).with_name("study")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Another clone, in which a line was changed."""
    folder = tmp_path_factory.mktemp("other") / "clone"
    for package in ("study", "search_spaces", "analysis"):
        shutil.copytree(REPOSITORY / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "results"))
    with (folder / "study" / "training" / "trainer.py").open("a") as file:
        file.write("# edited\n")
    return folder


def started(*words, cwd, **environment):
    return subprocess.run(
        [*map(str, words)], cwd=cwd, env=clean_environment(**environment), capture_output=True, text=True, check=False
    )


@pytest.fixture
def strangers(tmp_path):
    """A folder with files and folders that have the names of ours and of others."""
    for name in ("study", "torch", "json", "rich"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    for name in ("search_spaces", "analysis"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    return tmp_path


def test_the_command_ignores_what_lies_in_the_current_folder(strangers, clone):
    for folder in (strangers, clone):
        done = started(COMMAND, "list", cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
        assert "quickstart" in done.stdout


@pytest.mark.parametrize("variable", ["/nowhere:{clone}", ":", "."], ids=["path", "empty", "dot"])
def test_another_clone_in_pythonpath_is_refused_with_both_places(clone, variable):
    done = started(COMMAND, "list", cwd=clone, PYTHONPATH=variable.format(clone=clone))
    assert_one_sentence(done.returncode, done.stdout, done.stderr)
    assert f"The study in {clone} hides the installed one in {provenance.installed_folder()}" in done.stderr


def test_a_module_run_in_another_clone_runs_that_clone_and_says_so(clone):
    done = started(sys.executable, "-m", "study", "list", cwd=clone)
    assert done.returncode == 0
    assert "quickstart" in done.stdout
    assert done.stderr == (
        f"note: this is the study in {clone}; the installed one in {provenance.installed_folder()} has other code.\n"
    )


def test_a_folder_that_hides_a_package_of_the_study_is_refused_with_both_places(tmp_path):
    (tmp_path / "analysis").mkdir()
    done = started(sys.executable, "-m", "study", "list", cwd=tmp_path)
    assert_one_sentence(done.returncode, done.stdout, done.stderr)
    assert (
        f"{tmp_path / 'analysis'} hides the package 'analysis' of the study in {provenance.source_folder()}"
        in done.stderr
    )


def test_processes_that_are_started_do_not_search_the_current_folder(here, run, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert run("list")[0] == 0
    assert os.environ["PYTHONSAFEPATH"]


def test_every_command_is_refused_where_other_code_hides_the_installed(refused, here, monkeypatch):
    monkeypatch.setattr(provenance, "installed_folder", lambda: here / "installed")
    for words in (("run", "quickstart"), ("resume", "any"), ("report", "any"), ("list",)):
        assert f"hides the installed one in {here / 'installed'}" in refused(*words)


def test_a_module_run_is_told_from_the_command(here, run, monkeypatch):
    monkeypatch.setattr(provenance, "installed_folder", lambda: here / "installed")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="study.__main__"))
    code, _, err = run("list")
    assert code == 0
    assert err.startswith(f"note: this is the study in {provenance.source_folder()}; ")
