"""The paper's claims under other assumptions: one table, one picture."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.figures import verdicts
from analysis.paper import assumptions
from analysis.paper.assumptions import MAIN, Judged
from analysis.report.page import Column, Draw, Picture, Section, Table


def section_assumptions(rows: Sequence[Judged]) -> Section:
    """The claims where the paper leaves something open.

    Args:
        rows: the main experiment and at least one assumption.
    """
    main = rows[0].evidence
    own = "On this sweep's own data and tasks, which are not the paper's: " if main.stated else ""
    words: list[str | tuple[str, ...]] = [
        "The paper leaves some settings open, and the study assumes values for them. Here each row has another value for one "
        f"of them, with the paper's settings and the seeds of `{main.sweep}`; the claims are judged by the criteria above. No "
        "trial of another assumption is used for a row. Only SAM has a rho and only GNP has an r; where these differ, the "
        "other methods are those of the main experiment.",
        "A claim *depends* on an assumption if it is reproduced under it and contradicted in the main experiment, or the "
        "other way round. A verdict that becomes undecided shows no dependence. This criterion was written before the first "
        "of these sweeps. Rows are judged one by one: nothing corrects for their number.",
        tuple(f"{own}{sentence}" for sentence in assumptions.sentences(rows)),
    ]
    if main.assumed:
        words.insert(
            1, "The main experiment itself departs from what the study assumes: " + "; ".join(main.assumed) + "."
        )
    if main.stated:
        words.insert(
            1,
            "*These are no verdicts on the paper*, since this is not its experiment: "
            + "; ".join(main.stated)
            + ". They are the criteria's results on this sweep's own data and tasks.",
        )
    matrix = assumptions.matrix(rows)
    claims = [finding.claim for finding in rows[0].findings]
    table = Table(
        "assumptions",
        "The claims under other assumptions.",
        matrix,
        (
            Column("assumption", "assumption"),
            *(Column(claim, claim, "verdict") for claim in claims),
            Column("depends", "claims that depend on it"),
            Column("lanes", "seeds", "count"),
            Column("run_ids", "runs", "run"),
        ),
    )
    why = Table(
        "assumptions_reasons",
        "Why: each claim under each assumption.",
        assumptions.reasons(rows),
        (
            Column("assumption", "assumption"),
            Column("claim", "claim"),
            Column("here", "result", "verdict"),
            Column("depends", "depends"),
            Column("reason", "why"),
            Column("run_ids", "runs", "run"),
        ),
        folded=True,
    )
    runs = tuple(dict.fromkeys(run for row in rows for run in row.evidence.run_ids.values()))
    picture = Picture(
        "assumptions",
        "The claims (columns) in the main experiment and under other assumptions (rows).",
        _grid(
            "The paper's claims under other assumptions" + (", on this sweep's own data" if main.stated else ""), rows
        ),
        runs,
    )
    return Section("assumptions", "The claims under other assumptions", tuple(words), (picture, table, why))


def _grid(title: str, rows: Sequence[Judged]) -> Draw:
    drawn = [
        verdicts.Row(
            f"{MAIN} (the study's assumptions)" if row.label == MAIN and not row.evidence.assumed else row.label,
            {finding.claim: finding.here for finding in row.findings},
            row.dependent,
        )
        for row in rows
    ]
    return lambda path, size: verdicts.verdicts(path, title, drawn, size)
