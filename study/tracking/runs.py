"""A sweep's runs in MLflow, kept equal to its records.

The experiment is named after the sweep. It has one run with the tag `role` = `sweep`, and for each trial one with `role` =
`trial`, whose tag `trial` is the trial's key. Runs are not nested. Every method sends only what is missing in MLflow, so it can
be called again at any time.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from study import provenance, schema
from study.config import TrialConfig, yaml_text
from study.sweep import export, winners
from study.sweep.folder import SweepFolder
from study.sweep.race.configurations import configurations, grouped, places
from study.sweep.record import TrialHistory, TrialRecord, facts_in_order
from study.tracking import faults, views
from study.tracking.client import find_runs
from study.tracking.run_content import (
    diagnostics_csv,
    lanes_csv,
    probes_csv,
    software_tags,
    sweep_description,
    sweep_metrics,
    task_metrics,
    trial_description,
    trials_csv,
)
from study.tracking.store import Store, count_rows, runs_of

BATCH = 1000
"""Metrics in one call: MLflow's documented limit."""

STATUS = {
    "waiting": "KILLED",
    "running": "KILLED",
    "finished": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
}
"""MLflow's status of a run after the end of its sweep, by the trial's outcome. Unfinished trials count as killed."""


class Drawings(Protocol):
    """Draws the figures of runs as PNG files."""

    def colours(self, methods: Iterable[str]) -> Mapping[str, str]:
        """The colour of each method in all figures, hexadecimal."""

    def learning_curve(self, path: Path, history: TrialHistory) -> None:
        """Draws the accuracy on each task of one trial."""

    def comparison(self, path: Path, scenario: str, histories: list[TrialHistory]) -> None:
        """Draws the accuracy on each task of a scenario's trials."""


