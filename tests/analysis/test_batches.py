"""Confirmations that end when they are decided, as the report and an archive see them."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from report_fixtures import confirmed, play, sent, tuned
from shared import once

from analysis import archive, batches, load, report, statistics, tables
from analysis import tuned as contrasts
from analysis.comparison import matching
from analysis.paper import claims
from study.schema import TEST_ACCURACY
from study.sweep import winners
from study.sweep.confirmation_plan import LEVEL, MARGIN
from study.sweep.folder import SweepFolder
from study.tracking.store import default_uri

SIGNS = {"sgd": 1, "sam": -1, "gnp": 0}


def accuracy(history, seed):
    """Accuracy of each task: GNP is better; of SGD and SAM, which are alike, the noise of a seed goes opposite ways."""
    level = 0.8 + 0.1 * (history.method == "gnp") + 0.003 * SIGNS[history.method] * (-1) ** seed
    return np.round(level - 0.01 * np.arange(history.task_count), 4)


def _decided(directory):
    few = {"tasks/count": 2, "model/widths": [8]}  # not the paper's, so that the winners run alone
    folder = tuned(directory, "decided", tasks=2, scenarios=["class_pairs"], trials=1, overrides=few)
    play(folder, accuracy)
    sent(folder)
    confirmation = confirmed(folder, until_decided=True, seeds=18)
    play(confirmation, accuracy)
    sent(confirmation)


@pytest.fixture(scope="module")
def seen():
    """The tuned sweep, its confirmation as it was loaded and joined, and the driver's folder."""
    directory = once("decided", _decided)
    whole, (loaded,) = report.load_all("decided", default_uri(directory))
    folder = SweepFolder.open(directory, "decided-confirm")
    return SimpleNamespace(tuned=whole, loaded=loaded, joined=batches.joined(loaded), folder=folder)


def winner(sweep, method):
    (run,) = load.rows(sweep.finished[(sweep.finished["method"] == method) & (sweep.finished["selected_rank"] == 1)])
    return run


def test_the_rule_has_the_level_and_the_margin_of_the_reports_questions():
    assert (LEVEL, MARGIN) == (1 - claims.ALPHA, claims.MARGIN)


def test_the_report_sees_what_the_driver_decided(seen):
    course = batches.course(seen.joined)
    assert course == winners.course(seen.folder.plan, seen.folder.histories())
    assert [(each.verdict, each.interval.lanes) for each in course.differences] == [
        ("alike", 12),
        ("lower", 6),
        ("lower", 6),
    ]
    assert sum(batches.due_trials(seen.loaded).values()) == winners.trial_count(seen.folder) == len(seen.loaded.runs)


def test_batches_of_the_same_settings_are_one_run_with_all_seeds(seen):
    sgd, gnp = winner(seen.joined, "sgd"), winner(seen.joined, "gnp")
    assert sgd["seeds"] == tuple(range(1000, 1012))
    assert gnp["seeds"] == tuple(range(1000, 1006))
    parts = seen.loaded.runs[seen.loaded.runs["run_id"].isin(sgd["run_id"].split())]
    assert len(parts) == 2
    assert sgd["summary/accuracy_test"] == parts["summary/accuracy_test"].mean()
    assert sgd["summary/seconds"] == parts["summary/seconds"].sum()
    table = seen.joined.accuracy(sgd["run_id"])
    pd.testing.assert_frame_equal(
        table, pd.concat([seen.loaded.accuracy(run_id) for run_id in parts["run_id"]], axis="columns")
    )
    lanes = seen.joined.lanes[seen.joined.lanes["run_id"] == sgd["run_id"]]
    assert sorted(zip(lanes["lane"], lanes["task"], strict=True)) == [
        (lane, task) for lane in range(12) for task in (0, 1)
    ]
    assert set(seen.joined.diagnostics["run_id"]) <= set(seen.joined.runs["run_id"])
    assert list(seen.joined.runs.dtypes) == list(seen.loaded.runs.dtypes)
    assert len(seen.joined.lanes) == len(seen.loaded.lanes)


def test_an_ordinary_sweep_is_left_as_it_is(seen):
    assert batches.joined(seen.tuned) is seen.tuned
    assert batches.course(seen.tuned) is None
    assert (seen.tuned.level, seen.tuned.looks) == (0.95, 1)
    assert "not_needed" not in tables.budget([seen.tuned])
    assert "looks" not in tables.best_differences(seen.tuned)


