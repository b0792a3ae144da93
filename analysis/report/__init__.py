"""The report of a sweep: one page, every number traceable.

It is written for readers who have not read the paper, and every number names the run it comes from. `load_all` reads MLflow,
`make` decides what the page says, and `write` puts it into a folder, whole or not at all.
"""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from analysis import load, tables
from analysis.batches import configurations, joined
from analysis.load import Sweep
from analysis.paper.assumptions import judged as judged_under
from analysis.paper.evidence import gather, is_about_the_paper, under_assumptions
from analysis.report.answer import section_summary
from analysis.report.assumptions import section_assumptions
from analysis.report.budget import section_budget, section_sources
from analysis.report.cause import needed, section_cause
from analysis.report.diagnostics import section_diagnostics
from analysis.report.page import Page
from analysis.report.paper import judged, section_claims, section_settings
from analysis.report.search import section_search
from analysis.report.summary import section_limits, section_question
from analysis.report.winners import section_compute, section_winners
from study.errors import StudyError
from study.files import draft_of
from study.tracking.client import served

PAGE = "report.html"


def make(tuned: Sweep, confirmations: list[Sweep], *, paper: bool = False) -> Page:
    """The page about a sweep and its confirmations.

    It leads with the comparison of the sweep's own methods. The paper's claims follow where its data, network and tasks are the
    sweep's, or if `paper` asks for them.
    """
    sweeps = [tuned, *confirmations]  # with a run for each batch of seeds
    tuned = configurations(tuned)
    confirmations = [joined(sweep) for sweep in confirmations]
    is_other = not paper and not any(map(is_about_the_paper, sweeps))
    judge, evidence = judged([configurations(sweep) for sweep in sweeps if sweep.rule is None])  # claims know no looks
    others = [] if is_other else judged_under(evidence, under_assumptions(judge))
    # the runs that are shown in detail, by a name for their figures
    compared = {
        f"winners-{sweep.name}": (sweep, sweep.finished[sweep.finished["selected_rank"] == 1])
        for sweep in confirmations
    }
    if is_other:
        if not confirmations:
            compared["best"] = tuned, tables.shown(tuned)
    elif evidence.accuracy:
        compared["paper"] = judge, judge.finished[judge.finished["run_id"].isin(list(evidence.run_ids.values()))]
    elif not confirmations:
        compared["best"] = tuned, tables.best(tuned)
    cause = section_cause(tuned)
    comparison = section_winners(tuned, confirmations, leads=is_other or bool(len(tables.best(tuned))))
    sections = (
        section_summary(tuned, confirmations, None if is_other else (judge, evidence)),
        section_question(tuned, is_other=is_other),
        *([cause] if cause else []),
        comparison,
        *(
            ()
            if is_other
            else (
                section_claims(judge, evidence),
                *([section_assumptions(others)] if len(others) > 1 else []),
                section_settings(judge, evidence),
            )
        ),
        section_search(tuned),
        section_diagnostics(compared, is_other=is_other),
        section_compute(compared),
        section_budget(sweeps),
        section_limits(tuned, sweeps[1:], None if is_other else evidence),
        section_sources(sweeps),
    )
    addresses = {run_id: address for sweep in sweeps if served(sweep.uri) for run_id, address in _addresses(sweep)}
    return Page(f"Plasticity study: {tuned.name}", str(tuned.plan["description"]), sections, addresses)


def _addresses(sweep: Sweep) -> Iterator[tuple[str, str]]:
    """A served sweep's runs with their pages' addresses."""
    for run_id in (sweep.run_id, *sweep.runs["run_id"]):
        yield run_id, f"{sweep.uri.rstrip('/')}/#/experiments/{sweep.experiment_id}/runs/{run_id}"


def write(
    page: Page, target: Path, formats: Collection[str] = (), told: Callable[[int, int], None] = lambda _, __: None
) -> tuple[Path, bool]:
    """Writes a page to a folder, all or nothing.

    Existing folders are left alone. The arguments are those of `Page.write`.

    Returns:
        The folder, and whether it was written: `target`, or the first free one of `target`-2, `target`-3 and so on. If one of
        them already holds the same page, it is returned as it is.

    Raises:
        StudyError: the folder cannot be written.
    """
    if target.exists() and not target.is_dir():
        raise StudyError(f"{str(target)!r} is a file; name a folder for the report.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(target) as draft:
            page.write(draft, formats, told)
            folder, number = target, 1
            while folder.exists():
                if _same(draft, folder):
                    return folder, False
                number += 1
                folder = target.with_name(f"{target.name}-{number}")
            draft.rename(folder)
    except OSError as error:
        raise StudyError(f"The folder {str(target)!r} cannot be written: {error.strerror}.") from None
    return folder, True


def _same(one: Path, other: Path) -> bool:
    """Whether two folders have the same files and contents."""
    names = [sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) for root in (one, other)]
    return names[0] == names[1] and not filecmp.cmpfiles(one, other, names[0], shallow=False)[1]


def _shown_in_detail(sweep: Sweep) -> set[str]:
    """The runs that `make` may show in detail.

    They are few, and the diagnostics of thousands of others need not be loaded.
    """
    winners, whole = sweep.finished[sweep.finished["selected_rank"] == 1], configurations(sweep)
    shown = {*tables.shown(whole)["run_id"], *gather(whole).run_ids.values()}
    return needed(sweep) | {*winners["run_id"], *(run_id for ids in shown for run_id in ids.split())}


def load_all(name: str, uri: str, directory: Path | None = None) -> tuple[Sweep, list[Sweep]]:
    """A sweep and its confirmations, see `analysis.load`.

    Raises StudyError if there is no such sweep, or if it is itself a confirmation.
    """
    tuned = load.sweep(name, uri, diagnosed=_shown_in_detail, directory=directory)
    if tuned.phase == "confirm":
        other = tuned.tags.get("confirms", "another sweep")
        raise StudyError(f"{name!r} confirms {other!r} and is part of its report; run `study report {other}`.")
    return tuned, load.confirmations(tuned, diagnosed=_shown_in_detail, directory=directory)
