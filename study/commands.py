"""What the commands of the command line do, once their words have been read."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import search_spaces
from search_spaces import SearchSpace
from study import display, folder, overview, plan
from study.config import Flat, Interrupted, StudyError, TrialConfig, nearest, nested, read_yaml
from study.folder import Execution, SweepFolder
from study.plan import Plan


def load_space(name: str) -> SearchSpace:
    """The search space of that name or path. Raises StudyError when there is none."""
    try:
        return search_spaces.load(name)
    except ValueError as error:
        raise StudyError(str(error)) from None


def run(space_name: str, directory: Path, execution: Execution, name: str | None, **choices: Any) -> int:
    """Launches a sweep; `choices` as in `study.plan.make_plan`. Returns the exit code."""
    space = load_space(space_name)
    made = plan.make_plan(space, name=space.name if name is None else name, **choices)
    return _begin(made, directory, execution)


def confirm(
    directory: Path, tuned_name: str, changes: Mapping[str, Any], name: str | None, overrides: Flat, **choices: Any
) -> int:
    """Confirms a sweep on fresh seeds.

    Args:
        directory: folder of all sweeps.
        tuned_name: the sweep to confirm.
        changes: to its execution; how many run at once is chosen anew.
        name: of the confirmation; None: after the sweep.
        overrides, choices: as in `study.confirmation.make_confirmation`.

    Returns:
        The exit code.
    """
    from study import confirmation

    tuned = SweepFolder.open(directory, tuned_name)
    others, notes = _tunings(directory)
    made = confirmation.make_confirmation(
        tuned,
        name=confirmation.default_name(tuned_name, overrides) if name is None else name,
        overrides=overrides,
        others=others,
        **choices,
    )
    undone = tuned.plan.trial_count - sum(history.is_done for history in tuned.histories())
    if undone:
        notes.append(f"{undone} trials of {tuned_name!r} are not done; the best of the others are confirmed.")
    notes += [
        f"no trial of {label} has finished with an objective, so none of it was selected."
        for label in confirmation.unconfirmed(tuned, made, choices["scenarios"], choices["methods"])
    ]
    kept = tuned.execution.model_copy(update={"workers": None, "gpus_per_trial": None})
    changed = kept.model_copy(update={k: v for k, v in changes.items() if v is not None})
    return _begin(made, directory, changed, notes)


def _tunings(directory: Path) -> tuple[list[Plan], list[str]]:
    """The plans of all sweeps in a folder but confirmations, and a note of each sweep that cannot be read."""
    plans, notes = [], []
    for name in folder.names(directory):
        try:
            plans.append(SweepFolder.open(directory, name).plan)
        except StudyError as error:
            notes.append(f"whether the seeds of {name!r} are fresh cannot be told: {error}")
    return [plan for plan in plans if plan.phase != "confirm"], notes


def _begin(made: Plan, directory: Path, execution: Execution, notes: Sequence[str] = ()) -> int:
    """Launches a new sweep of that plan, once all that it needs is there, and says the notes. Returns the exit code."""
    folder.check_new(directory, made.name)
    from study import store

    task_counts = plan.check_data(made, Path(execution.data_dir))
    uri = store.tracking_uri(directory, execution)
    if uri != store.default_uri(directory):
        execution = execution.model_copy(update={"tracking_uri": uri})  # it may come from the environment of today
    store.check_new_experiment(uri, directory, made.name)
    if display.console.is_terminal:
        display.remark(f"{made.name}: {made.trial_count} trials; starting Ray")
    from study import sweep  # takes seconds: Ray

    with sweep.connected(execution, made) as resolved:
        made_folder = SweepFolder.create(directory, made, execution, task_counts)
        for note in notes:
            display.complain(f"note: {note}")
        with made_folder.locked():
            return _launch(made_folder, resolved, uri)


def resume(directory: Path, name: str, changes: Mapping[str, Any], trials: int | None) -> int:
    """Goes on with a sweep; `changes` to its execution. Returns the exit code."""
    opened = SweepFolder.open(directory, name)
    if trials is not None:
        planned = max(group.trials for group in opened.plan.groups)
        if trials < planned:
            raise StudyError(
                f"--trials {trials} is fewer than the {planned} that {name!r} has already; a budget can only grow."
            )
        opened.plan.with_trials(trials)
    execution = opened.execution.model_copy(update={k: v for k, v in changes.items() if v is not None})
    from analysis.store import check_reachable
    from study import store

    uri = store.tracking_uri(directory, execution)
    check_reachable(uri)
    plan.check_data(opened.plan, Path(execution.data_dir))
    from study import sweep

    with opened.locked(), sweep.connected(execution, opened.plan) as resolved:
        if trials is not None:
            opened.log("budget", trials=trials)
        return _launch(SweepFolder.open(directory, name), resolved, uri)


def _launch(opened: SweepFolder, execution: Execution, uri: str) -> int:
    from study import pictures, results, store, sweep, tracking, view

    with display.Progress(opened, execution.workers or 1) as progress:
        tracker = tracking.Tracker(view.SweepView(opened, uri, pictures.Pictures()), progress.say)
        try:
            outcome = sweep.launch(opened, execution, (progress, tracker))
        finally:
            logged = tracker.close()
    name = opened.plan.name
    overview.show_results(opened)
    if results.best_keys(outcome.histories) and logged and not outcome.interrupted:
        try:
            for path in results.export_best(opened, opened.root / "best", store.run_ids(uri, opened)):
                display.console.print(f"exported {path}", markup=False, soft_wrap=True)
        except StudyError as error:
            display.complain(f"not exported: {error}")
    if not logged:
        again = f"study sync {name}{opened.option}"
        display.complain(f"MLflow has not got everything ({tracker.fault}); when it is back: {again}, then export")
    for history in outcome.failed:
        display.complain(f"failed: {history.key} ({history.name}): {history.reason}")
        for traceback in sorted(opened.root.glob(f"ray/*/{history.key}/error.txt"))[-1:]:
            display.complain(f"its traceback: {traceback}")
    if outcome.interrupted:
        raise Interrupted(f"interrupted; go on with: study resume {name}{opened.option}")
    overview.show_next_steps(opened, uri)
    return 1 if outcome.failed else 0


def sync(directory: Path, name: str, tracking_uri: str | None) -> int:
    """Brings an MLflow store up to date with a sweep's records."""
    opened = SweepFolder.open(directory, name)
    from study import pictures, store, tracking

    execution = opened.execution.model_copy(update={"tracking_uri": tracking_uri or opened.execution.tracking_uri})
    uri = store.tracking_uri(directory, execution)
    try:
        with opened.locked():
            count = tracking.sync(opened, uri, pictures.Pictures())
    except folder.RunningError:
        if uri == store.tracking_uri(directory, opened.execution):
            raise StudyError(f"The sweep {name!r} is running and keeps {uri} up to date itself.") from None
        count = tracking.sync(opened, uri, pictures.Pictures(), running=True)
    display.console.print(f"{name}: {count} trials are up to date in {uri}", soft_wrap=True)
    return 0


