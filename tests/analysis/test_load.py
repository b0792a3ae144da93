"""MLflow's runs as frames: every digit there, every kind of incompleteness told apart, a store never harmed."""

import re
import threading
import time
from dataclasses import replace

import mlflow
import numpy as np
import pandas as pd
import pytest
from analysis_fixtures import NoPictures, accuracies, play, sent_sweep
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from sweep_fixtures import folder_of, plan_of, stop_early

from analysis import load
from analysis.runs import LANES_FILE
from study import schema
from study.errors import StudyError
from study.sweep.conductor import Conductor
from study.sweep.plan import Origin, Tuning
from study.tracking.client import artifact_text
from study.tracking.tracker import sync


@pytest.fixture(scope="module")
def client(uri):
    return MlflowClient(uri)


@pytest.fixture(scope="module")
def finished(directory, uri):
    """The folder of a sweep of which all four trials have finished."""
    return sent_sweep(directory, uri, "finished")


@pytest.fixture(scope="module")
def older(directory, uri):
    """A finished sweep whose runs have no table of lanes, so that their values are read from the histories."""
    folder = sent_sweep(directory, uri, "older")
    forget_tables(folder.root)
    return folder


def forget_tables(folder):
    """Deletes the tables of lanes of all runs of a sweep."""
    tables = list(folder.rglob("lanes.csv"))
    assert tables
    for path in tables:
        path.unlink()


def outcomes(sweep):
    return dict(zip(sweep.runs["trial"], sweep.runs["outcome"], strict=True))


def own_run(client, sweep, key):
    (run,) = client.search_runs([sweep.experiment_id], f"tags.trial = '{key}'")
    return run


def test_runs_equal_what_mlflow_finds_to_the_last_digit(uri, finished):
    runs = load.sweep("finished", uri).runs
    mlflow.set_tracking_uri(uri)
    plain = mlflow.search_runs(experiment_names=["finished"], filter_string="tags.role = 'trial'").set_index("run_id")
    assert set(runs["run_id"]) == set(plain.index)
    assert len(plain) == 4
    metrics = [name.removeprefix("metrics.") for name in plain if name.startswith("metrics.")]
    whole = [name for name in metrics if "/lane_" not in name]
    assert len(whole) > 15
    for run in load.rows(runs):
        told = plain.loc[run["run_id"]]
        assert {name: run[name] for name in whole} == {name: told[f"metrics.{name}"] for name in whole}
        assert run["trial"] == told["tags.trial"]
        assert run["started"] == told["start_time"]
        assert run["ended"] == told["end_time"]
        params = [name.removeprefix("params.") for name in told.dropna().index if name.startswith("params.")]
        params.remove("seeds")
        # whole numbers that other methods lack are real in a frame
        numbers = [name for name in params if isinstance(run[name], float)]
        assert "optimizer/rho" in numbers
        assert {name: run[name] for name in numbers} == {name: float(told[f"params.{name}"]) for name in numbers}
        others = [name for name in params if name not in numbers]
        assert len(others) > 15
        assert {name: str(run[name]) for name in others} == {name: str(told[f"params.{name}"]) for name in others}


def test_lanes_equal_every_metrics_history_to_the_last_digit(uri, client, finished):
    names = ("accuracy/test", "accuracy/validation", "loss/online", "objective", "gradient_evaluations")
    sweep = load.sweep("finished", uri, names)
    assert len(sweep.lanes) == 4 * 2 * 3
    for run_id in sweep.runs["run_id"]:
        for lane, seed in enumerate((0, 1)):
            rows = sweep.lanes[(sweep.lanes["run_id"] == run_id) & (sweep.lanes["lane"] == lane)]
            assert set(rows["seed"]) == {seed}
            for name in names:
                own = f"{name}/lane_{lane}" if schema.QUANTITIES[name].by_lane else name
                history = {metric.step: metric.value for metric in client.get_metric_history(run_id, own)}
                assert dict(zip(rows["task"], rows[name], strict=True)) == history
                assert len(history) == 3


