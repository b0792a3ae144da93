"""Plans, made from a space and the user's options."""

import json
import math
import subprocess
import sys

import pytest
from sweep_fixtures import REPOSITORY, folder_of, plan_of, run_all

import search_spaces
from search_spaces import Method, SearchSpace
from study.cli.options import parse_setting
from study.errors import StudyError
from study.sweep import datasets
from study.sweep.plan import Plan, ends
from study.sweep.search_plan import make_plan


def groups_of(plan):
    return {(group.scenario, group.method): group for group in plan.groups}


def test_an_override_fixes_what_would_be_drawn():
    plan = plan_of(methods=["sam"], overrides={"tasks/count": 3, "optimizer/rho": 0.5})
    group = plan.groups[0]
    assert set(group.distributions) == {"optimizer/lr"}
    assert all("optimizer/rho" not in point for point in group.points)
    assert {plan.trial_config(group, point).flat()["optimizer/rho"] for point in group.points} == {0.5}


@pytest.mark.parametrize("name", ["../../elsewhere", "/elsewhere", "a/b", "..", "", "a\0b"])
@pytest.mark.parametrize("place", ["name", "scenario", "method"])
def test_a_kept_plan_with_a_path_for_a_name_is_refused(place, name):
    plain = plan_of().plain()
    (plain if place == "name" else plain["groups"][0])[place] = name
    with pytest.raises(StudyError, match="cannot be a name"):
        Plan.from_plain(plain, "somebody's plan")


def test_points_that_an_override_makes_equal_are_tried_once():
    space = search_spaces.load("paper_grid")
    plan = make_plan(space, name="x", overrides={"optimizer/lr": 0.5})
    assert [len(group.points) for group in plan.groups] == [1] * 6
    assert [group.trials for group in plan.groups] == [1] * 6
    assert groups_of(plan)["class_pairs", "sgd"].points == ({},)


def test_an_override_of_something_else_leaves_the_points_alone():
    assert plan_of(overrides={"training/batch_size": 8}).groups[0].points == plan_of().groups[0].points


def test_the_seeds_of_the_space_come_first_and_then_the_integers_after_the_largest():
    assert plan_of(seeds=2).seeds == (0, 1)
    assert plan_of(seeds=5).seeds == (0, 1, 2, 3, 4)
    assert plan_of(seeds=None).seeds == (0, 1, 2)
    space = SearchSpace("x", "x", {"s": {}}, {"sgd": Method(points=({},))}, seeds=(7, 3))
    assert make_plan(space, name="x", seeds=4).seeds == (7, 3, 8, 9)
    assert make_plan(space, name="x", seeds=1).seeds == (7,)


def test_the_seeds_are_the_lanes_of_every_trial():
    plan = plan_of(seeds=4)
    assert plan.trial_config(plan.groups[0], {}).seeds == (0, 1, 2, 3)


@pytest.mark.parametrize("space", ["quickstart", "beyond_grid"])
def test_the_budget_is_the_same_for_every_method(space):
    made = make_plan(search_spaces.load(space), name="x")
    assert {group.trials for group in made.groups} == {search_spaces.load(space).trials}
    assert {group.trials for group in make_plan(search_spaces.load(space), name="x", trials=17).groups} == {17}


def test_a_budget_without_distributions_is_limited_by_the_points():
    grid = make_plan(search_spaces.load("paper_grid"), name="x")
    assert {group.trials for group in grid.groups} == {2}
    assert {group.trials for group in grid.with_trials(1).groups} == {1}
    with pytest.raises(StudyError, match="2 explicit points and no distributions"):
        grid.with_trials(3)
    with pytest.raises(StudyError, match="at least 1"):
        grid.with_trials(0)


def test_a_larger_budget_changes_nothing_else():
    plan = plan_of(trials=2)
    grown = plan.with_trials(9)
    assert [group.trials for group in grown.groups] == [9, 9]
    assert grown.with_trials(2) == plan