def best(directory: Path, name: str, top: int) -> int:
    """Shows the best trials of each scenario and method."""
    if top < 1:
        raise StudyError(f"--top must be at least 1, not {top}.")
    opened = SweepFolder.open(directory, name)
    from study import results

    results.check_selectable(opened)
    histories = opened.histories()
    overview.show_best(histories, results.best_keys(histories, top))
    return 0


def export(directory: Path, name: str, keys: Sequence[str], target: Path | None) -> int:
    """Writes configurations as files: the trials of these keys, or the best of each method and scenario."""
    opened = SweepFolder.open(directory, name)
    from analysis.store import check_reachable
    from study import results, store

    if not keys:
        results.check_selectable(opened)
    uri = store.tracking_uri(directory, opened.execution)
    check_reachable(uri)
    run_ids = store.run_ids(uri, opened)
    if keys:
        paths = results.export_named(opened, keys, target or opened.root / "named", run_ids)
    else:
        paths = results.export_best(opened, target or opened.root / "best", run_ids)
    for path in paths:
        display.console.print(str(path), markup=False, soft_wrap=True)
    if any(path.stem not in run_ids for path in paths):
        display.complain(
            f"note: MLflow at {uri} has no run of some of these, so their files name none; see: study sync --help."
        )
    return 0