class SweepView:
    """One sweep's runs in a store.

    Each method sends what is missing and can be called again.

    Attributes:
        uri: of the store.
    """

    def __init__(self, folder: SweepFolder, uri: str, drawings: Drawings) -> None:
        self._folder = folder
        self.uri = uri
        self._drawings = drawings
        self._trials: dict[str, _TrialView] = {}
        self._store: Store | None = None
        self._experiment = ""
        self._tuned: dict[str, str] = {}
        self._own = ""

    def forget(self) -> None:
        """Forgets what the store has; it is asked again.

        For runs or an experiment that somebody has deleted meanwhile.
        """
        self._store = None
        self._trials.clear()

    def _connect(self) -> MlflowClient:
        if self._store is None:
            store = Store(self.uri)
            self._experiment = store.experiment(self._folder)
            if tuning := self._folder.plan.confirms:
                self._tuned = runs_of(store.client, tuning.sweep, tuning.identity)
            self._store = store
        return self._store.client

    def _run(self, role: str, trial: str, name: str, started: float | None = None) -> str:
        """The run of that role and trial, created if missing."""
        client = self._connect()
        query = f"tags.role = '{role}'" + (f" and tags.trial = '{trial}'" if trial else "")
        for run in find_runs(client, self._experiment, query):
            return str(run.info.run_id)
        tags = {"role": role, "sweep": self._folder.plan.name, "mlflow.source.name": "study"}
        tags |= {"trial": trial} if trial else {}
        start = _now() if started is None else int(started * 1000)
        return str(client.create_run(self._experiment, run_name=name, tags=tags, start_time=start).info.run_id)

    def begin(self) -> None:
        """Sends the sweep's own run: its parameters and plan."""
        plan, client = self._folder.plan, self._connect()
        run = self._run("sweep", "", plan.name)
        client.update_run(run, status="RUNNING")
        self._own = run
        facts = facts_in_order(self._folder.histories())
        tags = {
            "space": plan.space,
            "phase": plan.phase,
            "mlflow.note.content": self._description(run, facts),
            **software_tags(facts or [provenance.software()]),
            **({"confirms": plan.confirms.sweep} if plan.confirms else {}),
            **({"after": plan.after.sweep} if plan.after else {}),
            **({"confirms_run_id": self._tuned[""]} if "" in self._tuned else {}),
        }
        params = {
            "space": plan.space,
            "scenarios": ", ".join(dict.fromkeys(group.scenario for group in plan.groups)),
            "methods": ", ".join(dict.fromkeys(group.method for group in plan.groups)),
            "seeds": json.dumps(list(plan.seeds)),
            "sampler": plan.sampler,
            "objective": ", ".join(goal.name for goal in plan.goals),
            "scheduler": plan.scheduler,
            "search_seed": plan.search_seed,
        }
        _log(client, run, params=params, tags=tags)
        client.log_text(run, yaml_text(plan.plain()), "plan.yaml")

    def _description(self, run: str, facts: list[dict[str, Any]]) -> str:
        """The description of the sweep's run.

        Its links begin with a hash, so that they work wherever the server is.
        """
        links = views.experiment_links("", self._experiment, self._folder.plan, run)[:-1]
        artifacts = views.artifacts_link("", self._experiment, run).lstrip("/")
        return sweep_description(self._folder, [(title, link.lstrip("/")) for title, link in links], artifacts, facts)

    def update(self, key: str) -> None:
        """Sends what is new in a trial's record."""
        if key not in self._trials:
            self._trials[key] = self._trial_view(key)
        self._trials[key].update()

    def _trial_view(self, key: str) -> _TrialView:
        """The view of one trial; creates its run if missing."""
        path = self._folder.root / "trials" / key / "record.jsonl"
        record = TrialRecord(path, objectives=self._folder.plan.goals)
        run = self._run("trial", key, record.history.name, record.history.started)
        sweep = views.run_link("", self._experiment, self._run("sweep", "", self._folder.plan.name)).lstrip("/")
        origin = self._origin(record.history)
        return _TrialView(self._connect(), run, record, self._folder, self._drawings, origin, sweep)

    def _origin(self, history: TrialHistory) -> dict[str, Any]:
        """Tags of a confirmation's trial: what it confirms, and why.

        Empty for other trials.
        """
        origin = self._folder.plan.origin(history.group, history.number)
        tags: dict[str, Any] = {}
        if origin.trial:
            tags[views.CONFIRMS] = origin.trial
        if origin.trial in self._tuned:
            tags["confirms_run_id"] = self._tuned[origin.trial]
        if origin.rank:
            tags["selected_rank"] = origin.rank
        if origin.was_incumbent:
            tags["was_incumbent"] = True
        return tags

    def end(self) -> None:
        """Closes all runs and sends the results of the sweep.

        Unfinished trials are closed as killed. A trial that MLflow refuses does not keep the others from it.
        """
        client = self._connect()
        histories = self._folder.histories()
        refused: Exception | None = None
        for history in histories:
            try:
                self.update(history.key)
                self._trials[history.key].close()
            except MlflowException as error:
                if not faults.is_final(error):
                    raise
                refused = error
        if refused:
            raise refused
        self._mark_the_best(histories)
        run = self._run("sweep", "", self._folder.plan.name)
        if run != self._own:  # somebody has deleted the earlier one
            self.begin()
            run = self._own
        whole = configurations(self._folder.plan, histories)
        for name, value in sweep_metrics(histories, whole).items():
            earlier = client.get_metric_history(run, name)
            if not earlier or earlier[-1].value != value:
                _send(client, run, [Metric(name, value, _now(), len(earlier))])
        facts = facts_in_order(histories)
        _log(client, run, tags={"mlflow.note.content": self._description(run, facts), **software_tags(facts)})
        client.log_text(run, trials_csv(histories, self._folder.plan), "tables/trials.csv")
        with tempfile.TemporaryDirectory() as draft:
            for scenario in dict.fromkeys(history.scenario for history in histories):
                trained = [history for history in whole if history.scenario == scenario and history.tasks]
                if trained:
                    path = Path(draft) / f"{scenario}.png"
                    self._drawings.comparison(path, scenario, trained)
                    client.log_artifact(run, str(path), "figures")
        count_rows(self.uri)
        planned, done = winners.trial_count(self._folder), sum(history.is_done for history in histories)
        failed = any(history.outcome == "failed" for history in histories)
        client.set_terminated(run, "FINISHED" if done >= planned else "FAILED" if failed else "KILLED")

    def _mark_the_best(self, histories: list[TrialHistory]) -> None:
        """Tags the best trial of each method and scenario.

        It also gets a file for `study trial`. The tag is removed from trials that are no longer the best. In a race these are
        all trials of the best configuration.
        """
        client, plan = self._connect(), self._folder.plan
        whole = {history.key: history for history in configurations(plan, histories)}
        keys = winners.best_keys(list(whole.values()))
        best = {
            each.key: whole[trials[0].key]
            for trials in grouped(plan, histories)
            for each in trials
            if trials[0].key in keys
        }
        for run in find_runs(client, self._experiment, f"tags.role = 'trial' and tags.{views.BEST} LIKE '%'"):
            if run.data.tags.get("trial") not in best:
                client.delete_tag(run.info.run_id, views.BEST)
        for key, configuration in best.items():
            self._trials[key].mark_as_best(configuration)


