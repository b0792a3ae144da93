"""Stores of MLflow that misbehave, in this process.

A `Server` is MLflow's own application behind a gate that wants a password and answers with errors on demand; `locked` holds the
lock of an SQLite store; `played` runs a sweep without Ray.
"""

import base64
import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from sweep_fixtures import train

import study.cluster
from study.sweep.conductor import Conductor
from study.sweep.folder import SweepFolder

USER, PASSWORD = "researcher", "s3cr3t-Marker"


class Server:
    """MLflow's server in threads of this process.

    Attributes:
        uri: its address, without a password.
        answers: what it does with the next requests instead of answering them: a status, or seconds to wait first.
        wants_password: whether it refuses requests without one.
        requests: how many it has had.
    """

    def __init__(self, application: Callable, port: int) -> None:
        self._application = application
        self.uri = f"http://127.0.0.1:{port}"
        self.answers: list[int | float] = []
        self.wants_password = False
        self.requests = 0

    @property
    def with_password(self) -> str:
        """Its address with user name and password."""
        return self.uri.replace("://", f"://{USER}:{PASSWORD}@")

    def __call__(self, environ: dict, start_response: Callable) -> object:
        """Answers a request (WSGI)."""
        self.requests += 1
        given = environ.get("HTTP_AUTHORIZATION", "")
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        status = 401 if self.wants_password and given != expected else 200
        if self.answers and status == 200:
            wanted = self.answers.pop(0)
            if isinstance(wanted, float):
                time.sleep(wanted)
            else:
                status = wanted
        if status == 200:
            return self._application(environ, start_response)
        start_response(f"{status} No", [("Content-Type", "text/plain")])
        return [b"no"]


@contextmanager
def served(uri: str, artifacts: Path) -> Iterator[Server]:
    """Serves a store; only one per process, for MLflow keeps its own in a global."""
    from mlflow.server import app, handlers
    from werkzeug.serving import make_server

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_SERVER_FILE_STORE", uri)
        patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(artifacts))
        for name in ("_tracking_store", "_model_registry_store", "_artifact_repo"):
            patch.setattr(handlers, name, None)
        for name in ("http_proxy", "HTTP_PROXY"):
            patch.delenv(name, raising=False)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = make_server("127.0.0.1", 0, Server(app, 0), threaded=True)
        gate = server.app
        gate.uri = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield gate
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def locked(database: Path, seconds: float | None = None) -> Iterator[None]:
    """Locks an SQLite file: nobody else reads or writes.

    Until the end of the block, or for so many seconds.
    """
    over = threading.Event()
    holds = threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            holds.set()
            over.wait(seconds)
            connection.execute("ROLLBACK")

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(20)
    try:
        yield
    finally:
        if seconds is None:
            over.set()
        thread.join()


def played(monkeypatch: pytest.MonkeyPatch, before_end: Callable[[SweepFolder], None] = lambda _: None) -> None:
    """Makes `study run`, `resume` and `confirm` play their trials without Ray.

    `before_end` is called when half of the trials are done.
    """

    @contextmanager
    def connected(execution, plan, place):
        yield execution.model_copy(update={"workers": 1}), []

    def launch(folder, session, execution, datasets, stop_requested, watchers=()):
        conductor = Conductor(folder, watchers)
        half = folder.plan.trial_count // 2
        while not stop_requested() and (history := conductor.propose()) is not None:
            if history.number == half:
                before_end(folder)
            train(conductor, history)
        return SimpleNamespace(histories=conductor.histories, failed=[], interrupted=conductor.remaining > 0, fault="")

    from study.cluster import connection

    monkeypatch.setattr(connection, "connected", connected)
    stub = SimpleNamespace(launch=launch)
    monkeypatch.setitem(sys.modules, "study.cluster.tuner", stub)
    monkeypatch.setattr(study.cluster, "tuner", stub, raising=False)
