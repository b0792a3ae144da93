"""Confirmations: winners and the paper's settings on fresh seeds."""

import contextlib
import inspect
import itertools
import json
import re
from functools import partial
from types import SimpleNamespace
from typing import get_type_hints

import mlflow
import pytest
import tiny
import torch
from mlflow import MlflowClient
from optuna.distributions import CategoricalDistribution, FloatDistribution
from real_study import CONFIRMATIONS, SEEDS, real_study
from shared import lay_database
from sweep_fixtures import FACTS, folder_of, lines_of, plan_of, records_of, task_line, tasks_of

from search_spaces import Method, SearchSpace
from search_spaces.paper_grid import POINTS
from study.cli import launch, overview, show
from study.cli.app import confirm
from study.cli.pictures import Pictures
from study.cluster import connection
from study.config import TrialConfig, read_yaml, yaml_text
from study.errors import StudyError
from study.lanes import generator
from study.sweep import confirmation_plan, winners
from study.sweep.conductor import Conductor
from study.sweep.confirmation_plan import make_confirmation, unconfirmed
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.sweep.plan import Plan, check_name
from study.sweep.search_plan import make_plan
from study.tracking.store import default_uri
from study.tracking.tracker import sync
from study.training.trainer import initial_state


def play(folder, numbers=lambda history: (0.5, 0.5)):
    """Plays a sweep with given results.

    `numbers(history)` is a trial's objective and test accuracy, or its outcome if it does not finish.
    """
    conductor = Conductor(folder)
    while (history := conductor.propose()) is not None:
        found = numbers(history)
        conductor.started(history.key)
        if found == "failed":
            conductor.failed(history.key, "OSError: no space left")
            continue
        objective, test = (0.99, 0.99) if found == "stopped" else found
        for task in range(1 if found == "stopped" else history.task_count):
            held_out = None if objective is None else [objective] * len(history.seeds)
            conductor.result(history.key, task_line(history, task, held_out, [test] * len(history.seeds)), FACTS)
        conductor.ended(history.key)
    return folder


def tuned(directory, numbers=lambda history: (0.5, 0.5), **choices):
    """A tuning sweep with made-up results.

    `numbers` as in `play`, the other arguments as in `plan_of`.
    """
    return play(folder_of(directory, plan_of(choices.pop("name", "tuned"), **choices)), numbers)


def by_number(**groups):
    """Numbers for `play`, listed by method: `by_number(sgd=[(objective, test accuracy), ...])`."""
    return lambda history: groups[history.method][history.number]


def confirmed(folder, **choices):
    """The plan that confirms a sweep, of two fresh seeds."""
    return make_confirmation(folder, **{"name": "again", "seeds": 2, **choices})


def selected(plan):
    """The selected trials of each group with their ranks."""
    return {
        group.label: [(origin.trial, origin.rank) for origin in group.origins if origin.rank] for group in plan.groups
    }


def paper(plan, method):
    """The points of the paper's own settings in a method.

    Returns them, and the trials that they are linked to.
    """
    (group,) = [group for group in plan.groups if group.method == method]
    pairs = zip(group.points, group.origins, strict=True)
    return [(point, origin.trial) for point, origin in pairs if origin.rank is None]


def space(methods, settings=None, **choices):
    """A space of class pairs with images held out."""
    shared = {"data/name": "mnist5k", "tasks/validation_fraction": 0.2, **(settings or {})}
    scenarios = {"pairs": {"tasks/name": "class_pairs", "tasks/count": 3}}
    return SearchSpace("own", "x", scenarios, methods, shared, **{"seeds": (0, 1), **choices})


def of_space(directory, own, numbers):
    """A sweep with made-up results over the given space."""
    return play(folder_of(directory, make_plan(own, name="own")), numbers)


LR = {"optimizer/lr": FloatDistribution(1e-3, 1.0, log=True)}


# What is selected


def test_a_trial_with_a_better_test_accuracy_and_a_worse_objective_is_not_selected(tmp_path):
    numbers = by_number(sgd=[(0.5, 0.99), (0.6, 0.1), (0.4, 0.999)])
    plan = confirmed(tuned(tmp_path, numbers, methods=["sgd"], trials=3))
    assert selected(plan) == {"class_pairs-sgd": [("class_pairs-sgd-001", 1)]}


def test_test_accuracy_changes_nothing_about_a_confirmation(tmp_path):
    objectives = [0.5, 0.3, 0.6, 0.4]
    plans = []
    for place, tests in (("a", [0.1, 0.2, 0.3, 0.4]), ("b", [0.4, 0.3, 0.2, 0.1])):
        numbers = by_number(sgd=list(zip(objectives, tests, strict=True)))
        plans.append(confirmed(tuned(tmp_path / place, numbers, methods=["sgd"], trials=4), top=2))
    assert plans[0].groups == plans[1].groups
    assert selected(plans[0]) == {"class_pairs-sgd": [("class_pairs-sgd-002", 1), ("class_pairs-sgd-000", 2)]}


def test_the_best_come_best_first_with_their_ranks_in_every_group(tmp_path):
    numbers = by_number(
        sgd=[(value, 0.5) for value in (0.1, 0.4, 0.2, 0.3)], sam=[(value, 0.5) for value in (0.9, 0.6, 0.8, 0.7)]
    )
    folder = tuned(tmp_path, numbers, trials=4)
    plan = confirmed(folder, top=3)
    assert selected(plan) == {
        "class_pairs-sgd": [(f"class_pairs-sgd-{number:03d}", rank) for rank, number in enumerate((1, 3, 2), 1)],
        "class_pairs-sam": [(f"class_pairs-sam-{number:03d}", rank) for rank, number in enumerate((0, 2, 3), 1)],
    }
    tried = {history.key: history.tried for history in folder.histories()}
    for group in plan.groups:
        for point, origin in zip(group.points[:3], group.origins[:3], strict=True):
            assert point == tried[origin.trial]
    assert [found[:2] for found in selected(plan).values()] == list(selected(confirmed(folder, top=2)).values())


def test_each_scenario_has_its_own_best(tmp_path):
    def numbers(history):
        return 0.1 + 0.1 * history.number * (1 if history.scenario == "class_pairs" else -1), 0.5

    scenarios = ["class_pairs", "permuted_pixels"]
    plan = confirmed(tuned(tmp_path, numbers, methods=["sgd"], scenarios=scenarios))
    assert selected(plan) == {
        "permuted_pixels-sgd": [("permuted_pixels-sgd-000", 1)],
        "class_pairs-sgd": [("class_pairs-sgd-001", 1)],
    }