def test_lanes_are_what_the_workers_reported(uri, finished):
    sweep = load.sweep("finished", uri)
    for run in load.rows(sweep.runs):
        test, _ = accuracies(run["trial"], 3, 2)
        table = sweep.accuracy(run["run_id"])
        np.testing.assert_array_equal(table.to_numpy(), test)
        assert (list(table.index), list(table.columns)) == ([0, 1, 2], [0, 1])


def test_types_of_columns_suit_a_notebook(uri, finished):
    sweep = load.sweep("finished", uri)
    assert tuple(sweep.runs.columns[: len(load.RUN_COLUMNS)]) == load.RUN_COLUMNS
    assert sweep.runs["optimizer/lr"].dtype == "float64"
    assert sweep.runs["model/widths"][0] == [100, 100]
    assert sweep.runs["seeds"][0] == (0, 1)
    assert {str(sweep.lanes[name].dtype) for name in ("lane", "seed", "task")} == {"int64"}
    assert str(sweep.runs["started"].dt.tz) == "UTC"
    assert not sweep.runs.columns.has_duplicates


def test_a_sweep_says_what_it_is(uri, finished):
    sweep = load.sweep("finished", uri)
    assert (sweep.name, sweep.phase, sweep.status, sweep.uri) == ("finished", "tune", "FINISHED", uri)
    assert sweep.identity == finished.identity
    assert sweep.plan == finished.plan.plain()
    assert sweep.tags["role"] == "sweep"
    assert sweep.notes == ()
    assert len(sweep.finished) == 4


def test_trials_come_in_the_order_of_the_plan(directory, uri):
    sent_sweep(directory, uri, "ordered", scenarios=["permuted_pixels", "class_pairs"], tasks=1, trials=1)
    sweep = load.sweep("ordered", uri)
    expected = [f"{tasks}-{method}-000" for tasks in ("permuted_pixels", "class_pairs") for method in ("sgd", "sam")]
    assert list(sweep.runs["trial"]) == expected
    assert list(dict.fromkeys(sweep.lanes["trial"])) == expected


@pytest.fixture(scope="module")
def outcome_sweep(directory, uri):
    """A finished, a stopped, a failed, an interrupted and a not yet begun trial."""
    folder = folder_of(directory, plan_of("outcomes", methods=["sgd"], trials=5))
    conductor = Conductor(folder)
    play(conductor, conductor.propose())
    stopped = conductor.propose()
    play(conductor, stopped, 1)
    stop_early(folder, stopped)
    play(conductor, conductor.propose(), 2, fail="OSError: no space left")
    play(conductor, conductor.propose(), 2)
    sync(folder, uri, NoPictures())
    return folder, conductor


def test_finished_stopped_failed_and_interrupted_trials_are_told_apart(uri, outcome_sweep):
    sweep = load.sweep("outcomes", uri)
    assert list(sweep.runs["outcome"]) == ["finished", "stopped", "failed", "interrupted"]
    assert list(sweep.runs["tasks"]) == [3, 1, 2, 2]
    assert list(sweep.runs["reason"]) == ["", "", "OSError: no space left", ""]
    assert list(sweep.finished["number"]) == [0]
    assert sweep.runs["summary/accuracy_test"].notna().tolist() == [True, False, False, False]
    assert sweep.lanes.groupby("trial").size().tolist() == [6, 2, 4, 4]
    assert sweep.notes == ()


def test_a_reason_is_forgotten_when_the_trial_finishes_after_all(directory, uri):
    folder = folder_of(directory, plan_of("second-try", methods=["sgd"], trials=1))
    conductor = Conductor(folder)
    play(conductor, conductor.propose(), 1, fail="a passing trouble")
    sync(folder, uri, NoPictures())
    assert list(load.sweep("second-try", uri).runs["reason"]) == ["a passing trouble"]
    conductor = Conductor(folder)
    play(conductor, conductor.propose())
    sync(folder, uri, NoPictures())
    (run,) = load.rows(load.sweep("second-try", uri).runs)
    assert (run["outcome"], run["reason"], run["tasks"]) == ("finished", "", 3)