def report(directory: Path, name: str, target: Path | None, tracking_uri: str | None) -> int:
    """Writes the report of a sweep out of MLflow's runs, and attaches it to the sweep's own run."""
    opened = SweepFolder.open(directory, name) if name in folder.names(directory) else None
    if opened is None and target is None:
        raise StudyError(
            f"There is no sweep {name!r} in {str(directory)!r} to put its report beside; "
            f"{nearest(name, folder.names(directory))}, or name a folder for the report with --to."
        )
    from mlflow.exceptions import MlflowException

    from analysis import report as reports
    from analysis.store import check_reachable, first_line
    from study import store

    kept = opened.execution.tracking_uri if opened else None
    uri = tracking_uri or kept or os.environ.get("MLFLOW_TRACKING_URI") or store.default_uri(directory)
    check_reachable(uri)
    tuned, confirmations = reports.load_all(name, uri)
    for sweep in (tuned, *confirmations):
        _warn_of_unsent(directory, sweep.name, sweep.identity, len(sweep.finished))
    place, written = reports.write(reports.make(tuned, confirmations), target or directory / name / "report")
    display.console.print(
        f"{'wrote' if written else 'unchanged:'} {place / reports.PAGE}", markup=False, soft_wrap=True
    )
    try:
        attached = store.attach(uri, tuned.run_id, place, reports.PAGE)
    except (MlflowException, OSError) as error:
        display.complain(f"not attached to the sweep's run in MLflow: {first_line(error)}")
        return 1
    display.console.print(f"attached to the sweep's run {tuned.run_id} in MLflow as {attached}", soft_wrap=True)
    return 0


def _warn_of_unsent(directory: Path, name: str, identity: str, finished: int) -> None:
    """Says when the records here know of more finished trials than MLflow does."""
    if name not in folder.names(directory):
        return
    opened = SweepFolder.open(directory, name)
    done = sum(history.outcome == "finished" for history in opened.histories())
    if opened.identity == identity and done > finished:
        display.complain(
            f"note: {done} trials of {name!r} have finished, but MLflow has the numbers of {finished}; for all of them: "
            f"study sync {name}{opened.option}, then study report again."
        )


def read_trial(path: Path, overrides: Flat) -> tuple[TrialConfig, Mapping[str, Any]]:
    """The complete configuration of a trial file, and its provenance. Raises StudyError when it is none."""
    from study import experiment

    plain = read_yaml(path)
    if not isinstance(plain, Mapping):
        raise StudyError(f"{str(path)!r} is not a trial: it must be a mapping with keys like 'optimizer' and 'tasks'.")
    provenance = plain.get("provenance") or {}
    if not isinstance(provenance, Mapping):
        raise StudyError(f"{str(path)!r}: provenance must be a mapping, not {provenance!r}.")
    settings = {key: value for key, value in plain.items() if key != "provenance"}
    given = TrialConfig.from_plain(settings, repr(str(path)))
    flat = {**given.flat(), **overrides}
    seeds = list(given.seeds)
    return experiment.complete(TrialConfig.from_plain({**nested(flat), "seeds": seeds}, repr(str(path)))), provenance


