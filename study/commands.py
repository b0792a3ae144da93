"""What the commands of the command line do, once their words have been read."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import search_spaces
from search_spaces import SearchSpace
from study import display, folder, plan
from study.config import Flat, StudyError, TrialConfig, flattened, nested, read_yaml
from study.folder import Execution, SweepFolder

INTERRUPTED = 130
"""Exit code after Ctrl-C, by custom 128 + SIGINT."""


def load_space(name: str) -> SearchSpace:
    """The search space of that name or path. Raises StudyError when there is none."""
    try:
        return search_spaces.load(name)
    except ValueError as error:
        raise StudyError(str(error)) from None


def run(space_name: str, directory: Path, execution: Execution, name: str | None, **choices: Any) -> int:
    """Launches a sweep; `choices` as in `study.plan.make_plan`. Returns the exit code."""
    space = load_space(space_name)
    made = plan.make_plan(space, name=name or space.name, **choices)
    folder.check_new(directory, made.name)
    from study import tracking

    uri = tracking.tracking_uri(directory, execution)
    tracking.check_new_experiment(uri, directory, made.name)
    task_counts = plan.check_data(made, Path(execution.data_dir))
    from study import sweep  # takes seconds: Ray

    with sweep.connected(execution) as resolved:
        made_folder = SweepFolder.create(directory, made, execution, task_counts)
        with made_folder.locked():
            return _launch(made_folder, resolved, uri)


def resume(directory: Path, name: str, changes: Mapping[str, Any], trials: int | None) -> int:
    """Goes on with a sweep; `changes` to its execution. Returns the exit code."""
    opened = SweepFolder.open(directory, name)
    if trials is not None:
        if trials < max(group.trials for group in opened.plan.groups if group.distributions or trials < group.trials):
            raise StudyError(f"--trials {trials} is fewer than the sweep {name!r} has already; a budget can only grow.")
        opened.plan.with_trials(trials)
    execution = opened.execution.model_copy(update={k: v for k, v in changes.items() if v is not None})
    from study import tracking

    uri = tracking.tracking_uri(directory, execution)
    tracking.check_reachable(uri)
    plan.check_data(opened.plan, Path(execution.data_dir))
    from study import sweep

    with opened.locked(), sweep.connected(execution) as resolved:
        if trials is not None:
            opened.log("budget", trials=trials)
        return _launch(SweepFolder.open(directory, name), resolved, uri)


def _launch(opened: SweepFolder, execution: Execution, uri: str) -> int:
    from study import pictures, results, sweep, tracking

    with display.Progress(opened, execution.workers or 1) as progress:
        tracker = tracking.Tracker(tracking.SweepView(opened, uri, pictures.Pictures()), progress.say)
        try:
            outcome = sweep.launch(opened, execution, (progress, tracker))
        finally:
            logged = tracker.close()
    name = opened.plan.name
    show_results(opened)
    if results.best_or_none(opened) is not None:
        ids = tracking.run_ids(uri, opened) if logged else {}
        for path in results.export_best(opened, opened.root / "best", ids):
            display.console.print(f"exported {path}", soft_wrap=True)
    if not logged:
        display.errors.print(f"MLflow has not got everything ({tracker.fault.splitlines()[0][:160]}); when it is back: study sync {name}")
    for history in outcome.failed:
        display.errors.print(f"failed: {history.key} ({history.name}): {history.reason}", markup=False, soft_wrap=True)
    if outcome.interrupted:
        display.console.print(f"Interrupted. Go on with: study resume {name}{_dir_option(opened)}", soft_wrap=True)
        return INTERRUPTED
    show_next_steps(opened, uri)
    return 1 if outcome.failed else 0


def show_results(opened: SweepFolder) -> None:
    """A table for each scenario: the best of each method, or every setting of a sweep without objective."""
    from study import results

    histories = opened.histories()
    table = results.trials_table(histories)
    scored = results.has_objective(histories)
    shown = results.best_or_none(opened) if scored else table[table["outcome"] == "finished"]
    if shown is None or shown.empty:
        display.console.print("No trial has finished yet.")
        return
    tried = {history.key: history.tried for history in histories}
    for scenario, rows in shown.groupby("scenario", sort=False):
        words = "best of each method by objective" if scored else "all settings (no images held out, so no objective)"
        lines = [
            (
                row.method,
                display.settings_words(tried[row.trial]),
                *(display.number(getattr(row, column)) for column in ("objective", "accuracy_test", "accuracy_first_tenth", "accuracy_last_tenth")),
                f"{row.lanes_diverged:.0f}",
            )
            for row in rows.itertuples()
        ]
        columns = ["method", "settings", "objective", "test accuracy", "first tenth", "last tenth", "diverged"]
        display.console.print()
        display.show(display.table(f"{scenario}: {words}", columns, lines, numeric=5))
    note = "Accuracies are shares, averaged over tasks and seeds; first and last tenth are of the tasks, on test images."
    if scored:
        note += " Chosen on held-out training images, so the objective of a winner is too good by luck of the draw."
    display.console.print(note, style="dim", soft_wrap=True)


def _dir_option(opened: SweepFolder) -> str:
    return "" if str(opened.directory) == "study-results" else f" --dir {opened.directory}"


def show_next_steps(opened: SweepFolder, uri: str) -> None:
    """The commands to go on with."""
    from study import results

    name, option = opened.plan.name, _dir_option(opened)
    best = results.best_or_none(opened)
    steps = [(f"study ui {name}{option}", "compare the trials in MLflow")]
    if best is not None:
        file = opened.root / "best" / f"{best['trial'].iloc[0]}.yaml"
        steps.append((f"study trial {file}", "run one of the best again, in this process"))
        steps.append((f"study best {name}{option} --top 3", "more of the best"))
    if opened.plan.phase == "tune":
        more = 2 * max(group.trials for group in opened.plan.groups)
        steps.append((f"study resume {name}{option} --trials {more}", "search on"))
    display.console.print(f"\nMLflow store: {uri}", soft_wrap=True)
    display.show(display.table("How to go on", ["command", "what it does"], steps))


def sync(directory: Path, name: str, tracking_uri: str | None) -> int:
    """Brings an MLflow store up to date with a sweep's records."""
    opened = SweepFolder.open(directory, name)
    from study import pictures, tracking

    execution = opened.execution.model_copy(update={"tracking_uri": tracking_uri or opened.execution.tracking_uri})
    uri = tracking.tracking_uri(directory, execution)
    try:
        with opened.locked():
            count = tracking.sync(opened, uri, pictures.Pictures())
    except folder.RunningError:
        count = tracking.sync(opened, uri, pictures.Pictures(), running=True)
    display.console.print(f"{name}: {count} trials are up to date in {uri}", soft_wrap=True)
    return 0


