"""Which settings decided the objective: found where it is known, refused where there is too little, the same twice."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis_fixtures import Trial, curve, framed
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json

from analysis import importance as module
from analysis.importance import LEAST_TRIALS, importance
from analysis.report.search import section_search

COLUMNS = ["scenario", "method", "setting", "share", "trials"]
LR = FloatDistribution(1e-4, 1.0, log=True)
RHO = FloatDistribution(1e-3, 2.0, log=True)
TEST = curve(2, lanes=2).to_numpy()


def group(method="sam", points=(), **distributions):
    texts = {f"optimizer/{name}": distribution_to_json(found) for name, found in distributions.items()}
    return {
        "scenario": "pixels",
        "method": method,
        "trials": 40,
        "points": [dict(point) for point in points],
        "distributions": texts,
    }


def trials(count, objective, method="sam", seed=0, outcome="finished"):
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        settings = {"optimizer/lr": 10 ** draw.uniform(-4, 0), "optimizer/rho": 10 ** draw.uniform(-3, 0.3)}
        made.append(Trial("pixels", method, TEST, settings, objective=objective(settings), outcome=outcome))
    return made


def by_lr(settings):
    return 1 / (1 + abs(math.log10(settings["optimizer/lr"]) + 1))


def by_rho(settings):
    return 1 / (1 + settings["optimizer/rho"])


def shares(frame):
    return dict(zip(frame["setting"], frame["share"], strict=True))


@pytest.mark.parametrize(("objective", "name"), [(by_lr, "optimizer/lr"), (by_rho, "optimizer/rho")])
def test_the_setting_that_decides_gets_nearly_all(objective, name):
    table = importance(framed(trials(40, objective), groups=[group(lr=LR, rho=RHO)]))
    assert list(table.columns) == COLUMNS
    assert set(table["setting"]) == {"optimizer/lr", "optimizer/rho"}
    assert shares(table)[name] > 0.9
    assert sum(table["share"]) == pytest.approx(1)
    assert set(table["trials"]) == {40}


def test_two_settings_that_matter_alike_share():
    def alike(settings):
        return math.log10(settings["optimizer/lr"]) / 4 + math.log10(settings["optimizer/rho"]) / 3.3

    table = importance(framed(trials(60, alike), groups=[group(lr=LR, rho=RHO)]))
    assert min(table["share"]) > 0.3


def test_the_same_trials_give_the_same_shares_to_the_last_digit():
    sweep = framed(trials(25, by_lr), groups=[group(lr=LR, rho=RHO)])
    pd.testing.assert_frame_equal(importance(sweep), importance(sweep), check_exact=True)


@pytest.mark.parametrize("outcome", ["finished", "stopped", "failed", "running", "incomplete"])
def test_fewer_finished_trials_than_twenty_say_nothing(outcome):
    groups = [group(lr=LR, rho=RHO)]
    few = trials(LEAST_TRIALS - 1, by_lr) + trials(1, by_lr, seed=1, outcome=outcome)
    table = importance(framed(few, groups=groups))
    assert len(table) == (2 if outcome == "finished" else 0)
    assert list(table.columns) == COLUMNS
    assert LEAST_TRIALS == 20


def test_trials_without_an_objective_do_not_count():
    groups = [group(lr=LR, rho=RHO)]
    mixed = trials(22, by_lr) + trials(5, lambda _: math.nan, seed=1)
    assert set(importance(framed(mixed, groups=groups))["trials"]) == {22}
    assert len(importance(framed(trials(22, lambda _: math.nan), groups=groups))) == 0
    assert len(importance(framed(trials(19, by_lr) + trials(5, lambda _: math.nan, seed=1), groups=groups))) == 0


@pytest.mark.parametrize("objective", [lambda _: 0.5, by_lr])
def test_nothing_to_explain_and_nothing_to_choose_between_give_no_rows(objective):
    settings = {"lr": LR, "rho": RHO} if objective is not by_lr else {"lr": LR}
    assert len(importance(framed(trials(30, objective), groups=[group(**settings)]))) == 0
    assert len(importance(framed([]))) == 0


def test_each_method_is_told_by_itself():
    both = trials(22, by_lr, "sam") + trials(22, by_rho, "gnp") + trials(3, by_lr, "sgd")
    groups = [group(method, lr=LR, rho=RHO) for method in ("gnp", "sam", "sgd")]
    table = importance(framed(both, groups=groups))
    assert list(dict.fromkeys(table["method"])) == ["gnp", "sam"]
    top = table.sort_values("share").groupby("method")["setting"].last()
    assert dict(top) == {"gnp": "optimizer/rho", "sam": "optimizer/lr"}


def grid_of(values, objective):
    points = [{"optimizer/lr": lr, "model/widths": widths} for lr in values[0] for widths in values[1]]
    made = [Trial("pixels", "sam", TEST, point, objective=objective(point)) for point in points]
    return importance(framed(made, groups=[group(points=points)]))


@pytest.mark.parametrize(
    "widths",
    [
        ([100, 100], [50], [20, 20]),
        (None, 10, 20),
        ("wide", "narrow"),
        (1, 2, 4),
        (math.nan, 0.5, 0.1),
        (-1.0, 0.0, 3.0),
    ],
)
def test_a_grid_of_points_of_any_kind_is_told_too(widths):
    rates = [10.0**power for power in range(-8, 2)]
    table = grid_of((rates, widths), lambda point: -abs(math.log10(point["optimizer/lr"]) - 0.1))
    assert shares(table)["optimizer/lr"] > 0.9
    table = grid_of((rates, widths), lambda point: float(list(map(str, widths)).index(str(point["model/widths"]))))
    assert shares(table)["model/widths"] > 0.9


def test_a_setting_with_one_value_in_all_points_is_left_out():
    points = [
        {"optimizer/lr": lr, "optimizer/rho": rho, "optimizer/r": 1}
        for lr in (0.1, 0.2, 0.4, 0.8, 0.9)
        for rho in (1, 2, 3, 4)
    ]
    made = [Trial("pixels", "sam", TEST, point, objective=point["optimizer/lr"]) for point in points]
    table = importance(framed(made, groups=[group(points=points)]))
    assert set(table["setting"]) == {"optimizer/lr", "optimizer/rho"}


def test_choices_that_a_table_has_bent_are_known_again():
    choices = {
        "a": CategoricalDistribution([None, 100, 200]),
        "b": CategoricalDistribution(["1", "two"]),
        "c": IntDistribution(1, 64),
        "lr": LR,
    }
    draw = np.random.default_rng(0)
    made = []
    for number in range(30):
        settings = {
            "optimizer/a": [None, 100, 200][number % 3],
            "optimizer/b": [1, "two"][number % 2],
            "optimizer/c": float(draw.integers(1, 65)),
            "optimizer/lr": 10 ** draw.uniform(-4, 0),
        }
        made.append(Trial("pixels", "sam", TEST, settings, objective=float(number % 3)))
    sweep = framed(made, groups=[group(**choices)])
    assert sweep.runs["optimizer/a"].isna().sum() == 10
    table = importance(sweep)
    assert shares(table)["optimizer/a"] > 0.8


def test_what_was_drawn_from_is_read_from_the_plan():
    sweep = framed(trials(3, by_lr))
    assert module.searched(group(lr=LR, rho=RHO), sweep.runs) == {"optimizer/lr": LR, "optimizer/rho": RHO}
    points = [{"optimizer/lr": 0.1}, {"optimizer/lr": 0.2}]
    low, high = min(sweep.runs["optimizer/lr"]), max(sweep.runs["optimizer/lr"])
    assert module.searched(group(points=points), sweep.runs) == {"optimizer/lr": FloatDistribution(low, high, log=True)}


def test_the_section_on_the_search_says_that_it_began_with_an_earlier_one():
    sweep = framed(trials(4, by_lr), groups=[group(lr=LR, rho=RHO)])
    (plain,) = [words for words in section_search(sweep).paragraphs if words.startswith("All trials")]
    after = {"sweep": "first", "identity": "0", "trials": {"pixels-sam": [{"trial": "a"}, {"trial": "b"}]}}
    began = section_search(replace(sweep, plan={**sweep.plan, "after": after}))
    told = began.paragraphs[began.paragraphs.index(plain) + 1]
    assert told == "The search began with what 2 trials of `first` had found; they are no trials of this sweep."
