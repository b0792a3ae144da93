"""A search space in YAML is the same as in Python; what is wrong in it is told as it is there."""

import json
from pathlib import Path

import pytest
import sweep_fixtures
from malformed_files import SPACE_YAML
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import ValidationError

import search_spaces
from search_spaces import Method, SearchSpace
from search_spaces.space import distribution
from study.config import yaml_text
from study.errors import StudyError
from study.parts import outside
from study.sweep.plan import Plan
from study.sweep.search_plan import load_space, make_plan

LR, RHO, BATCH, STRENGTH = "optimizer/lr", "optimizer/rho", "training/batch_size", "interventions/l2_init/strength"

PYTHON = SearchSpace(
    name="mine",
    description="Two methods.",
    citation="nobody",
    scenarios={"pp": {"tasks/name": "permuted_pixels", "tasks/count": 2}, "pairs": {"tasks/name": "class_pairs"}},
    methods={
        "sgd": Method(points=({LR: 0.1}, {LR: 1e-4}), distributions={LR: FloatDistribution(1e-4, 1.0, log=True)}),
        "sam": Method(
            settings={STRENGTH: 1e-3, "optimizer/momentum": 0.9},
            distributions={
                LR: FloatDistribution(1e-4, 1.0, log=True),
                RHO: FloatDistribution(0.25, 1.0, step=0.25),
                BATCH: IntDistribution(16, 128, step=16),
                "model/widths": CategoricalDistribution([[5], [6, 7]]),
            },
        ),
    },
    settings={"tasks/validation_fraction": 0.2, "model/widths": [5]},
    seeds=(3, 4),
    trials=4,
    search_seed=7,
)

SLASHES = """
name: mine
description: Two methods.
citation: nobody
scenarios:
  pp: {tasks/name: permuted_pixels, tasks/count: 2}
  pairs: {tasks/name: class_pairs}
methods:
  sgd:
    points: [{optimizer/lr: .1}, {optimizer/lr: 1e-4}]
    distributions:
      optimizer/lr: {low: 1e-4, high: 1, log: true}
  sam:
    settings: {interventions/l2_init/strength: 1e-3, optimizer/momentum: 0.9}
    distributions:
      optimizer/lr: {low: 1E-4, high: 1, log: true}
      optimizer/rho: {low: 0.25, high: 1, step: 0.25}
      training/batch_size: {low: 16, high: 128, step: 16}
      model/widths: {choices: [[5], [6, 7]]}
settings: {tasks/validation_fraction: 0.2, model/widths: [5]}
seeds: [3, 4]
trials: 4
search_seed: 7
"""

NESTED = """
name: mine
description: Two methods.
citation: nobody
scenarios:
  pp: {tasks: {name: permuted_pixels, count: 2}}
  pairs: {tasks: {name: class_pairs}}
methods:
  sgd:
    points: [{optimizer: {lr: .1}}, {optimizer: {lr: 0.0001}}]
    distributions: {optimizer: {lr: {low: 1e-4, high: 1, log: true}}}
  sam:
    settings: {interventions: {l2_init: {strength: 1e-3}}, optimizer/momentum: 0.9}
    distributions:
      optimizer: {lr: {low: 1e-4, high: 1., log: true}, rho: {low: 0.25, high: 1, step: 0.25}}
      training/batch_size: {low: 16, high: 128, step: 16}
      model: {widths: {choices: [[5], [6, 7]]}}
settings: {tasks: {validation_fraction: 0.2}, model: {widths: [5]}}
seeds: [3, 4]
trials: 4
search_seed: 7
"""


def planned(path: Path) -> Plan:
    return make_plan(load_space(str(path)), name="mine")


@pytest.mark.parametrize("text", [SLASHES, NESTED])
@pytest.mark.parametrize("name", ["mine.yaml", "mine.yml"])
def test_a_space_in_yaml_makes_the_plan_of_the_same_space_in_python(tmp_path, text, name):
    (tmp_path / name).write_text(text)
    assert planned(tmp_path / name) == make_plan(PYTHON, name="mine")