def list_all(directory: Path) -> int:
    """The search spaces and the sweeps there are."""
    spaces = [(name, search_spaces.load(name).description) for name in search_spaces.names()]
    display.show(display.table("Search spaces", ["space", "what it tries"], spaces))
    rows = []
    for name in folder.names(directory):
        opened = SweepFolder.open(directory, name)
        histories = opened.histories()
        counts = {outcome: sum(1 for h in histories if h.outcome == outcome) for outcome in ("finished", "stopped", "failed")}
        planned = sum(group.trials for group in opened.plan.groups)
        done = counts["finished"] + counts["stopped"]
        words = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "nothing done yet"
        rows.append((name, opened.plan.space, f"{done}/{planned}", words))
    display.console.print()
    if rows:
        display.show(display.table(f"Sweeps in {directory}", ["sweep", "space", "trials", "outcomes"], rows))
    else:
        display.console.print(f"No sweeps in {directory} yet; begin with: study run quickstart")
    return 0


def show_space(space_name: str) -> int:
    """What a search space tries."""
    space = load_space(space_name)
    made = plan.make_plan(space, name=space.name)
    display.console.print(f"[bold]{space.name}[/bold]: {space.description}", soft_wrap=True)
    if space.citation:
        display.console.print(space.citation, style="dim", markup=False, soft_wrap=True)
    rows = []
    for group in made.groups:
        points = "; ".join(display.settings_words(point) for point in group.points)
        drawn = "; ".join(f"{name.rsplit('/', 1)[-1]} in {_range(value)}" for name, value in group.drawn().items())
        rows.append((group.scenario, group.method, str(group.trials), points or "-", drawn or "-"))
    columns = ["scenario", "method", "trials", "points, tried first", "then drawn from"]
    display.console.print()
    display.show(display.table("What is tried", columns, rows))
    config = made.trial_config(made.groups[0], (made.groups[0].points or plan.ends(made.groups[0]))[0])
    tried = {name for group in made.groups for name in [*group.distributions, *(n for p in group.points for n in p)]}
    fixed = [(name, json.dumps(value)) for name, value in config.flat().items() if name not in tried and not name.startswith("optimizer/") and not name.startswith("tasks/name")]
    display.console.print()
    display.show(display.table(f"Fixed settings ({made.groups[0].scenario}); seeds {list(made.seeds)}", ["setting", "value"], fixed))
    return 0


def _range(distribution: Any) -> str:
    if hasattr(distribution, "choices"):
        return "{" + ", ".join(map(str, distribution.choices)) + "}"
    scale = " (log)" if distribution.log else ""
    return f"[{distribution.low:g}, {distribution.high:g}]{scale}"


