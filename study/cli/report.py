"""`study report` and `study archive`: what a sweep found, as a page and as small files."""

from __future__ import annotations

from pathlib import Path

from study.cli import terminal
from study.errors import StudyError, nearest
from study.sweep import folder
from study.sweep.folder import SweepFolder


def report(directory: Path, name: str, target: Path | None, tracking_uri: str | None) -> int:
    """Writes the report of a sweep out of MLflow's runs, and attaches it to the sweep's own run.

    A name that is the folder of an archived sweep has the report made of that, and attached to nothing.
    """
    from analysis import archive
    from analysis import report as reports

    if (Path(name) / archive.SWEEP).is_file():
        if target is None:
            raise StudyError(f"Name a folder for the report of the archived sweep {name!r} with --to.")
        _written(reports.write(reports.make(archive.read(Path(name)), []), target))
        return 0
    opened = _opened(directory, name, target, "report")
    from study.tracking import store
    from study.tracking.client import check_reachable, refusals

    uri = store.tracking_uri(directory, opened.execution if opened else None, tracking_uri)
    check_reachable(uri)
    tuned, confirmations = reports.load_all(name, uri)
    for sweep in (tuned, *confirmations):
        _warn_of_unsent(directory, sweep.name, sweep.identity, len(sweep.finished))
    place = _written(reports.write(reports.make(tuned, confirmations), target or directory / name / "report"))
    try:
        with refusals(uri):
            attached = store.attach(uri, tuned.run_id, place, reports.PAGE)
    except StudyError as error:
        terminal.complain(f"not attached to the sweep's run: {error}")
        return 1
    terminal.console.print(f"attached to the sweep's run {tuned.run_id} in MLflow as {attached}", soft_wrap=True)
    return 0


def archive(directory: Path, name: str, target: Path | None, tracking_uri: str | None) -> int:
    """Writes all numbers of a sweep as a few small files, out of MLflow's runs."""
    opened = _opened(directory, name, target, "archive")
    from analysis import archive, load
    from study.tracking import store
    from study.tracking.client import check_reachable

    uri = store.tracking_uri(directory, opened.execution if opened else None, tracking_uri)
    check_reachable(uri)
    sweep = load.sweep(name, uri, archive.QUANTITIES, diagnosed=True)
    _warn_of_unsent(directory, sweep.name, sweep.identity, len(sweep.finished))
    place = target or directory / name / "archive"
    archive.save(sweep, place)
    size = sum(path.stat().st_size for path in place.iterdir())
    terminal.console.print(f"wrote {place} ({size / 1000:,.0f} kB)", markup=False, soft_wrap=True)
    return 0


def _opened(directory: Path, name: str, target: Path | None, what: str) -> SweepFolder | None:
    """The folder of a sweep; None when it is known to MLflow alone, and what is made of it has a place."""
    opened = SweepFolder.open(directory, name) if name in folder.names(directory) else None
    if opened is None and target is None:
        raise StudyError(
            f"There is no sweep {name!r} in {str(directory)!r} to put its {what} beside; "
            f"{nearest(name, folder.names(directory))}, or name a folder for the {what} with --to."
        )
    return opened


def _written(written: tuple[Path, bool]) -> Path:
    """Says where a report is."""
    from analysis import report as reports

    place, new = written
    terminal.console.print(f"{'wrote' if new else 'unchanged:'} {place / reports.PAGE}", markup=False, soft_wrap=True)
    return place


def _warn_of_unsent(directory: Path, name: str, identity: str, finished: int) -> None:
    """Says when the records here know of more finished trials than MLflow does."""
    if name not in folder.names(directory):
        return
    opened = SweepFolder.open(directory, name)
    done = sum(history.outcome == "finished" for history in opened.histories())
    if opened.identity == identity and done > finished:
        terminal.complain(
            f"note: {done} trials of {name!r} have finished, but MLflow has the numbers of {finished}; for all of them: "
            f"study sync {name}{opened.option}, then study report again."
        )
