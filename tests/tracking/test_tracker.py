"""MLflow copies the records: nothing twice, nothing lost."""

import re
import sqlite3
import time
from contextlib import closing

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sweep_fixtures import FACTS, folder_of, plan_of, run_all, stop_early, task_line, train

from analysis import load, tables
from study import schema
from study.cli.pictures import Pictures
from study.errors import StudyError
from study.sweep.conductor import Conductor
from study.tracking import store, tracker
from study.tracking.runs import BATCH, SweepView
from study.tracking.store import default_uri, run_ids
from study.tracking.tracker import Tracker, sync


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """One folder of sweeps for all tests of this file.

    It is shared, since a new database takes seconds. Every sweep has its own name.
    """
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def uri(directory):
    return default_uri(directory)


@pytest.fixture
def client(uri):
    return MlflowClient(uri)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(tracker, "RETRY_SECONDS", (0.01, 0.02))


@pytest.fixture(scope="module")
def finished(directory, uri):
    """A sweep of four finished trials, synced twice."""
    folder = folder_of(directory, plan_of("finished"))
    run_all(folder)
    assert sync(folder, uri, Pictures()) == 4
    assert sync(folder, uri, Pictures()) == 4
    return folder


def runs_of(uri, folder, role=None):
    """The runs of a sweep as plain MLflow returns them."""
    mlflow.set_tracking_uri(uri)
    query = f"tags.role = '{role}'" if role else ""
    return mlflow.search_runs(experiment_names=[folder.plan.name], filter_string=query, output_format="list")


def by_trial(runs):
    return {run.data.tags["trial"]: run for run in runs}


def steps(client, run, name):
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]


def assert_complete(client, uri, folder):
    """Every task of every record is there exactly once.

    There is nothing else.
    """
    runs = by_trial(runs_of(uri, folder, "trial"))
    histories = folder.histories()
    assert set(runs) == {history.key for history in histories}
    for history in histories:
        run = runs[history.key]
        expected = {}
        for line in history.tasks:
            values = dict(line["metrics"])
            for name, lanes in line["lanes"].items():
                values |= {f"{name}/lane_{lane}": value for lane, value in enumerate(lanes)}
            for name, value in values.items():
                expected.setdefault(name, []).append((line["task"], value))
        logged = {name for name in run.data.metrics if not name.startswith("summary/")}
        assert logged == set(expected)
        for name in (
            "accuracy/test",
            "objective",
            "accuracy/validation/lane_1",
            "loss/online/lane_0",
            "lanes/diverged",
        ):
            assert steps(client, run, name) == expected[name]


def test_there_is_one_run_for_the_sweep_and_one_for_each_trial(uri, client, finished):
    runs = runs_of(uri, finished)
    assert sorted(run.data.tags["role"] for run in runs) == ["sweep", "trial", "trial", "trial", "trial"]
    assert not any("mlflow.parentRunId" in run.data.tags for run in runs)
    assert {run.data.tags["sweep"] for run in runs} == {"finished"}
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_every_task_is_one_step_and_a_second_sync_adds_nothing(uri, client, finished):
    assert_complete(client, uri, finished)
    for run in runs_of(uri, finished, "trial"):
        assert len(steps(client, run, "summary/accuracy_test")) == 1
    (sweep,) = runs_of(uri, finished, "sweep")
    assert all(len(steps(client, sweep, name)) == 1 for name in sweep.data.metrics)


def test_runs_are_named_for_people(uri, finished):
    assert {run.info.run_name for run in runs_of(uri, finished)} == {
        "finished",
        "sgd lr=0.01",
        "sgd lr=0.001",
        "sam lr=0.01 rho=0.05",
        "sam lr=0.001 rho=0.05",
    }


def test_parameters_are_the_settings_with_rho_and_lambda_0_where_there_are_none(directory, uri):
    folder = folder_of(directory, plan_of("zeros", methods=["sgd", "sam", "gnp"], trials=1))
    run_all(folder)
    assert sync(folder, uri, Pictures()) == 3
    for run in runs_of(uri, folder, "trial"):
        params, method = run.data.params, run.data.tags["method"]
        assert float(params["optimizer/rho"]) == (0.05 if method == "sam" else 0)
        assert float(params["optimizer/lambda"]) == (0.1 if method == "gnp" else 0)
        assert ("optimizer/r" in params) == (method == "gnp")


