"""A shell completes commands, sweeps and search spaces."""

import subprocess
import sys
from pathlib import Path

import pytest
from sweep_fixtures import clean_environment, folder_of, plan_of

import study


@pytest.fixture
def complete(here, run, monkeypatch):
    """What the last word of a command line may become."""
    for directory, name in (("study-results", "first"), ("study-results", "second"), ("other", "third")):
        folder_of(here / directory, plan_of(name))

    def call(line):
        monkeypatch.setenv("_STUDY_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        code, out, err = run()
        assert (code, err) == (0, "")
        return out.split()

    return call


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("study res", ["resume"]),
        ("study delete ", ["first", "second"]),
        ("study best s", ["second"]),
        ("study clean --dir other ", ["third"]),
        ("study clean --dir nowhere ", []),
        ("study run paper", ["paper_grid"]),
        ("study run ./oth", ["./other/"]),
        ("study show nothing", []),
    ],
)
def test_names_are_completed(complete, line, found):
    assert complete(line) == found


def test_the_script_for_a_shell_can_be_shown_and_is_read_by_it(tmp_path):
    program = Path(sys.executable).with_name("study")
    script = f"eval \"$('{program}' --show-completion bash)\" && complete -p study"
    environment = clean_environment(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "_study_completion" in done.stdout


def test_the_version_is_that_of_the_package(here, run):
    assert run("--version") == (0, f"study {study.__version__}\n", "")