def test_ties_go_to_the_earlier_trial(tmp_path):
    numbers = by_number(sgd=[(0.4, 0.9), (0.5, 0.1), (0.5, 0.9), (0.5, 0.8)])
    plan = confirmed(tuned(tmp_path, numbers, methods=["sgd"], trials=4), top=2)
    assert selected(plan) == {"class_pairs-sgd": [("class_pairs-sgd-001", 1), ("class_pairs-sgd-002", 2)]}


def test_a_configuration_that_was_tried_again_takes_one_place(tmp_path):
    drawn = {"optimizer/lr": CategoricalDistribution([0.2, 0.1])}
    folder = of_space(
        tmp_path,
        space({"sgd": Method(distributions=drawn)}, trials=6),
        lambda history: (history.tried["optimizer/lr"], 0.5),
    )
    lrs = [history.tried["optimizer/lr"] for history in folder.histories()]
    assert lrs.count(0.2) > 1
    (group,) = confirmed(folder, top=3).groups
    numbered = [f"pairs-sgd-{lrs.index(lr):03d}" for lr in (0.2, 0.1)]
    assert [(origin.trial, origin.rank) for origin in group.origins if origin.rank] == [
        (numbered[0], 1),
        (numbered[1], 2),
    ]
    assert [point["optimizer/lr"] for point in group.points] == [0.2, 0.1, 0.01, 0.001]


@pytest.mark.parametrize("outcome", ["stopped", "failed"])
def test_only_finished_trials_are_selected(tmp_path, outcome):
    numbers = by_number(sgd=[outcome, (0.2, 0.2), (0.3, 0.3)])
    plan = confirmed(tuned(tmp_path, numbers, methods=["sgd"], trials=3), top=5)
    assert selected(plan) == {"class_pairs-sgd": [("class_pairs-sgd-002", 1), ("class_pairs-sgd-001", 2)]}


def test_only_the_scenarios_and_methods_asked_for_are_confirmed(tmp_path):
    folder = tuned(tmp_path, scenarios=["class_pairs", "permuted_pixels"], methods=["sgd", "sam", "gnp"], trials=1)
    plan = confirmed(folder, scenarios=["class_pairs"], methods=["gnp", "sgd"])
    assert [group.label for group in plan.groups] == ["class_pairs-sgd", "class_pairs-gnp"]


# Incumbents

CLIMB = [(0.2, 0.5), (0.1, 0.5), (0.3, 0.9), "failed", (0.9, 0.4), (0.5, 0.5)]
"""Of six trials, the best so far are 0, 2 and 4; 0 and 1 are the paper's own settings."""


def climbed(directory, **choices):
    return tuned(directory, by_number(sgd=CLIMB, sam=CLIMB), **{"methods": ["sgd"], "trials": 6, **choices})


def test_all_trials_that_were_the_best_so_far_are_confirmed_once_after_the_winner(tmp_path):
    folder = climbed(tmp_path)
    plan = confirmed(folder, incumbents=True)
    (group,) = plan.groups
    found = [(origin.trial, origin.rank, origin.was_incumbent) for origin in group.origins]
    assert found == [
        ("class_pairs-sgd-004", 1, True),
        ("class_pairs-sgd-000", None, True),
        ("class_pairs-sgd-002", None, True),
        ("class_pairs-sgd-001", None, False),
    ]
    tried = {history.key: history.tried for history in folder.histories()}
    assert [tried[origin.trial] for origin in group.origins] == list(group.points)
    assert [origin.why for origin in group.origins] == [
        "best, place 1",
        "best so far",
        "best so far",
        "the paper's own",
    ]
    assert plan.trial_count == 4
    assert ", all trials that were the best so far, and the paper's own settings, on fresh seeds" in plan.description
    assert Plan.from_plain(json.loads(json.dumps(plan.plain())), "it") == plan


def test_incumbents_that_are_selected_anyway_keep_their_ranks(tmp_path):
    (group,) = confirmed(climbed(tmp_path), incumbents=True, top=3).groups
    found = [(int(origin.trial[-3:]), origin.rank, origin.was_incumbent) for origin in group.origins]
    assert found == [(4, 1, True), (5, 2, False), (2, 3, True), (0, None, True), (1, None, False)]


def test_incumbents_are_trained_in_the_batches_of_a_confirmation_that_ends_when_decided(tmp_path):
    folder = climbed(tmp_path, methods=["sgd", "sam"])
    plan = confirmed(folder, incumbents=True, until_decided=True, seeds=18)
    for group in plan.groups:
        assert plan.points_of(group) == 4
        assert [origin.was_incumbent for origin in group.origins] == [True, True, True, False] * 3
    assert plan.trial_count == 24
    assert winners.due_trials(plan, []) == {"class_pairs-sgd": 4, "class_pairs-sam": 4}


def test_what_is_minimised_has_the_lowest_so_far_as_incumbents(tmp_path):
    space = {"methods": ["sgd"], "trials": 6, "objectives": ["loss/online:min"]}
    folder = folder_of(tmp_path, plan_of("low", **space))
    conductor = Conductor(folder)
    while (history := conductor.propose()) is not None:
        conductor.started(history.key)
        for task in range(history.task_count):
            line = task_line(history, task, [0.5, 0.5])
            line["metrics"]["loss/online"] = [3.0, 4.0, 2.0, 2.0, 2.5, 1.0][history.number]
            conductor.result(history.key, line, FACTS)
        conductor.ended(history.key)
    (group,) = confirmed(folder, incumbents=True).groups
    assert [int(origin.trial[-3:]) for origin in group.origins if origin.was_incumbent] == [5, 0, 2]


def test_without_incumbents_a_plan_is_written_as_before(tmp_path):
    plan = confirmed(climbed(tmp_path))
    assert not any("was_incumbent" in origin for origin in plan.plain()["groups"][0]["origins"])
    assert "was_incumbent" not in plan.model_dump_json()


def test_a_dry_run_of_a_confirmation_says_how_many_trials_it_has_and_leaves_nothing_behind(here, run, monkeypatch):
    climbed(here)
    monkeypatch.setattr(show, "_show_estimate", lambda *_: None)
    monkeypatch.setattr(connection, "foreseen", lambda execution, *_: (execution, 1, []))
    before = sorted(here.rglob("*"))
    for words, trials in (((), 3), (("--incumbents",), 4), (("--incumbents", "--top", 3), 5)):
        code, out, err = run("confirm", "tuned", "--dir", ".", "--dry-run", *words)
        assert code == 0, err
        assert f"with {trials} trials." in out.splitlines()[-1]
    assert sorted(here.rglob("*")) == before