@pytest.mark.parametrize("name", ["beyond_grid", "quickstart", "paper_grid"])
def test_a_space_of_the_study_can_be_written_in_yaml(tmp_path, name):
    """Its distributions as mappings, its points as lists."""
    space = search_spaces.load(name)
    drawn = [
        {key: {"low": d.low, "high": d.high, "log": d.log} for key, d in method.drawn.items()}
        for method in space.methods.values()
    ]
    plain = {
        "name": name,
        "description": space.description,
        "citation": space.citation,
        "scenarios": space.scenarios,
        "methods": {
            key: {"settings": method.settings, "points": [*method.points], "distributions": distributions}
            for (key, method), distributions in zip(space.methods.items(), drawn, strict=True)
        },
        "settings": space.settings,
        "seeds": [*space.seeds],
        **({} if space.trials is None else {"trials": space.trials}),
    }
    (tmp_path / "x.yaml").write_text(yaml_text(plain))
    assert make_plan(load_space(str(tmp_path / "x.yaml")), name="x") == make_plan(space, name="x")


def test_a_part_in_a_file_is_looked_for_beside_the_space(tmp_path, monkeypatch):
    source = (sweep_fixtures.REPOSITORY / "study" / "optimizers" / "sgd.py").read_text(encoding="utf-8")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.py").write_text(source)
    (tmp_path / "there" / "space.yaml").write_text(
        "{name: x, description: '', scenarios: {pp: {tasks/name: permuted_pixels}}, "
        "methods: {mine: {settings: {optimizer: {name: ./mine.py}}, points: [{optimizer/lr: 0.1}]}}}"
    )
    monkeypatch.chdir(tmp_path)
    plan = make_plan(load_space("there/space.yaml"), name="x")
    name = outside.adopt(tmp_path / "there" / "mine.py")
    assert plan.groups[0].settings["optimizer/name"] == name
    assert plan.files[name].text == source


@pytest.mark.parametrize("name", ["x.yaml", "./x.yml", "a/x.yaml", "x.py", "./x"])
def test_files_are_told_from_names(name):
    assert search_spaces.is_path(name)
    assert not search_spaces.is_path("quickstart")
    with pytest.raises(StudyError, match="There is no search space file"):
        load_space(name)


@pytest.mark.parametrize(
    ("mapping", "same"),
    [
        ({"low": 1e-4, "high": 1, "log": True}, FloatDistribution(1e-4, 1.0, log=True)),
        ({"low": 1, "high": 3.0}, FloatDistribution(1.0, 3.0)),
        ({"low": 0, "high": 1, "step": 0.5}, FloatDistribution(0.0, 1.0, step=0.5)),
        ({"low": 0.1, "high": 0.7, "step": 0.2}, FloatDistribution(0.1, 0.7, step=0.2)),
        ({"low": -1, "high": -1}, IntDistribution(-1, -1)),
        ({"low": 1, "high": 64, "log": True}, IntDistribution(1, 64, log=True)),
        ({"low": 1, "high": 9, "step": 4, "log": False}, IntDistribution(1, 9, step=4)),
        ({"choices": ["a", None, 2]}, CategoricalDistribution(["a", None, 2])),
        (IntDistribution(1, 2), IntDistribution(1, 2)),
    ],
)
def test_a_mapping_is_a_distribution(mapping, same):
    assert distribution(mapping) == same
    assert Method(distributions={LR: mapping}) == Method(distributions={LR: same})


