"""The files of sweeps that may be deleted.

Only what the study itself has written is deleted. A link is never followed, and never deleted.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from study.errors import StudyError
from study.files import draft_of
from study.sweep import folder, storage
from study.sweep.folder import LOCK_FILE, SweepFolder
from study.sweep.storage import Usage

OWN = re.compile(
    rf"sweep\.jsonl|{re.escape(LOCK_FILE)}|trials|ray|mlflow-artifacts|optuna\.db|(best|named|report|archive)(-\d+)?"
    r"|\..*\.tmp"  # a draft of a process that was killed
)
"""Names in a sweep's folder that the study writes."""

OWN_OF_TRIAL = re.compile(r"record\.jsonl|traceback\.txt")
"""Names in the folder of a trial's record."""

SESSION = re.compile(r"session-\d{3,}")
"""Folders of checkpoints, one for each start."""


@dataclass(frozen=True)
class Files:
    """Files and folders that may be deleted.

    Attributes:
        places: paths and addresses.
        usage: what they take, all together.
    """

    places: list[str]
    usage: Usage


def of_sweep(sweep: SweepFolder) -> Files:
    """All files of a sweep: its folder, and checkpoints elsewhere.

    Those elsewhere are left out if another copy of the sweep is in the same folder and may need them.

    Raises:
        StudyError: the folder is a link, or has a link or anything else in it that the study has not written.
    """
    root = sweep.root
    if root.is_symlink():
        raise StudyError(f"{str(root)!r} is a link, and the study deletes none; delete the sweep where it leads to.")
    strange = [path for path in root.iterdir() if not OWN.fullmatch(path.name)]
    strange += [path for path in root.glob("trials/*/*") if not OWN_OF_TRIAL.fullmatch(path.name)]
    if strange:
        raise StudyError(f"{str(min(strange))!r} was not written by the study; move it away, then delete the sweep.")
    is_copied = len(folder.roots(sweep.directory)[sweep.identity]) > 1
    elsewhere = [] if is_copied else [place for place in sweep.checkpoint_places()[1:] if storage.entries(place)]
    places = [str(root), *elsewhere]
    return Files(places, sum(map(storage.usage, places), Usage()))


def delete_sweep(sweep: SweepFolder, files: Files) -> None:
    """Deletes what `of_sweep` has found.

    The folder disappears at once, before its files are deleted one by one. Raises StudyError if something cannot be deleted.
    """
    for place in files.places[1:]:
        storage.delete(place)
    try:
        with draft_of(sweep.root) as draft:
            sweep.root.rename(draft)
            storage.delete(str(draft))
    except OSError as error:
        raise StudyError(f"{str(sweep.root)!r} cannot be deleted: {error.strerror}.") from None


def not_needed(sweep: SweepFolder) -> Files:
    """Checkpoints and Ray's files that no trial continues from.

    Those of trials that are done, and what Ray has noted for itself. The checkpoints of all other trials are kept, and whatever
    is not in a folder of a start.

    Raises:
        StudyError: there is a link among the files, or a place cannot be read.
    """
    if (sweep.root / "ray").is_symlink():
        raise StudyError(
            f"{str(sweep.root / 'ray')!r} is a link, and the study deletes nothing behind one; clean it by hand."
        )
    needed = [place for history in sweep.histories() if not history.is_done for place in sweep.checkpoints(history)]
    places: list[str] = []
    for root in sweep.checkpoint_places():
        for session in filter(SESSION.fullmatch, storage.entries(root)):
            within = storage.within(root, session)
            each = [storage.within(within, name) for name in storage.entries(within)]
            spare = [entry for entry in each if not any(_is_within(place, entry) for place in needed)]
            places += [within] if spare == each else spare
    return Files(places, sum(map(storage.usage, places), Usage()))


def _is_within(place: str, parent: str) -> bool:
    """Whether a place is another one, or in it; both are paths or addresses."""
    inner, outer = (
        each.partition("?")[0] if storage.is_uri(each) else os.path.realpath(each) for each in (place, parent)
    )
    return f"{inner}/".startswith(f"{outer}/")


def delete(files: Files) -> None:
    """Deletes files. Raises StudyError if one cannot be deleted."""
    for place in files.places:
        storage.delete(place)