def test_the_table_of_a_confirmation_says_why_each_trial_is_there(tmp_path, capfd):
    plan = confirmed(climbed(tmp_path), incumbents=True)
    overview.show_results(play(folder_of(tmp_path, plan)))
    out = capfd.readouterr().out
    assert [words in out for words in ("best, place 1", "best so far", "the paper's own")] == [True] * 3


# The paper's own settings


def test_the_papers_settings_are_added_once_and_linked_to_the_trials_that_had_them(tmp_path):
    numbers = by_number(sgd=[(0.1, 0.5), (0.9, 0.5), (0.2, 0.5)], sam=[(0.1, 0.5), (0.2, 0.5), (0.9, 0.5)])
    folder = tuned(tmp_path, numbers, trials=3)
    plan = confirmed(folder)
    assert selected(plan) == {
        "class_pairs-sgd": [("class_pairs-sgd-001", 1)],  # it is one of the paper's own
        "class_pairs-sam": [("class_pairs-sam-002", 1)],
    }
    assert paper(plan, "sgd") == [({"optimizer/lr": 0.01}, "class_pairs-sgd-000")]
    assert paper(plan, "sam") == [
        ({"optimizer/lr": 0.01, "optimizer/rho": 0.05}, "class_pairs-sam-000"),
        ({"optimizer/lr": 0.001, "optimizer/rho": 0.05}, "class_pairs-sam-001"),
    ]
    assert [group.trials for group in plan.groups] == [2, 3]
    assert paper(confirmed(folder, top=3), "sgd") == []


def test_the_papers_settings_are_added_where_no_trial_had_them(tmp_path):
    folder = of_space(tmp_path, space({"sgd": Method(distributions=LR)}, trials=2), by_number(sgd=[(0.1, 0.5)] * 2))
    assert paper(confirmed(folder), "sgd") == [({"optimizer/lr": 0.01}, None), ({"optimizer/lr": 0.001}, None)]


def test_a_trial_that_differs_from_the_papers_settings_in_anything_is_not_taken_for_them(tmp_path):
    points = tuple({"optimizer/lr": 0.01, "training/batch_size": size} for size in (8, 16))
    folder = of_space(tmp_path, space({"sgd": Method(points=points)}), by_number(sgd=[(0.9, 0.5), (0.1, 0.5)]))
    plan = confirmed(folder)
    assert selected(plan) == {"pairs-sgd": [("pairs-sgd-000", 1)]}
    assert paper(plan, "sgd") == [({"optimizer/lr": 0.01}, "pairs-sgd-001"), ({"optimizer/lr": 0.001}, None)]


def test_all_else_of_the_papers_settings_is_as_in_the_sweep(tmp_path):
    folder = tuned(tmp_path, methods=["gnp"], overrides={"tasks/count": 3, "model/widths": [7]})
    plan = confirmed(folder)
    (group,) = plan.groups
    ran = {history.key: TrialConfig.from_plain(history.config) for history in folder.histories()}
    linked = [origin.trial for origin in group.origins]
    assert sorted(linked) == sorted(ran)
    for point, trial in zip(group.points, linked, strict=True):
        assert plan.trial_config(group, point) == ran[trial].model_copy(update={"seeds": plan.seeds})


@pytest.mark.parametrize(
    ("name", "optimizer"), [("heavy_ball", "sgd"), ("sam", "sgd")], ids=["a name of its own", "another's name"]
)
def test_a_method_whose_optimizer_is_another_has_no_settings_of_the_paper(tmp_path, name, optimizer):
    method = Method(settings={"optimizer/name": optimizer}, points=({"optimizer/lr": 0.3}, {"optimizer/lr": 0.2}))
    folder = of_space(tmp_path, space({name: method}), lambda history: (0.5, 0.5))
    (group,) = confirmed(folder).groups
    assert group.points == ({"optimizer/lr": 0.3},)
    assert group.trials == 1


# Groups of which nothing can be selected


def test_of_a_method_without_finished_trials_the_papers_settings_are_run_and_that_is_told(tmp_path):
    numbers = by_number(sgd=["failed", "stopped"], sam=[(0.2, 0.5), (0.1, 0.5)])
    folder = tuned(tmp_path, numbers)
    plan = confirmed(folder)
    assert selected(plan) == {"class_pairs-sgd": [], "class_pairs-sam": [("class_pairs-sam-000", 1)]}
    assert [trial for _, trial in paper(plan, "sgd")] == ["class_pairs-sgd-000", "class_pairs-sgd-001"]
    assert unconfirmed(folder, plan) == ["class_pairs-sgd"]
    assert unconfirmed(folder, plan, methods=["sam"]) == []


def test_a_method_with_nothing_to_run_is_left_out_and_that_is_told_too(tmp_path):
    own = Method(settings={"optimizer/name": "sgd", "optimizer/momentum": 0.9}, points=({"optimizer/lr": 0.1},))
    sgd = Method(points=({"optimizer/lr": 0.1},))
    numbers = by_number(heavy_ball=["failed"], sgd=[(0.5, 0.5)])
    folder = of_space(tmp_path, space({"heavy_ball": own, "sgd": sgd}), numbers)
    plan = confirmed(folder)
    assert [group.method for group in plan.groups] == ["sgd"]
    assert unconfirmed(folder, plan) == ["pairs-heavy_ball"]
    with pytest.raises(StudyError, match="Nothing of 'own' can be confirmed"):
        confirmed(folder, methods=["heavy_ball"])


# How it is run


def test_a_confirmation_is_a_sweep_of_points_in_a_phase_of_its_own(tmp_path):
    folder = tuned(tmp_path)
    plan = confirmed(folder, seeds=3)
    assert plan.phase == "confirm"
    assert plan.seeds == (1000, 1001, 1002)
    assert (plan.confirms.sweep, plan.confirms.identity) == ("tuned", folder.identity)
    assert all(group.distributions == {} for group in plan.groups)
    assert all(group.trials == len(group.points) == len(group.origins) for group in plan.groups)
    assert [group.label for group in plan.groups] == [group.label for group in folder.plan.groups]
    for group in plan.groups:
        assert {plan.trial_config(group, point).seeds for point in group.points} == {(1000, 1001, 1002)}


def test_the_command_line_promises_what_the_plan_does():
    given = inspect.signature(confirm).parameters
    assert given["seeds"].default is None
    (option,) = get_type_hints(confirm, include_extras=True)["seeds"].__metadata__
    assert f"default {confirmation_plan.SEEDS}, " in option.help
    assert f"at most {confirmation_plan.MOST_SEEDS_DECIDED}." in option.help
    assert given["first_seed"].default == confirmation_plan.FIRST_SEED
    assert given["top"].default == inspect.signature(make_confirmation).parameters["top"].default


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "cmaes", "nsga2"])
def test_exactly_the_points_are_run_whatever_the_tunings_sampler(tmp_path, sampler):
    plan = confirmed(tuned(tmp_path, methods=["sam"], sampler=sampler))
    histories = play(folder_of(tmp_path, plan)).histories()
    assert [history.tried for history in histories] == list(plan.groups[0].points)
    assert {history.phase for history in histories} == {"confirm"}
    assert all(TrialConfig.from_plain(history.config).seeds == (1000, 1001) for history in histories)