def test_parameters_are_the_settings_of_the_sweeps_own_methods(uri, finished):
    for run in runs_of(uri, finished, "trial"):
        params = run.data.params
        sam = run.data.tags["method"] == "sam"
        assert float(params["optimizer/rho"]) == (0.05 if sam else 0)
        assert "optimizer/lambda" not in params  # no trial of this sweep has it
        assert float(params["optimizer/lr"]) in (0.01, 0.001)
        assert params["tasks/count"] == "3"
        assert params["seeds"] == "[0, 1]"


def test_tags_tell_scenario_method_phase_data_set_and_versions(uri, finished):
    for run in runs_of(uri, finished, "trial"):
        tags = run.data.tags
        assert tags["scenario"] == "class_pairs"
        assert tags["method"] in ("sgd", "sam")
        assert tags["phase"] == "tune"
        assert tags["dataset"] == "mnist5k"
        assert tags["outcome"] == "finished"
        assert tags["data_fingerprint"] == FACTS["data_fingerprint"]
        assert {name for name in tags if name.startswith("version/")} == {
            f"version/{name}" for name in FACTS["versions"]
        }


def test_a_change_of_software_is_in_the_runs_with_the_old_and_the_new(directory, uri):
    folder = folder_of(directory, plan_of("changed", trials=1))
    conductor = Conductor(folder)
    first, second = conductor.propose(), conductor.propose()
    train(conductor, first)
    train(conductor, second, tasks=1)
    newer = FACTS | {"source_fingerprint": "0" * 16, "versions": {**FACTS["versions"], "torch": "99.0"}}
    for task in (1, 2):
        conductor.result(second.key, task_line(second, task, [0.5, 0.5]), newer)
    conductor.ended(second.key)
    assert sync(folder, uri, Pictures()) == 2

    torch, source = FACTS["versions"]["torch"], FACTS["source_fingerprint"]
    told = f"torch {torch}, then 99.0; source {source}, then {'0' * 16}"
    (sweep,), runs = runs_of(uri, folder, "sweep"), by_trial(runs_of(uri, folder, "trial"))
    for run in (sweep, runs[second.key]):
        assert run.data.tags["version/torch"] == f"{torch}, then 99.0"
        assert run.data.tags["source_fingerprint"] == f"{source}, then {'0' * 16}"
        assert run.data.tags["software_changes"] == told
        assert told in run.data.tags["mlflow.note.content"]
    assert runs[first.key].data.tags["version/torch"] == torch
    assert runs[first.key].data.tags["source_fingerprint"] == source
    assert "software_changes" not in runs[first.key].data.tags

    loaded = load.sweep("changed", uri)
    assert loaded.notes == (f"its software changed while it ran, so numbers may differ: {told}.",)
    shown = tables.versions([loaded]).set_index("what")["version"]
    assert (shown["torch"], shown["source"]) == (f"{torch}, then 99.0", f"{source}, then {'0' * 16}")


def test_a_sync_from_another_machine_does_not_change_the_versions_of_a_sweep(uri, finished, monkeypatch):
    monkeypatch.setattr("study.provenance.software", lambda: {"versions": {"torch": "99.0"}})
    assert sync(finished, uri, Pictures()) == 4
    (sweep,) = runs_of(uri, finished, "sweep")
    assert sweep.data.tags["version/torch"] == FACTS["versions"]["torch"]
    assert "software_changes" not in sweep.data.tags


def test_configuration_lanes_and_picture_are_artifacts(uri, client, finished):
    histories = {history.key: history for history in finished.histories()}
    for key, run in by_trial(runs_of(uri, finished, "trial")).items():
        names = {file.path for file in client.list_artifacts(run.info.run_id)}
        best = {"best"} if "best" in run.data.tags else set()
        assert names == {"configuration", "tables", "figures"} | best
        rows = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/tables/lanes.csv").splitlines()
        assert len(rows) == 1 + 3 * 2
        assert rows[0].startswith("task,name,lane,seed,")
        first = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
        assert float(first["accuracy/validation"]) == histories[key].tasks[0]["lanes"]["accuracy/validation"][0]
    (sweep,) = runs_of(uri, finished, "sweep")
    assert {file.path for file in client.list_artifacts(sweep.info.run_id)} >= {"plan.yaml", "figures"}


def declared(name):
    """The quantity that a logged name belongs to, or None."""
    lane = re.fullmatch(r"(.+)/lane_\d+", name)
    if lane:
        quantity = schema.QUANTITIES.get(lane[1])
        return quantity if quantity and quantity.by_lane else None
    if name.startswith(f"{schema.BEST_OBJECTIVE}/"):
        return schema.QUANTITIES[schema.BEST_OBJECTIVE]
    return schema.QUANTITIES.get(name)


