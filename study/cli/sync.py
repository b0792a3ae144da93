"""`study sync`: brings MLflow up to date with the records."""

from __future__ import annotations

from pathlib import Path

from study.cli import terminal
from study.errors import StudyError
from study.sweep import folder
from study.sweep.folder import SweepFolder


def sync(directory: Path, name: str, tracking_uri: str | None) -> int:
    """Brings an MLflow store up to date with a sweep's records."""
    opened = SweepFolder.open(directory, name)
    from study.cli import pictures
    from study.tracking import store, tracker

    execution = opened.execution.model_copy(update={"tracking_uri": tracking_uri or opened.execution.tracking_uri})
    uri = store.tracking_uri(directory, execution)
    try:
        with opened.locked():
            count = tracker.sync(opened, uri, pictures.Pictures())
    except folder.RunningError:
        if uri == store.tracking_uri(directory, opened.execution):
            raise StudyError(f"The sweep {name!r} is running and keeps {uri} up to date itself.") from None
        count = tracker.sync(opened, uri, pictures.Pictures(), running=True)
    terminal.console.print(f"{name}: {count} trials are up to date in {uri}", soft_wrap=True)
    from study.sweep import optuna_storage

    optuna_storage.write(opened)
    return 0