def trial(path: Path, overrides: Flat, threads: int | None, data_dir: Path, as_json: bool) -> int:
    """Runs one trial in this process, without Ray, and prints each task."""
    config, provenance = read_trial(path, overrides)
    import torch

    from study import experiment, measures, record, trainer

    recorded = provenance.get("threads")
    if not isinstance(recorded, int) or not 1 <= recorded <= (os.cpu_count() or 1):
        recorded = 1
    torch.set_num_threads(threads or recorded)
    parts = experiment.build(config, data_dir)
    here = {
        "data_fingerprint": parts.dataset.fingerprint,
        "device": parts.device,
        "threads": torch.get_num_threads(),
    }
    _warn_of_differences(provenance, here)
    flat = config.flat()
    name = record.trial_name(config.optimizer.name, {n: flat[n] for n in record.SHORT_NAMES if n in flat})
    if not as_json:
        display.console.print(
            f"{name} on {config.tasks.name}, {config.data.name}: {parts.tasks.count} tasks, seeds {list(config.seeds)}, "
            f"{parts.device}, {torch.get_num_threads()} threads",
            markup=False,
            soft_wrap=True,
        )
    line: dict[str, Any] = {}
    for result in trainer.train(parts):
        line = measures.task_line(result, parts.tasks.count)
        if as_json:
            print(json.dumps(line), flush=True)
            continue
        lanes = " ".join(f"{value:.4f}" for value in line["lanes"]["accuracy/test"])
        display.console.print(
            f"task {result.task:3d}  {result.name:15s}  test accuracy {line['metrics']['accuracy/test']:.4f}  by seed {lanes}",
            soft_wrap=True,
        )
    if not as_json:
        rows = [(quantity, f"{value:.6g}") for quantity, value in line["summary"].items()]
        display.show_table("Over all tasks", ["quantity", "value"], rows, numeric=1)
    return 0


def _warn_of_differences(provenance: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Says when the numbers of an exported trial cannot be expected again."""
    for what, value in here.items():
        if provenance.get(what) not in (None, value):
            display.complain(f"note: {what} is {value} here and was {provenance[what]}; the numbers may differ.")


def ui(directory: Path, name: str | None, tracking_uri: str | None, host: str, port: int) -> int:
    """Serves MLflow's page over the study's store until interrupted."""
    from analysis.store import check_reachable, is_missing, served
    from study import store

    opened = SweepFolder.open(directory, name) if name else None
    kept = opened.execution.tracking_uri if opened else None
    uri = tracking_uri or kept or os.environ.get("MLFLOW_TRACKING_URI") or store.default_uri(directory)
    check_reachable(uri)
    if is_missing(uri):
        raise StudyError(f"There is no MLflow store {uri} yet; begin with `study run quickstart`.")
    identifier = store.Store(uri, directory).experiment_id(name) if name else None
    root = uri.rstrip("/") if served(uri) else f"http://{host}:{port}"
    for what, link in _links(root, identifier):
        display.console.print(f"{what}: {link}", markup=False, soft_wrap=True)
    if served(uri):
        return 0
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise StudyError(
            f"Port {port} of {host} cannot be used ({error.strerror}); choose another one with --port."
        ) from None
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        uri,
        "--host",
        host,
        "--port",
        str(port),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    display.console.print("The server stops with Ctrl-C.")
    with subprocess.Popen(command, env=environment, start_new_session=True) as server:
        try:
            return server.wait()
        except KeyboardInterrupt:
            os.killpg(server.pid, signal.SIGTERM)  # the server and the workers it started
            return 0


def _links(root: str, experiment: str | None) -> list[tuple[str, str]]:
    """Where to look in MLflow: all sweeps, or the trials of one, best first, as a table and as charts."""
    if experiment is None:
        return [("sweeps", f"{root}/#/experiments?workflowType=machine_learning")]
    query = {
        "workflowType": "machine_learning",
        "searchFilter": "tags.role = 'trial'",
        "orderByKey": "metrics.`objective`",
        "orderByAsc": "false",
    }
    page = f"{root}/#/experiments/{experiment}/runs?{urlencode(query, quote_via=quote)}"
    return [("trials", page), ("charts", f"{page}&compareRunsMode=CHART")]