def test_every_logged_metric_is_declared_in_the_schema(uri, finished):
    names = {name for run in runs_of(uri, finished) for name in run.data.metrics}
    assert len(names) > 20
    assert [name for name in names if declared(name) is None] == []


def test_a_name_that_is_not_declared_is_seen_as_such():
    assert declared("time_total_s") is None
    assert declared("seconds/training/lane_0") is None


def test_the_sweeps_run_tells_what_came_out(uri, finished):
    (run,) = runs_of(uri, finished, "sweep")
    best = {history.method: 0.0 for history in finished.histories()}
    for history in finished.histories():
        best[history.method] = max(best[history.method], history.summary["summary/objective"])
    assert run.data.metrics == {
        "trials/finished": 4.0,
        "trials/stopped": 0.0,
        "trials/failed": 0.0,
        "best_objective/class_pairs-sgd": best["sgd"],
        "best_objective/class_pairs-sam": best["sam"],
    }


def test_a_second_store_gets_everything_too(tmp_path, client, uri, finished):
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert sync(finished, other, Pictures()) == 4
    assert_complete(MlflowClient(other), other, finished)
    assert set(run_ids(other, finished)) == set(run_ids(uri, finished))
    assert_complete(client, uri, finished)


def test_runs_are_found_by_their_trial(uri, client, finished):
    for key, identifier in run_ids(uri, finished).items():
        assert client.get_run(identifier).data.tags["trial"] == key


def test_outcomes_are_told_by_status_and_tag(directory, uri):
    folder = folder_of(directory, plan_of("outcomes", methods=["sgd"], trials=4))
    conductor = Conductor(folder)
    train(conductor, conductor.propose())
    stopped = conductor.propose()
    train(conductor, stopped, tasks=1)
    stop_early(folder, stopped)
    failed = conductor.propose()
    conductor.started(failed.key)
    conductor.failed(failed.key, "OSError: no space left")
    train(conductor, conductor.propose(), tasks=2)
    sync(folder, uri, Pictures())
    runs = by_trial(runs_of(uri, folder, "trial"))
    told = {int(key[-3:]): (run.info.status, run.data.tags["outcome"]) for key, run in runs.items()}
    assert told == {
        0: ("FINISHED", "finished"),
        1: ("KILLED", "stopped"),
        2: ("FAILED", "failed"),
        3: ("KILLED", "interrupted"),
    }
    assert runs[failed.key].data.tags["reason"] == "OSError: no space left"
    assert "summary/accuracy_test" not in runs[stopped.key].data.metrics
    (sweep,) = runs_of(uri, folder, "sweep")
    assert [sweep.data.metrics[f"trials/{what}"] for what in ("finished", "stopped", "failed")] == [1, 1, 1]
    assert sweep.info.status == "FAILED"


def test_a_note_on_a_trial_stands_on_its_page(directory, uri, client):
    folder = folder_of(directory, plan_of("noted", methods=["sgd"], trials=1))
    conductor = Conductor(folder)
    history = conductor.propose()
    conductor.started(history.key)
    conductor.note(history.key, "The checkpoint 'x' is damaged; it starts again at its first task")
    train(conductor, history)
    sync(folder, uri, Pictures())
    (run,) = runs_of(uri, folder, "trial")
    shown = client.get_run(run.info.run_id).data.tags["mlflow.note.content"]
    assert "\n\nNote: The checkpoint 'x' is damaged; it starts again at its first task.\n\n" in shown


def test_a_running_sweep_is_left_open(directory, uri):
    folder = folder_of(directory, plan_of("running"))
    conductor = Conductor(folder)
    train(conductor, conductor.propose(), tasks=2)
    sync(folder, uri, Pictures(), running=True)
    assert {run.info.status for run in runs_of(uri, folder)} == {"RUNNING"}
    assert_complete(MlflowClient(uri), uri, folder)


def test_an_interrupted_sweep_goes_on_in_the_same_runs(directory, uri, client):
    folder = folder_of(directory, plan_of("interrupted"))
    conductor = Conductor(folder)
    train(conductor, conductor.propose(), tasks=2)
    sync(folder, uri, Pictures())
    before = {run.info.run_id for run in runs_of(uri, folder)}
    run_all(folder)
    sync(folder, uri, Pictures())
    runs = runs_of(uri, folder)
    assert before < {run.info.run_id for run in runs}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["outcome"] for run in runs if run.data.tags["role"] == "trial"} == {"finished"}
    assert_complete(client, uri, folder)


