"""What a search space may hold: points that its distributions could draw, plain values, settings alone."""

import json

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json
from pydantic import ValidationError
from sweep_fixtures import folder_of, plan_of, run_all

import search_spaces
from search_spaces import Method, SearchSpace
from study import parts
from study.errors import StudyError
from study.sweep import datasets
from study.sweep.folder import SweepFolder
from study.sweep.plan import Plan, corners
from study.sweep.search_plan import make_plan

pytestmark = pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")

BATCH, LR, WIDTHS = "training/batch_size", "optimizer/lr", "model/widths"


def space_of(method: Method, **changes) -> SearchSpace:
    choices = {
        "name": "mine",
        "description": "",
        "scenarios": {"pairs": {"tasks/name": "class_pairs", "tasks/count": 2}},
        "methods": {"sgd": method},
        "settings": {"tasks/validation_fraction": 0.2},
        "seeds": (0, 1),
        "trials": 3,
    }
    return SearchSpace(**(choices | changes))


def planned(method: Method, **changes) -> Plan:
    return make_plan(space_of(method, **changes), name="mine")


@pytest.mark.parametrize(
    ("name", "value", "distribution"),
    [
        (BATCH, 24, IntDistribution(16, 128, step=16)),
        (BATCH, 127, IntDistribution(16, 128, step=16)),
        (BATCH, 15, IntDistribution(16, 128)),
        (BATCH, 1, IntDistribution(2, 128, log=True)),
        (LR, 0.15, FloatDistribution(0.1, 1.0, step=0.1)),
        (LR, 1.1, FloatDistribution(0.1, 1.0)),
        (LR, 0.3, CategoricalDistribution([0.1, 0.2])),
        (WIDTHS, [7], CategoricalDistribution([[5], [6]])),
    ],
)
def test_a_point_that_its_distribution_cannot_draw_is_refused(name, value, distribution):
    with pytest.raises(StudyError, match=r"outside its distribution .*, or between its steps"):
        planned(Method(points=({name: value},), distributions={name: distribution}))


@pytest.mark.parametrize(
    ("name", "value", "distribution"),
    [
        (BATCH, 32, IntDistribution(16, 128, step=16)),
        (BATCH, 128, IntDistribution(16, 128)),
        (LR, 0.3, FloatDistribution(0.1, 1.0, step=0.1)),
        (LR, 1, FloatDistribution(0.1, 1.0, log=True)),
        (LR, 0.2, CategoricalDistribution([0.1, 0.2])),
        (WIDTHS, (6,), CategoricalDistribution([[5], (6,)])),
        (LR, np.float64(0.2), CategoricalDistribution([*np.array([0.1, 0.2]), np.float32(0.5)])),
        (BATCH, np.int64(16), CategoricalDistribution(list(np.array([16, 32])))),
    ],
)
def test_any_other_point_runs_and_is_resumed(name, value, distribution, tmp_path):
    plan = planned(
        Method(
            points=({name: value},), distributions={name: distribution, "optimizer/momentum": FloatDistribution(0, 0.9)}
        )
    )
    assert Plan.from_plain(json.loads(json.dumps(plan.plain())), "again") == plan
    folder = folder_of(tmp_path, plan, tasks=2)
    before = run_all(folder)
    folder.log("budget", trials=5)
    after = run_all(SweepFolder.open(tmp_path, "mine"))
    assert [history.tried for history in after[:3]] == [history.tried for history in before]
    assert len(after) == 5


@pytest.mark.filterwarnings("ignore:Fixed parameter")
@pytest.mark.parametrize("steps", [IntDistribution(16, 128, step=16), IntDistribution(32, 128)])
def test_a_sweep_from_before_such_points_were_refused_goes_on(steps, tmp_path):
    plan = plan_of("old", methods=["sgd"], trials=3)
    (group,) = plan.groups
    drawn = {BATCH: steps, LR: FloatDistribution(0.01, 1, log=True)}
    old = {"points": ({BATCH: 24},), "distributions": {name: distribution_to_json(of) for name, of in drawn.items()}}
    folder = folder_of(tmp_path, plan.model_copy(update={"groups": (group.model_copy(update=old),)}))
    before = run_all(folder)
    assert before[0].tried[BATCH] == 24
    folder.log("budget", trials=6)
    after = run_all(SweepFolder.open(tmp_path, "old"))
    assert [history.tried for history in after[:3]] == [history.tried for history in before]
    assert len(after) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"tasks/validation_fraction": 0.2, "seeds": [5, 6]}},
        {"scenarios": {"pairs": {"tasks/name": "class_pairs", "seeds": (5, 6)}}},
        {"methods": {"sgd": Method(settings={"seeds": 3}, points=({},))}},
        {"methods": {"sgd": Method(points=({LR: 0.1, "seeds": [5, 6]},))}},
        {"methods": {"sgd": Method(distributions={"seeds": CategoricalDistribution([[1], [2]])})}},
    ],
)
def test_seeds_are_no_setting_of_a_part_of_a_space(changes):
    with pytest.raises(StudyError, match=r"seeds cannot be a setting of .*; give the space itself `seeds`, or --seeds"):
        planned(**({"method": Method(points=({},))} | changes))