class _TrialView:
    """One trial's run."""

    def __init__(
        self,
        client: MlflowClient,
        run: str,
        record: TrialRecord,
        folder: SweepFolder,
        drawings: Drawings,
        origin: Mapping[str, Any],
        sweep: str,
    ) -> None:
        self._client = client
        self._sweep = sweep
        self._run = run
        self._record = record
        self._folder = folder
        self._drawings = drawings
        self._sent: set[int] = set()
        self._summarised = False
        self._certain = False
        self._facts: dict[str, Any] = {}
        self._shown = ""
        self._describe(folder, origin)

    def _describe(self, folder: SweepFolder, origin: Mapping[str, Any]) -> None:
        history = self._record.history
        flat = TrialConfig.from_plain(history.config).flat()
        # methods without a sharpness setting get 0, to be in the same charts
        absent = dict.fromkeys(views.settings_of(folder.plan, "sharpness"), 0)
        params = {**absent, **flat, "seeds": json.dumps(history.seeds)}
        colours = self._drawings.colours(group.method for group in folder.plan.groups)
        tags = {
            "scenario": history.scenario,
            "method": history.method,
            views.COLOUR: colours[history.method],
            "phase": history.phase,
            "dataset": str(flat["data/name"]),
            "space": folder.plan.space,
            **places(folder.plan, history),
            **origin,
        }
        _log(self._client, self._run, params=params, tags=tags)
        for name, text in export.texts("trial.yaml", history.config).items():
            self._client.log_text(self._run, text, f"configuration/{name}")

    def update(self) -> None:
        """Sends the tasks that are missing, and the end."""
        self._ascertain()
        self._certain = False
        self._send_all()
        self._certain = True

    def _ascertain(self) -> None:
        """Asks MLflow what it has.

        This happens at first and after a failure. A failed request may have arrived: perhaps only the answer was lost.
        """
        if self._certain:
            return
        metrics = self._client.get_metric_history(self._run, schema.TEST_ACCURACY)
        self._sent = {metric.step for metric in metrics}
        self._summarised = bool(self._client.get_metric_history(self._run, "summary/accuracy_test"))

    def _send_all(self) -> None:
        self._record.refresh()
        history = self._record.history
        if history.facts != self._facts:
            tags = {name: value for name, value in history.facts.items() if isinstance(value, str | int)}
            tags |= software_tags([line["facts"] for line in history.past_facts])
            _log(self._client, self._run, params=history.facts["rule"], tags=tags)
            self._facts = history.facts
        self._send_tasks([line for line in history.tasks if line["task"] not in self._sent])
        if history.outcome in (self._shown, "waiting"):
            return
        if history.outcome == "running":
            self._client.update_run(self._run, status="RUNNING")
            _log(self._client, self._run, tags={"outcome": "running"})
        else:
            self.close()
        self._shown = history.outcome

    def close(self) -> None:
        """Sends summary, tables, figures and the final status."""
        history = self._record.history
        if history.outcome == self._shown and history.outcome != "running":
            return
        if history.summary and not self._summarised:
            _send(self._client, self._run, [Metric(k, v, _now(), 0) for k, v in history.summary.items()])
            self._summarised = True
        if history.tasks:
            self._client.log_text(self._run, lanes_csv(history), "tables/lanes.csv")
            if diagnostics := diagnostics_csv(history):
                self._client.log_text(self._run, diagnostics, "tables/diagnostics.csv")
            if probes := probes_csv(history):
                self._client.log_text(self._run, probes, "tables/probes.csv")
            with tempfile.TemporaryDirectory() as draft:
                path = Path(draft) / "learning_curve.png"
                self._drawings.learning_curve(path, history)
                self._client.log_artifact(self._run, str(path), "figures")
        outcome = "interrupted" if history.outcome in ("running", "waiting") else history.outcome
        tags = {"outcome": outcome, "mlflow.note.content": self._note()}
        _log(self._client, self._run, tags={**tags, **({"reason": history.reason} if history.reason else {})})
        ended = _now() if history.ended is None else int(history.ended * 1000)
        self._client.set_terminated(self._run, STATUS[history.outcome], end_time=ended)

    def _note(self) -> str:
        history = self._record.history
        return trial_description(history, self._sweep, places(self._folder.plan, history))

    def mark_as_best(self, history: TrialHistory) -> None:
        """Tags the trial and attaches the file of `study export`.

        `history` is that of its configuration with all seeds.
        """
        source = export.provenance(self._folder, history, self._run, export.why_best(self._folder))
        _log(self._client, self._run, tags={views.BEST: f"{history.method} on {history.scenario}"})
        for name, text in export.texts(f"{history.key}.yaml", history.config, source).items():
            self._client.log_text(self._run, text, f"best/{name}")

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
