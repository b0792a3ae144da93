"""The tutorial is true: its files are written where it says, its commands run in its order, and its links lead somewhere."""

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import pytorch_optimizer
import tiny
import torch
from pages import PAGES, TUTORIAL, blocks_of
from sweep_fixtures import REPOSITORY, clean_environment
from twins import EQUAL_BUT_FOR_A_NORM_IN_FLOAT32, assert_twins, with_closure

import search_spaces
from study.sweep.search_plan import make_plan

STUDY = (
    "import sys; from study.__main__ import command; from study.cli import show; "
    "show.SECONDS = 0.2; sys.argv[0] = 'study'; command()"
)
"""The command line, which measures for a moment only."""

BLOCKS = blocks_of(TUTORIAL)
FILES = {block.file: block.text for block in BLOCKS if block.file}


def test_most_of_its_commands_are_run():
    assert sum(len(block.commands) for block in BLOCKS if block.is_run) >= 8


def run(words: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command of the tutorial."""
    site = place / "site"
    if words[:2] == ["pip", "install"]:
        return install(place / words[2], site)
    assert words[0] == "study"
    environment = clean_environment(PYTHONPATH=os.pathsep.join(map(str, (REPOSITORY, site))))
    command = [sys.executable, "-c", STUDY, *words[1:]]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=200, check=False)


def install(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Builds a project's wheel, as pip does, and unpacks it into a folder of installed packages."""
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(project)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=project, capture_output=True, text=True, check=False)
    for wheel in project.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(site)
    return done


@pytest.mark.sweep
@pytest.mark.slow
def test_the_tutorial_runs_from_its_first_line_to_its_last(tmp_path):
    said = {}
    for block in BLOCKS:
        if block.file:
            path = tmp_path / block.file
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        if block.comment.startswith("not run"):
            continue
        for words in block.commands:
            done = run(words, tmp_path)
            expected = int(block.comment[-1]) if block.comment.startswith("exit code") else 0
            assert done.returncode == expected, (words, done.stdout, done.stderr)
            said[" ".join(words)] = done
    assert re.search(
        r"^class_pairs +sam .* s to [0-9.]+ s", said[next(w for w in said if "widths.py" in w)].stdout, re.M
    )
    assert said["study trial mine.yaml"].stdout.count("test accuracy") == 3
    assert "no setting 'optimizer/rho'" in said["study trial mine.yaml --set optimizer/name=sgd"].stderr
    assert re.search(r"^asam +lr=", said["study run ./scales.py"].stdout, re.M)
    assert "confirmed on fresh seeds" in said["study confirm scales --seeds 8"].stdout
    page = (tmp_path / "study-results" / "scales" / "report" / "report.html").read_text(encoding="utf-8")
    headings = {" ".join(re.sub("<[^>]+>", "", found).split()) for found in re.findall(r"<h2.*?</h2>", page, re.DOTALL)}
    told = re.findall(r"^- \*\*(.+?)\*\*", PAGES[TUTORIAL], re.M)
    assert len(told) >= 6
    assert [words for words in told if words.replace("'", "&#39;") not in headings] == []
    assert said["study trial all.yaml"].stdout.count("test accuracy") == 2


def test_the_search_space_without_new_parts_can_be_planned(tmp_path):
    path = tmp_path / "widths.py"
    path.write_text(FILES["widths.py"], encoding="utf-8")
    made = make_plan(search_spaces.load(str(path)), name="widths")
    assert [group.method for group in made.groups] == ["sgd", "sam", "sgd_l2_init"]
    config = made.trial_config(made.groups[2], {"optimizer/lr": 0.1, "training/batch_size": 8})
    assert config.interventions == {"l2_init": {"strength": 1e-3}}


@pytest.fixture(scope="module")
def asam(tmp_path_factory):
    """The tutorial's method as a module."""
    path = tmp_path_factory.mktemp("method") / "asam.py"
    path.write_text(FILES["asam.py"], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("asam", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["asam"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["asam"]


@pytest.mark.parametrize("rho", [0.05, 0.5])
@pytest.mark.parametrize("more", [{}, {"momentum": 0.9, "weight_decay": 0.01}])
@tiny.float64()
def test_the_tutorials_method_equals_pytorch_optimizers_adaptive_sam(asam, rho, more):
    """Which has eta = 0."""
    chosen = {"lr": 0.1, **more}
    plan = tiny.experiment("sam", {}, task_settings={"count": 2})
    plan = replace(plan, rule=asam.build(asam.Settings(rho=rho, eta=0.0, **chosen), len(plan.seeds), "cpu"))

    def make_step(net):
        other = pytorch_optimizer.SAM(net.parameters(), torch.optim.SGD, rho=rho, adaptive=True, **chosen)
        return with_closure(net, other, gradient_first=True)

    assert_twins(plan, make_step, EQUAL_BUT_FOR_A_NORM_IN_FLOAT32)


def test_the_tutorials_intervention_keeps_units_within_the_limit():
    module = ModuleType("max_norm")
    exec(FILES["max-norm/max_norm.py"], module.__dict__)
    plan = tiny.experiment("sgd", task_settings={"count": 2})
    plain = tiny.results(plan)[-1].state.params
    for limit in (0.1, 100.0):
        kept = replace(plan, interventions=(module.build(module.Settings(limit=limit), plan.seeds, "cpu"),))
        params = tiny.results(kept)[-1].state.params
        norms = torch.cat([value.norm(dim=2).flatten() for value in params.values() if value.dim() == 3])
        if limit < 1:
            assert norms.max() == pytest.approx(limit, rel=1e-6)
        else:
            for name, value in params.items():
                torch.testing.assert_close(value, plain[name])