@pytest.mark.parametrize("name", search_spaces.names())
def test_every_space_survives_being_kept(name):
    plan = make_plan(search_spaces.load(name), name="kept", search_seed=3)
    kept = json.loads(json.dumps(plan.plain(), allow_nan=False))
    again = Plan.from_plain(kept, "a file")
    assert again == plan
    assert [group.drawn() for group in again.groups] == [group.drawn() for group in plan.groups]


def test_a_kept_plan_that_is_none_is_refused():
    plain = plan_of().plain()
    with pytest.raises(StudyError, match=r"a file is not the plan of a sweep: unknown setting 'sampelr'; .*'sampler'"):
        Plan.from_plain({**plain, "sampelr": "tpe"}, "a file")
    with pytest.raises(StudyError, match="a file is not the plan of a sweep"):
        Plan.from_plain([], "a file")


@pytest.mark.parametrize("name", search_spaces.names())
def test_every_point_and_end_of_every_space_completes(name):
    space = search_spaces.load(name)
    plan = make_plan(space, name="x")
    for group in plan.groups:
        tried = [*group.points, *(ends(group) if group.distributions else [])]
        assert tried
        for point in tried:
            config = plan.trial_config(group, point)
            assert config.optimizer.name == space.methods[group.method].settings.get("optimizer/name", group.method)
            assert config.tasks.name == space.scenarios[group.scenario]["tasks/name"]
            assert {name: config.flat()[name] for name in point} == dict(point)
            assert plan.trial_config(group, config.flat()) == config


@pytest.mark.parametrize("name", search_spaces.names())
def test_every_space_trains_on_as_many_tasks_as_it_says(name, tmp_path):
    space = search_spaces.load(name)
    plan = make_plan(space, name="x", seeds=1)
    assert datasets.load(plan, tmp_path, datasets.found_or_stand_in).task_counts == {
        label: given["tasks/count"] for label, given in space.scenarios.items()
    }


def test_the_paper_grid_is_the_twelve_settings_of_the_paper():
    plan = make_plan(search_spaces.load("paper_grid"), name="x")
    assert plan.phase == "grid"
    assert plan.seeds == tuple(range(10))
    tried = {}
    for group in plan.groups:
        assert group.distributions == {}
        assert group.trials == len(group.points)
        for point in group.points:
            config = plan.trial_config(group, point)
            flat = config.flat()
            sharpness = {k: flat[f"optimizer/{k}"] for k in ("rho", "lambda", "r") if f"optimizer/{k}" in flat}
            tried[group.scenario, group.method, flat["optimizer/lr"]] = sharpness
            assert flat["tasks/count"] == {"permuted_pixels": 100, "class_pairs": 45}[group.scenario]
            assert flat["tasks/validation_fraction"] == 0
            assert flat["tasks/images_per_task"] is None
            assert flat["data/name"] == "mnist"
            assert flat["model/widths"] == [100, 100]
            assert (flat["training/batch_size"], flat["training/passes"]) == (16, 1)
            assert (flat["optimizer/momentum"], flat["optimizer/weight_decay"]) == (0, 0)
    assert tried == {
        (scenario, method, lr): sharpness
        for scenario in ("permuted_pixels", "class_pairs")
        for method, sharpness in (("sgd", {}), ("sam", {"rho": 0.05}), ("gnp", {"lambda": 0.1, "r": 0.05}))
        for lr in (0.01, 0.001)
    }


def test_beyond_the_grid_lie_the_ranges_of_the_study_with_the_points_of_the_paper_first():
    plan = make_plan(search_spaces.load("beyond_grid"), name="x")
    grid = groups_of(make_plan(search_spaces.load("paper_grid"), name="x"))
    assert plan.phase == "tune"
    ranges = {
        "optimizer/lr": (1e-4, 1.0),
        "optimizer/rho": (1e-3, 2.0),
        "optimizer/lambda": (1e-3, 2.0),
        "optimizer/r": (1e-3, 1.0),
    }
    names = {
        "sgd": {"optimizer/lr"},
        "sam": {"optimizer/lr", "optimizer/rho"},
        "gnp": {"optimizer/lr", "optimizer/lambda", "optimizer/r"},
    }
    assert len(plan.groups) == 6
    for group in plan.groups:
        drawn = group.drawn()
        assert set(drawn) == names[group.method]
        assert all((d.low, d.high, d.log) == (*ranges[name], True) for name, d in drawn.items())
        assert group.points == grid[group.scenario, group.method].points
        fraction = plan.trial_config(group, group.points[0]).flat()["tasks/validation_fraction"]
        assert math.isclose(fraction, 1 / 6)


