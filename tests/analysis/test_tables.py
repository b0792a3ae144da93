"""The tables of a report against plain numpy, scipy and statsmodels; what is empty keeps its columns."""

import itertools
import math
from dataclasses import replace

import mlflow
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from analysis_fixtures import (
    COST,
    SETTINGS,
    NoPictures,
    accuracies,
    curve,
    evidence_of,
    framed,
    paper_trial,
    play,
    same_everywhere,
    sent_sweep,
)
from statsmodels.stats.multitest import multipletests
from sweep_fixtures import folder_of, plan_of

from analysis import load, tables
from analysis.paper import claims as judged
from analysis.paper import evidence
from analysis.paper.evidence import PIXELS, Setting
from study.sweep.conductor import Conductor
from study.tracking.store import default_uri
from study.tracking.tracker import sync

SGD, SAM, GNP = (Setting(PIXELS, method, 0.01) for method in ("sgd", "sam", "gnp"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A sweep of 12 tasks and 7 lanes, sent to a store and loaded, and MLflow's own runs of it by trial."""
    directory = tmp_path_factory.mktemp("sweeps")
    uri = default_uri(directory)
    sent_sweep(directory, uri, "told", tasks=12, seeds=7)
    mlflow.set_tracking_uri(uri)
    plain = mlflow.search_runs(experiment_names=["told"], filter_string="tags.role = 'trial'")
    return load.sweep("told", uri), plain.set_index("tags.trial")


def half_width(lanes, level=0.95):
    return scipy.stats.t.ppf((1 + level) / 2, len(lanes) - 1) * lanes.std(ddof=1) / math.sqrt(len(lanes))


def test_settings_are_mlflows_numbers_with_intervals_over_lanes(stored):
    sweep, plain = stored
    table = tables.settings(sweep, sweep.finished)
    assert len(table) == 4
    for row in load.rows(table):
        test, _ = accuracies(row["trial"], 12, 7)
        told = plain.loc[row["trial"]]
        assert row["run_id"] == told["run_id"]
        assert row["accuracy"] == told["metrics.summary/accuracy_test"]
        assert row["first_tenth"] == told["metrics.summary/accuracy_test_first_tenth"]
        assert row["last_tenth"] == told["metrics.summary/accuracy_test_last_tenth"]
        assert row["decline"] == told["metrics.summary/decline_test"]
        assert row["gradient_evaluations"] == told["metrics.summary/gradient_evaluations"]
        assert (row["lanes"], row["tasks"]) == (7, 12)
        means, declines = test.mean(axis=0), test[:2].mean(axis=0) - test[-2:].mean(axis=0)
        slopes = np.polyfit(range(12), test, 1)[0] * 100
        for name, lanes in (("accuracy", means), ("decline", declines), ("slope", slopes)):
            assert row[name] == pytest.approx(lanes.mean(), abs=1e-12)
            assert row[f"{name}_low"] == pytest.approx(lanes.mean() - half_width(lanes), abs=1e-12)
            assert row[f"{name}_high"] == pytest.approx(lanes.mean() + half_width(lanes), abs=1e-12)
        assert row["accuracy_iqm"] == pytest.approx(np.sort(means)[1:6].mean(), abs=1e-12)


def test_per_task_is_the_mean_over_lanes_of_each_task(stored):
    sweep, plain = stored
    test, _ = accuracies("class_pairs-sam-001", 12, 7)
    table = tables.per_task(sweep, plain.loc["class_pairs-sam-001", "run_id"])
    assert list(table["task"]) == list(range(12))
    np.testing.assert_allclose(table["accuracy"], test.mean(axis=1), atol=1e-12)
    halves = [half_width(row) for row in test]
    np.testing.assert_allclose(table["accuracy_high"] - table["accuracy"], halves, atol=1e-12)
    np.testing.assert_allclose(table["accuracy"] - table["accuracy_low"], halves, atol=1e-12)


def test_differences_per_task_are_paired_over_common_seeds(stored):
    sweep, plain = stored
    (sam, _), (sgd, _) = (accuracies(f"class_pairs-{method}-001", 12, 7) for method in ("sam", "sgd"))
    run_ids = [plain.loc[f"class_pairs-{method}-001", "run_id"] for method in ("sam", "sgd")]
    table = tables.difference_per_task(sweep, *run_ids)
    np.testing.assert_allclose(table["difference"], (sam - sgd).mean(axis=1), atol=1e-12)
    halves = [half_width(row) for row in sam - sgd]
    np.testing.assert_allclose(table["difference_high"] - table["difference"], halves, atol=1e-12)
    fewer = replace(
        sweep,
        lanes=sweep.lanes[(sweep.lanes["run_id"] != run_ids[1]) | (sweep.lanes["seed"] != sweep.lanes["seed"].max())],
    )
    table = tables.difference_per_task(fewer, *run_ids)
    np.testing.assert_allclose(table["difference"], (sam - sgd)[:, :-1].mean(axis=1), atol=1e-12)


def test_the_best_of_a_tuning_are_chosen_by_the_objective_alone(stored):
    sweep, plain = stored
    best = tables.best(sweep)
    for method in ("sgd", "sam"):
        of_method = plain[plain["tags.method"] == method]
        expected = of_method["metrics.summary/objective"].idxmax()
        assert list(best[best["method"] == method]["trial"]) == [expected]
    worse = sweep.runs.assign(**{"summary/accuracy_test": -sweep.runs["summary/accuracy_test"]})
    assert list(tables.best(replace(sweep, runs=worse))["trial"]) == list(best["trial"])
    assert len(tables.best(sweep, 2)) == 4


def test_equal_compute_is_what_each_run_had_reached_on_the_budget_of_the_cheapest(stored):
    sweep, _ = stored
    table = tables.compute(sweep, sweep.finished)
    for row in load.rows(table):
        trial = sweep.runs.set_index("run_id").loc[row["run_id"], "trial"]
        test, _ = accuracies(trial, 12, 7)
        sam = row["method"] == "sam"
        assert row["times_the_cheapest"] == (2 if sam else 1)
        assert row["gradient_evaluations"] == 12 * COST[row["method"]]
        assert row["tasks_within_budget"] == (6 if sam else 12)
        lanes = test[:6].mean(axis=0) if sam else test.mean(axis=0)
        assert row["accuracy_within_budget"] == pytest.approx(lanes.mean(), abs=1e-12)
        assert row["accuracy_within_budget_high"] == pytest.approx(lanes.mean() + half_width(lanes), abs=1e-12)


def test_the_cheapest_is_looked_for_in_the_same_scenario():
    sweep = framed([paper_trial(SGD, curve(4).to_numpy()), paper_trial(SAM, curve(4).to_numpy(), scenario="alone")])
    assert list(tables.compute(sweep, sweep.finished)["times_the_cheapest"]) == [1, 1]


def test_a_run_too_dear_for_a_single_task_has_no_accuracy_within_budget():
    sweep = framed([paper_trial(SGD, curve(1).to_numpy()), paper_trial(SAM, curve(1).to_numpy())])
    dear = load.rows(tables.compute(sweep, sweep.finished))[1]
    assert dear["tasks_within_budget"] == 0
    assert math.isnan(dear["accuracy_within_budget"])


def test_the_budget_counts_what_was_planned_how_it_ended_and_what_it_cost(stored):
    sweep, _ = stored
    table = tables.budget([sweep])
    assert list(table["method"]) == ["sgd", "sam"]
    for row in load.rows(table):
        assert (row["planned"], row["finished"], row["stopped"], row["failed"], row["other"]) == (2, 2, 0, 0, 0)
        assert (row["lanes"], row["tasks_trained"]) == (7, 24)
        assert row["gradient_evaluations"] == 2 * 12 * 7 * COST[row["method"]]
        assert row["run_id"] == sweep.run_id


def test_every_trial_is_in_one_column_of_the_budget():
    outcomes = ["finished", "stopped", "failed", "interrupted", "running", "incomplete", "finished"]
    sweep = framed([paper_trial(SGD, curve(4).to_numpy(), outcome=outcome) for outcome in outcomes])
    (row,) = load.rows(tables.budget([sweep]))
    assert (row["finished"], row["stopped"], row["failed"], row["other"], row["planned"]) == (2, 1, 1, 3, 7)
    assert row["trial_hours"] == 3.5


def test_diverged_lanes_are_counted_and_listed():
    sweep = framed([paper_trial(SGD, curve(4).to_numpy(), diverged=3), paper_trial(SAM, curve(4).to_numpy())])
    (row,) = load.rows(tables.diverged([sweep]))
    assert (row["method"], row["lanes_diverged"], row["lanes"], row["run_id"]) == (
        "sgd",
        3,
        10,
        sweep.runs["run_id"][0],
    )
    assert list(tables.budget([sweep])["trials_with_diverged_lanes"]) == [1, 0]
    assert list(tables.settings(sweep, sweep.finished)["lanes_diverged"]) == [3, 0]


def test_versions_come_from_the_sweeps_own_run(stored):
    sweep, _ = stored
    told = tables.versions([sweep]).set_index("what")["version"]
    assert told["mlflow"] == mlflow.__version__
    assert told["devices"] == "made by hand"
    assert "git commit" in told


def test_trials_of_several_sweeps_are_all_there(stored):
    sweep, plain = stored
    small = framed([paper_trial(SGD, curve(4).to_numpy(), outcome="failed")], name="small")
    table = tables.trials([sweep, framed([], name="none"), small])
    assert list(table["sweep"]) == ["told"] * 4 + ["small"]
    assert set(table["run_id"]) == {*plain["run_id"], small.runs["run_id"][0]}
    assert not table.columns.has_duplicates


def tuning_and_confirmation(noise=0.01):
    """Winners on fresh seeds (rank 1), the paper's own settings beside them, one trial that the tuning did not have."""
    draw = np.random.default_rng(2)

    def made(setting, lanes, start, **named):
        return paper_trial(setting, curve(6, start, start, lanes, noise, draw).to_numpy(), **named)

    tuned = framed(
        [made(setting, 3, 0.9, objective=0.91 - 0.01 * number) for number, setting in enumerate((SGD, SAM, GNP))],
        name="tuned",
        phase="tune",
    )
    seeds = tuple(range(100, 110))
    confirmation = framed(
        [
            made(SGD, 10, 0.89, objective=0.90, rank=1, confirms="permuted_pixels-sgd-000", seeds=seeds),
            made(SAM, 10, 0.87, objective=0.86, rank=1, confirms="permuted_pixels-sam-000", seeds=seeds),
            made(GNP, 10, 0.85, objective=0.84, rank=1, confirms="permuted_pixels-gnp-000", seeds=seeds),
            made(GNP, 10, 0.80, rank=2, confirms="permuted_pixels-gnp-007", seeds=seeds),
            made(SGD, 10, 0.70, seeds=seeds),
        ],
        name="confirmation",
        phase="confirm",
    )
    return tuned, confirmation


def test_tuned_minus_confirmed_is_a_plain_difference_of_mlflows_numbers():
    tuned, confirmation = tuning_and_confirmation()
    table = tables.tuned_and_confirmed(tuned, confirmation)
    assert list(table["method"]) == ["sgd", "sam", "gnp"]
    before, after = tuned.runs.set_index("run_id"), confirmation.runs.set_index("run_id")
    for row in load.rows(table):
        old, new = before.loc[row["run_id_tuned"]], after.loc[row["run_id_confirmed"]]
        assert old["trial"] == new["confirms_trial"]
        assert row["objective_tuned"] == old["summary/objective"]
        assert row["objective_confirmed"] == new["summary/objective"]
        assert row["objective_tuned_minus_confirmed"] == old["summary/objective"] - new["summary/objective"]
        assert row["accuracy_tuned"] == old["summary/accuracy_test"]
        assert row["accuracy_confirmed"] == new["summary/accuracy_test"]
        assert row["accuracy_tuned_minus_confirmed"] == old["summary/accuracy_test"] - new["summary/accuracy_test"]
        assert (row["lanes_tuned"], row["lanes_confirmed"]) == (3, 10)
        lanes = confirmation.accuracy(row["run_id_confirmed"]).to_numpy().mean(axis=0)
        assert row["accuracy_confirmed_low"] == pytest.approx(lanes.mean() - half_width(lanes), abs=1e-12)


def test_without_an_objective_only_the_accuracies_are_compared():
    tuned, confirmation = tuning_and_confirmation()
    bare = replace(confirmation, runs=confirmation.runs.drop(columns="summary/objective"))
    table = tables.tuned_and_confirmed(tuned, bare)
    assert table["objective_tuned_minus_confirmed"].isna().all()
    assert table["accuracy_tuned_minus_confirmed"].notna().all()
    assert len(tables.best(bare)) == len(tables.best(confirmation)) == 0


def exact_p(differences):
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=len(differences))]
    return np.mean([total >= abs(differences.sum()) - 1e-12 for total in sums])


