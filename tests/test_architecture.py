"""Promises of the whole code: imports, documentation, no private paths."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_fixtures import REPOSITORY

from study import parts
from study.config import Training

PACKAGES = ("study", "search_spaces", "analysis")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def sources():
    return sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))


def repository_files():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False)
    if listed.returncode:
        return [path for path in REPOSITORY.rglob("*") if path.is_file() and "/." not in str(path)]
    return [REPOSITORY / name for name in listed.stdout.decode().split("\0") if name]


def test_imports_run_one_way():
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-cache"], cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kept = re.search(r"Contracts: (\d+) kept, (\d+) broken", done.stdout)
    assert int(kept[1]) >= 5
    assert int(kept[2]) == 0


CORE = """
import sys
for name in ("ray", "mlflow", "optuna"):
    sys.modules[name] = None
from pathlib import Path
from study import experiment, parts
from study.config import TrialConfig
from study.training import task_log, trainer
config = parts.complete(TrialConfig.from_flat({
    "tasks/name": "class_pairs", "tasks/count": 2, "tasks/images_per_task": 16, "tasks/validation_fraction": 0.1,
    "optimizer/name": "sam", "model/name": "mlp", "model/widths": [4], "seeds": [0, 1],
}))
dataset = experiment.load_dataset(config, Path("nowhere"))
lines = [task_log.task_line(result, 2) for result in trainer.train(experiment.build(config, dataset))]
assert [line["task"] for line in lines] == [0, 1]
print(len(lines[-1]["lanes"]["accuracy/test"]))
"""


def test_the_training_core_trains_where_there_is_no_ray_mlflow_or_optuna(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CORE], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2\n"


def test_the_help_is_there_without_importing_what_takes_seconds(tmp_path):
    program = (
        "import sys; from study import cli; sys.argv = ['study', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: print(sorted({'torch', 'ray', 'mlflow', 'optuna', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def docstrings(path):
    """The docstrings of a file's module and of its public definitions, by name; "" where one is missing."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = {str(path.relative_to(REPOSITORY)): ast.get_docstring(tree) or ""} if tree.body else {}

    def visit(node, where):
        for child in node.body:
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if child.name.startswith("_"):
                continue
            name = f"{where}.{child.name}"
            setter = any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in child.decorator_list)
            if not setter:
                texts[name] = ast.get_docstring(child) or ""
            if isinstance(child, ast.ClassDef):
                visit(child, name)

    visit(tree, str(path.relative_to(REPOSITORY)))
    return texts


def docstrings_of(package):
    """The docstrings of a package's modules and of their public definitions, by name."""
    files = [path for path in sources() if path.is_relative_to(REPOSITORY / package)]
    assert len(files) >= 4
    return {name: text for path in files for name, text in docstrings(path).items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_public_says_what_it_is(package):
    assert [name for name, text in docstrings_of(package).items() if not text] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_first_line_of_a_docstring_has_at_most_ten_words(package):
    first_lines = {name: text.splitlines()[0] for name, text in docstrings_of(package).items() if text}
    assert len(first_lines) >= 10
    assert {name: line for name, line in first_lines.items() if len(line.split()) > 10} == {}


SETTINGS = {"training": Training} | {
    f"{kind}/{name}": importlib.import_module(f"study.{kind}.{name}").Settings
    for kind in parts.KINDS
    for name in parts.names(kind)
}


@pytest.mark.parametrize("where", SETTINGS)
def test_every_setting_says_what_it_is(where):
    declared = SETTINGS[where]
    assert declared.__doc__
    silent = [name for name, field in declared.model_fields.items() if not (field.description or "").endswith(".")]
    assert silent == []


def test_no_file_names_somebodys_home_or_a_registry():
    patterns = [
        rb"/home/\w",
        rb"/Users/\w",
        rb"/ro" + rb"ot/\w",
        rb"/tmp/\w",
        rb"index-" + rb"url",
        rb"artifact" + rb"ory",
        rb"/sim" + rb"ple\b",
    ]
    texts = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".cfg", ".ini", ".sh", ""}
    telling = [
        f"{path.relative_to(REPOSITORY)}: {found.group().decode()}"
        for path in repository_files()
        if path.is_file() and path.suffix in texts and path != Path(__file__)
        for pattern in patterns
        if (found := re.search(pattern, path.read_bytes()))
    ]
    assert telling == []


def test_a_folder_has_at_most_20_modules():
    folders = {path.parent for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")}
    sizes = {str(folder.relative_to(REPOSITORY)): len(list(folder.glob("*.py"))) for folder in folders}
    assert max(sizes.values()) <= 20, sizes


def test_the_line_of_a_dependency_names_files_that_exist():
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    lines = text[text.index("dependencies = [") : text.index("[project.scripts]")].splitlines()
    named = [
        (line, name) for line in lines for name in re.findall(r"(?:study|analysis|tests|search_spaces)/[\w./]+", line)
    ]
    assert len(named) > 30
    assert [line for line, name in named if not (REPOSITORY / name.rstrip(".")).exists()] == []