def test_running_trials_are_running(directory, uri):
    folder = folder_of(directory, plan_of("running", methods=["sgd"]))
    conductor = Conductor(folder)
    play(conductor, conductor.propose(), 2)
    play(conductor, conductor.propose(), 0)
    sync(folder, uri, NoPictures(), running=True)
    sweep = load.sweep("running", uri)
    assert sweep.status == "RUNNING"
    assert list(sweep.runs["outcome"]) == ["running", "running"]
    assert list(sweep.runs["tasks"]) == [2, 0]
    assert len(sweep.finished) == 0
    assert sweep.runs["ended"].isna().all()
    assert str(sweep.runs["ended"].dtype).startswith("datetime64")


def test_a_trial_of_which_there_is_only_an_empty_run_is_running(directory, uri, client):
    folder = sent_sweep(directory, uri, "newborn", play_all=False)
    sweep = load.sweep("newborn", uri)
    tags = {"role": "trial", "trial": "class_pairs-sam-000", "sweep": folder.plan.name}
    client.create_run(sweep.experiment_id, tags=tags, run_name="sam lr=0.01 rho=0.05")
    (run,) = load.rows(load.sweep("newborn", uri).runs)
    assert (run["trial"], run["scenario"], run["method"]) == ("class_pairs-sam-000", "class_pairs", "sam")
    assert (run["outcome"], run["tasks"], run["seeds"], run["phase"]) == ("running", 0, (), "tune")


def test_a_sweep_without_trials_has_empty_frames_with_their_columns(directory, uri):
    sent_sweep(directory, uri, "empty", play_all=False)
    sweep = load.sweep("empty", uri)
    assert tuple(sweep.runs.columns) == load.RUN_COLUMNS
    assert list(sweep.lanes.columns[-2:]) == ["accuracy/test", "gradient_evaluations"]
    assert len(sweep.runs) == len(sweep.lanes) == len(sweep.finished) == 0
    assert (sweep.runs["ended"] - sweep.runs["started"]).dt.total_seconds().sum() == 0
    assert sweep.accuracy("nowhere").empty
    assert load.confirmations(sweep) == []


def without(monkeypatch, gone):
    """Makes MLflow forget metrics: `gone(run, metric)` says which."""
    history, search = MlflowClient.get_metric_history, MlflowClient.search_runs

    def some(self, run_id, key):
        return [metric for metric in history(self, run_id, key) if not gone(key, metric.step)]

    def found(self, *words, **named):
        runs = search(self, *words, **named)
        for run in runs:
            for name in [name for name in run.data.metrics if gone(name, None)]:
                del run.data.metrics[name]
        return runs

    monkeypatch.setattr(MlflowClient, "get_metric_history", some)
    monkeypatch.setattr(MlflowClient, "search_runs", found)


@pytest.mark.parametrize(
    ("gone", "tasks", "lacking"),
    [
        (lambda key, step: step == 2, 2, "1 of 3 tasks"),
        (lambda key, step: step == 1 and key == "accuracy/test/lane_1", 1, "2 of 3 tasks"),
        (lambda key, step: step == 0 and key == "gradient_evaluations", 0, "3 of 3 tasks"),
        (lambda key, step: key == "accuracy/test/lane_1", 0, "3 of 3 tasks"),
        (lambda key, step: key == "accuracy/test/lane_0", 0, "3 of 3 tasks"),
        (lambda key, step: key.startswith("accuracy/test/lane"), 0, "3 of 3 tasks"),
        (lambda key, step: key.startswith("accuracy/test"), 0, "3 of 3 tasks"),
        (lambda key, step: key == "summary/decline_test", 3, "summary/decline_test"),
        (lambda key, step: key == "summary/objective", 3, "summary/objective"),
    ],
    ids=[
        "last task",
        "middle task of a lane",
        "first task of all",
        "lane",
        "first lane",
        "all lanes",
        "all of it",
        "summary",
        "goal",
    ],
)
def test_a_trial_called_finished_that_lacks_numbers_is_incomplete(uri, older, monkeypatch, gone, tasks, lacking):
    without(monkeypatch, gone)
    sweep = load.sweep("older", uri)
    assert set(outcomes(sweep).values()) == {"incomplete"}
    assert set(sweep.runs["tasks"]) == {tasks}
    assert len(sweep.finished) == 0
    assert sweep.notes[0] == (
        f"class_pairs-sgd-000 has finished, but MLflow lacks {lacking}; bring it up to date with `study sync`."
    )
    assert sweep.lanes["accuracy/test"].notna().all()