@pytest.mark.parametrize("name", ["lr", "", "optimizer", "\x1b[31m"])
def test_a_name_without_a_group_is_no_setting(name):
    with pytest.raises(StudyError, match="is not a setting; write it like"):
        planned(Method(points=({name: 1},)))


@pytest.mark.parametrize("value", [np.array([7, 5]), (7, 5), [np.int64(7), 5], (np.int32(7), np.int8(5))])
def test_tuples_and_numpy_are_plain_values_everywhere(value):
    same = planned(Method(points=({LR: 0.1},)), settings={"tasks/validation_fraction": 0.2, WIDTHS: [7, 5]})
    for method, settings in (
        (Method(points=({LR: 0.1},)), {WIDTHS: value}),
        (Method(settings={WIDTHS: value}, points=({LR: 0.1},)), {}),
        (Method(points=({LR: 0.1, WIDTHS: value},)), {}),
    ):
        plan = planned(method, settings={"tasks/validation_fraction": 0.2, **settings})
        (group,) = plan.groups
        assert plan.trial_config(group, group.points[0]) == same.trial_config(same.groups[0], same.groups[0].points[0])


@pytest.mark.parametrize("value", [object(), b"0.1", 1j, {1, 2}, lambda: 0, np.datetime64("2001-01-01")])
def test_what_is_no_plain_value_is_refused(value):
    for method in (
        Method(points=({LR: value},)),
        Method(settings={LR: [value]}, points=({},)),
        Method(distributions={LR: CategoricalDistribution([0.1, value])}),
    ):
        with pytest.raises(StudyError, match="optimizer/lr"):
            planned(method)


def test_combinations_of_ends_are_checked_too():
    """Each is possible with the other's low end: 4,000 images of which a fifth is held out, and 0.9 held out of few."""
    drawn = {
        "tasks/images_per_task": IntDistribution(10, 600),
        "tasks/validation_fraction": FloatDistribution(0.1, 0.6),
    }
    plan = planned(Method(distributions=drawn))
    (group,) = plan.groups
    assert {**dict.fromkeys(drawn), "tasks/images_per_task": 600, "tasks/validation_fraction": 0.6} in corners(group)


@pytest.mark.parametrize("seeds", [(2**31,), (0, 10**40), (-1,)])
def test_no_space_has_a_seed_that_no_trial_can_have(seeds):
    with pytest.raises(ValidationError, match=r"should be (less|greater) than"):
        space_of(Method(points=({LR: 0.1},)), seeds=seeds)


def test_more_seeds_than_there_are_beyond_those_of_the_space_are_refused():
    space = space_of(Method(points=({LR: 0.1},)), seeds=(2**31 - 2,))
    assert make_plan(space, name="mine", seeds=2).seeds == (2**31 - 2, 2**31 - 1)
    with pytest.raises(StudyError, match="--seeds 3 is too many"):
        make_plan(space, name="mine", seeds=3)


@pytest.mark.parametrize("trials", [10**7, 10**40])
def test_no_space_has_a_budget_that_no_one_can_run(trials):
    with pytest.raises(StudyError, match="at most 1,000,000"):
        planned(Method(distributions={LR: FloatDistribution(0.1, 1)}), trials=trials)


def flat_of(name: str, scenario: str, method: str = "sgd") -> list[dict]:
    """The configurations of the points of a space's group."""
    plan = make_plan(search_spaces.load(name), name="x", scenarios=[scenario], methods=[method])
    (group,) = plan.groups
    return [plan.trial_config(group, point).flat() for point in group.points]


