"""What was seen inside the networks: loaded, put together over layers, set beside the next task, and told in the report."""

import csv
import math

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from report_fixtures import TASKS, Tables, looks, play, sent, task_line, tuned
from sweep_fixtures import records_of

from analysis import diagnostics, load, report, tables
from analysis.diagnostics import AFTER, ONSET
from analysis.runs import LANE_COLUMNS
from study import schema
from study.tracking.store import default_uri


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The paper's settings, all finished, on six seeds."""
    place = tmp_path_factory.mktemp("sweeps")
    folder = tuned(place, "looked", space="paper_grid", trials=None, seeds=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("report_fixtures.task_line", line_with_onset)
        play(folder)
    sent(folder)
    return place


def line_with_onset(history, task, test, diverged=0):
    """A task's line; on permuted pixels the onset was measured too."""
    line = task_line(history, task, test, diverged)
    onset = onset_looks(task, test) if history.scenario == "permuted_pixels" else {}
    return {**line, "diagnostics": line["diagnostics"] | onset}


def onset_looks(task, test):
    """At the onset of every third task: sharpness that falls as that task's accuracy rises; norms are random."""
    draw = np.random.default_rng([7, task])
    found = {
        "onset/sharpness/adaptive": (1 - test[:, task]).tolist(),
        "onset/weights/norm/layer_0": (3 + draw.random(len(test))).tolist(),
        "onset/rank/effective": (20 + draw.random(len(test))).tolist(),
    }
    return found if task % 3 == 0 else {}


@pytest.fixture(scope="module")
def sweep(directory):
    return load.sweep("looked", default_uri(directory), diagnosed=True)


def test_every_value_of_the_records_is_loaded_digit_by_digit(sweep, directory):
    table = sweep.diagnostics.set_index(["trial", "task", "lane"])
    records = records_of(directory / "looked")
    assert len(table) == len(records) * TASKS * 6 > 0
    for key, lines in records.items():
        for line in (line for line in lines if line["kind"] == "task"):
            for name in table.columns.drop(["run_id", "scenario", "method", "seed"]):
                found = [table.loc[(key, line["task"], lane), name] for lane in range(6)]
                told = line["diagnostics"].get(name, [None] * 6)
                assert [None if math.isnan(value) else value for value in found] == told, (key, line["task"], name)


def test_nothing_is_loaded_unless_it_is_asked_for(directory):
    assert not len(load.sweep("looked", default_uri(directory)).diagnostics)


def test_mlflow_has_the_mean_over_the_lanes_in_which_it_is_known(sweep, directory):
    client = MlflowClient(default_uri(directory))
    run_id = sweep.finished["run_id"].iloc[0]
    rows = sweep.diagnostics[sweep.diagnostics["run_id"] == run_id]
    for name in ("sharpness/sam", "hessian/largest_eigenvalue", "weights/norm/layer_output"):
        history = {metric.step: metric.value for metric in client.get_metric_history(run_id, name)}
        means = rows.groupby("task")[name].mean().dropna()
        assert history == pytest.approx(means.to_dict())
        assert len(history) == (TASKS if name.startswith("weights") else TASKS // 2)
    assert not client.get_metric_history(run_id, "sharpness/sam/lane_0")
    assert not [note for note in sweep.notes if "not one of the study's" in note]


def test_a_file_that_cannot_be_read_is_noted_and_leaves_the_rest(directory, tmp_path):
    place = tmp_path / "sweeps"
    folder = tuned(place, "broken", methods=["sgd"], trials=2)
    play(folder)
    sent(folder)
    uri = default_uri(place)
    run_id = load.sweep("broken", uri).finished["run_id"].iloc[0]
    MlflowClient(uri).log_text(run_id, "no table at all", diagnostics.FILE)
    found = load.sweep("broken", uri, diagnosed=True)
    assert run_id not in set(found.diagnostics["run_id"])
    assert len(set(found.diagnostics["run_id"])) == len(found.finished) - 1
    assert any("diagnostics" in note and "cannot be read" in note for note in found.notes)


def test_layers_become_one_number_of_the_network():
    table = pd.DataFrame(
        {
            **dict.fromkeys(("run_id", "trial", "scenario", "method"), "x"),
            **{"lane": [0, 1], "seed": [0, 1], "task": [0, 0]},
            "weights/norm/layer_0": [3.0, 1.0],
            "weights/norm/layer_output": [4.0, math.nan],
            "units/dead/layer_0": [0.1, 0.2],
            "units/dead/layer_1": [0.3, 0.4],
            "sharpness/sam": [0.5, 0.6],
        }
    )
    found = diagnostics.of_networks(table)
    assert found["weights/norm"].tolist() == pytest.approx([5.0, math.nan], nan_ok=True)
    assert found["units/dead"].tolist() == pytest.approx([0.2, 0.3])
    assert found["sharpness/sam"].tolist() == [0.5, 0.6]


def test_a_deeper_network_beside_takes_nothing_from_a_shallow_one():
    place = {**dict.fromkeys(("trial", "scenario", "method"), "x"), "lane": [0, 1], "seed": [0, 1], "task": [0, 0]}
    shallow = pd.DataFrame({"run_id": "shallow", **place, "units/dead/layer_0": [0.1, 0.3]})
    deep = pd.DataFrame({"run_id": "deep", **place, "units/dead/layer_0": 0.5, "units/dead/layer_1": [0.7, math.nan]})
    found = diagnostics.of_networks(diagnostics.in_order([shallow, deep])).set_index("run_id")
    assert found.loc["shallow", "units/dead"].tolist() == [0.1, 0.3]
    assert found.loc["deep", "units/dead"].tolist() == pytest.approx([0.6, math.nan], nan_ok=True)


def drawn_looks(curved, counted):
    """Of five lanes after 40 tasks: sharpness at some of them, norm and rank at some."""
    draw = np.random.default_rng(0)
    table = pd.DataFrame([(lane, task) for lane in range(5) for task in range(40)], columns=["lane", "task"])
    for name, tasks in {
        schema.SAM_SHARPNESS: curved,
        schema.WEIGHT_NORM: counted,
        schema.EFFECTIVE_RANK: counted,
    }.items():
        table[name] = np.where(table["task"].isin(tasks), draw.normal(size=len(table)), math.nan)
    return table.assign(**{diagnostics.ACCURACY: draw.normal(size=len(table))})


@pytest.mark.parametrize(
    ("counted", "pairs"),
    [(range(40), {14 * 5}), (range(0, 40, 7), {2 * 5}), (range(1, 40, 3), {14 * 5}), ((), {14 * 5})],
)
def test_a_correlation_and_what_is_left_of_it_are_of_the_same_pairs(counted, pairs):
    found = diagnostics.associations(drawn_looks(range(0, 40, 3), counted), AFTER)[schema.SAM_SHARPNESS]
    assert {known.pairs for known in found.values()} == pairs
    assert ("given" in found) == bool(set(counted) & set(range(0, 40, 3)))


@pytest.mark.parametrize(("moment", "ahead"), [(AFTER, 1), (ONSET, 0)])
def test_each_look_stands_beside_the_accuracy_of_the_same_seed_on_the_task_that_follows(moment, ahead, sweep):
    beside = diagnostics.with_accuracy(sweep.diagnostics, sweep.lanes, moment)
    assert len(beside) == len(sweep.finished) * (TASKS - ahead) * 6
    accuracy = sweep.lanes.set_index(["run_id", "lane", "task"])[schema.TEST_ACCURACY]
    for row in beside.sample(40, random_state=0).itertuples():
        assert row.learnt == accuracy[(row.run_id, row.lane, row.task + ahead)]


def test_sharpness_that_falls_as_the_next_accuracy_rises_has_the_correlation_minus_1(sweep):
    table = tables.associations(sweep, sweep.finished, AFTER).set_index(["trial", "diagnostic"])
    sharp = table.xs("sharpness/sam", level="diagnostic")
    assert len(sharp) == len(sweep.finished) == 12
    assert np.allclose(sharp["alone"], -1)
    assert np.allclose(sharp["given"], -1)
    assert (sharp["pairs"] == 5 * 6).all()
    assert table.xs("units/dead", level="diagnostic")["alone"].isna().all(), "the same after every task"
    eigenvalue = table.xs("hessian/largest_eigenvalue", level="diagnostic")
    assert (eigenvalue["lanes"] == 5).all(), "not known in one lane"
    assert ((eigenvalue["alone_low"] < eigenvalue["alone"]) & (eigenvalue["alone"] < eigenvalue["alone_high"])).all()
    for control in AFTER.controls:
        assert table.xs(control, level="diagnostic")["given"].isna().all(), "given itself it is nothing"


def test_sharpness_at_an_onset_is_set_beside_that_very_task(sweep):
    table = tables.associations(sweep, sweep.finished, ONSET).set_index(["trial", "diagnostic"])
    assert set(table.index.get_level_values("diagnostic")) == {"onset/sharpness/adaptive", *ONSET.controls}
    sharp = table.xs("onset/sharpness/adaptive", level="diagnostic")
    assert len(sharp) == 6
    assert np.allclose(sharp["alone"], -1)
    assert np.allclose(sharp["given"], -1)
    assert (sharp["pairs"] == 4 * 6).all()
    for control in ONSET.controls:
        assert table.xs(control, level="diagnostic")["given"].isna().all()
    assert not set(AFTER.properties) & set(ONSET.properties)


def test_what_was_measured_before_and_after_tasks_has_one_column_each_in_the_order_of_the_schema(sweep):
    names = [name.split("/layer_")[0] for name in sweep.diagnostics.columns.drop(list(LANE_COLUMNS))]
    assert list(dict.fromkeys(names)) == [q.name for q in schema.ALL_DIAGNOSTICS if q.name in names]
    assert {"rank/effective", "onset/rank/effective"} <= set(names)


def test_the_report_tells_it_with_figures_a_table_and_what_it_cannot_show(sweep, tmp_path):
    place, _ = report.write(report.make(sweep, []), tmp_path / "report")
    page = (place / "report.html").read_text()
    rows = list(Tables(page).rows("associations"))
    with (place / "tables" / "associations.csv").open() as file:
        kept = list(csv.DictReader(file))
    assert len(rows) == len(kept) == 12 * 5
    assert {row["run"]["runs"][0] for row in rows} == set(sweep.finished["run_id"])
    assert len(list(Tables(page).rows("onset_associations"))) == 6 * 3
    assert page.count("12 lie below 0") == page.count(" 6 lie below 0") == 3, (
        "after tasks and at onsets, of one scenario"
    )
    assert "not causation" in page
    for scenario in ("permuted_pixels", "class_pairs"):
        for name in ("diagnostics", "associations"):
            assert (place / "figures" / f"{name}-paper-{scenario}.png").stat().st_size > 10_000
            onset = place / "figures" / f"onset_{name}-paper-{scenario}.png"
            assert onset.exists() == (scenario == "permuted_pixels")


def test_a_report_of_networks_that_were_not_looked_into_says_so(directory, tmp_path, blank_figures):
    plain = load.sweep("looked", default_uri(directory))
    place, _ = report.write(report.make(plain, []), tmp_path / "report")
    page = (place / "report.html").read_text()
    assert "No diagnostics were measured" in page
    assert "associations" not in Tables(page).tables


def test_what_is_made_up_here_are_diagnostics_of_the_schema():
    for name in looks(0, np.full((3, 4), 0.5)):
        assert name.split("/layer_")[0] in {quantity.name for quantity in schema.DIAGNOSTICS}
    for name in onset_looks(0, np.full((3, 4), 0.5)):
        assert name.split("/layer_")[0] in {quantity.name for quantity in schema.ONSET}