def test_winners_are_compared_seed_by_seed_as_one_family():
    _, confirmation = tuning_and_confirmation()
    table = tables.winners_differences(confirmation)
    assert len(table) == 3 * 2
    assert set(table["family"]) == {"winners, confirmation"}
    for row in load.rows(table):
        first, second = (confirmation.accuracy(row[f"run_id_{which}"]).to_numpy() for which in ("first", "second"))
        lanes = (first - second).mean(axis=0) if row["quantity"] == "mean accuracy" else (first - second)[0]
        lanes = lanes if row["quantity"] == "mean accuracy" else lanes - (first - second)[-1]
        assert row["difference"] == pytest.approx(lanes.mean(), abs=1e-12)
        assert row["difference_low"] == pytest.approx(lanes.mean() - half_width(lanes), abs=1e-12)
        assert row["p"] == exact_p(lanes)
        assert row["superiority"] == (lanes > 0).mean()
        assert row["lanes"] == 10
    np.testing.assert_allclose(table["p_holm"], multipletests(table["p"], method="holm")[1], rtol=1e-12)
    assert (table["p_holm"] > table["p"]).any()


def test_winners_are_those_of_rank_1_and_of_the_same_scenario():
    _, confirmation = tuning_and_confirmation()
    table = tables.winners_differences(confirmation)
    used = set(table["run_id_first"]) | set(table["run_id_second"])
    assert used == set(confirmation.runs[confirmation.runs["selected_rank"] == 1]["run_id"])
    runs = confirmation.runs.assign(scenario=["a", "b", "a", "a", "b"])
    apart = tables.winners_differences(replace(confirmation, runs=runs))
    assert set(apart["scenario"]) == {"a"}
    assert len(apart) == 2
    failed = confirmation.runs.assign(outcome=["failed", *["finished"] * 4])
    assert len(tables.winners_differences(replace(confirmation, runs=failed))) == 2


