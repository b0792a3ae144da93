"""`study export`: configurations as files, networks as models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from study.cli import terminal
from study.sweep.folder import SweepFolder


def write_files(directory: Path, name: str, keys: Sequence[str], target: Path | None, *, as_json: bool = False) -> int:
    """Writes configurations as files; returns the exit code.

    Args:
        directory: folder of all sweeps.
        name: of the sweep.
        keys: of the trials; none: the best of each method and scenario.
        target: folder for the files; None: a folder within the sweep's.
        as_json: whether to print JSON.
    """
    sweep = SweepFolder.open(directory, name)
    from study.sweep import export, winners
    from study.tracking import faults, store
    from study.tracking.client import check_reachable

    if keys:
        sweep.outcomes()  # refuses a damaged record before MLflow is asked
    else:
        winners.check_selectable(sweep)
    uri = store.tracking_uri(directory, sweep.execution)
    check_reachable(uri)
    run_ids = faults.patiently(lambda: store.run_ids(uri, sweep), terminal.complain)
    if keys:
        paths = export.export_named(sweep, keys, target or sweep.root / "named", run_ids)
    else:
        paths = export.export_best(sweep, target or sweep.root / "best", run_ids)
    if as_json:
        listed = [{"trial": path.stem, "file": str(path), "mlflow_run_id": run_ids.get(path.stem)} for path in paths]
        terminal.show_json({"sweep": name, "files": listed})
    else:
        for path in paths:
            terminal.console.print(str(path), markup=False, soft_wrap=True)
    if any(path.stem not in run_ids for path in paths):
        terminal.complain(
            f"note: MLflow at {uri} has no run for some of these trials, so their files name none; "
            f"send them with: {sweep.command('sync')}"
        )
    return 0


def register_models(directory: Path, name: str, data_dir: Path | None, *, as_json: bool = False) -> int:
    """Registers confirmed networks in MLflow; returns the exit code.

    They are the networks of the best confirmed configuration of each scenario.

    Args:
        directory: folder of all sweeps.
        name: of the tuning sweep.
        data_dir: folder of downloaded data sets; None: that of the confirmation.
        as_json: whether to print JSON.
    """
    sweep = SweepFolder.open(directory, name)
    from study.sweep import winners
    from study.tracking import model_registry, store
    from study.tracking.client import check_reachable

    winners.check_selectable(sweep)
    confirmed = model_registry.confirmed_winners(sweep)
    uri = store.tracking_uri(directory, sweep.execution)
    check_reachable(uri)
    models = []
    for winner in confirmed:
        place = data_dir or Path(winner.folder.execution.data_dir)
        model = model_registry.register(sweep, winner, uri, place, lambda text: terminal.complain(f"note: {text}"))
        models.append(asdict(model))
        if as_json:
            continue
        did = "registered" if model.is_new else "already registered:"
        where = f"models:/{model.name}/{model.version}"
        terminal.console.print(f"{did} {where}  {winner.history.name} ({model.trial})", markup=False, soft_wrap=True)
        if model.note:
            terminal.complain(f"note: {model.name} {model.version}: {model.note}")
    if as_json:
        terminal.show_json({"sweep": name, "models": models})
    return 0