def best(directory: Path, name: str, top: int) -> int:
    """The best trials of each scenario and method."""
    opened = SweepFolder.open(directory, name)
    if top < 1:
        raise StudyError(f"--top must be at least 1, not {top}.")
    from study import results

    chosen = results.best_trials(opened, top)
    tried = {history.key: history.tried for history in opened.histories()}
    for scenario, rows in chosen.groupby("scenario", sort=False):
        lines = [
            (row.trial, display.settings_words(tried[row.trial]), display.number(row.objective), display.number(row.accuracy_test), display.number(row.decline))
            for row in rows.itertuples()
        ]
        display.console.print()
        display.show(display.table(str(scenario), ["trial", "settings", "objective", "test accuracy", "decline"], lines, numeric=3))
    return 0


def export(directory: Path, name: str, target: Path | None) -> int:
    """Writes the best configurations as files."""
    opened = SweepFolder.open(directory, name)
    from study import results, tracking

    results.best_trials(opened)
    uri = tracking.tracking_uri(directory, opened.execution)
    tracking.check_reachable(uri)
    for path in results.export_best(opened, target or opened.root / "best", tracking.run_ids(uri, opened)):
        display.console.print(str(path), markup=False, soft_wrap=True)
    return 0


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
    TrialConfig.from_plain(settings, repr(str(path)))
    seeds = settings.pop("seeds", [0])
    flat = {**flattened(settings), **overrides}
    return experiment.complete(TrialConfig.from_plain({**nested(flat), "seeds": seeds}, repr(str(path)))), provenance


def trial(path: Path, overrides: Flat, threads: int | None, data_dir: Path, as_json: bool) -> int:
    """Runs one trial in this process, without Ray, and prints each task."""
    config, provenance = read_trial(path, overrides)
    import torch

    from study import experiment, measures, record, trainer

    recorded = provenance.get("threads")
    torch.set_num_threads(threads or (recorded if isinstance(recorded, int) and recorded > 0 else 1))
    parts = experiment.build(config, data_dir)
    _warn_of_differences(provenance, parts.dataset.fingerprint, parts.device)
    flat = config.flat()
    name = record.trial_name(config.optimizer.name, {n: flat[n] for n in record.SHORT_NAMES if n in flat})
    if not as_json:
        display.console.print(
            f"{name} on {config.tasks.name}, {config.data.name}: {parts.tasks.count} tasks, seeds {list(config.seeds)}, "
            f"{parts.device}, {torch.get_num_threads()} threads", markup=False, soft_wrap=True,
        )
    line: dict[str, Any] = {}
    for result in trainer.train(parts):
        line = measures.task_line(result, parts.tasks.count)
        if as_json:
            print(json.dumps(line), flush=True)
            continue
        lanes = " ".join(f"{value:.4f}" for value in line["lanes"]["accuracy/test"])
        display.console.print(f"task {result.task:3d}  {result.name:15s}  test accuracy {line['metrics']['accuracy/test']:.4f}  by seed {lanes}", soft_wrap=True)
    if not as_json:
        rows = [(quantity, f"{value:.6g}") for quantity, value in line["summary"].items()]
        display.console.print()
        display.show(display.table("Over all tasks", ["quantity", "value"], rows, numeric=1))
    return 0


def _warn_of_differences(provenance: Mapping[str, Any], fingerprint: str, device: str) -> None:
    """Says when the numbers of an exported trial cannot be expected again."""
    for what, here in (("data_fingerprint", fingerprint), ("device", device)):
        if provenance.get(what) not in (None, here):
            display.errors.print(f"note: {what} is {here} here and was {provenance[what]}; the numbers will differ.")


def ui(directory: Path, name: str | None, tracking_uri: str | None, host: str, port: int) -> int:
    """Serves MLflow's page over the study's store until interrupted."""
    from study import tracking

    opened = SweepFolder.open(directory, name) if name else None
    kept = opened.execution.tracking_uri if opened else None
    uri = tracking_uri or kept or os.environ.get("MLFLOW_TRACKING_URI") or tracking.default_uri(directory)
    tracking.check_reachable(uri)
    if uri == tracking.default_uri(directory) and not (directory / "mlflow.db").exists():
        raise StudyError(f"There is no MLflow store in {str(directory)!r} yet; begin with `study run quickstart`.")
    identifier = tracking.Store(uri, directory).experiment_id(name) if name else None
    served = urlparse(uri).scheme in ("http", "https")
    root = uri.rstrip("/") if served else f"http://{host}:{port}"
    page = f"/#/experiments/{identifier}/runs" if identifier else "/#/experiments"
    display.console.print(f"{root}{page}?workflowType=machine_learning", markup=False, soft_wrap=True)
    if served:
        return 0
    program = shutil.which("mlflow", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if program is None:
        raise StudyError("The program `mlflow` is not beside this Python; install mlflow.")
    command = [program, "server", "--backend-store-uri", uri, "--host", host, "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    display.console.print("Stop it with Ctrl-C.")
    with subprocess.Popen(command, env=environment) as server:
        try:
            return server.wait()
        except KeyboardInterrupt:
            server.send_signal(signal.SIGINT)
            server.wait()
            return 0


