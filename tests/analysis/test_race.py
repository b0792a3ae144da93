"""Races, as the report, an archive, a comparison and MLflow see them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from mlflow import MlflowClient
from report_fixtures import confirmed, play, sent, tuned
from shared import once

from analysis import archive, batches, load, report, tables
from analysis.comparison import matching
from analysis.report import overtuning, summary
from study import schema
from study.sweep import winners
from study.sweep.folder import SweepFolder
from study.sweep.race.configurations import configurations, entrants
from study.tracking.store import default_uri

FEW = {"tasks/count": 2, "model/widths": [8]}  # not the paper's, so that the winners are confirmed alone
CHOICES = {"scenarios": ["class_pairs"], "methods": ["sgd", "sam"], "overrides": FEW, "tasks": 2, "trials": 4}


def accuracy(history, seed):
    draw = np.random.default_rng([seed, int(1e6 * history.config["optimizer"]["lr"])])
    return np.round(0.9 - 0.1 * abs(np.log10(history.config["optimizer"]["lr"]) + 1) + 0.01 * draw.random(2), 4)


def _raced(directory):
    folder = tuned(directory, "raced", seeds=4, scheduler="race", **CHOICES)
    play(folder, accuracy)
    sent(folder)
    confirmation = confirmed(folder, seeds=3)
    play(confirmation, accuracy)
    sent(confirmation)


@pytest.fixture(scope="module")
def seen():
    """A race as it was loaded and put together, and the driver's folder."""
    directory = once("raced", _raced)
    loaded, confirmations = report.load_all("raced", default_uri(directory))
    folder = SweepFolder.open(directory, "raced")
    whole = batches.configurations(loaded)
    return SimpleNamespace(loaded=loaded, whole=whole, confirmations=confirmations, folder=folder)


def test_the_report_judges_configurations_as_the_driver_did(seen):
    histories = seen.folder.histories()
    for group in seen.folder.plan.groups:
        own = entrants(seen.folder.plan, [each for each in histories if each.group == group.label])
        found = batches.entrants(seen.loaded, group.scenario, group.method)
        assert [(each.number, each.begun, each.failed) for each in found] == [
            (each.number, each.begun, each.failed) for each in own
        ]
        for one, other in zip(found, own, strict=True):
            assert [each.score for each in one.results] == pytest.approx([each.score for each in other.results])
            assert [each.diverged for each in one.results] == [each.diverged for each in other.results]
    assert sum(batches.due_trials(seen.whole).values()) == winners.trial_count(seen.folder) == 14


def test_the_best_has_all_seeds_and_the_numbers_of_all_of_its_trials(seen):
    driver = {each.key: each for each in configurations(seen.folder.plan, seen.folder.histories())}
    best = tables.best(seen.whole)
    assert best["trial"].tolist() == winners.best_keys(list(driver.values()))
    for run in load.rows(best):
        own = driver[run["trial"]]
        assert run["seeds"] == tuple(own.seeds) == (0, 1, 2, 3)
        assert len(run["run_id"].split()) == 3
        numbers = {name: run[name] for name in own.summary if name in run}
        assert numbers == pytest.approx({name: own.summary[name] for name in numbers})
        lanes = np.array([line["lanes"][schema.TEST_ACCURACY] for line in own.tasks])
        assert (seen.whole.accuracy(run["run_id"]).to_numpy() == lanes).all()
        assert len(seen.whole.diagnostics[seen.whole.diagnostics["run_id"] == run["run_id"]])
    assert set(seen.whole.runs["outcome"]) == {"finished", "stopped"}
    assert len(seen.whole.runs) == 8
    assert batches.joined(seen.whole) is seen.whole


def test_a_race_that_was_not_put_together_has_no_best(seen):
    assert tables.best(seen.loaded).empty


