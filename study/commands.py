"""What the commands of the command line do, once their words have been read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study import display, folder, overview
from study.config import Flat, StudyError, TrialConfig, nested, read_yaml
from study.folder import Execution, SweepFolder


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
    from study import optuna_view

    optuna_view.write(opened)
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
    from mlflow.exceptions import MlflowException

    from analysis.store import check_reachable, first_line
    from study import results, store

    if not keys:
        results.check_selectable(opened)
    uri = store.tracking_uri(directory, opened.execution)
    check_reachable(uri)
    try:
        run_ids = store.run_ids(uri, opened)
    except (MlflowException, OSError) as error:
        raise StudyError(f"MLflow at {uri} refuses: {first_line(error)}.") from None
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


def export_models(directory: Path, name: str, data_dir: Path | None) -> int:
    """Registers the network of the best confirmed configuration of each scenario in MLflow. Returns the exit code.

    The data sets are where the confirmation had them, unless `data_dir` says where they are now.
    """
    opened = SweepFolder.open(directory, name)
    from analysis.store import check_reachable
    from study import registry, results, store

    results.check_selectable(opened)
    found = registry.winners(opened)
    uri = store.tracking_uri(directory, opened.execution)
    check_reachable(uri)
    for winner in found:
        place = data_dir or Path(winner.folder.execution.data_dir)
        made = registry.register(opened, winner, uri, place, lambda text: display.complain(f"note: {text}"))
        did = "registered" if made.is_new else "there already:"
        where = f"models:/{made.name}/{made.version}"
        display.console.print(f"{did} {where}  {winner.history.name} ({made.trial})", markup=False, soft_wrap=True)
        if made.note:
            display.complain(f"note: {made.name} {made.version}: {made.note}")
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
    parts = experiment.build(config, experiment.load_dataset(config, data_dir))
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


def doctor(directory: Path, execution: Execution) -> int:
    """Shows what the study sees here, and what to do about what does not work. Returns the exit code."""
    from study import doctor as examination

    found: list[examination.Finding] = []
    for finding in examination.examine(directory, execution):
        if finding.topic not in [earlier.topic for earlier in found]:
            display.console.print(f"\n{finding.topic}", style="bold", markup=False)
        display.console.print(f"  {finding.name:20}  {finding.seen}", markup=False, soft_wrap=True)
        found.append(finding)
    problems = [finding.problem for finding in found if finding.problem]
    display.console.print()
    for problem in problems:
        display.complain(f"problem: {problem}")
    if not problems:
        display.console.print("No problem found.")
    return 1 if problems else 0