def test_nothing_is_stopped_early_though_the_tuning_was(tmp_path):
    numbers = by_number(sgd=["stopped", "stopped", (0.9, 0.5)])
    plan = confirmed(tuned(tmp_path, numbers, methods=["sgd"], trials=3, scheduler="asha"))
    assert plan.scheduler == "none"
    conductor = Conductor(folder_of(tmp_path, plan))
    for objective in (0.9, 0.2, 0.1):
        history = conductor.propose()
        conductor.started(history.key)
        goes_on = [conductor.result(history.key, task_line(history, task, [objective] * 2), FACTS) for task in range(3)]
        conductor.ended(history.key)
        assert goes_on == [True] * 3
    assert {history.outcome for history in conductor.histories} == {"finished"}


def test_the_same_confirmation_twice_is_the_same_plan(tmp_path):
    folder = tuned(tmp_path, by_number(sgd=[(0.1, 0.5)] * 3, sam=[(0.1, 0.5), (0.3, 0.5), (0.2, 0.5)]), trials=3)
    first, second = confirmed(folder, top=2), confirmed(SweepFolder.open(tmp_path, "tuned"), top=2, name="twice")
    assert first.model_copy(update={"name": "twice"}) == second


# Fresh seeds


def test_seeds_of_the_tuning_are_refused_and_the_next_free_ones_named(tmp_path):
    folder = tuned(tmp_path, seeds=5)
    with pytest.raises(StudyError, match=r"Seed 3 is not fresh: the sweep 'tuned' has used it; .* --first-seed 5\."):
        confirmed(folder, first_seed=3, seeds=1)
    with pytest.raises(StudyError, match="Seed 4 is not fresh"):
        confirmed(folder, first_seed=4, seeds=10)
    assert confirmed(folder, first_seed=5, seeds=2).seeds == (5, 6)


def test_seeds_of_any_other_tuning_are_refused_too(tmp_path):
    folder = tuned(tmp_path)
    other = make_plan(space({"sgd": Method(points=({},))}, seeds=(1001, 7)), name="other")
    with pytest.raises(
        StudyError, match=r"Seed 1001 is not fresh: the sweep 'other' has used it; .* --first-seed 1002\."
    ):
        confirmed(folder, others=[folder.plan, other])
    assert confirmed(folder, others=[folder.plan, other], seeds=1).seeds == (1000,)
    assert confirmed(folder, others=[other], first_seed=1002).seeds == (1002, 1003)


def test_no_seeds_are_suggested_that_cannot_be(tmp_path):
    last = make_plan(space({"sgd": Method(points=({},))}, seeds=(2**31 - 1,)), name="last")
    with pytest.raises(StudyError, match=r"Seed 2147483647 is not fresh.* choose others with --first-seed\.$"):
        confirmed(tuned(tmp_path), others=[last], first_seed=2**31 - 2)


@pytest.mark.parametrize("length", [1, 50, 92, 93, 100])
def test_any_name_of_a_sweep_makes_a_name_of_its_confirmation(length):
    for overrides in ({}, {"data/name": "fashion_mnist"}):
        name = confirmation_plan.default_name("x" * length, overrides)
        assert check_name(name) == name
        assert name.startswith("x" * min(length, 60))
        assert name.endswith("-confirm-fashion_mnist" if overrides else "-confirm")
    assert confirmation_plan.default_name("x" * 92, {}) == "x" * 92 + "-confirm"
    assert confirmation_plan.default_name("x" * 99 + "a", {}) != confirmation_plan.default_name("x" * 99 + "b", {})


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (2**31 - 1, 2), (2**31, 1), (1000, 10**15)])
def test_seeds_out_of_range_are_refused(tmp_path, first, count):
    with pytest.raises(StudyError, match=rf"from 0 to 2147483647, not from {first} to {first + count - 1};"):
        confirmed(tuned(tmp_path), first_seed=first, seeds=count)


def test_the_last_seeds_there_are_can_be_used(tmp_path):
    assert confirmed(tuned(tmp_path), first_seed=2**31 - 2).seeds == (2**31 - 2, 2**31 - 1)


TUNING, FRESH = (0, 1, 2), tuple(range(1000, 1010))
PAIRS = [(a, b) for a in range(len(TUNING)) for b in range(len(TUNING), len(TUNING) + len(FRESH))]


def built(tasks, fraction=0.0, **given):
    """The experiment of a trial with all seeds as lanes.

    The seeds are those of the tuning and the fresh ones.
    """
    settings = {"name": tasks, "count": 3, "validation_fraction": fraction, **given}
    config = {"data": {"name": "mnist5k"}, "tasks": settings, "seeds": list(TUNING + FRESH)}
    return tiny.built(TrialConfig.from_plain(config))


def assert_lanes_differ(tensor):
    """Every fresh lane differs from every lane of the tuning.

    The lanes are axis 0 of a tensor [lane, ...].
    """
    assert [pair for pair in PAIRS if torch.equal(tensor[pair[0]], tensor[pair[1]])] == []


def test_fresh_seeds_permute_the_pixels_otherwise():
    sequence = built("permuted_pixels").tasks
    for index in range(sequence.count):
        assert_lanes_differ(sequence.task(index).pixel_order)
    orders = [sequence.task(index).pixel_order for index in range(sequence.count)]
    for a, b in itertools.combinations(range(sequence.count), 2):  # and tasks do not repeat those of the tuning
        assert not any(
            torch.equal(orders[a][i], orders[b][j]) or torch.equal(orders[b][i], orders[a][j]) for i, j in PAIRS
        )


@pytest.mark.parametrize("tasks", ["permuted_pixels", "class_pairs"])
def test_fresh_seeds_begin_with_other_weights(tasks):
    for name, values in initial_state(built(tasks)).params.items():
        assert name
        assert_lanes_differ(values)


@pytest.mark.parametrize("tasks", ["permuted_pixels", "class_pairs"])
def test_fresh_seeds_hold_other_images_out(tasks):
    sequence = built(tasks, fraction=1 / 6).tasks
    assert sequence.has_validation
    for index in range(sequence.count):
        held_out = sequence.task(index).validation
        assert torch.equal(held_out, held_out.sort(dim=1).values)  # so that different means different images
        assert_lanes_differ(held_out)


