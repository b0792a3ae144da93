"""`study report`, `compare` and `archive`: pages and small files."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from study.cli import terminal
from study.errors import StudyError, nearest
from study.files import write_fault
from study.sweep import folder
from study.sweep.folder import SweepFolder

if TYPE_CHECKING:  # slow to import
    import pandas as pd

    from analysis.comparison.matching import Matching
    from analysis.load import Sweep
    from analysis.report.page import Page


FORMATS: Final = ("png", "svg", "pdf", "csv", "parquet", "latex")
"""Those of `analysis.report.page`, which takes a second to import."""


def write(
    directory: Path,
    name: str,
    target: Path | None,
    tracking_uri: str | None,
    *,
    formats: Collection[str] = (),
    paper: bool = False,
) -> tuple[Path, bool]:
    """Writes the report of a sweep.

    It is made from MLflow's runs, and attached to the sweep's own run. That of an archived sweep is attached to nothing, and has
    the confirmations that are archived beside it.

    Args:
        directory: folder of all sweeps.
        name: of the sweep, or the folder of an archived one.
        target: folder for the report; None: a folder within the sweep's.
        tracking_uri: MLflow's store; None: that of the sweep.
        formats: of figures and tables, beside PNG and CSV.
        paper: whether the paper's claims are judged, whatever the sweep is about.

    Raises:
        StudyError: there is no such sweep or format, or the report cannot be written.

    Returns:
        The page, and whether it is attached or need not be.
    """
    check_formats(formats)
    from analysis import archive, report

    if _is_archive(name):
        if target is None:
            raise StudyError(f"Name a folder for the report of the archived sweep {name!r} with --to.")
        check_parent(target)
        tuned = archive.read(Path(name))
        confirmations = archive.confirmations(Path(name), tuned)
        return _write(report.make(tuned, confirmations, paper=paper), target, formats) / report.PAGE, True
    sweep_folder = _folder(directory, name, target, "report")
    if target is not None:
        check_parent(target)
    if sweep_folder and sweep_folder.plan.confirms:
        tuned_name, tuned_folder = sweep_folder.plan.confirms.sweep, sweep_folder.tuning()
        shown = tuned_folder.command("report") if tuned_folder else folder.command(directory, "report", tuned_name)
        raise StudyError(f"{name!r} confirms {tuned_name!r} and is part of its report; run `{shown}`.")
    from study.tracking import artifacts, faults, store
    from study.tracking.client import refusals

    uri = _store(directory, sweep_folder, tracking_uri)
    known_as = sweep_folder.plan.name if sweep_folder else name
    tuned, confirmations = faults.patiently(lambda: report.load_all(known_as, uri, directory), terminal.complain)
    for sweep in (tuned, *confirmations):
        _warn_of_unsent(directory, sweep.identity, len(sweep.finished))
    place = _write(report.make(tuned, confirmations, paper=paper), target or directory / name / "report", formats)
    if not artifacts.is_writable(uri, sweep_folder.root if sweep_folder else None):
        terminal.remark("not attached to the sweep's run in MLflow, which cannot be written")
        return place / report.PAGE, True

    def attach() -> str:
        with refusals(uri):
            if sweep_folder:
                artifacts.settle(uri, sweep_folder)
        return store.attach(uri, tuned.run_id, place, report.PAGE)

    try:
        attached = faults.patiently(attach, terminal.complain)
    except StudyError as error:
        terminal.complain(f"not attached to the sweep's run: {error}")
        return place / report.PAGE, False
    words = f"attached to the sweep's run {tuned.run_id} in MLflow as {attached}"
    terminal.console.print(words, markup=False, soft_wrap=True)
    return place / report.PAGE, True


def compare(
    directory: Path,
    names: Sequence[str],
    target: Path | None,
    tracking_uri: str | None,
    *,
    quantity: str,
    baseline: str,
    formats: Collection[str] = (),
) -> Path:
    """Compares sweeps: a table here, and a page.

    The sweeps and their stores stay as they are.

    Args:
        directory: folder of all sweeps.
        names: of at least two sweeps, or the folders of archived ones; the first is what the others are compared with.
        target: a new folder for the page; None: one in the folder of all sweeps.
        tracking_uri: MLflow's store; None: that of each sweep.
        quantity: one of `analysis.comparison.contrasts.QUANTITIES`.
        baseline: the method that the others are compared with.
        formats: of figures and tables, beside PNG and CSV.

    Returns:
        The page.

    Raises:
        StudyError: there is no such sweep, nothing is comparable, or the page cannot be written.
    """
    check_formats(formats)
    places = [Path(name).resolve() if _is_archive(name) else directory.resolve() / name for name in names]
    if len(names) < 2:
        raise StudyError("A comparison takes at least two sweeps: study compare A B.")
    if twice := [name for number, name in enumerate(names) if places[number] in places[:number]]:
        raise StudyError(f"{twice[0]!r} is named twice; a comparison takes sweeps that differ.")
    if target is None and all(map(_is_archive, names)):
        raise StudyError("Name a folder for the comparison of archived sweeps with --to.")
    from analysis import report
    from analysis.comparison import contrasts, matching, page

    if quantity not in contrasts.QUANTITIES:
        raise StudyError(f"--quantity {quantity!r} is none; {nearest(quantity, contrasts.QUANTITIES)}.")
    if target is not None:
        check_parent(target)
    sweeps = [_loaded(directory, name, tracking_uri) for name in names]
    alike = [sweep.name for sweep in sweeps]
    named = {
        name if alike.count(sweep.name) > 1 else sweep.name: sweep for name, sweep in zip(names, sweeps, strict=True)
    }
    matched = matching.match(named, baseline)
    table = contrasts.frame(matched, quantity)
    _show_comparison(matched, quantity, table)
    more = f"-and-{len(names) - 2}-more" if len(names) > 2 else ""
    place = target or directory / f"compared-{'-'.join(Path(name).name for name in names[:2])}{more}"
    return _write(page.make(matched, quantity, table), place, formats) / report.PAGE


def _is_archive(name: str) -> bool:
    from analysis import archive

    return (Path(name) / archive.SWEEP).is_file()


def _loaded(directory: Path, name: str, tracking_uri: str | None) -> Sweep:
    """A sweep from its store or its archive.

    Without a folder, it may be known to the given store only.
    """
    from analysis import archive, load

    if _is_archive(name):
        return archive.read(Path(name))
    sweep_folder = None
    if tracking_uri is None or name in folder.names(directory):
        sweep_folder = SweepFolder.open(directory, name)
        sweep_folder.outcomes()  # refuses a damaged record before MLflow is read
    from study.tracking import faults

    uri = _store(directory, sweep_folder, tracking_uri)
    known_as = sweep_folder.plan.name if sweep_folder else name
    sweep = faults.patiently(lambda: load.sweep(known_as, uri, directory=directory), terminal.complain)
    _warn_of_unsent(directory, sweep.identity, len(sweep.finished))
    return sweep


def _show_comparison(matched: Matching, quantity: str, table: pd.DataFrame) -> None:
    """Shows the table of a comparison, scenario by scenario."""
    from analysis import load
    from analysis.comparison import contrasts, page

    short = contrasts.QUANTITIES[quantity].short
    sign = "" if quantity in ("accuracy", "late_accuracy") else "+"
    columns = ["method", "sweep", "seeds", short, f"minus {matched.baseline}", "p", f"change from {matched.reference}"]
    for scenario, own in table.groupby("scenario", sort=False):
        rows = [
            (
                str(row["name"]),
                str(row["sweep"]),
                str(row["lanes"]),
                page.bounded(row, quantity, sign),
                page.bounded(row, "difference"),
                page.p_words(row, "difference"),
                page.bounded(row, "change"),
                page.p_words(row, "change"),
                page.ANSWERS.get(row["answer"], page.NONE),
            )
            for row in load.rows(own)
        ]
        title = f"{scenario}: {short}, and its difference to {matched.baseline}"
        terminal.show_table(title, [*columns, "p", "answer"], rows)
    terminal.remark(page.LEGEND)
    for sentence in (*matched.notes, *page.too_few(table)):
        terminal.remark(sentence)


def write_archive(directory: Path, name: str, target: Path | None, tracking_uri: str | None) -> int:
    """Writes the archive of a sweep; returns the exit code.

    It holds all numbers in a few small files. They come from MLflow's runs. The arguments are those of `write`.
    """
    sweep_folder = _folder(directory, name, target, "archive")
    if target is not None:
        check_parent(target)
    from analysis import archive, load
    from study.tracking import faults

    uri = _store(directory, sweep_folder, tracking_uri)
    known_as = sweep_folder.plan.name if sweep_folder else name
    sweep = faults.patiently(
        lambda: load.sweep(known_as, uri, archive.QUANTITIES, diagnosed=True, directory=directory), terminal.complain
    )
    _warn_of_unsent(directory, sweep.identity, len(sweep.finished))
    place = target or directory / name / "archive"
    archive.save(sweep, place)
    size = sum(path.stat().st_size for path in place.iterdir())
    terminal.console.print(f"wrote {place} ({size / 1000:,.0f} kB)", markup=False, soft_wrap=True)
    return 0


def check_formats(formats: Collection[str]) -> None:
    """Raises StudyError if a format is unknown."""
    for wrong in formats:
        if wrong not in FORMATS:
            raise StudyError(
                f"--format {wrong!r} is unknown; figures can be png, svg or pdf, and tables csv, parquet or latex."
            )


def check_parent(target: Path) -> None:
    """Raises StudyError if a folder cannot be created."""
    if target.exists() and not target.is_dir():
        raise StudyError(f"--to {str(target)!r} cannot be a folder: it is a file.")
    if fault := write_fault(target if target.is_symlink() else target.parent):
        raise StudyError(f"--to {str(target)!r} cannot be created ({fault}); name another folder.")


def _folder(directory: Path, name: str, target: Path | None, what: str) -> SweepFolder | None:
    """The folder of a sweep, if there is one.

    Without a folder the sweep may be known to MLflow only; then raises StudyError unless a target is given.
    """
    if name in folder.names(directory):
        sweep = SweepFolder.open(directory, name)
        sweep.outcomes()  # refuses a damaged record before MLflow is read
        return sweep
    if target is None:
        raise StudyError(
            f"There is no sweep {name!r} in {str(directory)!r} to put its {what} beside; "
            f"{nearest(name, folder.names(directory))}, or name a folder for the {what} with --to."
        )
    return None


def _store(directory: Path, sweep: SweepFolder | None, tracking_uri: str | None) -> str:
    """The address of a sweep's store.

    Raises StudyError if it cannot be reached or does not exist.
    """
    from study.tracking import store
    from study.tracking.client import check_reachable, is_missing

    uri = store.tracking_uri(directory, sweep.execution if sweep else None, tracking_uri)
    check_reachable(uri)
    if is_missing(uri):
        raise store.missing(uri, directory, sweep)
    return uri


def _write(page: Page, target: Path, formats: Collection[str] = ()) -> Path:
    """Writes a report, prints where it is, returns its folder."""
    from analysis import report

    with terminal.bar("drawing the figures") as told:
        place, is_new = report.write(page, target, formats, told)
    terminal.console.print(f"{'wrote' if is_new else 'unchanged:'} {place / report.PAGE}", markup=False, soft_wrap=True)
    return place


def _warn_of_unsent(directory: Path, identity: str, finished: int) -> None:
    """Notes if the records have more finished trials than MLflow."""
    roots = folder.roots(directory).get(identity)
    if not roots:
        return
    sweep = SweepFolder.open(directory, roots[0].name)
    done = sweep.outcomes()["finished"]
    if done > finished:
        terminal.complain(
            f"note: {done} trials of {sweep.name!r} have finished, but MLflow has the numbers of {finished}; to include all: "
            f"{sweep.command('sync')}, then {sweep.command('report')} again."
        )