def test_the_papers_settings_are_compared_at_equal_rate_and_task_sequence():
    sweep = framed([paper_trial(setting, curve(6, noise=0.01).to_numpy()) for setting in SETTINGS])
    found = evidence.gather(sweep)
    table = tables.paper_differences(sweep, found)
    assert len(table) == 2 * 2 * 3 * 2
    of_run = {run_id: setting for setting, run_id in found.run_ids.items()}
    for row in load.rows(table):
        first, second = of_run[row["run_id_first"]], of_run[row["run_id_second"]]
        assert (first.tasks, first.lr) == (second.tasks, second.lr)
        assert first.method != second.method
    np.testing.assert_allclose(table["p_holm"], multipletests(table["p"], method="holm")[1], rtol=1e-12)


def test_differences_are_over_the_seeds_that_both_have():
    draw = np.random.default_rng(4)
    trials = [
        paper_trial(SGD, curve(4, lanes=8, noise=0.1, draw=draw).to_numpy(), seeds=tuple(range(8))),
        paper_trial(SAM, curve(4, lanes=8, noise=0.1, draw=draw).to_numpy(), seeds=(9, 7, 5, 3, 2, 1, 0, 11)),
    ]
    sweep = framed(trials)
    table = tables.paper_differences(sweep, evidence.gather(sweep))
    assert list(table["lanes"]) == [6, 6]
    first, second = (dict(zip(trial.seeds, trial.test.T.mean(axis=1), strict=True)) for trial in trials)
    expected = np.mean([first[seed] - second[seed] for seed in (0, 1, 2, 3, 5, 7)])
    assert table["difference"][0] == pytest.approx(expected, abs=1e-12)
    apart = [trials[0], replace(trials[1], seeds=tuple(range(100, 108)))]
    sweep = framed(apart)
    assert len(tables.paper_differences(sweep, evidence.gather(sweep))) == 0