@pytest.mark.parametrize("tasks", ["permuted_pixels", "class_pairs"])
def test_fresh_seeds_train_on_other_images_of_a_task_that_draws_them(tasks):
    sequence = built(tasks, images_per_task=160).tasks
    for index in range(sequence.count):
        assert_lanes_differ(sequence.task(index).train.sort(dim=1).values)


def test_fresh_seeds_see_the_same_images_in_another_order():
    parts = built("class_pairs")
    for index in range(parts.tasks.count):
        task = parts.tasks.task(index)
        assert torch.equal(task.train, task.train[:1].expand_as(task.train))
        inputs = torch.cat([inputs for inputs, _ in tiny.minibatches(parts, index, size=16)], dim=1)
        assert_lanes_differ(inputs)


@pytest.mark.parametrize("purpose", ["permutation", "order", "validation", "images"])
def test_no_stream_of_a_fresh_seed_is_a_stream_of_the_tuning(purpose):
    def streams(seeds):
        drawn = [
            torch.randint(2**62, (2,), generator=generator(seed, purpose, task))
            for seed in seeds
            for task in range(100)
        ]
        return {tuple(numbers.tolist()) for numbers in drawn}

    before, fresh = streams(TUNING), streams(FRESH)
    assert (len(before), len(fresh)) == (300, 1000)
    assert before & fresh == set()


# Overrides


def test_another_data_set_changes_the_data_and_nothing_else(tmp_path):
    folder = tuned(tmp_path, by_number(sgd=[(0.1, 0.5), (0.2, 0.5)], sam=[(0.2, 0.5), (0.1, 0.5)]))
    same, other = confirmed(folder), confirmed(folder, overrides={"data/name": "fashion_mnist"})
    for before, after in zip(same.groups, other.groups, strict=True):
        assert (before.points, before.origins) == (after.points, after.origins)
        for point in before.points:
            flat = same.trial_config(before, point).flat()
            assert other.trial_config(after, point).flat() == flat | {"data/name": "fashion_mnist"}
    assert (same.seeds, same.confirms) == (other.seeds, other.confirms)
    assert 'data/name="fashion_mnist"' in other.description
    assert "fashion" not in same.description


def test_a_setting_that_was_tuned_cannot_be_overruled(tmp_path):
    drawn = {"interventions/l2_init/strength": FloatDistribution(1e-4, 1e-2), **LR}
    folder = of_space(tmp_path, space({"sgd": Method(distributions=drawn)}, trials=1), lambda history: (0.5, 0.5))
    for name, value in (
        ("optimizer/lr", 0.1),
        ("interventions/l2_init/strength", 0.1),
        ("interventions/l2_init", {"strength": 0.1}),
    ):
        with pytest.raises(StudyError, match=r"was tuned, so it cannot be set in a confirmation"):
            confirmed(folder, overrides={name: value})
    (group,) = confirmed(folder, overrides={"training/passes": 2}).groups
    assert group.settings["training/passes"] == 2


def test_the_papers_settings_cannot_be_overruled_either(tmp_path):
    folder = tuned(tmp_path, methods=["sam"], overrides={"tasks/count": 3, "optimizer/lr": 0.2})
    assert paper(confirmed(folder), "sam") == [(dict(point), None) for point in POINTS["sam"]]
    with pytest.raises(
        StudyError, match="optimizer/lr cannot be set in a confirmation: it also runs the paper's own settings"
    ):
        confirmed(folder, overrides={"optimizer/lr": 0.1})


@pytest.mark.parametrize("setting", ["optimizer/name", "tasks/name"])
def test_what_tells_the_groups_apart_cannot_be_overruled(tmp_path, setting):
    with pytest.raises(StudyError, match=f"{setting} cannot be set, since the parts of a sweep differ in it"):
        confirmed(tuned(tmp_path), overrides={setting: "sgd"})


# The command line


@pytest.fixture
def results_folder(here):
    """A folder of four sweeps.

    A tuned sweep, its confirmation, a grid without objective, and a sweep that has not begun.
    """
    place = here / "study-results"
    folder = tuned(place, by_number(sgd=[(0.1, 0.5), (0.2, 0.5)], sam=[(0.2, 0.5), (0.1, 0.5)]))
    play(folder_of(place, confirmed(folder, name="fresh", seeds=2)))
    tuned(place, lambda history: (None, 0.5), name="grid", space="paper_grid")
    folder_of(place, plan_of("unbegun", seeds=None))
    folder_of(place, make_plan(space({"sgd": Method(points=({},))}, seeds=(500, 1005)), name="other"))
    return place


BAD_CONFIRMATIONS = {
    "none of the best": (("tuned", "--top", 0), "--top must be at least 1, not 0"),
    "fewer than none of the best": (("tuned", "--top", -1), "--top must be at least 1, not -1"),
    "no seeds": (("tuned", "--seeds", 0), "--seeds must be at least 1, not 0"),
    "a negative number of seeds": (("tuned", "--seeds", -3), "--seeds must be at least 1, not -3"),
    "a negative seed": (("tuned", "--first-seed", -1), "--first-seed"),
    "seeds beyond the last": (("tuned", "--first-seed", 2**31), "--first-seed"),
    "a seed that is a word": (("tuned", "--first-seed", "many"), "--first-seed"),
    "a seed of the tuning": (("tuned", "--first-seed", 1), "Seed 1 is not fresh: the sweep 'tuned' has used it"),
    "a seed of another sweep": (
        ("tuned", "--first-seed", 500),
        "Seed 500 is not fresh: the sweep 'other' has used it",
    ),
    "a seed of another sweep by default": (("tuned",), "Seed 1005 is not fresh: the sweep 'other' has used it"),
    "an unknown method": (("tuned", "--method", "sma"), "did you mean 'sam'"),
    "a method that was not tuned": (("tuned", "--method", "gnp"), "Unknown method 'gnp' here"),
    "an unknown scenario": (("tuned", "--scenario", "class_pair"), "did you mean 'class_pairs'"),
    "an unknown sweep": (("tunde",), "There is no sweep 'tunde'"),
    "a path": (("../tuned",), "cannot be a name"),
    "no sweep": ((), "issing argument"),
    "a confirmation of a confirmation": (("fresh",), "choose by 'tuned' instead"),
    "a sweep without objective": (("grid",), "has no objective"),
    "a sweep without finished trials": (("unbegun",), "study resume unbegun"),
    "a taken name": (("tuned", "--first-seed", 2000, "--name", "fresh"), "for example --name fresh-2"),
    "a name that climbs": (("tuned", "--first-seed", 2000, "--name", "../x"), "'../x' cannot be a name"),
    "an empty name": (("tuned", "--first-seed", 2000, "--name", ""), "'' cannot be a name"),
    "a tuned setting": (("tuned", "--set", "optimizer/lr=0.1"), "optimizer/lr was tuned"),
    "a setting tuned in another method": (("tuned", "--set", "optimizer/rho=0.1"), "optimizer/rho was tuned"),
    "another optimizer": (("tuned", "--set", "optimizer/name=sam"), "--method"),
    "an unknown setting": (
        ("tuned", "--first-seed", 2000, "--set", "training/batchsize=3"),
        "did you mean 'training/batch_size'",
    ),
    "seeds by --set": (("tuned", "--set", "seeds/x=3"), "unknown setting"),
    "an unknown data set": (
        ("tuned", "--first-seed", 2000, "--set", "data/name=fashion-mnist"),
        "did you mean 'fashion_mnist'",
    ),
    "a data set that cannot name a sweep": (
        ("tuned", "--first-seed", 2000, "--set", "data/name=fashion mnist"),
        "did you mean 'fashion_mnist'",
    ),
    "more tasks than there are": (
        ("tuned", "--first-seed", 2000, "--set", "tasks/count=46"),
        "tasks/count=46 is too many",
    ),
    "an MLflow server that is away": (
        ("tuned", "--first-seed", 2000, "--tracking-uri", "http://127.0.0.1:9"),
        "http://127.0.0.1:9",
    ),
    "a Ray cluster that is away": (
        ("tuned", "--first-seed", 2000, "--address", "127.0.0.1:1"),
        "--address 127.0.0.1:1",
    ),
    "zero workers": (("tuned", "--workers", 0), "--workers must be above 0, not 0"),
}