def test_the_page_has_the_rungs_and_what_was_spent(seen):
    page = report.make(seen.loaded, seen.confirmations)
    found = {block.name: block.frame for section in page.sections for block in section.blocks if block.is_table}
    race = found["race"].set_index(["method", "seeds"])
    assert race["configurations"].tolist() == race["due"].tolist() == [4, 2, 1] * 2
    (sam,) = load.rows(tables.best(seen.whole).query("method == 'sam'"))
    assert race.loc[("sam", 4), "best"] == pytest.approx(sam["summary/objective"])
    assert race["diverged"].tolist() == [0] * 6
    budget = found["budget"].query("sweep == 'raced'").set_index("method")
    assert (budget["planned"] == budget["finished"]).all()
    assert budget["gradient_evaluations"].to_dict() == {"sgd": 8 * 200.0, "sam": 8 * 400.0}
    assert budget["lanes"].isna().all()
    words = [str(section.paragraphs) for section in page.sections]
    assert any("16 seeds were trained, 16 fewer than all 4 of all 8 configurations" in text for text in words)
    assert not any("is not complete" in text for text in words)
    kept = found["tuned_confirmed-raced-confirm"]
    assert kept["lanes_tuned"].tolist() == [4, 4]
    assert set(kept["run_id_tuned"]) == set(tables.best(seen.whole)["run_id"])
    (picture,) = [
        block for section in page.sections for block in section.blocks if block.name == "settings-class_pairs"
    ]
    assert len(picture.run_ids) == 8


def test_the_page_names_no_command_that_a_race_refuses(seen):
    assert overtuning.how_to(seen.whole, []) == []


def test_a_configuration_whose_last_seeds_failed_is_stopped_and_its_trial_is_listed(seen):
    (sgd,) = load.rows(tables.best(seen.whole).query("method == 'sgd'"))
    last = sgd["run_id"].split()[-1]
    runs = seen.loaded.runs
    failed = runs.assign(outcome=runs["outcome"].where(runs["run_id"] != last, "failed"))
    cut = batches.configurations(replace(seen.loaded, runs=failed))
    outcomes = cut.runs.set_index("trial")["outcome"]
    assert outcomes[sgd["trial"]] == "stopped"
    assert (outcomes == "failed").sum() == 1
    assert tables.best(cut)["method"].tolist() == ["sam"]
    assert sum(batches.due_trials(cut).values()) == 14  # a last rung has no successors
    assert "of 14 planned trials there are 13 finished, 1 failed" in " ".join(summary._undone(cut))


def test_an_archive_has_the_same_race(seen, tmp_path):
    loaded = load.sweep("raced", seen.loaded.uri, archive.QUANTITIES)
    archive.save(loaded, tmp_path / "kept")
    again = batches.configurations(archive.read(tmp_path / "kept"))
    assert tables.best(again)["trial"].tolist() == tables.best(seen.whole)["trial"].tolist()
    assert batches.due_on_rungs(again) == batches.due_on_rungs(seen.whole)
    text = (tmp_path / "kept" / "sweep.json").read_text()
    plan = text.index('"seeds"', text.index('"plan"'))
    cut = text[:plan] + '"seeds": [0],\n"was": ' + text[text.index("[", plan) :]
    (tmp_path / "kept" / "sweep.json").write_text(cut)
    with pytest.raises(load.StudyError, match="fewer than two seeds"):
        archive.read(tmp_path / "kept")


def test_a_comparison_takes_the_winners_with_all_seeds(seen):
    found = matching.match({"again": seen.confirmations[0], "raced": seen.loaded}, "sgd")
    assert {place.method for place in found.places} == {"sgd", "sam"}
    for place in found.places:
        assert place.runs["raced"]["seeds"] == (0, 1, 2, 3)
    assert not any("is not complete" in note for note in found.notes)


def test_mlflow_finds_the_trials_of_a_configuration_by_a_tag_and_marks_all_of_the_best(seen):
    client, best = MlflowClient(seen.loaded.uri), tables.best(seen.whole)
    for run in load.rows(best):
        query = f"tags.configuration = '{run['trial']}'"
        found = client.search_runs([seen.loaded.experiment_id], query)
        assert {each.info.run_id for each in found} == set(run["run_id"].split())
        assert sorted(each.data.tags["rung"] for each in found) == ["0", "1", "2"]
        assert {each.data.tags["best"] for each in found} == {f"{run['method']} on class_pairs"}
        assert "Part of a race: only seeds" in found[0].data.tags["mlflow.note.content"]
    own = client.get_run(seen.loaded.run_id)
    name = "best_objective/class_pairs-sam"
    (sam,) = load.rows(best.query("method == 'sam'"))
    assert own.data.metrics[name] == pytest.approx(sam["summary/objective"])
    assert own.info.status == "FINISHED"
    assert "It is a race" in own.data.tags["mlflow.note.content"]
