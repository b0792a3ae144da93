"""Parts that are no file of the study: a file of one's own, a module, an entry point of an installed package."""

import importlib
import json
import sys

import outside_parts
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from report_fixtures import play
from sweep_fixtures import folder_of, plan_of

from search_spaces import Method, SearchSpace
from study import parts, provenance
from study.cli import launch
from study.config import TrialConfig
from study.errors import StudyError
from study.parts import outside
from study.sweep import export
from study.sweep.confirmation_plan import default_name
from study.sweep.folder import SweepFolder
from study.sweep.search_plan import adopted, load_space, make_plan

FLOATS = FloatDistribution(0.1, 1.0)
EITHER = CategoricalDistribution(["sgd", "parts/reach.py"])
SPACE = """
from search_spaces import Method, SearchSpace

SPACE = SearchSpace(
    name="mine",
    description="A rule of my own against SGD.",
    scenarios={"class_pairs": {"tasks/name": "class_pairs", "tasks/count": 3}},
    methods={
        "sgd": Method(points=({"optimizer/lr": 0.1},)),
        "reach": Method(settings={"optimizer/name": "parts/reach.py"}, points=({"optimizer/lr": 0.1},)),
    },
    settings={"data/name": "mnist5k", "tasks/images_per_task": 32, "tasks/validation_fraction": 0.25},
    seeds=(0, 1),
)
"""


@pytest.fixture(autouse=True)
def as_in_a_new_process(monkeypatch):
    """No file has been read and no entry point been looked up."""
    monkeypatch.setattr(outside, "_files", {})
    outside.entry_points.cache_clear()
    outside._fingerprint.cache_clear()
    yield
    outside.entry_points.cache_clear()
    outside._fingerprint.cache_clear()


@pytest.fixture
def mine(here):
    """A space with a part of its own beside it, in a folder below the present one."""
    (here / "work" / "parts").mkdir(parents=True)
    (here / "work" / "space.py").write_text(SPACE, encoding="utf-8")
    (here / "work" / "parts" / "reach.py").write_text(outside_parts.RULE, encoding="utf-8")
    return here / "work"


@pytest.fixture
def installed(here, monkeypatch):
    """A package with an intervention is installed."""
    outside_parts.install(here / "site")
    monkeypatch.syspath_prepend(here / "site")
    importlib.invalidate_caches()
    yield here / "site" / outside_parts.PACKAGE
    for name in [name for name in sys.modules if name.startswith(outside_parts.PACKAGE)]:
        del sys.modules[name]


def rule_of(plan):
    """The name of the part that is the plan's rule."""
    return plan.groups[1].settings["optimizer/name"]


def test_a_file_is_named_by_its_content_and_found_beside_the_space(mine):
    plan = make_plan(load_space("work/space.py"), name="mine")
    assert rule_of(plan).startswith("reach.py@")
    assert plan.files[rule_of(plan)].text == outside_parts.RULE
    assert plan.labels["optimizer/reach"].unit == "miles"
    (mine / "parts" / "reach.py").write_text(outside_parts.RULE.replace("0.1,", "0.2,"), encoding="utf-8")
    other = make_plan(load_space("work/space.py"), name="mine")
    assert rule_of(other) != rule_of(plan)
    reach = [each.trial_config(each.groups[1], {}).optimizer.settings["reach"] for each in (plan, other)]
    assert reach == [0.1, 0.2], "one process can have both"


def test_a_plan_brings_its_files_into_a_process_that_has_not_read_them(mine, monkeypatch):
    folder = folder_of(mine / "results", make_plan(load_space("work/space.py"), name="mine"))
    (mine / "parts" / "reach.py").unlink()
    monkeypatch.setattr(outside, "_files", {})
    plan = SweepFolder.open(folder.directory, "mine").plan
    assert plan.trial_config(plan.groups[1], {"optimizer/lr": 0.5}).optimizer.settings["reach"] == 0.1