def test_a_tracker_follows_a_sweep(directory, uri, client):
    folder = folder_of(directory, plan_of("followed"))
    said = []
    tracker = Tracker(SweepView(folder, uri, Pictures()), said.append)
    conductor = Conductor(folder, (tracker,))
    while (history := conductor.propose()) is not None:
        train(conductor, history)
    assert tracker.close()
    assert said == []
    assert_complete(client, uri, folder)
    assert {run.info.status for run in runs_of(uri, folder)} == {"FINISHED"}


@pytest.mark.parametrize("call", ["log_batch", "create_run", "set_terminated"])
def test_a_store_that_is_away_for_a_while_loses_nothing(directory, uri, client, impatient, monkeypatch, call):
    working = getattr(MlflowClient, call)
    calls = []

    def failing(*words, **named):
        calls.append(call)
        if len(calls) < 6 or (len(calls) < 40 and len(calls) % 3):
            raise MlflowException("away")
        return working(*words, **named)

    monkeypatch.setattr(MlflowClient, call, failing)
    folder = folder_of(directory, plan_of(f"away-{call}"))
    said = []
    tracker = Tracker(SweepView(folder, uri, Pictures()), said.append)
    conductor = Conductor(folder, (tracker,))
    while (history := conductor.propose()) is not None:
        train(conductor, history)
    assert tracker.close()
    monkeypatch.setattr(MlflowClient, call, working)
    assert "MLflow is unreachable, trying again: away" in said
    assert_complete(client, uri, folder)  # by itself, and not by the sync below
    sync(folder, uri, Pictures())
    assert_complete(client, uri, folder)
    for run in runs_of(uri, folder, "trial"):
        assert len(steps(client, run, "summary/accuracy_test")) == 1


@pytest.mark.parametrize("call", ["log_batch", "create_run", "set_terminated", "update_run"])
def test_a_request_whose_answer_is_lost_is_not_done_twice(directory, uri, client, impatient, monkeypatch, call):
    working = getattr(MlflowClient, call)
    calls = []

    def deaf(*words, **named):
        calls.append(call)
        done = working(*words, **named)
        if len(calls) < 40 and len(calls) % 2:
            raise MlflowException("the answer is lost")
        return done

    monkeypatch.setattr(MlflowClient, call, deaf)
    folder = folder_of(directory, plan_of(f"deaf-{call}"))
    tracker = Tracker(SweepView(folder, uri, Pictures()), [].append)
    conductor = Conductor(folder, (tracker,))
    while (history := conductor.propose()) is not None:
        train(conductor, history)
    assert tracker.close()
    monkeypatch.setattr(MlflowClient, call, working)
    assert len(calls) > 1
    sync(folder, uri, Pictures())
    assert_complete(client, uri, folder)
    for run in runs_of(uri, folder, "trial"):
        assert len(steps(client, run, "summary/accuracy_test")) == 1


def test_a_store_that_comes_back_at_the_end_gets_all_and_nobody_in_a_hurry_waits_for_it(directory, uri, monkeypatch):
    monkeypatch.setattr(tracker, "LAST_SECONDS", 0.1)
    working, back = MlflowClient.create_run, time.monotonic() + 3600

    def away(*words, **named):
        if time.monotonic() < back:
            raise MlflowException("away")
        return working(*words, **named)

    monkeypatch.setattr(MlflowClient, "create_run", away)
    hasty, patient = (
        Tracker(SweepView(folder_of(directory, plan_of(name)), uri, Pictures()), [].append)
        for name in ("hasty", "patient")
    )
    deadline = time.monotonic() + 60
    while not (hasty.fault and patient.fault):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    began = time.monotonic()
    assert not hasty.close(hurried=lambda: True)
    assert time.monotonic() - began < 5
    back = time.monotonic() + 1.5  # later than five immediate tries
    assert patient.close()
    assert time.monotonic() > back


def test_a_store_that_stays_away_is_told_at_the_end_and_synced_later(directory, uri, client, impatient, monkeypatch):
    def away(*_, **__):
        raise MlflowException("away for good")

    folder = folder_of(directory, plan_of("gone"))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_experiment", away)
        said = []
        tracker = Tracker(SweepView(folder, uri, Pictures()), said.append)
        conductor = Conductor(folder, (tracker,))
        while (history := conductor.propose()) is not None:
            train(conductor, history)
        assert not tracker.close(patience=1)
        assert "away for good" in tracker.fault
        with pytest.raises(StudyError, match="away for good"):
            sync(folder, uri, Pictures())
    assert {history.outcome for history in folder.histories()} == {"finished"}
    sync(folder, uri, Pictures())
    assert_complete(client, uri, folder)


