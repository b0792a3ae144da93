"""`study delete` and `study clean`: what goes, asked first."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from study.cli import terminal
from study.errors import StudyError
from study.sweep import folder, winners
from study.sweep.folder import RunningError, SweepFolder
from study.sweep.upkeep import files
from study.sweep.upkeep.state import state_of

NOTHING_DONE = 1
"""Exit code if the user says no."""


def delete(directory: Path, name: str, tracking_uri: str | None, *, agreed: bool, keep_runs: bool) -> int:
    """Deletes a sweep after asking; returns the exit code.

    Args:
        directory: folder of all sweeps.
        name: of the sweep.
        tracking_uri: of MLflow's store; None: that of the sweep.
        agreed: whether the user has agreed already.
        keep_runs: whether MLflow's runs stay.

    Raises:
        StudyError: the sweep is running, has something that is not its own, or MLflow cannot be reached; nothing was deleted.
    """
    sweep = SweepFolder.open(directory, name)
    files.of_sweep(sweep)  # refuses a link before the lock is looked for behind it
    state = _described(sweep)
    try:
        with sweep.locked():
            return _delete(sweep, state, tracking_uri, agreed=agreed, keep_runs=keep_runs)
    except RunningError:
        raise _running(name, "deleted") from None


def _delete(sweep: SweepFolder, state: str, tracking_uri: str | None, *, agreed: bool, keep_runs: bool) -> int:
    from study.tracking import faults, removal, store

    found = files.of_sweep(sweep)
    uri = store.tracking_uri(sweep.directory, sweep.execution, tracking_uri)
    logged = None if keep_runs else faults.patiently(lambda: removal.logged(uri, sweep), terminal.complain)
    lines = [
        f"{sweep.name}: {state}",
        *(f"deletes {place}" for place in found.places),
        f"all together {found.usage}",
    ]
    if logged and logged.experiment:
        lines.append(f"deletes its {logged.runs} runs in MLflow at {uri}")
    else:
        lines.append(f"MLflow's runs stay{f': {logged.reason}' if logged and logged.reason else ''}")
    lines += [f"its confirmation {confirmation!r} stays, but {LOSS}" for confirmation in _confirmations(sweep)]
    if not _agrees(lines, "Delete all of this?", agreed=agreed):
        return NOTHING_DONE
    if logged:
        faults.patiently(lambda: removal.remove(logged), terminal.complain)
    files.delete_sweep(sweep, found)
    terminal.console.print(f"deleted {sweep.name}: {found.usage}", markup=False, soft_wrap=True)
    if logged and logged.experiment:
        terminal.remark("MLflow keeps what is deleted, hidden, until `mlflow gc`.")
    return 0


def _described(sweep: SweepFolder) -> str:
    """How a sweep stands, in words; one that is damaged may be deleted."""
    try:
        state = state_of(sweep)
    except StudyError:
        return "its records cannot be read"
    when = terminal.moment(state.since)
    return f"{state.done} of {winners.trial_count(sweep)} trials done, {state.word} since {when}"


LOSS = "can no longer be reported, compared with its tuning, or registered as models"
"""What becomes of a confirmation without its sweep."""


def _confirmations(sweep: SweepFolder) -> list[str]:
    """The confirmations that need this copy of the sweep.

    Those that cannot be read are left out.
    """
    roots = folder.roots(sweep.directory)
    if len(roots[sweep.identity]) > 1:
        return []
    found = []
    for name in folder.names(sweep.directory):
        try:
            confirms = SweepFolder.open(sweep.directory, name).plan.confirms
        except StudyError:
            continue
        if confirms and confirms.identity == sweep.identity:
            found.append(name)
    return found


def clean(directory: Path, name: str, *, agreed: bool) -> int:
    """Deletes what no trial needs; returns the exit code.

    Args:
        directory: folder of all sweeps.
        name: of the sweep.
        agreed: whether the user has agreed already.

    Raises:
        StudyError: the sweep is running, or has a link among its checkpoints; nothing was deleted.
    """
    sweep = SweepFolder.open(directory, name)
    sweep.outcomes()  # refuses a damaged record, for it says which checkpoints are needed
    if sweep.root.is_symlink():
        raise StudyError(f"{str(sweep.root)!r} is a link; clean the sweep where it leads to.")
    try:
        with sweep.locked():
            return _clean(sweep, agreed=agreed)
    except RunningError:
        raise _running(name, "cleaned") from None


def _clean(sweep: SweepFolder, *, agreed: bool) -> int:
    found = files.not_needed(sweep)
    if not found.places:
        terminal.console.print(f"{sweep.name}: there is nothing to clean.", markup=False, soft_wrap=True)
        return 0
    undone = winners.trial_count(sweep) - state_of(sweep).done
    lines = [
        f"{sweep.name}: checkpoints and Ray's files of trials that are done, {found.usage}",
        *([f"the checkpoints of the {undone} trials that are not done stay"] if undone else []),
        "records, results and reports stay, and the sweep can be reported, sent to MLflow and extended as before",
    ]
    if sweep.plan.confirms:
        lines.append("its networks are gone: `study export --model` then trains them again")
    if not _agrees(lines, "Delete these files?", agreed=agreed):
        return NOTHING_DONE
    files.delete(found)
    terminal.console.print(f"cleaned {sweep.name}: {found.usage}", markup=False, soft_wrap=True)
    return 0


def _running(name: str, verb: str) -> StudyError:
    return StudyError(f"The sweep {name!r} is running and cannot be {verb}; stop it first, or wait for its end.")


def _agrees(lines: Sequence[str], question: str, *, agreed: bool) -> bool:
    """Says what goes and asks, unless the user has agreed already."""
    if not agreed and not sys.stdin.isatty():
        raise StudyError("This asks before it deletes, and nobody can answer here; add --yes if it is meant.")
    for line in lines:
        terminal.console.print(line, markup=False, soft_wrap=True)
    if agreed or typer.confirm(question):
        return True
    terminal.console.print("Nothing was deleted.")
    return False