@pytest.mark.parametrize("case", BAD_CONFIRMATIONS)
def test_a_bad_confirmation_dies_with_one_sentence(refused, results_folder, case):
    words, said = BAD_CONFIRMATIONS[case]
    before = {path: path.read_bytes() for path in results_folder.rglob("*") if path.is_file()}
    assert said in refused("confirm", *words)
    assert {path: path.read_bytes() for path in results_folder.rglob("*") if path.is_file()} == before


def test_a_refusal_is_one_sentence_though_there_are_notes_to_say(refused, here):
    place = here / "study-results"
    tuned(place, by_number(sgd=["failed", "failed"], sam=[(0.5, 0.5), "failed"]))
    broken = place / "broken" / "sweep.jsonl"
    broken.parent.mkdir()
    broken.write_text("{}\n")
    assert "for example --name broken-2" in refused("confirm", "tuned", "--name", "broken")


@pytest.fixture
def launched(monkeypatch):
    """The arguments of launches, which do not happen.

    They are (plan, directory, execution, notes).
    """
    found = []

    def begin(plan, directory, execution, session, notes):
        found.append((plan, directory, execution, notes))
        return launch.Ended(SimpleNamespace(plan=plan, directory=directory), "nowhere", complete=True)

    monkeypatch.setattr(launch, "_begin", begin)
    return found


def test_other_confirmations_may_have_the_same_seeds(run, results_folder, launched):
    assert run("confirm", "tuned", "--seeds", 2, "--name", "again") == (0, "", "")
    (plan, *_), *_ = launched
    assert plan.seeds == SweepFolder.open(results_folder, "fresh").plan.seeds == (1000, 1001)


def test_a_confirmation_is_called_after_the_sweep_and_the_data_set(run, results_folder, launched):
    more = ("--seeds", 2, "--set", "tasks/count=2")
    run("confirm", "tuned", *more)
    run("confirm", "tuned", *more, "--set", "data/name=fashion_mnist")
    run("confirm", "tuned", *more, "--set", "data/name=fashion_mnist", "--name", "mine")
    assert [plan.name for plan, *_ in launched] == ["tuned-confirm", "tuned-confirm-fashion_mnist", "mine"]
    assert {group.settings["tasks/count"] for plan, *_ in launched for group in plan.groups} == {2}


def test_what_was_not_confirmed_is_told(run, here, launched):
    place = here / "study-results"
    tuned(place, by_number(sgd=["failed", "failed"], sam=[(0.5, 0.5), "failed"]))
    (place / "broken").mkdir()
    (place / "broken" / "sweep.jsonl").write_text("{}\n")
    run("confirm", "tuned")
    notes = "\n".join(launched[0][3])
    assert "3 trials of 'tuned' are not done" in notes
    assert "no trial of class_pairs-sgd has finished with an objective" in notes
    assert "class_pairs-sam" not in notes
    assert "cannot tell whether the seeds of 'broken' are fresh" in notes
    run("confirm", "tuned", "--method", "sam")
    assert "class_pairs-sgd" not in "\n".join(launched[1][3])


@pytest.mark.parametrize(("seeds", "least"), [(1, 7), (4, 7), (6, 7), (7, None), (10, None)])
def test_too_few_seeds_to_show_any_difference_are_called_so(seeds, least, run, here, launched):
    """Two winners are compared in accuracy and decline: Holm's correction doubles the smallest p-value, 2 / 2^n."""
    tuned(here / "study-results")
    assert run("confirm", "tuned", "--seeds", seeds)[0] == 0
    ((_, _, _, notes),) = launched
    assert len(notes) == (0 if least is None else 1)
    assert all(f"with {seeds} seed" in note and f"--seeds {least}" in note for note in notes)


def test_one_winner_has_no_difference_to_show(run, here, launched):
    tuned(here / "study-results")
    run("confirm", "tuned", "--seeds", 1, "--method", "sgd")
    assert launched[0][3] == []


def test_what_was_not_confirmed_is_said_when_the_confirmation_begins(run, here, monkeypatch):
    tuned(here / "study-results", by_number(sgd=["failed", (0.5, 0.5)], sam=["failed", "failed"]))
    monkeypatch.setattr(connection, "connected", lambda execution, plan, place: contextlib.nullcontext((execution, [])))
    ended = partial(launch.Ended, uri="nowhere", complete=True)
    monkeypatch.setattr(launch, "_launch", lambda folder, *_: ended(folder))
    code, out, err = run("confirm", "tuned")
    assert (code, out) == (0, "")
    assert err.splitlines() == [
        "note: 3 trials of 'tuned' are not done; the best of the others are confirmed.",
        "note: no trial of class_pairs-sam has finished with an objective, so none of it was selected.",
    ]
    assert SweepFolder.open(here / "study-results", "tuned-confirm").task_counts == {"class_pairs": 3}


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line | {"execution": line["execution"] | {"of_a_later_version": 1}},
        lambda line: line | {"plan": line["plan"] | {"of_a_later_version": 1}},
        lambda line: {name: value for name, value in line.items() if name != "execution"},
        lambda line: line | {"task_counts": None, "plan": None},
    ],
)
def test_a_sweep_beside_it_that_cannot_be_read_stops_no_confirmation(run, results_folder, launched, change):
    log = results_folder / "unbegun" / "sweep.jsonl"
    log.write_text(json.dumps(change(lines_of(log)[0])) + "\n")
    code, _, err = run("confirm", "tuned", "--seeds", 2)
    assert (code, err) == (0, "")
    note, few = launched[0][3]
    assert few.startswith("with 2 seeds no difference")
    assert note.startswith("cannot tell whether the seeds of 'unbegun' are fresh: ")


