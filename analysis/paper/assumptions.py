"""The paper's claims under other assumptions.

The criterion was written before any of these sweeps was started: a claim depends on an assumption if it is *reproduced* under it
and *contradicted* in the main experiment, or the other way round. A verdict that becomes undecided shows no dependence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from analysis.paper import claims
from analysis.paper.evidence import Assumption, Evidence
from analysis.paper.verdicts import Finding

MAIN: Final = "main experiment"
"""What is under no other assumption, in the tables."""


@dataclass(frozen=True)
class Judged:
    """All claims under one assumption.

    Attributes:
        label: the assumption in words, or `MAIN`.
        evidence: what they were judged by.
        findings: one for each claim.
        dependent: the claims that depend on the assumption.
    """

    label: str
    evidence: Evidence
    findings: tuple[Finding, ...]
    dependent: tuple[str, ...] = ()


def judged(main: Evidence, assumptions: Sequence[Assumption]) -> list[Judged]:
    """The claims in the main experiment and under each assumption.

    The main experiment comes first.
    """
    first = Judged(MAIN, main, tuple(claims.findings(main)))
    rows = [first]
    for assumption in assumptions:
        findings = tuple(claims.findings(assumption.evidence))
        pairs = zip(first.findings, findings, strict=True)
        dependent = tuple(here.claim for here, there in pairs if depends(here, there))
        rows.append(Judged(assumption.label, assumption.evidence, findings, dependent))
    return rows


def depends(main: Finding, other: Finding) -> bool:
    """Whether a claim's verdict turns under an assumption."""
    return {main.here, other.here} == {"reproduced", "contradicted"}


def sentences(rows: Sequence[Judged]) -> list[str]:
    """Which claims depend on which assumption, a sentence each.

    Nothing without another assumption.
    """
    if len(rows) < 2:
        return []
    words = []
    for claim in (finding.claim for finding in rows[0].findings):
        verdict_of = {row.label: finding.here for row in rows for finding in row.findings if finding.claim == claim}
        labels = [row.label for row in rows if claim in row.dependent]
        if labels:
            words.append(
                f"{claim} depends on {len(labels)} of {len(rows) - 1} assumptions: {verdict_of[MAIN]} in the main experiment, "
                f"{verdict_of[labels[0]]} under {', '.join(labels)}."
            )
    count = len(rows) - 1
    return words or [
        f"No claim depends on {'the other assumption' if count == 1 else f'any of {count} other assumptions'}."
    ]


def matrix(rows: Sequence[Judged]) -> pd.DataFrame:
    """One row per assumption: the verdict on each claim.

    Columns assumption, the claims, depends, lanes, run_ids.
    """
    table: list[dict[str, Any]] = []
    for row in rows:
        lanes = [accuracy.shape[1] for accuracy in row.evidence.accuracy.values()]
        table.append(
            {
                "assumption": row.label,
                **{finding.claim: finding.here for finding in row.findings},
                "depends": ", ".join(row.dependent) or "none" if row.label != MAIN else "",
                "lanes": min(lanes, default=0),
                "run_ids": " ".join(row.evidence.run_ids.values()),
            }
        )
    return pd.DataFrame(table)


def reasons(rows: Sequence[Judged]) -> pd.DataFrame:
    """One row per assumption and claim: verdict, dependence, reason."""
    return pd.DataFrame(
        [
            {
                "assumption": row.label,
                "claim": finding.claim,
                "verdict": finding.verdict,
                "here": finding.here,
                "depends": "yes" if finding.claim in row.dependent else "no",
                "reason": finding.reason,
                "run_ids": " ".join(dict.fromkeys(run for effect in finding.effects for run in effect.run_ids)),
            }
            for row in rows
            for finding in row.findings
        ],
        columns=["assumption", "claim", "verdict", "here", "depends", "reason", "run_ids"],
    )
