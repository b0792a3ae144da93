"""MLflow's side: a view of the records, written by a thread of the driver.

The view can be brought up to date at any time, after an outage too, and into another store: what is already there is found by
the tags `sweep` and `trial`, and only what is missing is sent. All runs of a sweep lie flat in one experiment of its name, told
apart by the tag `role`: one `sweep`, and a `trial` for each trial.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from study import facts, schema
from study.config import StudyError, TrialConfig, yaml_text
from study.folder import Execution, SweepFolder
from study.record import TrialHistory, TrialRecord

BATCH = 1000
"""Metrics in one call: MLflow's documented limit."""

RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses between tries while the store is away; the last one is repeated."""

STATUS = {
    "waiting": "KILLED",
    "running": "KILLED",
    "finished": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
}
"""MLflow's status of a run once its sweep has ended, by the trial's outcome: a trial left unfinished counts as killed."""


class Drawings(Protocol):
    """Who draws the pictures; numbers in, PNG files out."""

    def learning_curve(self, path: Path, history: TrialHistory) -> None:
        """Draws the accuracy of each task of one trial."""

    def comparison(self, path: Path, scenario: str, histories: list[TrialHistory]) -> None:
        """Draws the accuracy of each task of several trials of one scenario."""


def default_uri(directory: Path) -> str:
    """MLflow's SQLite store beside the sweeps."""
    return f"sqlite:///{(directory / 'mlflow.db').resolve()}"


def tracking_uri(directory: Path, execution: Execution) -> str:
    """The store of a sweep: the one asked for, MLFLOW_TRACKING_URI, or the default."""
    return execution.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(directory)


def check_reachable(uri: str) -> None:
    """Refuses a server that does not answer, before any work starts. Raises StudyError."""
    parsed = urlparse(uri)
    if parsed.scheme in ("http", "https"):
        port = parsed.port or (443 if parsed.scheme == "https" else 80)
        try:
            socket.create_connection((parsed.hostname or "", port), timeout=5).close()
        except OSError as error:
            raise StudyError(
                f"No MLflow server answers at {uri} ({error}); start it, or leave the address away to use a local file."
            ) from None
    elif parsed.scheme not in ("sqlite", "postgresql", "mysql", "mssql") and "+" not in parsed.scheme:
        raise StudyError(
            f"{uri!r} is no MLflow store that the study can use: give http(s)://HOST:PORT, sqlite:///FILE or another "
            f"database."
        )


def check_new_experiment(uri: str, directory: Path, name: str) -> None:
    """Refuses a store that cannot be used, or that holds the runs of another sweep of this name. Raises StudyError."""
    check_reachable(uri)
    if uri == default_uri(directory) and not (directory / "mlflow.db").exists():
        return
    try:
        taken = Store(uri, directory).experiment_id(name)
    except (MlflowException, OSError) as error:
        raise StudyError(f"MLflow at {uri} refuses: {str(error).splitlines()[0][:300]}") from None
    if taken is not None:
        raise StudyError(
            f"MLflow at {uri} has an experiment {name!r} already (perhaps a deleted one); choose another name with --name."
        )


class Store:
    """An MLflow store, made if it is a database that does not exist yet."""

    def __init__(self, uri: str, directory: Path) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.uri = uri
        self._is_default = uri == default_uri(directory)
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / ".mlflow.lock"):  # two processes that make the same database break it
            self.client = MlflowClient(uri)
            self.client.search_experiments(max_results=1)

    def experiment(self, folder: SweepFolder) -> str:
        """Identifier of the sweep's experiment, made if there is none."""
        found = self.client.get_experiment_by_name(folder.plan.name)
        if found is not None:
            return str(found.experiment_id)
        location = (folder.root.resolve() / "mlflow-artifacts").as_uri() if self._is_default else None
        tags = {"mlflow.note.content": folder.plan.description}
        return str(self.client.create_experiment(folder.plan.name, artifact_location=location, tags=tags))

    def experiment_id(self, name: str) -> str | None:
        """Identifier of the experiment of that name, deleted ones included; None when there is none."""
        found = self.client.get_experiment_by_name(name)
        return None if found is None else str(found.experiment_id)


def run_ids(uri: str, folder: SweepFolder) -> dict[str, str]:
    """MLflow's run of each trial that has one, by the trial's key."""
    store = Store(uri, folder.directory)
    experiment = store.client.get_experiment_by_name(folder.plan.name)
    if experiment is None:
        return {}
    return {
        run.data.tags["trial"]: str(run.info.run_id)
        for run in _all_runs(store.client, str(experiment.experiment_id), "tags.role = 'trial'")
    }