def test_many_metrics_go_in_batches_that_mlflow_allows(directory, uri, client, monkeypatch):
    sizes = []
    working = MlflowClient.log_batch
    fail = iter([False, True])

    def counting(self, run_id, metrics=(), **named):
        if metrics:
            sizes.append(len(metrics))
            if next(fail, False):
                raise MlflowException("away in the middle of a step")
        return working(self, run_id, metrics=metrics, **named)

    monkeypatch.setattr(MlflowClient, "log_batch", counting)
    lanes = 300
    folder = folder_of(directory, plan_of("wide", methods=["sgd"], trials=1, seeds=lanes))
    conductor = Conductor(folder)
    history = conductor.propose()
    conductor.started(history.key)
    for task in range(3):
        values = [(task * lanes + lane) / 1000 for lane in range(lanes)]
        conductor.result(history.key, task_line(history, task, values, values), FACTS)
    conductor.ended(history.key)
    with pytest.raises(StudyError, match="away in the middle of a step"):
        sync(folder, uri, Pictures())
    sync(folder, uri, Pictures())
    assert max(sizes) == BATCH == 1000
    (run,) = runs_of(uri, folder, "trial")
    for lane in (0, 150, lanes - 1):
        expected = [(task, (task * lanes + lane) / 1000) for task in range(3)]
        assert steps(client, run, f"accuracy/test/lane_{lane}") == expected
        assert steps(client, run, f"accuracy/validation/lane_{lane}") == expected


def test_small_tasks_share_a_batch(directory, uri, monkeypatch):
    sizes = []
    working = MlflowClient.log_batch

    def counting(self, run_id, metrics=(), **named):
        sizes.append(len(metrics))
        return working(self, run_id, metrics=metrics, **named)

    folder = folder_of(directory, plan_of("small", methods=["sgd"], trials=1))
    run_all(folder)
    monkeypatch.setattr(MlflowClient, "log_batch", counting)
    sync(folder, uri, Pictures())
    per_task = len(folder.histories()[0].tasks[0]["metrics"]) + 2 * 4
    assert 3 * per_task in sizes


def test_an_experiment_of_that_name_is_not_taken_over(directory, uri, client):
    client.create_experiment("taken")
    with pytest.raises(StudyError, match="has an experiment 'taken' already"):
        store.check_new_experiment(uri, "taken")
    store.check_new_experiment(uri, "not-taken")


def test_two_sweeps_of_one_name_are_never_mixed(tmp_path, directory, uri, client):
    first = folder_of(directory, plan_of("quickstart"))
    run_all(first)
    sync(first, uri, Pictures())
    second = folder_of(tmp_path, plan_of("quickstart"))
    run_all(second, lambda _: 0.125)
    with pytest.raises(StudyError, match="has an experiment 'quickstart' of another sweep"):
        sync(second, uri, Pictures())
    assert run_ids(uri, second) == {}
    assert len(run_ids(uri, first)) == 4
    assert_complete(client, uri, first)


def test_the_store_is_the_one_asked_for_then_the_environments_then_the_default(directory, uri, monkeypatch):
    from study.sweep.execution import Execution

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:1")
    asked = Execution(data_dir="", tracking_uri="http://here:1")
    assert store.tracking_uri(directory, asked) == "http://here:1"
    assert store.tracking_uri(directory, Execution(data_dir="")) == "http://there:1"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert store.tracking_uri(directory, Execution(data_dir="")) == uri


def test_sqlite_finds_a_metric_of_a_run_without_reading_those_of_all_runs(directory, uri, finished):
    def way():
        """How SQLite finds it."""
        question = "EXPLAIN QUERY PLAN SELECT * FROM metrics WHERE run_uuid = ? AND key = ?"
        with closing(sqlite3.connect(directory / "mlflow.db")) as database:
            return database.execute(question, ("a run", "accuracy/test")).fetchone()[-1]

    assert "(run_uuid=? AND key=?)" in way()
    with closing(sqlite3.connect(directory / "mlflow.db")) as database:
        database.execute("DROP TABLE sqlite_stat1")
    assert "run_uuid=?" not in way(), "SQLite needs no help any more"
    store.count_rows(uri)
    assert "(run_uuid=? AND key=?)" in way()
