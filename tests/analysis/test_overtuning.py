"""Over-tuning: the equation by hand, an interval that keeps its promise, and a page that agrees with MLflow."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from analysis_fixtures import Trial, framed
from mlflow import MlflowClient
from report_fixtures import confirmed, page_of, play, sent, tuned

from analysis import archive, load, overtuning, report
from analysis.report import overtuning as section
from study.sweep.plan import Origin

SETTINGS = {"data/name": "mnist5k", "optimizer/lr": 0.1}


def trial(level, method="sgd", *, seeds=(10, 11, 12), spread=0.0, **changes):
    """A trial whose lanes have this mean accuracy, up to a spread of their own."""
    lanes = level + spread * np.linspace(-1, 1, len(seeds))
    return Trial("pairs", method, np.tile(lanes, (4, 1)), SETTINGS, seeds=seeds, **changes)


def searched(*objectives, **changes):
    """A search of trials with these objectives; NaN: failed."""
    trials = [
        trial(0.5, seeds=(0, 1), objective=value, outcome="failed" if math.isnan(value) else "finished", **changes)
        for value in objectives
    ]
    return framed(trials, "searched", "tune")


def again(*accuracies, **changes):
    """A confirmation of incumbents, by the number of each in the search."""
    trials, origins = [], []
    for number, accuracy in dict(accuracies).items():
        key = f"pairs-sgd-{number:03d}"
        trials.append(trial(accuracy, confirms=key, **changes))
        origins.append(Origin(trial=key, was_incumbent=True).plain())
    group = {
        "scenario": "pairs",
        "method": "sgd",
        "trials": len(trials),
        "points": [{}] * len(trials),
        "origins": origins,
    }
    return framed(trials, "again", "confirm", [group])


def trajectory(search, confirmation):
    (found,) = overtuning.trajectories(search, confirmation)
    return found


# The number


def test_over_tuning_is_what_the_best_incumbent_has_over_the_final_one():
    search = searched(0.5, 0.4, 0.6, math.nan, 0.8, 0.7, 0.9, 0.1)
    found = trajectory(search, again((0, 0.6), (2, 0.75), (4, 0.85), (6, 0.8)))
    assert [each.trials for each in found.incumbents] == [1, 3, 5, 7]
    assert [each.objective for each in found.incumbents] == [0.5, 0.6, 0.8, 0.9]
    assert found.trials == 8
    assert found.overtuning.best.trial == "pairs-sgd-004"
    assert found.overtuning.amount.mean == pytest.approx(0.05)
    assert found.overtuning.relative == pytest.approx(0.05 / 0.25)
    assert found.overtuning.is_shown
    assert "over-tuning 0.0500 [0.0500, 0.0500], 20 % of what was gained" in section.sentence(found)
    assert "after 5 of 8 trials does better than the final one, found after 7." in section.sentence(found)


def test_a_search_that_ends_worse_than_it_began_lost_more_than_it_gained():
    found = trajectory(searched(0.5, 0.6, 0.7), again((0, 0.6), (1, 0.7), (2, 0.5))).overtuning
    assert (found.amount.mean, found.relative) == pytest.approx((0.2, 2.0))


def test_nothing_is_relative_to_no_gain():
    found = trajectory(searched(0.5, 0.6), again((0, 0.7), (1, 0.6)))
    assert found.overtuning.amount.mean == pytest.approx(0.1)
    assert math.isnan(found.overtuning.relative)
    assert "and nothing was gained over the first" in section.sentence(found)


def test_a_final_incumbent_that_is_the_best_is_not_over_tuned():
    found = trajectory(searched(0.5, 0.6), again((0, 0.6), (1, 0.7)))
    assert (found.overtuning.amount.mean, found.overtuning.relative) == (0, 0)
    assert "no earlier incumbent does better" in section.sentence(found)
    alone = trajectory(searched(0.6, 0.5, 0.4), again((0, 0.7)))
    assert (alone.overtuning.amount.mean, alone.overtuning.amount.high) == (0, 0)
    assert "none, for the incumbent of trial 1 stayed the best of 3" in section.sentence(alone)


def test_an_incumbent_that_is_not_confirmed_leaves_it_unknown():
    found = trajectory(searched(0.5, 0.6, 0.7), again((0, 0.6), (2, 0.65)))
    assert found.overtuning is None
    assert found.unconfirmed == ["pairs-sgd-001"]
    assert "unknown, for pairs-sgd-001 has no result on fresh seeds" in section.sentence(found)
    row = overtuning.frame([found]).iloc[0]
    assert (row["first"], row["final"]) == pytest.approx((0.6, 0.65))
    assert pd.isna(row["overtuning"])
    assert overtuning.incumbents_frame([found])["accuracy"].isna().tolist() == [False, True, False]


def test_one_seed_gives_a_number_without_an_interval():
    found = trajectory(searched(0.5, 0.6), again((0, 0.7), (1, 0.6), seeds=(10,)))
    assert found.overtuning.amount.mean == pytest.approx(0.1)
    assert math.isnan(found.overtuning.amount.low)
    assert not found.overtuning.is_shown
    assert "interval unknown" in section.sentence(found)


# The interval


def test_the_interval_is_that_of_paired_differences_at_bonferronis_level():
    lanes = np.array([[0.5, 0.6, 0.9], [0.8, 0.7, 0.8], [0.7, 0.7, 0.6]])
    found = overtuning.overtuning(lanes)
    differences = lanes[:2] - lanes[2]
    bounds = [scipy.stats.ttest_1samp(row, 0).confidence_interval(1 - 0.05 / 2) for row in differences]
    assert found.mean == pytest.approx(max(differences.mean(axis=1)))
    assert found.low == pytest.approx(max(0, *(one.low for one in bounds)))
    assert found.high == pytest.approx(max(one.high for one in bounds))


@pytest.mark.parametrize("truth", [[0.0] * 5, [-0.2, 0.0, 0.1, 0.1, 0.0], [-1.0, -0.5, -0.5, -0.5, 0.0]])
def test_the_interval_holds_whichever_incumbent_is_the_best_and_the_number_alone_is_biased(truth):
    draw, covered, numbers, repeats = np.random.default_rng(0), 0, [], 600
    true = max(truth) - truth[-1]
    for _ in range(repeats):
        lanes = np.array(truth)[:, None] + 0.3 * draw.standard_normal((5, 1, 6)).reshape(5, 6)
        found = overtuning.overtuning(lanes)
        covered += found.low <= true <= found.high
        numbers.append(found.mean)
    assert covered / repeats > 0.935  # 0.95 up to chance: two standard errors of 600
    if truth == [0.0] * 5:
        assert np.mean(numbers) > 0.1  # of a true 0


# The page


@pytest.fixture(scope="module")
def stored(directory, uri):
    """A search of one method in the store, and the confirmation of its incumbents."""
    own = {"scenarios": ["class_pairs"], "methods": ["sgd"], "trials": 6, "tasks": 3, "seeds": 2}
    folder = tuned(directory, "climb", **own)
    play(folder)
    sent(folder)
    confirmation = confirmed(folder, seeds=6, incumbents=True)
    play(confirmation)
    sent(confirmation)
    return report.load_all("climb", uri)


def test_the_numbers_of_the_page_are_mlflows_to_the_last_digit(stored, directory, uri, blank_figures):
    words, tables = page_of(directory, uri, "climb")
    client = MlflowClient(uri)
    rows = list(tables.rows("incumbents-climb-confirm"))
    assert len(rows) >= 2
    best = -math.inf
    for row in rows:
        before, after = (client.get_run(run) for run in row["runs: tuned, confirmed"]["runs"])
        number = int(before.data.tags["trial"][-3:])
        assert row["trials spent"]["values"] == [number + 1]
        assert row["objective tuned"]["values"] == [before.data.metrics["summary/objective"]]
        assert before.data.metrics["summary/objective"] > best
        best = before.data.metrics["summary/objective"]
        assert row["test accuracy on fresh seeds"]["values"][0] == after.data.metrics["summary/accuracy_test"]
        assert after.data.tags["confirms_trial"] == before.data.tags["trial"]
        assert after.data.tags["was_incumbent"] == "True"
    (row,) = tables.rows("overtuning-climb-confirm")
    accuracies = [each["test accuracy on fresh seeds"]["values"][0] for each in rows]
    assert row["best incumbent"]["values"][0] == max(accuracies)
    assert row["final incumbent"]["values"][0] == accuracies[-1]
    assert row["over-tuning"]["values"][0] == pytest.approx(max(accuracies) - accuracies[-1], abs=1e-12)
    assert "the incumbent, the best trial so far, against trials spent" in words
    assert "best so far (trial" in words
    assert "--incumbents" not in words


def test_the_page_of_an_archive_shows_the_same_over_tuning(stored, uri, tmp_path):
    for name in ("climb", "climb-confirm"):
        archive.save(load.sweep(name, uri, archive.QUANTITIES), tmp_path / name)
    kept = archive.read(tmp_path / "climb")
    (confirmation,) = archive.confirmations(tmp_path / "climb", kept)
    search, (loaded,) = stored
    pd.testing.assert_frame_equal(
        overtuning.frame(overtuning.trajectories(kept, confirmation)),
        overtuning.frame(overtuning.trajectories(search, loaded)),
        check_exact=True,
    )


def test_a_page_without_incumbents_says_how_to_get_them_where_there_was_a_search(stored):
    search, (confirmation,) = stored
    bare = framed([trial(0.6, confirms="pairs-sgd-000", rank=1)], "bare", "confirm")
    assert section.blocks(search, bare, "here", []) == []
    (words,) = section.how_to(search, [])
    assert words.endswith("`study confirm climb --incumbents`.")
    (words,) = section.how_to(search, [bare])
    assert words.endswith("`study confirm climb --incumbents --name climb-incumbents`.")
    assert section.how_to(search, [confirmation]) == []
    assert section.how_to(searched(0.5), []) == []


def test_a_search_for_another_quantity_is_told_that_accuracy_may_be_its_price(stored):
    search, (confirmation,) = stored
    assert "may be its price" not in section.blocks(search, confirmation, "here", [])[1].caption
    other = replace(search, plan={**search.plan, "objectives": ["decline"]})
    runs = other.runs.assign(**{other.objectives[0].column: other.runs["summary/objective"]})
    caption = section.blocks(replace(other, runs=runs), confirmation, "here", ["`data/name`"])[1].caption
    assert "may be its price" in caption
    assert "other settings of `data/name`" in caption