def test_the_tasks_due_are_those_of_the_longest_trial_where_the_plan_does_not_say(directory, uri, monkeypatch):
    folder = folder_of(directory, plan_of("whole", methods=["sgd"], overrides={"tasks/count": None}), 3)
    conductor = Conductor(folder)
    while (history := conductor.propose()) is not None:
        play(conductor, history)
    sync(folder, uri, NoPictures())
    sweep = load.sweep("whole", uri)
    assert sweep.runs["outcome"].tolist() == ["finished", "finished"]
    assert sweep.runs["tasks/count"].isna().all()
    history = MlflowClient.get_metric_history
    short = sweep.runs["run_id"][1]

    def some(self, run_id, key):
        return [metric for metric in history(self, run_id, key) if run_id != short or metric.step < 2]

    monkeypatch.setattr(MlflowClient, "get_metric_history", some)
    assert list(load.sweep("whole", uri).runs["outcome"]) == ["finished", "incomplete"]


def test_a_quantity_that_a_trial_does_not_log_is_nan_and_takes_no_row_away(directory, uri):
    folder = folder_of(
        directory, plan_of("paper", space="paper_grid", methods=["sgd"], overrides={"tasks/count": 3}, trials=None)
    )
    conductor = Conductor(folder)
    while (history := conductor.propose()) is not None:
        play(conductor, history, validated=False)
    sync(folder, uri, NoPictures())
    sweep = load.sweep("paper", uri, ["accuracy/validation"])
    assert list(sweep.runs["outcome"]) == ["finished", "finished"]
    assert sweep.notes == ()
    assert len(sweep.lanes) == 2 * 3 * 2
    assert sweep.lanes["accuracy/validation"].isna().all()
    assert sweep.lanes["accuracy/test"].notna().all()
    assert "summary/objective" not in sweep.runs


@pytest.mark.parametrize("quantities", [(), ("loss/online",), ("objective", "accuracy/test")])
def test_test_accuracy_is_always_there_whatever_is_asked_for(uri, finished, quantities):
    sweep = load.sweep("finished", uri, quantities)
    assert set(outcomes(sweep).values()) == {"finished"}
    assert {"accuracy/test", *quantities} <= set(sweep.lanes.columns)
    assert sweep.accuracy(sweep.runs["run_id"][0]).shape == (3, 2)
    with pytest.raises(StudyError, match="'seconds/training' was not loaded"):
        sweep.accuracy(sweep.runs["run_id"][0], "seconds/training")


@pytest.fixture
def spoilt(directory, uri, client, request):
    """A sweep of one finished trial, and its run, to be spoilt by a test."""
    name = f"spoilt-{abs(hash(request.node.name))}"
    sent_sweep(directory, uri, name, methods=["sgd"], trials=1)
    return name, own_run(client, load.sweep(name, uri), "class_pairs-sgd-000").info.run_id


@pytest.mark.parametrize("name", ["my/own", "accuracy/tset", "gradient_evaluations/lane_0", "accuracy/test/lane_x"])
def test_a_metric_that_the_schema_does_not_know_is_noted_and_passed_over(uri, client, spoilt, name):
    client.log_metric(spoilt[1], name, 0.5)
    sweep = load.sweep(spoilt[0], uri)
    assert sweep.notes == (f"class_pairs-sgd-000: the metric {name!r} is not one of the study's; it is ignored.",)
    assert name not in sweep.runs
    assert list(sweep.runs["outcome"]) == ["finished"]