def test_every_interval_of_a_decided_confirmation_pays_for_its_looks(seen):
    level = 1 - 0.05 / 3
    own = tables.settings(seen.joined, seen.joined.finished[seen.joined.finished["selected_rank"] == 1])
    sgd = own.iloc[0]
    lanes = statistics.mean_accuracy(seen.joined.accuracy(sgd["run_id"]).to_numpy(dtype=float))
    assert sgd["accuracy_low"] == statistics.t_interval(lanes, level).low
    differences = tables.winners_differences(seen.joined)
    assert (differences["lanes"] == [12, 12, 6, 6, 6, 6]).all()
    first = differences.iloc[0]
    others = [winner(seen.joined, method)["run_id"] for method in ("sgd", "sam")]
    compared = statistics.compare(
        *(statistics.mean_accuracy(seen.joined.accuracy(each).to_numpy(dtype=float)) for each in others), level
    )
    assert (first["difference_low"], first["p"]) == (compared.interval.low, min(1, 3 * compared.p))
    late = contrasts.against_baseline([seen.joined])
    assert [each.difference.level for each in late] == [pytest.approx(1 - 0.05 / 2 / 3)] * 2


def test_the_report_says_what_was_decided_after_how_many_seeds_and_what_was_saved(seen):
    page = report.make(seen.tuned, [seen.loaded])
    found = {block.name: block.frame for section in page.sections for block in section.blocks if block.is_table}
    assert found["decided-decided-confirm"]["answer"].tolist() == ["alike within 0.01", "lower", "lower"]
    assert found["decided-decided-confirm"]["seeds"].tolist() == [12, 6, 6]
    seeds = found["seeds-decided-confirm"].set_index("method")
    assert seeds["spent"].to_dict() == {"sgd": 12, "sam": 12, "gnp": 6}
    assert seeds["saved"].to_dict() == {"sgd": 6, "sam": 6, "gnp": 12}
    assert set(seeds["ended"]) == {"all its differences are decided"}
    budget = found["budget"].set_index(["sweep", "method"]).loc["decided-confirm"]
    assert (budget["planned"] - budget["not_needed"] == budget["finished"]).all()
    assert (budget["lanes"] == 6).all()
    words = [str(section.paragraphs) for section in page.sections]
    assert any("30 of 54 seeds were spent, 24 saved" in text for text in words)
    assert not any("is not complete" in text for text in words)


def test_what_is_missing_is_not_shown_as_decided(seen, tmp_path):
    runs = seen.loaded.runs[~((seen.loaded.runs["method"] == "gnp") & (seen.loaded.runs["selected_rank"] == 1))]
    cut = batches.replace(seen.loaded, runs=runs.reset_index(drop=True))
    course = batches.course(batches.joined(cut))
    assert {each.interval for each in course.differences} == {None}
    assert course.ending("class_pairs", "gnp") == "not ended yet"
    assert sum(batches.due_trials(cut).values()) > len(runs) - 6


def test_a_confirmation_whose_first_trials_still_run_has_decided_nothing(seen):
    running = batches.replace(seen.loaded, runs=seen.loaded.runs.assign(outcome="running"))
    whole = batches.joined(running)
    assert len(whole.finished) == 0
    assert list(whole.runs.columns) == list(running.runs.columns)
    assert set(batches.course(whole).spent.values()) == {0}
    assert tables.winners_differences(whole).empty


def test_an_archive_has_the_same_decisions(seen, tmp_path):
    loaded = load.sweep("decided-confirm", seen.loaded.uri, archive.QUANTITIES)
    archive.save(loaded, tmp_path / "kept")
    again = batches.joined(archive.read(tmp_path / "kept"))
    assert batches.course(again) == batches.course(seen.joined)
    text = (tmp_path / "kept" / "sweep.json").read_text()
    for word in ('"batch": 0', '"batch": 7', '"batch": "x"', '"bitch": 6'):
        (tmp_path / "kept" / "sweep.json").write_text(text.replace('"batch": 6', word))
        with pytest.raises(load.StudyError, match="'deciding'"):
            archive.read(tmp_path / "kept")


def test_a_comparison_of_sweeps_refuses_what_ended_when_it_was_decided(seen):
    with pytest.raises(load.StudyError, match="'again' ended each method as soon as it was decided"):
        matching.match({"tuned": seen.tuned, "again": seen.loaded}, "sgd")


def test_joined_accuracies_have_no_hole(seen):
    assert not seen.joined.lanes[TEST_ACCURACY].isna().any()
    assert all(math.isfinite(value) for value in seen.joined.finished["summary/accuracy_test"])