@pytest.mark.parametrize(
    ("name", "scenario", "images", "steps", "tasks"),
    [
        ("l2_init", "permuted_mnist", 10_000, 625, 500),
        ("l2_init", "random_label_mnist", 1200, 30_000, 50),
        ("l2_init_cifar100", "five_plus_one", 2500, 780, 30),
        ("online_permuted_mnist", "permuted_mnist", 60_000, 60_000, 800),
    ],
)
def test_a_published_setting_has_the_published_steps_and_tasks(name, scenario, images, steps, tasks):
    for flat in flat_of(name, scenario):
        drawn = flat["tasks/images_per_task"] or flat.get("tasks/images") or images
        assert drawn == images
        assert drawn // flat[BATCH] * flat["training/passes"] == steps
        assert flat["tasks/count"] == tasks


@pytest.mark.parametrize("name", ["l2_init", "l2_init_cifar100"])
def test_penalties_have_the_strengths_of_the_authors_code(name):
    """Its penalties are half of lambda times a sum of squares, whose gradient is lambda times the weights."""
    (scenario, *_) = search_spaces.load(name).scenarios
    strengths = {1e-2, 1e-3, 1e-4, 1e-5}
    assert {flat["optimizer/weight_decay"] for flat in flat_of(name, scenario, "l2")} == {0.1, *strengths}
    pulled = flat_of(name, scenario, "l2_init")
    assert {2 * flat["interventions/l2_init/strength"] for flat in pulled} == strengths
    assert {flat[LR] for flat in pulled} == {flat[LR] for flat in flat_of(name, scenario)}
    assert {flat["optimizer/name"] for flat in pulled} == {"sgd"}


def test_l2_init_is_compared_with_the_authors_methods_on_both_optimizers():
    names = ("l2", "l2_init", "layer_norm", "redo", "continual_backprop")
    methods = search_spaces.load("l2_init").methods
    assert {"sgd", "adam", *names, *(f"adam_{name}" for name in names)} <= methods.keys()
    for name in names[1:]:
        plain, adam = (flat_of("l2_init", "permuted_mnist", method) for method in (name, f"adam_{name}"))
        settings = [
            [{word: value for word, value in flat.items() if not word.startswith("optimizer/")} for flat in flats]
            for flats in (plain, adam)
        ]
        assert settings[0] == settings[1], "only the optimizer differs"
        assert {(flat["optimizer/name"], flat["optimizer/weight_decay"]) for flat in adam} == {("adamw", 0.0)}
    decayed = {flat["interventions/l2/strength"] for flat in flat_of("l2_init", "permuted_mnist", "adam_l2")}
    assert {2 * strength for strength in decayed} == {0.1, 1e-2, 1e-3, 1e-4, 1e-5}


def test_beyond_mnist_searches_the_ranges_of_the_quickstart_without_a_download(tmp_path):
    plan = make_plan(search_spaces.load("beyond_mnist"), name="x", seeds=1)
    quickstart = make_plan(search_spaces.load("quickstart"), name="x", scenarios=["class_pairs"])
    ranges = {group.method: group.distributions for group in quickstart.groups}
    assert {group.method: group.distributions for group in plan.groups} == ranges
    assert all(group.trials == quickstart.groups[0].trials for group in plan.groups)
    assert not any(datasets.missing(plan.trial_config(group, corners(group)[0]), tmp_path) for group in plan.groups)


# --- tuned alike -----------------------------------------------------------------------------------------------------


def test_the_remedies_are_all_interventions_beside_sam_and_gnp_with_two_references_and_one_budget():
    space = search_spaces.load("remedies")
    named = {name for method in space.methods.values() for each in (method.settings, *method.points) for name in each}
    assert {name.split("/")[1] for name in named if name.startswith("interventions/")} == set(
        parts.names("interventions")
    )
    assert {"sgd", "full_reset", "sam", "gnp"} <= space.methods.keys()
    assert len({str(method.drawn["optimizer/lr"]) for method in space.methods.values()}) == 1
    assert {group.trials for group in make_plan(space, name="x").groups} == {space.trials}


def test_the_sharpness_family_has_every_rule_and_the_blend_of_gnps_recipes():
    space = search_spaces.load("sharpness_family")
    rules = {method.settings.get("optimizer/name", name) for name, method in space.methods.items()}
    assert rules == set(parts.names("optimizers"))
    assert {
        "sam_over_tasks",
        "sam_within_task",
        "sam_first_tasks",
        "sam_last_tasks",
        "sam_adamw",
    } <= space.methods.keys()
    blends = [point["optimizer/lambda"] / point["optimizer/r"] for point in space.methods["gnp"].points]
    assert blends == pytest.approx([2.0, 0.8])
    shared = search_spaces.load("remedies")
    assert (space.scenarios, space.settings, space.trials) == (shared.scenarios, shared.settings, shared.trials)
    assert all(space.methods[name] == shared.methods[name] for name in ("sgd", "sam"))