def test_of_two_values_for_one_task_the_later_is_taken_and_the_belied_summary_noted(directory, uri, client, spoilt):
    name, run_id = spoilt
    forget_tables(directory / name)
    before = load.sweep(name, uri).accuracy(run_id)
    later, earlier = int(time.time() * 1000) + 5000, 1
    metrics = [Metric("accuracy/test/lane_1", 0.125, later, 1), Metric("accuracy/test/lane_0", 0.25, earlier, 2)]
    client.log_batch(run_id, metrics=metrics)
    sweep = load.sweep(name, uri)
    after = sweep.accuracy(run_id)
    assert after.loc[1, 1] == 0.125
    assert after.loc[2, 0] == before.loc[2, 0]
    twice = "has two values for one task; the later one is used."
    assert [note for note in sweep.notes if "two values" in note] == [
        f"class_pairs-sgd-000: accuracy/test/lane_0 {twice}",
        f"class_pairs-sgd-000: accuracy/test/lane_1 {twice}",
    ]
    (belied,) = (note for note in sweep.notes if "summary" in note)
    told, found = before.to_numpy().mean(), after.to_numpy().mean()
    assert f"summary/accuracy_test is {told:.6g}, but the mean over its lanes is {found:.6g}" in belied


def test_the_same_value_twice_is_no_trouble(directory, uri, client, spoilt):
    name, run_id = spoilt
    forget_tables(directory / name)
    value = load.sweep(name, uri).accuracy(run_id).loc[1, 1]
    client.log_batch(run_id, metrics=[Metric("accuracy/test/lane_1", value, 1, 1)])
    assert load.sweep(name, uri).notes == ()


def test_a_value_that_is_no_number_leaves_the_trial_incomplete(directory, uri, client, spoilt):
    name, run_id = spoilt
    forget_tables(directory / name)
    later = int(time.time() * 1000) + 5000
    client.log_batch(run_id, metrics=[Metric("accuracy/test/lane_1", float("nan"), later, 1)])
    sweep = load.sweep(name, uri)
    assert list(sweep.runs["outcome"]) == ["incomplete"]
    assert list(sweep.runs["tasks"]) == [1]


def histories_read(monkeypatch):
    """The metrics whose histories are read from now on, as they are read."""
    read, history = [], MlflowClient.get_metric_history

    def noted(self, run_id, key):
        read.append(key)
        return history(self, run_id, key)

    monkeypatch.setattr(MlflowClient, "get_metric_history", noted)
    return read


def test_the_table_of_lanes_and_the_histories_give_the_same_to_the_last_digit(directory, uri, monkeypatch):
    sent_sweep(directory, uri, "both-ways", seeds=3, tasks=4)
    names = [quantity.name for quantity in schema.PER_TASK]
    read = histories_read(monkeypatch)
    by_table = load.sweep("both-ways", uri, names)
    assert read
    assert not [name for name in read if "/lane_" in name]
    forget_tables(directory / "both-ways")
    by_history = load.sweep("both-ways", uri, names)
    assert len({name for name in read if "/lane_" in name}) == 4 * 3
    pd.testing.assert_frame_equal(by_table.lanes, by_history.lanes, check_exact=True)
    pd.testing.assert_frame_equal(by_table.runs, by_history.runs, check_exact=True)
    assert by_table.lanes["accuracy/validation"].notna().all()
    assert by_table.notes == by_history.notes == ()


