"""The report of a sweep: one page that a person who has not read the paper understands, every number traceable to a run.

`make` reads MLflow alone and decides what the page says; `write` puts it into a folder, whole or not at all.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from analysis import load, tables
from analysis.load import Sweep
from analysis.report.accounts import section_budget, section_limits, section_question, section_sources, section_summary
from analysis.report.confirmed import section_compute, section_winners
from analysis.report.diagnosed import section_diagnostics
from analysis.report.page import Page
from analysis.report.paper import judged, section_claims, section_settings
from analysis.report.searched import section_search
from study.errors import StudyError
from study.tracking.client import served

PAGE = "report.html"


def make(tuned: Sweep, confirmations: list[Sweep]) -> Page:
    """The page about a sweep and the sweeps that confirm it."""
    sweeps = [tuned, *confirmations]
    judge, found = judged(sweeps)
    compared = {
        f"winners-{sweep.name}": (sweep, sweep.finished[sweep.finished["selected_rank"] == 1])
        for sweep in confirmations
    }
    if found.accuracy:
        compared["paper"] = judge, judge.finished[judge.finished["run_id"].isin(list(found.run_ids.values()))]
    elif not confirmations:
        compared["best"] = tuned, tables.best(tuned)
    sections = (
        section_summary(tuned, confirmations, judge, found),
        section_question(tuned),
        section_claims(judge, found),
        section_settings(judge, found),
        section_winners(tuned, confirmations),
        section_search(tuned),
        section_diagnostics(compared),
        section_compute(compared),
        section_budget(sweeps),
        section_limits(tuned, confirmations, found),
        section_sources(sweeps),
    )
    addresses = {run_id: address for sweep in sweeps if served(sweep.uri) for run_id, address in _addresses(sweep)}
    return Page(f"Plasticity study: {tuned.name}", str(tuned.plan["description"]), sections, addresses)


def _addresses(sweep: Sweep) -> Iterator[tuple[str, str]]:
    """The runs of a sweep on a server, each with the address of its page."""
    for run_id in (sweep.run_id, *sweep.runs["run_id"]):
        yield run_id, f"{sweep.uri.rstrip('/')}/#/experiments/{sweep.experiment_id}/runs/{run_id}"


def write(page: Page, target: Path) -> tuple[Path, bool]:
    """Writes a page into a folder, whole or not at all; what stands there already is left alone.

    Returns:
        The folder and whether it was written: `target`, or the first free one of `target`-2, `target`-3 and so on; one of
        them that holds the very same page serves as it is.

    Raises:
        StudyError: the folder cannot be written.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    if target.exists() and not target.is_dir():
        raise StudyError(f"{str(target)!r} is a file; name a folder for the report.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        page.write(draft)
        place, number = target, 1
        while place.exists():
            if _same(draft, place):
                return place, False
            number += 1
            place = target.with_name(f"{target.name}-{number}")
        draft.rename(place)
    except OSError as error:
        raise StudyError(f"The folder {str(target)!r} cannot be written: {error.strerror}.") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place, True


def _same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files with the same content."""
    names = [sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) for root in (one, other)]
    return names[0] == names[1] and not filecmp.cmpfiles(one, other, names[0], shallow=False)[1]


def load_all(name: str, uri: str) -> tuple[Sweep, list[Sweep]]:
    """A sweep and those that confirm it. Raises StudyError when there is no such sweep, or it is itself a confirmation."""
    tuned = load.sweep(name, uri, diagnosed=True)
    if tuned.phase == "confirm":
        of = tuned.tags.get("confirms", "another sweep")
        raise StudyError(f"{name!r} confirms {of!r} and is part of its report; run `study report {of}`.")
    return tuned, load.confirmations(tuned, diagnosed=True)
