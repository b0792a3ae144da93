"""Stores that are locked, slow, deleted, of another version or forbidding: waited for, or told with the way out."""

import sqlite3
import time
from contextlib import closing

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from report_fixtures import Blank
from shared import lay_database
from store_faults import locked, played, served
from sweep_fixtures import assert_one_sentence, folder_of, plan_of, run_all, train

import analysis.report  # noqa: F401  # the first import would take longer than a store is locked here
from study.cli import pictures
from study.errors import Halted, StudyError
from study.sweep.conductor import Conductor
from study.sweep.folder import SweepFolder
from study.tracking import faults, store, tracker
from study.tracking.faults import BusyError, DeletedError, is_busy, is_final
from study.tracking.runs import SweepView
from study.tracking.store import default_uri
from study.tracking.tracker import Tracker, sync

RUN = (
    *("run", "quickstart", "--scenario", "class_pairs", "--method", "sgd", "--trials", 4, "--seeds", 2),
    *("--set", "tasks/count=3", "--set", "tasks/images_per_task=200"),
)


class Impatient(sqlite3.Connection):
    """A connection whose requests wait a moment for a lock, whatever MLflow asks for."""

    class Cursor(sqlite3.Cursor):
        def execute(self, sql, *values):
            return super().execute(sql.replace("busy_timeout = 20000", "busy_timeout = 50"), *values)

    def cursor(self, *_):
        return super().cursor(self.Cursor)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Every patience is short, and pictures are blank."""
    connect = sqlite3.dbapi2.connect
    monkeypatch.setattr(
        sqlite3.dbapi2,
        "connect",
        lambda *words, **named: connect(*words, **{"timeout": 0.05, "factory": Impatient, **named}),
    )
    monkeypatch.setattr(faults, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(tracker, "RETRY_SECONDS", (0.05, 0.05))
    monkeypatch.setattr(tracker, "LAST_SECONDS", 0.05)
    monkeypatch.setattr(pictures, "Pictures", Blank)


def statuses(uri, name):
    """The status of each run, by trial; a trial with two runs fails."""
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id], "tags.role LIKE '%'")
    keys = [run.data.tags.get("trial", "") for run in runs]
    assert len(set(keys)) == len(keys)
    return {key: run.info.status for key, run in zip(keys, runs, strict=True)}


def is_complete(uri, folder):
    """Whether the store has every trial, ended, and all their tasks."""
    client = MlflowClient(uri)
    expected = {history.key: "FINISHED" for history in folder.histories()} | {"": "FINISHED"}
    runs = store.runs_of(client, folder.plan.name, folder.identity)
    tasks = [len(client.get_metric_history(run, "accuracy/test")) for key, run in runs.items() if key]
    return statuses(uri, folder.plan.name) == expected and set(tasks) == {3}


@pytest.fixture
def directory(here):
    """The default folder of sweeps, with an empty store."""
    (here / "study-results").mkdir()
    lay_database(here / "study-results")
    return here / "study-results"


@pytest.fixture
def uri(directory):
    return default_uri(directory)


@pytest.fixture
def sent(directory, uri):
    """A sweep that MLflow has."""
    folder = folder_of(directory, plan_of("sent"))
    run_all(folder)
    sync(folder, uri, Blank())
    return folder


def test_a_store_that_is_locked_when_a_sweep_begins_is_waited_for(directory, uri, run, monkeypatch):
    played(monkeypatch)
    with locked(directory / "mlflow.db", 1.0):
        code, out, err = run(*RUN)
    assert code == 0, err
    assert "is busy" in err
    assert "database is locked" in err
    assert "trying again for up to 120 s" in err
    assert is_complete(uri, SweepFolder.open(directory, "quickstart"))
    assert "exported " in out


def test_a_store_that_is_locked_when_the_tracker_connects_gets_everything(directory, uri):
    folder, said = folder_of(directory, plan_of("connected")), []
    with locked(directory / "mlflow.db", 0.5):
        follower = Tracker(SweepView(folder, uri, Blank()), said.append)
        conductor = Conductor(folder, (follower,))
        while (history := conductor.propose()) is not None:
            train(conductor, history)
    assert follower.close(patience=20)
    assert said[0].startswith("MLflow is busy, trying again: ")
    assert follower.unsent == []
    assert is_complete(uri, folder)


def test_a_store_that_is_locked_at_the_end_is_told_with_what_it_lacks_and_synced_later(
    directory, uri, run, monkeypatch
):
    monkeypatch.setattr(faults, "BUSY_SECONDS", 0.3)
    locks = []

    def lock(folder):
        deadline = time.monotonic() + 20
        while statuses_so_far(uri, folder).get("class_pairs-sgd-001") != "FINISHED":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        locks.append(locked(directory / "mlflow.db"))
        locks[0].__enter__()

    played(monkeypatch, lock)
    code, out, err = run(*RUN)
    try:
        assert code == 1
        assert (
            f"Not everything reached MLflow: {uri} lacks 2 of 4 trials (class_pairs-sgd-002, class_pairs-sgd-003)"
            in err
        )
        assert "database is locked" in err
        assert "Nothing is lost: every result is in study-results/quickstart" in err
        assert "study sync quickstart" in out
        assert "best/class_pairs" not in out
        assert not list(directory.glob("quickstart/best/*"))
        code, _, err = run("sync", "quickstart")
        assert code == 1
        assert "is busy" in err
    finally:
        locks[0].__exit__(None, None, None)
    assert run("sync", "quickstart")[0] == 0
    assert is_complete(uri, SweepFolder.open(directory, "quickstart"))


def statuses_so_far(uri, folder):
    """The same while the sweep is being sent; nothing while the store has no experiment or is written to."""
    try:
        return statuses(uri, folder.plan.name)
    except (AttributeError, MlflowException):
        return {}


def test_commands_wait_for_a_locked_store(directory, run, sent, blank_figures):
    for command in ("sync", "report", "export"):
        with locked(directory / "mlflow.db", 0.3):
            code, _, err = run(command, "sent")
        assert code == 0, err
        assert "is busy" in err


def test_commands_give_up_on_a_store_that_stays_locked(directory, run, sent, monkeypatch):
    played(monkeypatch)
    monkeypatch.setattr(faults, "BUSY_SECONDS", 0.05)
    with locked(directory / "mlflow.db"):
        for command in ("sync", "ui", "report", "export", "archive", "resume", "confirm"):
            code, _, err = run(command, "sent")
            assert code == 1, command
            assert "is busy: " in err.splitlines()[-1]
            assert "Traceback" not in err
    assert not (directory / "sent-confirm").exists()


def test_a_deleted_experiment_is_told_with_how_it_is_restored(uri, run, sent, monkeypatch):
    played(monkeypatch)
    client = MlflowClient(uri)
    number = client.get_experiment_by_name("sent").experiment_id
    client.delete_experiment(number)
    for command in ("sync", "ui", "resume", "report"):
        code, out, err = run(command, "sent")
        assert_one_sentence(code, out, err)
        assert "deleted in MLflow" in err
        assert "restore" in err
        assert "study sync" not in err
    client.restore_experiment(number)
    assert run("sync", "sent")[0] == 0
    assert is_complete(uri, sent)


def follow(folder, uri, half_way):
    """A sweep that a tracker follows, with something done to the store half way; whether everything was sent."""
    said = []
    follower = Tracker(SweepView(folder, uri, Blank()), said.append)
    conductor = Conductor(folder, (follower,))
    while (history := conductor.propose()) is not None:
        if history.key == "class_pairs-sam-000":  # the second one
            deadline = time.monotonic() + 20
            while follower.unsent or not statuses_so_far(uri, folder):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            half_way(MlflowClient(uri), store.runs_of(MlflowClient(uri), folder.plan.name, folder.identity))
        train(conductor, history)
    return follower, said


@pytest.mark.parametrize("victim", ["class_pairs-sgd-000", ""], ids=["a trial", "the sweep"])
def test_a_run_that_is_deleted_during_the_sweep_is_made_anew_and_no_other_is_lost(directory, uri, victim):
    folder = folder_of(directory, plan_of("victim"))
    follower, _ = follow(folder, uri, lambda client, runs: client.delete_run(runs[victim]))
    assert follower.close()
    assert is_complete(uri, folder)
    client = MlflowClient(uri)
    own = store.runs_of(client, "victim", folder.identity)[""]
    assert "plan.yaml" in {file.path for file in client.list_artifacts(own)}


@pytest.mark.parametrize("tag", ["role", "trial"])
def test_tags_that_are_changed_during_the_sweep_end_nothing(directory, uri, tag):
    folder = folder_of(directory, plan_of("retagged"))

    def change(client, runs):
        run = runs["class_pairs-sgd-000"]
        client.set_tag(run, "best", "mine")
        client.delete_tag(run, tag)

    follower, said = follow(folder, uri, change)
    assert follower.close(), follower.fault
    assert said == []
    sync(folder, uri, Blank())
    client = MlflowClient(uri)
    runs = store.runs_of(client, "retagged", folder.identity)
    assert set(runs) == {"", *(history.key for history in folder.histories())}
    assert client.get_run(runs[""]).data.tags["role"] == "sweep"


def test_an_experiment_that_is_deleted_during_the_sweep_is_told_at_its_end_and_waits_for_nobody(directory, uri):
    folder = folder_of(directory, plan_of("lost"))
    follower, said = follow(
        folder, uri, lambda client, runs: client.delete_experiment(client.get_run(runs[""]).info.experiment_id)
    )
    began = time.monotonic()
    assert not follower.close()
    assert time.monotonic() - began < 10
    assert follower.unsent == ["class_pairs-sam-000", "class_pairs-sam-001", "class_pairs-sgd-001"]
    assert "restore it with" in follower.fault
    assert any(words.startswith("MLflow refuses, trying again: ") for words in said)
    with pytest.raises(DeletedError):
        sync(folder, uri, Blank())


def test_an_experiment_that_is_restored_in_time_gets_everything(directory, uri):
    folder = folder_of(directory, plan_of("restored"))

    def deleted_for_a_while(client, runs):
        number = client.get_run(runs[""]).info.experiment_id
        client.delete_experiment(number)
        deleted_for_a_while.restore = lambda: client.restore_experiment(number)

    follower, said = follow(folder, uri, deleted_for_a_while)
    deadline = time.monotonic() + 20
    while not said:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    deleted_for_a_while.restore()
    assert follower.close(patience=20)
    assert is_complete(uri, folder)


def test_a_trial_that_mlflow_refuses_does_not_keep_the_others_from_it(directory, uri, monkeypatch):
    folder = folder_of(directory, plan_of("refused"))
    working = MlflowClient.log_text

    def refusing(self, run_id, text, path):
        if path == "tables/lanes.csv" and self.get_run(run_id).data.tags["trial"] == "class_pairs-sgd-000":
            raise MlflowException("no such thing", INVALID_PARAMETER_VALUE)
        return working(self, run_id, text, path)

    monkeypatch.setattr(MlflowClient, "log_text", refusing)
    follower = Tracker(SweepView(folder, uri, Blank()), [].append)
    conductor = Conductor(folder, (follower,))
    while (history := conductor.propose()) is not None:
        train(conductor, history)
    assert not follower.close()
    assert follower.unsent == ["class_pairs-sgd-000"]
    assert follower.fault == "no such thing"
    with pytest.raises(StudyError, match=r"refuses: no such thing\.$"):
        sync(folder, uri, Blank())
    ended = {key for key, status in statuses(uri, "refused").items() if status == "FINISHED"}
    assert ended == {"class_pairs-sgd-001", "class_pairs-sam-000", "class_pairs-sam-001"}
    monkeypatch.setattr(MlflowClient, "log_text", working)
    sync(folder, uri, Blank())
    assert is_complete(uri, folder)


def test_tables_of_another_mlflow_are_told_with_the_way_out(directory, run, sent, monkeypatch):
    played(monkeypatch)
    for command, newer in (("sync", True), ("sync", False), ("resume", True), ("ui", False)):
        other = directory / f"{command}-{newer}.db"
        other.write_bytes((directory / "mlflow.db").read_bytes())
        with closing(sqlite3.connect(other)) as database, database:
            version = "ffffffffffff" if newer else "0a8213491aaa"
            database.execute("UPDATE alembic_version SET version_num = ?", [version])
        code, out, err = run(command, "sent", "--tracking-uri", f"sqlite:///{other}")
        assert_one_sentence(code, out, err)
        assert ("update MLflow here" if newer else "run `mlflow db upgrade sqlite:///") in err


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    place = tmp_path_factory.mktemp("served")
    with served(lay_database(place), place / "artifacts") as server:
        yield server


@pytest.fixture
def server(gate):
    yield gate
    gate.answers.clear()


def test_a_server_that_is_busy_is_asked_again_by_a_sweep_and_by_sync(here, server, run, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    folder, said = folder_of(here / "study-results", plan_of("busy")), []
    server.answers += [429, 200, 200, 500, 200, 1.2, 200, 503]
    follower = Tracker(SweepView(folder, server.uri, Blank()), said.append)
    conductor = Conductor(folder, (follower,))
    while (history := conductor.propose()) is not None:
        train(conductor, history)
    assert follower.close(patience=30), follower.fault
    assert said[0] == "MLflow is busy, trying again: it answers with error 429"
    assert server.answers == []
    assert is_complete(server.uri, folder)
    server.answers += [429, 200, 200, 500]
    code, _, err = run("sync", "busy", "--tracking-uri", server.uri)
    assert code == 0, err
    assert "is busy: it answers with error 429; trying again for up to 120 s" in err
    assert is_complete(server.uri, folder)


@pytest.mark.parametrize(("answer", "words"), [(429, "error 429"), (503, "error 503")])
def test_a_server_that_stays_busy_is_told_in_the_end(here, server, run, monkeypatch, answer, words):
    monkeypatch.setattr(faults, "BUSY_SECONDS", 0.1)
    run_all(folder_of(here / "study-results", plan_of("stays-busy")))
    server.answers += [answer] * 50
    code, out, err = run("sync", "stays-busy", "--tracking-uri", server.uri)
    assert (code, out) == (1, "")
    assert words in err.splitlines()[-1]


@pytest.mark.parametrize(("status", "variable"), [(401, "MLFLOW_TRACKING_PASSWORD"), (403, "MLFLOW_TRACKING_USERNAME")])
def test_a_server_that_wants_another_user_is_not_asked_again(here, server, run, status, variable):
    run_all(folder_of(here / "study-results", plan_of("forbidden")))
    server.answers += [status] * 50
    code, out, err = run("sync", "forbidden", "--tracking-uri", server.uri)
    assert_one_sentence(code, out, err)
    assert variable in err
    assert len(server.answers) == 49


def test_faults_are_told_apart():
    def error(text):
        return MlflowException(text)

    for text in ("(sqlite3.OperationalError) database is locked", "API request to x failed with error code 429 != 200"):
        assert is_busy(error(text))
        assert not is_final(error(text))
    for text in ('FATAL: password authentication failed for user "u"', "fe_sendauth: no password supplied"):
        assert is_final(error(text))
        assert "MLFLOW_TRACKING_URI" in faults.reason(error(text), "")
    for gone in (ConnectionRefusedError("refused"), error("away"), error("attempt to write a readonly database")):
        assert not is_busy(gone)
        assert not is_final(gone)
    assert not is_busy(StudyError("database is locked"))
    assert issubclass(BusyError, Halted)
