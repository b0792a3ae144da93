"""The README is true: its tables are the code's, its examples run, its commands and links exist."""

import re
import shlex
from pathlib import Path

import pytest
from commands import COMMANDS

from study import reference
from study.cli import trial

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MENTIONED = sorted(set(re.findall(r"`study (\w+[^`]*)`", README)))


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    assert found, f"no {language} block"
    return found[-1]


def test_the_tables_are_made_from_the_code():
    assert reference.settings_table() in README
    assert reference.metrics_table() in README


def test_the_test_command_is_where_the_ci_script_looks_for_it():
    found = re.search(r"<!-- test command -->\n```bash\n(python3 -m venv [^\n]*)\n```", README)
    assert found
    assert found[1].endswith("-m pytest")
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_trial_in_it_can_be_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(block("yaml"), encoding="utf-8")
    config, provenance = trial.read_trial(path, {})
    assert config.optimizer.settings["lr"] == 0.1
    assert config.seeds == (0, 1, 2)
    assert not provenance


@pytest.mark.parametrize("mentioned", MENTIONED)
def test_every_command_in_it_exists_with_its_options(mentioned):
    name, *words = shlex.split(mentioned.replace("...", ""))
    assert name in COMMANDS
    known = {option for parameter in COMMANDS[name].params for option in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known


def test_every_link_into_the_repository_leads_somewhere():
    links = re.findall(r"\]\((?!https?://)([^)]+)\)", README)
    assert links
    headings = {
        "#" + heading.lower().replace(",", "").replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    }
    assert [link for link in links if not (link in headings if link.startswith("#") else (ROOT / link).exists())] == []


def test_the_tree_names_every_module():
    modules = {path.name for folder in ("study", "search_spaces", "analysis") for path in (ROOT / folder).glob("*.py")}
    unnamed = {module for module in modules if module not in README} - {"__init__.py", "__main__.py"}
    assert unnamed == set()