def test_it_runs_where_the_tuning_did_but_for_how_many_at_once(run, here, launched):
    kept = Execution(data_dir="there", cpus_per_trial=2, gpus_per_trial=0.5, workers=7, tracking_uri="sqlite:///x.db")
    place = here / "study-results"
    play(SweepFolder.create(place, plan_of("tuned"), kept, {"class_pairs": 3}))
    run("confirm", "tuned")
    run("confirm", "tuned", "--workers", 3, "--cpus-per-trial", 1)
    first, second = (execution for _, _, execution, _ in launched)
    assert first == kept.model_copy(update={"workers": None, "gpus_per_trial": None})
    assert second == first.model_copy(update={"workers": 3, "cpus_per_trial": 1.0})


@pytest.mark.parametrize("command", ["best", "export", "confirm"])
def test_nothing_is_chosen_by_a_confirmation(refused, results_folder, command):
    said = refused(command, "fresh")
    assert "'fresh' confirms 'tuned'" in said
    assert "choose by 'tuned' instead" in said
    assert winners.best_keys(SweepFolder.open(results_folder, "fresh").histories()) == []


def test_a_confirmed_trial_can_be_exported_by_its_name(run, results_folder):
    code, out, _ = run("export", "fresh", "--trial", "class_pairs-sam-000")
    assert code == 0
    plain = read_yaml(results_folder.parent / out.strip())
    assert plain["seeds"] == [1000, 1001]
    assert plain["provenance"]["phase"] == "confirm"
    assert plain["provenance"]["selected_by"] == "named by the user"


def test_a_plan_of_before_there_were_confirmations_still_opens(run, results_folder, launched):
    log = results_folder / "tuned" / "sweep.jsonl"
    (line,) = lines_of(log)
    before = SweepFolder.open(results_folder, "tuned").plan
    del line["plan"]["confirms"]
    for group in line["plan"]["groups"]:
        del group["origins"]
    log.write_text(json.dumps(line) + "\n")
    opened = SweepFolder.open(results_folder, "tuned")
    assert opened.plan == before
    assert opened.plan.origin("class_pairs-sam", 1).trial is None
    assert run("best", "tuned")[0] == 0
    assert run("confirm", "tuned", "--seeds", 2)[0] == 0
    assert len(launched) == 1


# What is shown


def shown(folder, capfd):
    """The table of a confirmation by settings, and its footnote."""
    capfd.readouterr()
    overview.show_results(folder)
    _, title, _, *rows, text = capfd.readouterr().out.splitlines()
    assert title == "class_pairs: confirmed on fresh seeds"
    return {" ".join(cells[:2]): cells[2:] for cells in (re.split(r"  +", row) for row in rows)}, text


def test_a_table_sets_the_tuned_objective_beside_the_confirmed_one(tmp_path, capfd):
    folder = tuned(tmp_path, by_number(sgd=[(0.25, 0.5), (0.75, 0.5)]), methods=["sgd"])
    again = play(folder_of(tmp_path, confirmed(folder)), by_number(sgd=[(0.5, 0.625), (0.375, 0.625)]))
    assert [history.key for history in again.histories()] == ["class_pairs-sgd-000", "class_pairs-sgd-001"]
    rows, text = shown(again, capfd)
    assert rows == {
        "sgd lr=0.001": ["best, place 1", "class_pairs-sgd-001", "0.7500", "0.5000", "0.2500", "0.6250", "0 of 2"],
        "sgd lr=0.01": ["the paper's own", "class_pairs-sgd-000", "0.2500", "0.3750", "-0.1250", "0.6250", "0 of 2"],
    }
    assert "luck" in text


def test_where_a_setting_differs_from_the_tuning_there_is_no_difference_to_tell(tmp_path, capfd):
    folder = tuned(tmp_path, by_number(sgd=[(0.25, 0.5), (0.75, 0.5)]), methods=["sgd"])
    overrides = {"data/name": "fashion_mnist", "training/device": "cpu"}
    again = play(folder_of(tmp_path, confirmed(folder, overrides=overrides)), by_number(sgd=[(0.5, 0.625)] * 2))
    rows, text = shown(again, capfd)
    assert [cells[2:5] for cells in rows.values()] == [["0.7500", "0.5000", "-"], ["0.2500", "0.5000", "-"]]
    assert 'data/name="fashion_mnist"' in text
    assert "device" not in text
    assert "luck" not in text


@pytest.mark.parametrize("gone", ["elsewhere", "another of its name", "broken"])
def test_a_confirmation_is_shown_without_the_tuning_too(tmp_path, capfd, gone):
    folder = tuned(tmp_path, by_number(sgd=[(0.25, 0.5), (0.75, 0.5)]), methods=["sgd"])
    again = play(folder_of(tmp_path, confirmed(folder)), by_number(sgd=[(0.5, 0.625)] * 2))
    folder.root.rename(tmp_path.parent / f"{tmp_path.name}-moved")
    if gone == "another of its name":
        tuned(tmp_path, by_number(sgd=[(0.9, 0.5)] * 3), methods=["sgd"], trials=3)
    if gone == "broken":
        folder.root.mkdir()
        (folder.root / "sweep.jsonl").write_text("{}\n")
    rows, _ = shown(again, capfd)
    assert [cells[2:5] for cells in rows.values()] == [["-", "0.5000", "-"]] * 2