def _all_runs(client: MlflowClient, experiment: str, query: str) -> Iterable[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], query, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


class SweepView:
    """One sweep's runs in a store; each method sends what is missing and can be called again."""

    def __init__(self, folder: SweepFolder, uri: str, drawings: Drawings) -> None:
        self._folder = folder
        self._uri = uri
        self._drawings = drawings
        self._trials: dict[str, _TrialView] = {}
        self._store: Store | None = None
        self._experiment = ""

    def _connect(self) -> MlflowClient:
        if self._store is None:
            store = Store(self._uri, self._folder.directory)
            self._experiment = store.experiment(self._folder)
            self._store = store
        return self._store.client

    def _run(self, role: str, trial: str, name: str, started: float | None = None) -> str:
        """The run of that role and trial, found or made."""
        client = self._connect()
        query = f"tags.role = '{role}'" + (f" and tags.trial = '{trial}'" if trial else "")
        for run in _all_runs(client, self._experiment, query):
            return str(run.info.run_id)
        tags = {"role": role, "sweep": self._folder.plan.name, "mlflow.source.name": "study"}
        tags |= {"trial": trial} if trial else {}
        begun = _now() if started is None else int(started * 1000)
        return str(client.create_run(self._experiment, run_name=name, tags=tags, start_time=begun).info.run_id)

    def begin(self) -> None:
        """The sweep's own run: its parameters and plan."""
        plan, client = self._folder.plan, self._connect()
        run = self._run("sweep", "", plan.name)
        client.update_run(run, status="RUNNING")
        commit = facts.git_commit()
        tags = {
            "space": plan.space,
            "phase": plan.phase,
            "mlflow.note.content": sweep_description(self._folder),
            **{f"version/{package}": version for package, version in facts.versions().items()},
            **({"git_commit": commit} if commit else {}),
        }
        params = {
            "space": plan.space,
            "scenarios": ", ".join(dict.fromkeys(group.scenario for group in plan.groups)),
            "methods": ", ".join(dict.fromkeys(group.method for group in plan.groups)),
            "seeds": json.dumps(list(plan.seeds)),
            "sampler": plan.sampler,
            "scheduler": plan.scheduler,
            "search_seed": plan.search_seed,
        }
        _log(client, run, params=params, tags=tags)
        client.log_text(run, yaml_text(plan.plain()), "plan.yaml")

    def update(self, key: str) -> None:
        """One trial's run, as far as its record goes."""
        client = self._connect()
        if key not in self._trials:
            record = TrialRecord(self._folder.root / "trials" / key / "record.jsonl")
            run = self._run("trial", key, record.history.name, record.history.started)
            self._trials[key] = _TrialView(client, run, record, self._folder, self._drawings)
        self._trials[key].update()

    def end(self) -> None:
        """Closes all runs: unfinished trials as killed, the sweep with what came out of it."""
        client = self._connect()
        histories = self._folder.histories()
        for history in histories:
            self.update(history.key)
            self._trials[history.key].close()
        run = self._run("sweep", "", self._folder.plan.name)
        for name, value in sweep_metrics(histories).items():
            known = client.get_metric_history(run, name)
            if not known or known[-1].value != value:
                _send(client, run, [Metric(name, value, _now(), len(known))])
        with tempfile.TemporaryDirectory() as draft:
            for scenario in dict.fromkeys(history.scenario for history in histories):
                shown = [history for history in histories if history.scenario == scenario and history.tasks]
                if shown:
                    path = Path(draft) / f"{scenario}.png"
                    self._drawings.comparison(path, scenario, shown)
                    client.log_artifact(run, str(path), "figures")
        planned = sum(group.trials for group in self._folder.plan.groups)
        done = sum(1 for history in histories if history.outcome in ("finished", "stopped"))
        failed = any(history.outcome == "failed" for history in histories)
        client.set_terminated(run, "FINISHED" if done >= planned else "FAILED" if failed else "KILLED")