def test_quickstart_is_small_and_offline():
    plan = make_plan(search_spaces.load("quickstart"), name="x")
    configs = [plan.trial_config(group, group.points[0]).flat() for group in plan.groups]
    assert {config["data/name"] for config in configs} == {"mnist5k"}
    assert {config["tasks/count"] for config in configs} == {10}
    assert sum(group.trials for group in plan.groups) == 36


def test_later_settings_overrule_earlier_ones():
    space = SearchSpace(
        name="x",
        description="x",
        scenarios={"s": {"training/passes": 2, "training/batch_size": 2, "model/name": "mlp"}},
        methods={
            "sgd": Method(
                settings={"training/batch_size": 3, "optimizer/momentum": 0.1}, points=({"optimizer/lr": 0.5},)
            )
        },
        settings={"training/passes": 1, "training/batch_size": 1, "data/name": "mnist5k"},
    )
    plan = make_plan(space, name="x", overrides={"optimizer/momentum": 0.2})
    flat = plan.trial_config(plan.groups[0], plan.groups[0].points[0]).flat()
    assert [flat[f"training/{name}"] for name in ("passes", "batch_size")] == [2, 3]
    assert (flat["optimizer/lr"], flat["optimizer/momentum"]) == (0.5, 0.2)


def test_a_method_may_have_a_name_of_its_own():
    method = Method(settings={"optimizer/name": "sgd", "optimizer/momentum": 0.9}, points=({},))
    plan = make_plan(SearchSpace("x", "x", {"s": {}}, {"heavy_ball": method}), name="x")
    assert plan.groups[0].label == "s-heavy_ball"
    assert plan.trial_config(plan.groups[0], {}).optimizer.name == "sgd"


def test_scenarios_and_methods_come_in_the_order_of_the_space():
    plan = plan_of(scenarios=["class_pairs", "permuted_pixels"], methods=["gnp", "sgd"])
    assert [group.label for group in plan.groups] == [
        "permuted_pixels-sgd",
        "permuted_pixels-gnp",
        "class_pairs-sgd",
        "class_pairs-gnp",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("model/b=1", 1),
        ("model/b=1e-3", 1e-3),
        ("model/b=[100, 100]", [100, 100]),
        ("model/b=word", "word"),
        ("model/b=", ""),
        ("model/b=null", None),
        ("model/b=x=y", "x=y"),
    ],
)
def test_a_setting_is_json_or_else_a_word(text, value):
    assert parse_setting(text) == ("model/b", value)


def test_a_space_needs_what_it_is_made_of():
    with pytest.raises(ValueError, match="points or distributions"):
        Method()
    with pytest.raises(ValueError, match="at least one"):
        SearchSpace("x", "x", {}, {"sgd": Method(points=({},))})


def test_reading_plan_and_records_imports_nothing_slow(tmp_path):
    run_all(folder_of(tmp_path))
    code = f"""
import sys
from pathlib import Path
from study.sweep.folder import SweepFolder
folder = SweepFolder.open(Path({str(tmp_path)!r}), "made")
assert [history.outcome for history in folder.histories()] == ["finished"] * 4
assert folder.plan.trial_count == 4
print(*{{"torch", "optuna", "pandas", "numpy", "ray", "mlflow", "pyarrow"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_a_space_of_ones_own_is_read_anew_and_leaves_nothing_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "mine.py"
    text = (REPOSITORY / "search_spaces" / "quickstart.py").read_text(encoding="utf-8")
    path.write_text(text.replace('name="quickstart"', 'name="firstname"'), encoding="utf-8")
    assert search_spaces.load(str(path)).name == "firstname"
    path.write_text(text.replace('name="quickstart"', 'name="othername"'), encoding="utf-8")
    assert search_spaces.load(str(path)).name == "othername"
    assert list(tmp_path.iterdir()) == [path]