# MLflow


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A folder of sweeps and its store.

    Shared by the tests, since a new database takes seconds.
    """
    directory = tmp_path_factory.mktemp("sweeps")
    return directory, lay_database(directory)


def runs_of(uri, name, role):
    """The runs of a sweep as plain MLflow returns them."""
    mlflow.set_tracking_uri(uri)
    return mlflow.search_runs(experiment_names=[name], filter_string=f"tags.role = '{role}'", output_format="list")


def by_trial(runs):
    return {run.data.tags["trial"]: run for run in runs}


NUMBERS = by_number(sgd=[(0.1, 0.5), (0.2, 0.5), (0.3, 0.5)], sam=[(0.5, 0.5), (0.4, 0.5), (0.45, 0.5)])


def test_the_runs_of_a_confirmation_are_linked_to_those_of_the_tuning(store):
    directory, uri = store
    folder = tuned(directory, NUMBERS, name="linked", trials=3)
    again = play(folder_of(directory, confirmed(folder, name="linked-confirm", top=2)))
    sync(folder, uri, Pictures())
    sync(again, uri, Pictures())
    (before,), (after,) = runs_of(uri, "linked", "sweep"), runs_of(uri, "linked-confirm", "sweep")
    assert after.data.tags["confirms"] == "linked"
    assert after.data.tags["confirms_run_id"] == before.info.run_id
    assert after.data.tags["phase"] == "confirm"
    assert after.data.metrics == {"trials/finished": 6.0, "trials/stopped": 0.0, "trials/failed": 0.0}
    assert "`linked`" in after.data.tags["mlflow.note.content"]
    tags = MlflowClient(uri).get_experiment_by_name("linked-confirm").tags
    assert tags["confirms_identity"] == folder.identity
    assert tags["sweep_identity"] == again.identity
    tuning = by_trial(runs_of(uri, "linked", "trial"))
    links = {}
    for key, run in by_trial(runs_of(uri, "linked-confirm", "trial")).items():
        found = run.data.tags
        links[key] = (found["confirms_trial"], found.get("selected_rank"))
        assert found["confirms_run_id"] == tuning[found["confirms_trial"]].info.run_id
        assert found["phase"] == "confirm"
        assert run.data.params["seeds"] == "[1000, 1001]"
        assert run.info.run_name == tuning[found["confirms_trial"]].info.run_name
    assert links == {
        "class_pairs-sgd-000": ("class_pairs-sgd-002", "1"),
        "class_pairs-sgd-001": ("class_pairs-sgd-001", "2"),
        "class_pairs-sgd-002": ("class_pairs-sgd-000", None),
        "class_pairs-sam-000": ("class_pairs-sam-000", "1"),
        "class_pairs-sam-001": ("class_pairs-sam-002", "2"),
        "class_pairs-sam-002": ("class_pairs-sam-001", None),
    }
    for run in (before, *tuning.values()):
        assert not {"confirms", "confirms_run_id", "confirms_trial", "selected_rank"} & run.data.tags.keys()


def test_a_confirmation_stands_in_a_store_without_its_tuning_and_is_linked_when_that_comes(store):
    directory, uri = store
    folder = tuned(directory, NUMBERS, name="late", trials=3)
    again = play(folder_of(directory, confirmed(folder, name="late-confirm", methods=["sgd"])))
    sync(again, uri, Pictures())
    (own,) = runs_of(uri, "late-confirm", "sweep")
    first = by_trial(runs_of(uri, "late-confirm", "trial"))["class_pairs-sgd-000"]
    assert own.data.tags["confirms"] == "late"
    assert (first.data.tags["confirms_trial"], first.data.tags["selected_rank"]) == ("class_pairs-sgd-002", "1")
    assert not any("confirms_run_id" in run.data.tags for run in (own, first))
    sync(folder, uri, Pictures())
    sync(again, uri, Pictures())
    (own,) = runs_of(uri, "late-confirm", "sweep")
    (tuning,) = runs_of(uri, "late", "sweep")
    assert own.data.tags["confirms_run_id"] == tuning.info.run_id
    assert all("confirms_run_id" in run.data.tags for run in runs_of(uri, "late-confirm", "trial"))


def test_a_confirmation_is_not_linked_to_another_sweep_of_its_tunings_name(store, tmp_path):
    directory, uri = store
    sync(tuned(directory, NUMBERS, name="common", trials=3), uri, Pictures())
    folder = tuned(tmp_path, NUMBERS, name="common", trials=3)
    again = play(folder_of(tmp_path, confirmed(folder, name="common-confirm", methods=["sgd"])))
    sync(again, uri, Pictures())
    (own,) = runs_of(uri, "common-confirm", "sweep")
    assert own.data.tags["confirms"] == "common"
    assert not any("confirms_run_id" in run.data.tags for run in (own, *runs_of(uri, "common-confirm", "trial")))


# For real


@pytest.fixture(scope="module")
def real():
    """A small sweep and two confirmations of it, beside each other."""
    study = real_study()
    assert [study.complained[name] for name in CONFIRMATIONS] == ["", ""]
    return study.place, study.said["first"]


@pytest.mark.sweep
def test_the_same_confirmation_twice_gives_the_same_numbers(real):
    place, _ = real
    first, second = (records_of(place / "study-results" / name) for name in ("first", "second"))
    assert len(first) >= 3
    assert all(len(tasks_of(lines)) == 3 for lines in first.values())
    assert {key: (lines[0]["config"], tasks_of(lines)) for key, lines in first.items()} == {
        key: (lines[0]["config"], tasks_of(lines)) for key, lines in second.items()
    }


@pytest.mark.sweep
def test_a_confirmed_trial_is_the_exported_best_on_the_fresh_seeds(real, run, tmp_path):
    place, _ = real
    (exported,) = (place / "study-results" / "quickstart" / "best").glob("class_pairs-sam-*")
    plain = read_yaml(exported)
    assert plain["seeds"] == [0, 1]
    (tmp_path / "fresh.yaml").write_text(yaml_text({**plain, "seeds": list(SEEDS)}))
    code, out, err = run("trial", tmp_path / "fresh.yaml", "--json")
    assert (code, err) == (0, "")
    here = [json.loads(line) | {"kind": "task"} for line in out.splitlines()]
    confirmed_lines = records_of(place / "study-results" / "first")["class_pairs-sam-000"]
    assert tasks_of(here) == tasks_of(confirmed_lines)
    tuned_lines = records_of(place / "study-results" / "quickstart")[exported.stem]
    assert tasks_of(here) != tasks_of(tuned_lines)


@pytest.mark.sweep
def test_a_confirmation_ends_with_its_table_and_exports_nothing(real):
    place, out = real
    assert "class_pairs: confirmed on fresh seeds" in out
    assert "best, place 1" in out
    assert "exported" not in out
    assert not (place / "study-results" / "first" / "best").exists()
    assert "study best" not in out
    assert "study confirm" not in out
    uri = default_uri(place / "study-results")
    (own,) = runs_of(uri, "first", "sweep")
    (tuning,) = runs_of(uri, "quickstart", "sweep")
    assert own.info.status == "FINISHED"
    assert own.data.tags["confirms_run_id"] == tuning.info.run_id
