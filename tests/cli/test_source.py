"""The command runs the installed code, whatever folder, PYTHONPATH or clone is around."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_fixtures import FACTS, REPOSITORY, assert_one_sentence, clean_environment, folder_of, run_all

from study import provenance
from study.cli import launch, trial

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
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(COMMAND), raising=False)
    for words in (("run", "quickstart"), ("resume", "any"), ("report", "any"), ("list",)):
        assert f"hides the installed one in {here / 'installed'}" in refused(*words)


@pytest.mark.parametrize("file", ["/anywhere/study/__main__.py", "/anywhere/launch.py", None])
def test_what_is_not_the_command_may_run_other_code_and_says_so(here, run, monkeypatch, file):
    monkeypatch.setattr(provenance, "installed_folder", lambda: here / "installed")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", file, raising=False)
    code, _, err = run("list")
    assert code == 0
    assert err.startswith(f"note: this is the study in {provenance.source_folder()}; ")


NEWER = {"source_fingerprint": "0" * 16, "versions": {**FACTS["versions"], "torch": "99.0"}}


def test_a_resume_or_confirmation_with_other_software_says_so_with_the_old_and_the_new(tmp_path, monkeypatch):
    folder = folder_of(tmp_path)
    monkeypatch.setattr(provenance, "software", lambda: NEWER)
    assert launch._software_notes(folder) == []  # nothing was trained yet
    run_all(folder)
    (note,) = launch._software_notes(folder)
    assert note == (
        f"the software is not that of the earlier trials, so numbers may differ: torch {FACTS['versions']['torch']}, then 99.0; "
        f"source {FACTS['source_fingerprint']}, then {'0' * 16}."
    )
    monkeypatch.setattr(provenance, "software", lambda: FACTS)
    assert launch._software_notes(folder) == []


def test_a_trial_rerun_with_other_software_than_recorded_says_so(monkeypatch, capsys):
    monkeypatch.setattr(trial, "software", lambda: NEWER)
    trial._warn_of_differences(FACTS, {"threads": 2})
    threads, software = capsys.readouterr().err.splitlines()
    assert threads == "note: threads is 2 here and was 1; the numbers may differ."
    assert software.startswith(
        f"note: the software is not the recorded one: torch {FACTS['versions']['torch']}, then 99.0; source"
    )
    for unrecorded in ({}, {"versions": None}, {"versions": ["torch"]}, {"versions": {"torch": 3}}):
        trial._warn_of_differences(unrecorded, {})