def test_more_seeds_than_the_exact_test_takes_leave_the_p_value_unknown_and_nothing_else():
    draw = np.random.default_rng(4)
    trials = [paper_trial(setting, curve(4, lanes=41, noise=0.1, draw=draw).to_numpy()) for setting in (SGD, SAM)]
    sweep = framed(trials)
    table = tables.paper_differences(sweep, evidence.gather(sweep))
    lanes = trials[0].test.mean(axis=0) - trials[1].test.mean(axis=0)
    assert table["p"].isna().all()
    assert table["p_holm"].isna().all()
    assert table["difference"][0] == pytest.approx(lanes.mean(), abs=1e-12)
    assert table["difference_high"][0] == pytest.approx(lanes.mean() + half_width(lanes), abs=1e-12)
    assert table["superiority"][0] == (lanes > 0).mean()


def test_one_lane_has_means_and_no_bounds():
    sweep = framed([paper_trial(setting, curve(4, lanes=1).to_numpy()) for setting in (SGD, SAM)])
    for table in (
        tables.settings(sweep, sweep.finished),
        tables.per_task(sweep, sweep.runs["run_id"][0]),
        tables.compute(sweep, sweep.finished),
        tables.paper_differences(sweep, evidence.gather(sweep)),
    ):
        bounds = [name for name in table if name.endswith(("_low", "_high"))]
        assert len(bounds) >= 2
        assert table[bounds].isna().all(axis=None)
        means = [name.removesuffix("_low") for name in bounds if name.endswith("_low")]
        assert table[means].notna().all(axis=None)
    assert set(tables.paper_differences(sweep, evidence.gather(sweep))["p"]) == {1.0}