def test_reading_a_sweep_executes_none_of_its_files(mine, run):
    rule = mine / "parts" / "reach.py"
    folder = folder_of(mine / "results", make_plan(load_space("work/space.py"), name="mine"))
    play(folder)
    name = rule_of(folder.plan)
    evil = "raise SystemExit('executed')"
    log = folder.root / "sweep.jsonl"
    rule.write_text(evil, encoding="utf-8")
    other = outside.adopt(rule)
    first, *rest = log.read_text(encoding="utf-8").splitlines(keepends=True)
    line = json.loads(first.replace(name, other))
    line["plan"]["files"][other]["text"] = evil
    log.write_text(json.dumps(line) + "\n" + "".join(rest), encoding="utf-8")
    for record in folder.root.glob("trials/*/record.jsonl"):
        record.write_text(record.read_text(encoding="utf-8").replace(name, other), encoding="utf-8")
    for words in (("list",), ("best", "mine")):
        code, out, err = run(*words, "--dir", folder.directory)
        assert (code, err) == (0, "")
        assert "mine" in out or "reach" in out


def test_a_source_that_is_not_what_its_name_promises_is_refused(mine, refused):
    folder = folder_of(mine / "results", make_plan(load_space("work/space.py"), name="mine"))
    log = folder.root / "sweep.jsonl"
    log.write_text(log.read_text(encoding="utf-8").replace("How far it looks", "How near it looks"), encoding="utf-8")
    said = refused("best", "mine", "--dir", folder.directory)
    assert "sweep.jsonl', line 1" in said
    assert "is not the name of the part whose source stands beside it" in said


def test_a_changed_file_is_noticed_at_resume_and_the_sweep_keeps_to_what_was_read(mine):
    folder = folder_of(mine / "results", make_plan(load_space("work/space.py"), name="mine"))
    assert launch._software_notes(folder) == []
    (mine / "parts" / "reach.py").write_text(outside_parts.RULE + "\n# better\n", encoding="utf-8")
    (note,) = launch._software_notes(folder)
    assert note.startswith(f"{mine / 'parts' / 'reach.py'} has changed since it was read as {rule_of(folder.plan)}")
    assert note.endswith("this sweep keeps to what was read.")


def test_an_exported_configuration_has_its_file_beside_it_and_names_the_same_part(mine, run):
    plan = make_plan(load_space("work/space.py"), name="mine")
    config = plan.trial_config(plan.groups[1], {"optimizer/lr": 0.5})
    assert export.write(mine / "best" / "one.yaml", config.plain(), {})
    assert not export.write(mine / "best" / "one.yaml", config.plain(), {})
    stem, _, digest = rule_of(plan).partition(".py@")
    assert sorted(path.name for path in (mine / "best").iterdir()) == ["one.yaml", f"{stem}-{digest}.py"]
    (mine / "best").rename(mine / "moved")
    code, out, err = run("trial", mine / "moved" / "one.yaml", "--set", "tasks/count=1")
    assert (code, err) == (0, "")
    assert out.startswith(f"{rule_of(plan)} lr=0.5")


def test_files_are_found_in_every_place_that_can_name_a_part(mine):
    method = Method(
        settings={"interventions/./parts/reach.py/strength": 1},
        points=({"optimizer/name": "parts/reach.py"},),
        distributions={"interventions/parts/reach.py/rate": FLOATS, "optimizer/name": EITHER},
    )
    space = SearchSpace("x", "x", {"a": {"data/name": "parts/reach.py"}}, {"sgd": method}, trials=1)
    found = adopted(space, mine)
    name = outside.adopt(mine / "parts" / "reach.py")
    assert found.scenarios["a"]["data/name"] == name
    assert dict(found.methods["sgd"].settings) == {f"interventions/{name}/strength": 1}
    assert found.methods["sgd"].points == ({"optimizer/name": name},)
    assert list(found.methods["sgd"].distributions) == [f"interventions/{name}/rate", "optimizer/name"]
    assert found.methods["sgd"].distributions["optimizer/name"].choices == ("sgd", name)


