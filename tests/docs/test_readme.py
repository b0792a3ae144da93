"""The README and the pages of the documentation are true: tables, paths, links, commands and examples are those of the code."""

import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import report_fixtures
import yaml
from commands import COMMANDS
from pages import (
    BLOCKS,
    CHANGELOG,
    COMMENT,
    FILES,
    FOLDERS,
    PAGES,
    PARTS,
    README,
    TUTORIAL,
    anchors_of,
    blocks_of,
    inline_commands,
    prose_of,
    study_commands,
)
from sweep_fixtures import REPOSITORY, clean_environment

import search_spaces
from study import reference
from study.cli import show
from study.cli.trial import read_trial
from study.sweep.search_plan import load_space, make_plan


def test_the_tables_are_made_from_the_code():
    assert reference.settings_table() in PAGES["study/docs/settings.md"]
    assert reference.metrics_table() in PAGES["study/docs/metrics.md"]


def test_one_table_can_be_printed(capsys):
    reference.main(["metrics"])
    assert capsys.readouterr().out == reference.metrics_table() + "\n"
    with pytest.raises(SystemExit, match="'numbers'; there are: settings, metrics"):
        reference.main(["numbers"])


def test_the_test_command_is_where_the_ci_script_looks_for_it():
    found = re.search(r"<!-- test command -->\n```bash\n(python3 -m venv [^\n]*)\n```", README)
    assert found
    assert found[1].endswith("-m pytest")
    assert "<!-- test command -->" in (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")


def test_the_readme_is_short_and_leads_to_every_page():
    assert len(README.splitlines()) <= 150
    assert [page for page in PAGES if page != "README.md" and page not in README] == []


@pytest.mark.parametrize("page", PAGES)
def test_lines_of_prose_are_at_most_100_columns_wide(page):
    lines = prose_of(PAGES[page]).splitlines()
    cannot_wrap = re.compile(r"\||<!-- |.*\]\([^)]+\)$|    ")
    assert [line for line in lines if len(line) > 100 and not cannot_wrap.match(line)] == []


def test_every_block_is_run_or_it_is_said_why_not():
    for page, block in BLOCKS:
        assert block.language in ("bash", "python", "yaml", "toml", "text"), page
        assert not block.comment or re.fullmatch(COMMENT, block.comment), (page, block.comment)
        if block.is_run and block.language == "bash":
            programs = {"study", "pip"} if page == TUTORIAL else {"study", "python"}
            assert {words[0] for words in block.commands} <= programs, (page, block.text)
        assert block.language != "yaml" or block.file, f"{page}: nothing reads it"


@pytest.mark.parametrize("command", study_commands(), ids=" ".join)
def test_every_command_exists_with_its_options_and_settings(command):
    name, *words = command
    assert name in COMMANDS
    known = {option for parameter in COMMANDS[name].params for option in parameter.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known
    for option, word in itertools.pairwise(words):
        if option == "--set":
            assert f"| `{word.partition('=')[0]}` |" in PAGES["study/docs/settings.md"]


@pytest.mark.parametrize("page", [*PAGES, *CHANGELOG])
def test_every_link_into_the_repository_leads_somewhere(page):
    here = REPOSITORY / page
    links = re.findall(r"\]\((?!https?://)([^)\s]+)\)", prose_of((PAGES | CHANGELOG)[page]))
    for link in links:
        path, _, anchor = link.partition("#")
        target = (here.parent / path).resolve() if path else here
        assert target.exists(), link
        assert target.is_relative_to(REPOSITORY), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page):
    named = re.findall(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]+", PAGES[page])
    paths = {name.rstrip(".") for name in named} - FILES.keys()
    assert [path for path in sorted(paths) if not (REPOSITORY / path).exists()] == []


def modules_of_the_tree() -> set[str]:
    """Paths of the modules in the tree of the page about architecture; indentation says where a line belongs."""
    tree = next(block.text for block in blocks_of("study/docs/architecture.md") if block.text.startswith("search_sp"))
    folders: list[tuple[int, str]] = []
    paths = set()
    for line in tree.splitlines():
        entry = re.match(r"( *)(\w+)(/|\.py)", line)
        if entry is None:
            continue
        folders = [folder for folder in folders if folder[0] < len(entry[1])]
        path = "/".join(name for _, name in folders) + f"/{entry[2]}"
        if entry[3] == "/":
            folders.append((len(entry[1]), entry[2]))
        else:
            paths.add(f"{path}.py")
    return paths


def test_the_tree_names_every_module_and_no_other():
    modules = {
        str(path.relative_to(REPOSITORY))
        for folder in ("study", "search_spaces", "analysis")
        for path in (REPOSITORY / folder).rglob("*.py")
        if path.parent.name not in PARTS and not path.name.startswith("__")
    }
    assert modules_of_the_tree() == modules


def test_the_trial_of_the_settings_page_can_be_read(tmp_path):
    block = next(block for block in blocks_of("study/docs/settings.md") if block.language == "yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(block.text, encoding="utf-8")
    config, provenance = read_trial(path, {})
    assert config.optimizer.settings["lr"] == 0.1
    assert config.seeds == (0, 1, 2)
    assert not provenance


def test_the_search_space_of_the_readme_has_11_lines_and_can_be_planned(tmp_path):
    block = next(block for block in blocks_of("README.md") if block.file == "mine.py")
    assert len([line for line in block.text.splitlines() if line]) == 11
    path = tmp_path / "mine.py"
    path.write_text(block.text, encoding="utf-8")
    plan = make_plan(search_spaces.load(str(path)), name="mine")
    assert [(group.method, group.trials) for group in plan.groups] == [("sgd", 6), ("sam", 6)]
    assert "gives each method six trials of three seeds each" in README
    assert len(plan.seeds) == 3


def test_the_yaml_of_the_settings_page_is_that_search_space(tmp_path):
    plans = []
    for page, name in (("README.md", "mine.py"), ("study/docs/settings.md", "space.yaml")):
        block = next(block for block in blocks_of(page) if block.file == name)
        (tmp_path / name).write_text(block.text, encoding="utf-8")
        plans.append(make_plan(load_space(str(tmp_path / name)), name="mine"))
    assert plans[0] == plans[1]


def test_a_search_may_draw_the_schedule_as_on_the_settings_page(tmp_path):
    block = next(block for block in blocks_of("study/docs/settings.md") if block.file == "scheduled.yaml")
    path = tmp_path / "scheduled.yaml"
    path.write_text(block.text, encoding="utf-8")
    (group,) = make_plan(load_space(str(path)), name="scheduled").groups
    assert {name.rpartition("/")[2] for name in group.distributions} >= {"schedule", "schedule_to", "schedule_length"}


def test_the_citation_file_can_be_cited():
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["cff-version"] == "1.2.0"
    assert cited["message"]
    assert cited["title"] == "Plasticity study"
    assert cited["version"] == project["version"]
    assert cited["license"] == project["license"]
    assert all("name" in author or author.keys() >= {"family-names", "given-names"} for author in cited["authors"])
    assert cited["authors"][0]["name"] in (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert "2409.17300" in cited["references"][0]["url"]


SHOWN = ("best", "export", "list")
"""Commands in the README's running text that are run too, those that train nothing."""


@pytest.mark.slow
def test_the_blocks_of_all_pages_but_the_tutorial_run(here, run, monkeypatch):
    """In an empty folder with a sweep called `quickstart`, whose accuracies are made up."""
    monkeypatch.setattr(show, "SECONDS", 0.2)
    tuned = report_fixtures.tuned(here / "study-results", "quickstart")
    report_fixtures.play(tuned)
    report_fixtures.sent(tuned)
    done = []

    def take(words: list[str], expected: int = 0) -> None:
        if words[0] == "study":
            code, out, err = run(*words[1:])
        else:
            ended = subprocess.run(
                [sys.executable, *words[1:]],
                env=clean_environment(),
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            code, out, err = ended.returncode, ended.stdout, ended.stderr
        assert code == expected, (words, out, err)
        done.append(" ".join(words))

    for page, block in BLOCKS:
        if page == TUTORIAL:
            continue
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.is_run and block.language == "python":
            take(["python", "-c", block.text])
        elif block.is_run:
            for words in block.commands:
                take(words, int(block.comment[-1]) if block.comment else 0)
    for words in inline_commands(README):
        if words[1] in SHOWN and "--model" not in words:
            take(words)
    assert len(done) >= 7
    assert list(Path("winners").glob("*.yaml"))
