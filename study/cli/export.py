"""`study export`: the best configurations as files, or as models in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from study.cli import overview, terminal
from study.errors import StudyError
from study.sweep.folder import SweepFolder


def best(directory: Path, name: str, top: int) -> int:
    """Shows the best trials of each scenario and method."""
    if top < 1:
        raise StudyError(f"--top must be at least 1, not {top}.")
    opened = SweepFolder.open(directory, name)
    from study.sweep import winners

    winners.check_selectable(opened)
    histories = opened.histories()
    overview.show_best(histories, winners.best_keys(histories, top))
    return 0


def export(directory: Path, name: str, keys: Sequence[str], target: Path | None) -> int:
    """Writes configurations as files: the trials of these keys, or the best of each method and scenario."""
    opened = SweepFolder.open(directory, name)
    from study.sweep import export, winners
    from study.tracking import store
    from study.tracking.client import check_reachable, refusals

    if not keys:
        winners.check_selectable(opened)
    uri = store.tracking_uri(directory, opened.execution)
    check_reachable(uri)
    with refusals(uri):
        run_ids = store.run_ids(uri, opened)
    if keys:
        paths = export.export_named(opened, keys, target or opened.root / "named", run_ids)
    else:
        paths = export.export_best(opened, target or opened.root / "best", run_ids)
    for path in paths:
        terminal.console.print(str(path), markup=False, soft_wrap=True)
    if any(path.stem not in run_ids for path in paths):
        terminal.complain(
            f"note: MLflow at {uri} has no run of some of these, so their files name none; see: study sync --help."
        )
    return 0


def export_models(directory: Path, name: str, data_dir: Path | None) -> int:
    """Registers the network of the best confirmed configuration of each scenario in MLflow. Returns the exit code.

    The data sets are where the confirmation had them, unless `data_dir` says where they are now.
    """
    opened = SweepFolder.open(directory, name)
    from study.sweep import winners
    from study.tracking import model_registry, store
    from study.tracking.client import check_reachable

    winners.check_selectable(opened)
    found = model_registry.confirmed_winners(opened)
    uri = store.tracking_uri(directory, opened.execution)
    check_reachable(uri)
    for winner in found:
        place = data_dir or Path(winner.folder.execution.data_dir)
        made = model_registry.register(opened, winner, uri, place, lambda text: terminal.complain(f"note: {text}"))
        did = "registered" if made.is_new else "there already:"
        where = f"models:/{made.name}/{made.version}"
        terminal.console.print(f"{did} {where}  {winner.history.name} ({made.trial})", markup=False, soft_wrap=True)
        if made.note:
            terminal.complain(f"note: {made.name} {made.version}: {made.note}")
    return 0