@pytest.mark.parametrize(
    ("written", "text", "said"),
    [
        ("./none.py", None, "Cannot read the part 'none.py': No such file or directory."),
        ("./part.py", "1 / 0", "fails: ZeroDivisionError: division by zero."),
        ("./part.py", "raise SystemExit(3)", "fails: SystemExit: 3."),
        ("./part.py", "def f(:", "fails: SyntaxError: invalid syntax"),
        ("./part.py", "x = 1", "is no optimizer: it must define a class `Settings`"),
        ("./part.py", "class Settings: ...\ndef build(): ...", "derived from study.config.StrictSettings"),
        ("./part.py", "\0", "fails: SyntaxError"),
        ("./part.py", "#" * 300_000, "is no part: it is larger than 200,000 characters."),
        ("part.py@0123456789ab", None, "The source of the optimizer 'part.py@0123456789ab' is not here"),
        ("nobody.knows", None, "cannot be imported: ModuleNotFoundError: No module named 'nobody'."),
        ("json.tool", None, "'json.tool' is no optimizer"),
        ("sgdd", None, "unknown optimizer 'sgdd'; did you mean 'sgd'?"),
    ],
)
def test_what_is_no_part_is_refused_in_one_sentence(written, text, said, here, refused):
    (here / "trial.yaml").write_text("tasks: {count: 1}\n", encoding="utf-8")
    if text is not None:
        (here / "part.py").write_text(text, encoding="utf-8")
    assert said in refused("trial", "trial.yaml", "--set", f"optimizer/name={written}")


def test_a_traceback_from_a_file_shows_its_lines(mine):
    (mine / "bad.py").write_text(outside_parts.RULE.replace("return constant_rule", "return 1 / 0, constant_rule"))
    config = TrialConfig.from_flat(outside.adopted({"optimizer/name": "bad.py"}, mine))
    module = parts.find("optimizers", config.optimizer.name)
    with pytest.raises(ZeroDivisionError) as raised:
        module.build(module.Settings(), 1, "cpu")
    assert "return 1 / 0" in str(raised.traceback[-1].statement)


def test_a_confirmation_on_data_of_ones_own_is_called_by_the_files_stem(mine):
    name = outside.adopt(mine / "parts" / "reach.py")
    assert default_name("tuned", {"data/name": name}) == "tuned-confirm-reach"


def test_an_installed_part_is_found_by_its_plain_name_and_its_package_is_traced(installed):
    assert "damping" in parts.names("interventions")
    assert "damping" not in parts.built_in("interventions")
    config = parts.complete(TrialConfig.from_flat({"interventions/damping/shrink": 0.5}))
    assert config.interventions["damping"]["shrink"] == 0.5
    before = parts.installed(config)
    assert list(before) == ["damping"]
    (installed / "other.py").write_text("# any line of the package counts\n", encoding="utf-8")
    outside._fingerprint.cache_clear()
    assert parts.installed(config) != before


def test_a_module_of_a_package_is_a_part_by_its_dotted_name(installed):
    name = f"{outside_parts.PACKAGE}.damping"
    config = parts.complete(TrialConfig.from_flat({f"interventions/{name}/shrink": 0.5}))
    assert parts.installed(config).keys() == {name}


def test_an_entry_point_with_the_name_of_a_part_is_refused(installed):
    points = next(installed.parent.glob("*.dist-info")) / "entry_points.txt"
    points.write_text(points.read_text().replace("damping =", "l2_init ="), encoding="utf-8")
    importlib.invalidate_caches()
    with pytest.raises(StudyError, match="has the name of another part"):
        parts.names("interventions")


def test_another_version_of_an_installed_part_is_noticed():
    facts = [{"parts": {"damping": "0123456789abcdef"}}, {"parts": {"damping": "fedcba9876543210"}}]
    changes = provenance.software_changes(facts)
    assert changes == "part damping 0123456789abcdef, then fedcba9876543210"
    assert provenance.software_changes(facts[:1] * 2) == ""


def test_plans_without_files_are_as_before():
    assert plan_of().files == {}