def test_one_task_has_no_slope():
    sweep = framed([paper_trial(SGD, curve(1).to_numpy())])
    row = load.rows(tables.settings(sweep, sweep.finished))[0]
    assert math.isnan(row["slope"])
    assert row["decline"] == 0


def test_claims_and_effects_are_the_findings_row_by_row():
    findings = judged.findings(evidence_of(same_everywhere(noise=0.05)))
    table, effects = tables.claims(findings), tables.effects(findings)
    assert list(table["claim"]) == [f"C{number}" for number in range(1, 8)]
    for row, finding in zip(load.rows(table), findings, strict=True):
        assert [row[name] for name in ("statement", "criterion", "verdict", "here", "reason")] == [
            finding.statement,
            finding.criterion,
            finding.verdict,
            finding.here,
            finding.reason,
        ]
    whole = [(finding.claim, effect) for finding in findings for effect in finding.effects]
    assert len(effects) == len(whole) == 33
    for row, (claim, effect) in zip(load.rows(effects), whole, strict=True):
        assert (row["claim"], row["effect"], row["outcome"]) == (claim, effect.label, effect.outcome)
        assert (row["mean_low"], row["mean_high"], row["mean"]) == (
            effect.interval.low,
            effect.interval.high,
            effect.interval.mean,
        )
        assert pd.isna(row["proviso"]) if effect.proviso is None else row["proviso"] == effect.proviso.mean
        assert (row["claimed_above"], row["claimed_below"], row["lanes"]) == (effect.low, effect.high, 10)
        assert row["lanes_needed"] == effect.lanes_needed or (
            math.isnan(row["lanes_needed"]) and effect.lanes_needed is None
        )
        assert row["run_ids"] == " ".join(effect.run_ids)


def all_tables(sweep, confirmation):
    """Every table of sweeps and runs, by name."""
    found = evidence.gather(sweep)
    return {
        "trials": tables.trials([sweep]),
        "settings": tables.settings(sweep, sweep.finished),
        "per_task": tables.per_task(sweep, "run-made-permuted_pixels-sgd-0"),
        "tuned_and_confirmed": tables.tuned_and_confirmed(sweep, confirmation),
        "winners_differences": tables.winners_differences(confirmation),
        "paper_differences": tables.paper_differences(sweep, found),
        "compute": tables.compute(sweep, sweep.finished),
        "budget": tables.budget([sweep]),
        "diverged": tables.diverged([sweep]),
        "versions": tables.versions([sweep] if len(sweep.runs) else []),
        "claims": tables.claims(judged.findings(found) if len(sweep.runs) else []),
        "effects": tables.effects(judged.findings(found)),
    }


def test_a_table_without_rows_has_all_its_columns():
    trials = [paper_trial(setting, curve(6, noise=0.1).to_numpy(), diverged=1, rank=1) for setting in (SGD, SAM)]
    whole = framed(trials)
    confirming = framed([replace(trial, confirms=f"permuted_pixels-{trial.method}-000") for trial in trials])
    every = [paper_trial(setting, curve(6, noise=0.1).to_numpy(), diverged=1, rank=1) for setting in SETTINGS]
    full = all_tables(whole, confirming) | {"effects": all_tables(framed(every), confirming)["effects"]}
    none = all_tables(framed([]), framed([]))
    assert {name for name, table in full.items() if len(table)} == set(none)
    assert {name for name, table in none.items() if len(table)} == set()
    for name, table in none.items():
        expected = list(full[name].columns)
        assert list(table.columns) == (expected[: len(table.columns)] if name == "trials" else expected), name
        assert not table.columns.has_duplicates
    assert len(none["trials"].columns) > 15


def test_a_sweep_of_running_trials_alone_makes_every_table(tmp_path):
    uri = default_uri(tmp_path)
    folder = folder_of(tmp_path, plan_of("early", methods=["sgd"]))
    conductor = Conductor(folder)
    play(conductor, conductor.propose(), 2)
    play(conductor, conductor.propose(), 0)
    sync(folder, uri, NoPictures(), running=True)
    sweep = load.sweep("early", uri)
    found = all_tables(sweep, sweep)
    assert len(found["trials"]) == 2
    assert len(found["settings"]) == len(found["compute"]) == len(found["diverged"]) == 0
    (row,) = load.rows(found["budget"])
    assert (row["planned"], row["other"], row["tasks_trained"], row["gradient_evaluations"]) == (2, 2, 2, 40)
    assert row["trial_hours"] == 0
    assert len(tables.best(sweep)) == 0