class _TrialView:
    """One trial's run."""

    def __init__(
        self, client: MlflowClient, run: str, record: TrialRecord, folder: SweepFolder, drawings: Drawings
    ) -> None:
        self._client = client
        self._run = run
        self._record = record
        self._drawings = drawings
        self._sent = {metric.step for metric in client.get_metric_history(run, schema.TEST_ACCURACY)}
        self._summarised = bool(client.get_metric_history(run, "summary/accuracy_test"))
        self._facts: dict[str, Any] = {}
        self._shown = ""
        self._describe(folder)

    def _describe(self, folder: SweepFolder) -> None:
        history = self._record.history
        flat = TrialConfig.from_plain(history.config).flat()
        params = {"optimizer/rho": 0, "optimizer/lambda": 0, **flat, "seeds": json.dumps(history.seeds)}
        tags = {
            "scenario": history.scenario,
            "method": history.method,
            "phase": history.phase,
            "dataset": str(flat["data/name"]),
            "space": folder.plan.space,
        }
        _log(self._client, self._run, params=params, tags=tags)
        self._client.log_text(self._run, yaml_text(history.config), "configuration.yaml")

    def update(self) -> None:
        """Sends the tasks that are not there yet, and the end if there is one."""
        self._record.refresh()
        history = self._record.history
        if history.facts != self._facts:
            tags = {name: value for name, value in history.facts.items() if name != "versions" and value is not None}
            tags |= {f"version/{package}": version for package, version in history.facts["versions"].items()}
            _log(self._client, self._run, tags=tags)
            self._facts = history.facts
        self._send_tasks([line for line in history.tasks if line["task"] not in self._sent])
        if history.outcome == self._shown or history.outcome == "waiting":
            return
        if history.outcome == "running":
            self._client.update_run(self._run, status="RUNNING")
            _log(self._client, self._run, tags={"outcome": "running"})
        else:
            self.close()
        self._shown = history.outcome

    def close(self) -> None:
        """The summary, the tables and pictures, and the final status."""
        history = self._record.history
        if history.outcome == self._shown and history.outcome != "running":
            return
        if history.summary and not self._summarised:
            _send(self._client, self._run, [Metric(k, v, _now(), 0) for k, v in history.summary.items()])
            self._summarised = True
        if history.tasks:
            self._client.log_text(self._run, lanes_csv(history), "lanes.csv")
            with tempfile.TemporaryDirectory() as draft:
                path = Path(draft) / "learning_curve.png"
                self._drawings.learning_curve(path, history)
                self._client.log_artifact(self._run, str(path))
        outcome = "interrupted" if history.outcome in ("running", "waiting") else history.outcome
        tags = {"outcome": outcome, "mlflow.note.content": trial_description(history)}
        _log(self._client, self._run, tags={**tags, **({"reason": history.reason} if history.reason else {})})
        ended = _now() if history.ended is None else int(history.ended * 1000)
        self._client.set_terminated(self._run, STATUS[history.outcome], end_time=ended)

    def _send_tasks(self, lines: list[Mapping[str, Any]]) -> None:
        pending: list[Metric] = []
        for line in lines:
            step = task_metrics(line)
            if pending and len(pending) + len(step) > BATCH:
                _send(self._client, self._run, pending)
                self._sent |= {metric.step for metric in pending}
                pending = []
            pending += step
        _send(self._client, self._run, pending)
        self._sent |= {metric.step for metric in pending}


def task_metrics(line: Mapping[str, Any]) -> list[Metric]:
    """The metrics of one task, step = index of the task: means over the lanes, then each lane.

    Test accuracy, by which a step is known to be there, comes last: if a step should be cut in two, it is the end.
    """
    values = dict(line["metrics"])
    for name, lanes in line["lanes"].items():
        values |= {schema.lane_name(name, lane): value for lane, value in enumerate(lanes)}
    values[schema.TEST_ACCURACY] = values.pop(schema.TEST_ACCURACY)
    when = int(line["at"] * 1000)
    return [Metric(name, value, when, line["task"]) for name, value in values.items()]


def sweep_metrics(histories: list[TrialHistory]) -> dict[str, float]:
    """What came out of a sweep: how many trials ended how, and the best objective of each method and scenario."""
    values = {
        name: float(sum(1 for history in histories if history.outcome == name.removeprefix("trials/")))
        for name in (schema.FINISHED_TRIALS, schema.STOPPED_TRIALS, schema.FAILED_TRIALS)
    }
    for history in histories:
        if "summary/objective" in history.summary:
            name = f"{schema.BEST_OBJECTIVE}/{history.group}"
            values[name] = max(values.get(name, 0.0), history.summary["summary/objective"])
    return values


def lanes_csv(history: TrialHistory) -> str:
    """The table of lanes: one row for each task and lane, numbers in full."""
    names = list(history.tasks[0]["lanes"])
    rows = [",".join(["task", "name", "lane", "seed", *names])]
    for line in history.tasks:
        for lane, seed in enumerate(history.seeds):
            values = [repr(line["lanes"][name][lane]) for name in names]
            rows.append(",".join([str(line["task"]), line["name"], str(lane), str(seed), *values]))
    return "\n".join(rows) + "\n"


