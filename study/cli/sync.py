"""`study sync`: brings MLflow up to date with the records."""

from __future__ import annotations

from pathlib import Path

from study.cli import terminal
from study.errors import StudyError
from study.sweep import folder
from study.sweep.folder import SweepFolder


def run(directory: Path, name: str, tracking_uri: str | None) -> int:
    """Sends a sweep's records to MLflow; returns the exit code."""
    sweep = SweepFolder.open(directory, name)
    sweep.outcomes()  # refuses a damaged record before anything is sent
    from study.cli import pictures
    from study.tracking import artifacts, store, tracker
    from study.tracking.client import check_reachable

    uri = store.tracking_uri(directory, sweep.execution, tracking_uri)
    check_reachable(uri)
    artifacts.check_place(uri, sweep)
    try:
        with sweep.locked():
            count = tracker.sync(sweep, uri, pictures.Pictures(), say=terminal.complain)
    except folder.RunningError:
        if uri == store.tracking_uri(directory, sweep.execution):
            raise StudyError(f"The sweep {name!r} is running and updates {uri} itself.") from None
        count = tracker.sync(sweep, uri, pictures.Pictures(), running=True, say=terminal.complain)
    terminal.console.print(f"{name}: {count} trials are up to date in {uri}", markup=False, soft_wrap=True)
    from study.sweep import optuna_storage

    optuna_storage.write(sweep)
    return 0