def cut(text):
    """Without the last task."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("2,"))


@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        lambda text: text.rpartition("\n2,")[0] + "\n",
        lambda text: text.replace("accuracy/test", "accuracy/tset"),
        lambda text: text + text.splitlines()[-1] + "\n",
        lambda text: text.replace("\n2,", "\n3,"),
        lambda text: re.sub(r",0\.\d+", ",0.5", text),
        lambda text: re.sub(r",0\.\d+", ",", text),
        lambda text: re.sub(r",0\.\d+", ",many", text),
        lambda text: text.splitlines()[0],
        lambda text: "",
        lambda text: "no table at all",
    ],
    ids=["older", "short", "column", "twice", "gap", "values", "empty", "words", "rows", "nothing", "prose"],
)
def test_a_table_of_lanes_that_does_not_fit_the_metrics_is_not_used(uri, client, spoilt, spoil):
    name, run_id = spoilt
    before = load.sweep(name, uri)
    text = artifact_text(client, run_id, LANES_FILE)
    assert spoil(text) != text
    client.log_text(run_id, spoil(text), LANES_FILE)
    after = load.sweep(name, uri)
    pd.testing.assert_frame_equal(after.lanes, before.lanes, check_exact=True)
    pd.testing.assert_frame_equal(after.runs, before.runs, check_exact=True)
    assert after.notes == ()


def test_a_table_of_lanes_that_was_changed_belies_the_summary(uri, client, spoilt):
    name, run_id = spoilt
    value = load.sweep(name, uri).accuracy(run_id).loc[1, 0]
    text = artifact_text(client, run_id, LANES_FILE)
    assert f",{value}," in text
    client.log_text(run_id, text.replace(f",{value},", ",0.125,", 1), LANES_FILE)
    sweep = load.sweep(name, uri)
    assert sweep.accuracy(run_id).loc[1, 0] == 0.125
    (belied,) = sweep.notes
    assert "its numbers have been changed" in belied


def test_the_lanes_of_a_trial_that_goes_on_come_from_its_metrics(uri, client, spoilt, monkeypatch):
    name, run_id = spoilt
    client.set_tag(run_id, "outcome", "running")
    read = histories_read(monkeypatch)
    assert load.sweep(name, uri).accuracy(run_id).shape == (3, 2)
    assert {"accuracy/test/lane_0", "accuracy/test/lane_1"} <= set(read)


def test_runs_made_by_hand_are_left_alone_and_a_trial_out_of_plan_is_noted(uri, client, spoilt):
    name, _ = spoilt
    experiment = load.sweep(name, uri).experiment_id
    client.create_run(experiment, run_name="mine")
    client.create_run(experiment, run_name="mine too", tags={"role": "scratch"})
    assert load.sweep(name, uri).notes == ()
    stray = [
        client.create_run(experiment, tags={"role": "trial", **tags}).info.run_id
        for tags in ({}, {"trial": "class_pairs-adam-000"}, {"trial": "class_pairs-sgd-one"}, {"trial": "x"})
    ]
    sweep = load.sweep(name, uri)
    assert set(sweep.notes) == {
        f"The run {run_id} is not a trial of this sweep's plan; it is ignored." for run_id in stray
    }
    assert outcomes(sweep) == {"class_pairs-sgd-000": "finished"}


def test_a_trial_with_two_runs_counts_once(uri, client, spoilt):
    name, run_id = spoilt
    sweep = load.sweep(name, uri)
    tags = own_run(client, sweep, "class_pairs-sgd-000").data.tags
    other = client.create_run(sweep.experiment_id, tags=tags, start_time=1).info.run_id
    sweep = load.sweep(name, uri)
    assert list(sweep.runs["run_id"]) == [run_id]
    assert sweep.notes == (f"class_pairs-sgd-000 has a second run, {other}; it is ignored.",)


def test_deleted_runs_and_experiments_are_gone(uri, client, spoilt):
    name, run_id = spoilt
    client.delete_run(run_id)
    sweep = load.sweep(name, uri)
    assert len(sweep.runs) == len(sweep.lanes) == 0
    client.delete_experiment(sweep.experiment_id)
    with pytest.raises(StudyError, match=f"The sweep '{name}' has been deleted in MLflow at sqlite.*restore"):
        load.sweep(name, uri)
    with pytest.raises(StudyError) as told:
        load.sweep("unheard-of", uri)
    assert name not in str(told.value)


def test_a_sweep_whose_own_run_is_gone_is_told_how_to_get_it_back(uri, client, spoilt):
    sweep = load.sweep(spoilt[0], uri)
    client.delete_run(sweep.run_id)
    with pytest.raises(StudyError, match=f"no run of the sweep '{spoilt[0]}' itself; try: study sync"):
        load.sweep(spoilt[0], uri)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just words", "is not the plan of a sweep"),
        ("[1, 2]", "is not the plan of a sweep"),
        ("a: 1", "is not the plan of a sweep"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_plan_that_is_none_is_refused(uri, client, spoilt, text, message):
    run_id = load.sweep(spoilt[0], uri).run_id
    client.log_text(run_id, text, "plan.yaml")
    with pytest.raises(StudyError, match=f"plan.yaml of run {run_id}.*{message}"):
        load.sweep(spoilt[0], uri)


def test_a_plan_whose_file_is_gone_is_refused(uri, directory, spoilt):
    for path in (directory / spoilt[0]).rglob("plan.yaml"):
        path.unlink()
    with pytest.raises(StudyError, match=r"plan\.yaml of run \w+\) cannot be read"):
        load.sweep(spoilt[0], uri)


def test_an_intervention_and_another_optimizer_are_columns(directory, uri):
    overrides = {"interventions/l2_init/strength": 0.01, "tasks/count": 3}
    folder = folder_of(directory, plan_of("acting", methods=["gnp"], trials=1, overrides=overrides))
    conductor = Conductor(folder)
    play(conductor, conductor.propose(), facts={"rule": {"rule/blend": 2.0}, "versions": {}})
    sync(folder, uri, NoPictures())
    (run,) = load.rows(load.sweep("acting", uri).runs)
    assert run["interventions/l2_init/strength"] == 0.01
    assert (run["optimizer/name"], run["optimizer/lambda"], run["optimizer/r"]) == ("gnp", 0.1, 0.05)
    assert run["rule/blend"] == 2.0
    assert run["outcome"] == "finished"


def test_a_confirmation_is_found_by_what_it_confirms(directory, uri, finished):
    tuned = load.sweep("finished", uri)
    plan = plan_of("confirmed", methods=["sgd"], seeds=2)
    group = plan.groups[0].model_copy(
        update={
            "distributions": {},
            "origins": (Origin(trial="class_pairs-sgd-001", rank=1), Origin(trial="class_pairs-sgd-000")),
            "points": ({"optimizer/lr": 0.001}, {"optimizer/lr": 0.01}),
        }
    )
    tuning = Tuning(sweep="finished", identity=finished.identity)
    plan = plan.model_copy(update={"phase": "confirm", "confirms": tuning, "groups": (group,), "seeds": (100, 101)})
    folder = folder_of(directory, plan)
    conductor = Conductor(folder)
    while (history := conductor.propose()) is not None:
        play(conductor, history)
    sync(folder, uri, NoPictures())
    (found,) = load.confirmations(tuned)
    assert (found.name, found.phase, found.notes) == ("confirmed", "confirm", ())
    assert list(found.runs["confirms_trial"]) == ["class_pairs-sgd-001", "class_pairs-sgd-000"]
    ids = tuned.runs.set_index("trial")["run_id"]
    assert list(found.runs["confirms_run_id"]) == [ids["class_pairs-sgd-001"], ids["class_pairs-sgd-000"]]
    assert found.runs["selected_rank"][0] == 1
    assert found.runs["selected_rank"][1] is pd.NA
    assert list(found.accuracy(found.runs["run_id"][0]).columns) == [100, 101]
    assert load.confirmations(found) == []
    assert load.confirmations(replace(tuned, identity="another")) == []


def test_an_unknown_sweep_is_answered_with_the_known_ones(uri, client, finished):
    client.create_experiment("no sweep of ours")
    with pytest.raises(StudyError, match=r"no sweep 'finishd'; did you mean 'finished'\? known: .*finished") as told:
        load.sweep("finishd", uri)
    assert "no sweep of ours" not in str(told.value)
    with pytest.raises(StudyError, match="has no sweep 'no sweep of ours'"):
        load.sweep("no sweep of ours", uri)


@pytest.mark.parametrize("quantities", [["accuracy/tset"], ["summary/objective"], "accuracy/test"])
def test_an_unknown_quantity_is_refused(uri, finished, quantities):
    with pytest.raises(StudyError, match=r"is not logged per task; .*known: accuracy/online"):
        load.sweep("finished", uri, quantities)
    with pytest.raises(StudyError, match="is not logged per task"):
        load.confirmations(load.sweep("finished", uri), quantities)


def test_a_missing_file_is_not_made(tmp_path):
    with pytest.raises(StudyError, match=r"There is no MLflow store sqlite.*begin with `study run quickstart`"):
        load.sweep("quickstart", f"sqlite:///{tmp_path / 'deep' / 'mlflow.db'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "uri",
    ["", "nonsense", "mlruns", "file:///nowhere", "ftp://x/y", "databricks", "http://[bad", "sqlite:///", "oracle:x"],
)
def test_an_address_of_nonsense_is_one_sentence_and_leaves_nothing_behind(tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r"^[^\n]+\.$"):
        load.sweep("quickstart", uri)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_and_a_server_that_is_away_are_refused(tmp_path):
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(StudyError, match="is not an SQLite database"):
        load.sweep("quickstart", f"sqlite:///{tmp_path / 'text.db'}")
    with pytest.raises(StudyError, match=r"No MLflow server answers at http://127\.0\.0\.1:9 "):
        load.sweep("quickstart", "http://127.0.0.1:9")


@pytest.mark.parametrize("call", ["get_experiment_by_name", "search_runs", "get_metric_history", "search_experiments"])
def test_a_store_that_goes_away_is_a_sentence(uri, finished, monkeypatch, call):
    tuned = load.sweep("finished", uri)

    def away(*_, **__):
        raise MlflowException("gone\nfor lunch")

    monkeypatch.setattr(MlflowClient, call, away)
    failing = (
        (lambda: load.confirmations(tuned)) if call == "search_experiments" else lambda: load.sweep("finished", uri)
    )
    with pytest.raises(StudyError, match=r"MLflow at sqlite.* refuses: gone\.$"):
        failing()


def test_loading_changes_nothing_in_the_store(directory, uri, finished):
    before = (directory / "mlflow.db").read_bytes()
    sweep = load.sweep("finished", uri)
    load.confirmations(sweep)
    assert (directory / "mlflow.db").read_bytes() == before


@pytest.fixture
def served(directory, uri, finished, monkeypatch):
    """The address of MLflow's server over the same store, in a thread of this process: a command takes ten seconds to start."""
    from mlflow import server
    from mlflow.server import handlers
    from werkzeug.serving import make_server

    monkeypatch.setattr(handlers, "_tracking_store", None)
    monkeypatch.setattr(handlers, "_model_registry_store", None)
    monkeypatch.setenv(server.BACKEND_STORE_URI_ENV_VAR, uri)
    monkeypatch.setenv(server.ARTIFACT_ROOT_ENV_VAR, str(directory / "artifacts"))
    listening = make_server("127.0.0.1", 0, server.app, threaded=True)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_a_server_gives_the_same_frames_as_the_file(uri, served, finished):
    there, here = load.sweep("finished", served), load.sweep("finished", uri)
    pd.testing.assert_frame_equal(there.runs, here.runs, check_exact=True)
    pd.testing.assert_frame_equal(there.lanes, here.lanes, check_exact=True)
    pd.testing.assert_frame_equal(there.diagnostics, here.diagnostics, check_exact=True)
    pd.testing.assert_frame_equal(there.probes, here.probes, check_exact=True)
    there, here = (replace(sweep, runs=0, lanes=0, diagnostics=0, probes=0, uri="") for sweep in (there, here))
    assert there == here
    with pytest.raises(StudyError, match="did you mean 'finished'"):
        load.sweep("finishe", served)