def trial_description(history: TrialHistory) -> str:
    """What a run's page says of a trial, in Markdown."""
    text = [f"**{history.name}** on `{history.scenario}`: {len(history.tasks)} of {history.task_count} tasks."]
    text.append({"stopped": "Stopped early by the scheduler.", "failed": f"Failed: {history.reason}"}.get(history.outcome, ""))
    rows = [(schema.QUANTITIES[name], value) for name, value in history.summary.items()]
    if rows:
        text.append("| quantity | value | unit | definition |\n|---|---|---|---|")
        text[-1] += "".join(f"\n| `{q.name}` | {value:.4g} | {q.unit} | {q.definition} |" for q, value in rows)
    return "\n\n".join(part for part in text if part)


def sweep_description(folder: SweepFolder) -> str:
    """What the sweep's run page says, in Markdown."""
    plan = folder.plan
    lines = [f"**{plan.name}**: {plan.description}", f"Search space `{plan.space}`. {plan.citation}"]
    lines.append("| scenario | method | trials | points | drawn |\n|---|---|---|---|---|")
    for group in plan.groups:
        drawn = ", ".join(f"`{name}`" for name in group.distributions) or "-"
        lines[-1] += f"\n| {group.scenario} | {group.method} | {group.trials} | {len(group.points)} | {drawn} |"
    lines.append("Trials are the runs tagged `role = trial`; they are compared by `objective`, never by test accuracy.")
    return "\n\n".join(lines)


def _log(
    client: MlflowClient, run: str, params: Mapping[str, Any] | None = None, tags: Mapping[str, Any] | None = None
) -> None:
    client.log_batch(
        run,
        params=[Param(name, str(value)) for name, value in (params or {}).items()],
        tags=[RunTag(name, str(value)) for name, value in (tags or {}).items()],
    )


def _send(client: MlflowClient, run: str, metrics: list[Metric]) -> None:
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run, metrics=metrics[start : start + BATCH])


def _now() -> int:
    return int(time.time() * 1000)


class Tracker:
    """Keeps a store up to date from a thread of its own, so that no trial ever waits for it.

    While the store is away it tries again and again; what it has not sent by the end is still in the records.
    """

    def __init__(self, view: SweepView, say: Callable[[str], None]) -> None:
        self._view = view
        self._say = say
        self._changed: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self.fault = ""
        self._thread.start()

    def trial_changed(self, history: TrialHistory) -> None:
        """A trial's record has grown."""
        self._changed.put(history.key)

    def close(self, patience: float = 60.0) -> bool:
        """Waits until all is sent, at most `patience` seconds once the store is away; whether it is."""
        self._closing.set()
        self._changed.put(None)
        while self._thread.is_alive():
            self._thread.join(0.2)
            if self.fault:
                self._thread.join(patience)
                break
        return not self._thread.is_alive() and not self.fault

    def _work(self) -> None:
        self._insist(self._view.begin)
        while (key := self._changed.get()) is not None:
            keys = {key}
            last = False
            while not self._changed.empty():
                more = self._changed.get()
                last = last or more is None
                keys |= {more} if more else set()
            for changed in sorted(keys):
                self._insist(lambda changed=changed: self._view.update(changed))  # type: ignore[misc]
            if last:
                break
        self._insist(self._view.end)

    def _insist(self, send: Callable[[], None]) -> None:
        for pause in _pauses():
            try:
                send()
            except (MlflowException, OSError) as error:
                if not self.fault:
                    self._say(f"MLflow is away, trying again: {str(error).splitlines()[0][:200]}")
                self.fault = str(error)
                if self._closing.wait(pause) and pause == RETRY_SECONDS[-1]:
                    raise SystemExit from None  # ends this thread; the records keep what is unsent
                continue
            self.fault = ""
            return


def _pauses() -> Iterable[float]:
    yield from RETRY_SECONDS
    while True:
        yield RETRY_SECONDS[-1]


def sync(folder: SweepFolder, uri: str, drawings: Drawings, *, running: bool = False) -> int:
    """Brings a store up to date with a sweep's records. Returns the number of trials.

    Args:
        folder: of the sweep.
        uri: of the store; another one than the sweep was launched with will do.
        drawings: who draws the pictures.
        running: whether the sweep is running now, so that its runs must be left open.

    Raises:
        StudyError: the store cannot be reached or refuses.
    """
    check_reachable(uri)
    view = SweepView(folder, uri, drawings)
    histories = folder.histories()
    try:
        view.begin()
        for history in histories:
            view.update(history.key)
        if not running:
            view.end()
    except (MlflowException, OSError) as error:
        raise StudyError(f"MLflow at {uri} refuses: {str(error).splitlines()[0][:300]}") from None
    return len(histories)