@pytest.mark.parametrize(
    ("mapping", "why"),
    [
        ({}, "low is missing"),
        ({"low": 1}, "high is missing"),
        ({"low": 1, "hihg": 2}, "no key 'hihg'; did you mean 'high'"),
        ({"low": 1, "high": 2, "choices": [1]}, "no key 'low'; known: choices"),
        ({"choices": []}, "at least one"),
        ({"choices": "ab"}, "must be a list"),
        ({"low": 2, "high": 1}, "low must be at most high"),
        ({"low": 0, "high": 1, "log": True}, "above 0 with log"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "exclude each other"),
        ({"low": 1, "high": 9, "step": 3}, "high is not reached from low in whole steps; 7 is"),
        ({"low": 1, "high": 9, "step": -1}, "step must be above 0"),
        ({"low": True, "high": 9}, "low must be a finite number"),
        ({"low": 0.1, "high": float("nan")}, "high must be a finite number"),
        ({"low": "1e-4", "high": 1.0}, "low must be a finite number"),
        ({"low": 0.1, "high": 10**400}, "high must be a finite number"),
        ({"low": 1, "high": 9, "log": "yes"}, "log must be true or false"),
        (0.1, "a distribution is a mapping such as"),
        ([0.1, 0.2], "a distribution is a mapping such as"),
    ],
)
def test_a_mapping_that_is_no_distribution_is_refused_by_its_setting(mapping, why):
    with pytest.raises(ValidationError, match=why) as refused:
        Method(distributions={LR: mapping})
    assert refused.value.errors()[0]["loc"] == ("distributions", LR)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("scenarios:", "scenario:", "unknown key 'scenario'; did you mean 'scenarios'"),
        ("    points:", "    pionts:", "unknown key 'pionts' in methods/sgd; did you mean 'points'"),
        ("    settings:", "    optimizer/lr:", "unknown key 'optimizer/lr' in methods/sam.* it belongs under settings"),
        ("high: 1, log", "hihg: 1, log", "methods/sgd/distributions/optimizer/lr: .* did you mean 'high'"),
        ("[3, 4]", "3", "seeds: Input should be a list"),
        ("[3, 4]", "[3, 4.5]", "seeds/1: Input should be a valid integer"),
        ("trials: 4", "trials: four", "trials: Input should be a valid integer"),
        ("trials: 4\n", "", "needs `trials`, its budget"),
        ("name: mine\n", "", "name: Field required"),
        ("count: 2}", "count: 2, tasks: {count: 3}}", "tasks/count is there twice in scenarios/pp"),
        ("    points: [", "    points: [5, ", "methods/sgd/points/0 must be a mapping, not 5"),
        ("settings: {tasks/v", "settings: {seeds: 1, tasks/v", "seeds cannot be a setting of the space"),
        ("settings: {tasks/v", "settings: {lr: 1, tasks/v", "'lr' in the space is not a setting"),
        ("optimizer/rho", "optimizer/rhoo", "has no setting 'optimizer/rhoo'; did you mean 'rho'"),
        ("{low: 0.25, high: 1, step: 0.25}", "{low: 1, high: 2}", "draws optimizer/rho, which may be any real number"),
        ("optimizer/lr: .1", "optimizer/lr: 10.0", "outside its distribution"),
        ("seeds: [3, 4]", "seeds: [3, 4", "is not plain YAML"),
        (SLASHES, "[]", "must be a mapping with keys like"),
        (SLASHES, "optimizer: {name: sgd}", "the configuration of one trial; run it with `study trial`"),
    ],
)
def test_a_fault_in_yaml_is_told_in_one_sentence(tmp_path, old, new, why):
    assert old in SLASHES
    (tmp_path / "mine.yaml").write_text(SLASHES.replace(old, new))
    with pytest.raises(StudyError, match=why) as refused:
        planned(tmp_path / "mine.yaml")
    assert "\n" not in str(refused.value)


def test_real_numbers_are_drawn_from_whole_ones_only_where_that_is_said():
    for given, fits in (({"low": 0, "high": 2}, False), ({"low": 0.0, "high": 2.0, "step": 1.0}, True)):
        method = Method(distributions={"optimizer/weight_decay": given})
        space = SearchSpace("x", "", {"pp": {"tasks/validation_fraction": 0.2}}, {"sgd": method}, trials=1)
        if fits:
            assert make_plan(space, name="x").groups[0].drawn()["optimizer/weight_decay"].step == 1.0
        else:
            with pytest.raises(StudyError, match=r"write 0\.0 to 2\.0, with a step of 1\.0"):
                make_plan(space, name="x")


def test_the_space_that_malformed_ones_are_made_of_is_sound(tmp_path):
    (tmp_path / "x.yaml").write_text(json.dumps(SPACE_YAML))
    assert planned(tmp_path / "x.yaml").trial_count == 2
