"""What was tried, what it cost, what went wrong, what came of the claims."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from analysis import load
from analysis.load import RUN_COLUMNS, Sweep
from analysis.tables.frames import frame
from analysis.verdicts import Effect, Finding
from study import schema


def trials(sweeps: Iterable[Sweep]) -> pd.DataFrame:
    """Every trial of every sweep: how it ended, its settings, its summary."""
    first = ["sweep", "trial", "scenario", "method", "name", "outcome", "reason"]
    tables = [sweep.runs.assign(sweep=sweep.name) for sweep in sweeps if len(sweep.runs)]
    if not tables:
        return pd.DataFrame(columns=[*first, *(name for name in RUN_COLUMNS if name not in first)])
    together = pd.concat(tables, ignore_index=True)
    return together[[*first, *(column for column in together.columns if column not in first)]]


def budget(sweeps: Iterable[Sweep]) -> pd.DataFrame:
    """What each method of each scenario of each sweep was given and spent."""
    rows = []
    for sweep in sweeps:
        for group in sweep.plan["groups"]:
            runs = sweep.runs[(sweep.runs["scenario"] == group["scenario"]) & (sweep.runs["method"] == group["method"])]
            last = runs.get(schema.GRADIENT_EVALUATIONS, pd.Series(dtype=float)).fillna(0)
            seconds = (runs["ended"] - runs["started"]).dt.total_seconds()
            rows.append(
                {
                    "sweep": sweep.name,
                    "scenario": group["scenario"],
                    "method": group["method"],
                    "planned": group["trials"],
                    **{word: int((runs["outcome"] == word).sum()) for word in ("finished", "stopped", "failed")},
                    "other": int((~runs["outcome"].isin(["finished", "stopped", "failed"])).sum()),
                    "lanes": len(sweep.plan["seeds"]),
                    "tasks_trained": int(runs["tasks"].sum()),
                    "gradient_evaluations": float(last.sum() * len(sweep.plan["seeds"])),
                    "trial_hours": float(seconds.sum() / 3600),
                    "trials_with_diverged_lanes": int(
                        (runs.get(schema.DIVERGED_LANES, pd.Series(dtype=float)) > 0).sum()
                    ),
                    "run_id": sweep.run_id,
                }
            )
    return frame(
        rows,
        "sweep scenario method planned finished stopped failed other lanes tasks_trained gradient_evaluations trial_hours "
        "trials_with_diverged_lanes run_id",
    )


def diverged(sweeps: Iterable[Sweep]) -> pd.DataFrame:
    """The trials with diverged lanes."""
    rows = [
        {
            "sweep": sweep.name,
            "scenario": run["scenario"],
            "method": run["method"],
            "name": run["name"],
            "outcome": run["outcome"],
            "lanes_diverged": run[schema.DIVERGED_LANES],
            "lanes": len(run["seeds"]),
            "run_id": run["run_id"],
        }
        for sweep in sweeps
        for run in load.rows(sweep.runs)
        if run.get(schema.DIVERGED_LANES, 0) > 0
    ]
    return frame(rows, "sweep scenario method name outcome lanes_diverged lanes run_id")


def versions(sweeps: Iterable[Sweep]) -> pd.DataFrame:
    """Versions, commit and device of each sweep."""
    rows = []
    for sweep in sweeps:
        found = {
            name.removeprefix("version/"): text for name, text in sweep.tags.items() if name.startswith("version/")
        }
        devices = ", ".join(sorted(set(sweep.runs["device"]) - {""}))
        facts = {**found, "git commit": sweep.tags.get("git_commit", "unknown"), "devices": devices or "unknown"}
        rows += [
            {"sweep": sweep.name, "what": name, "version": text, "run_id": sweep.run_id} for name, text in facts.items()
        ]
    return frame(rows, "sweep what version run_id")


def claims(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row a claim."""
    columns = "claim statement criterion verdict here reason"
    return frame([{name: getattr(finding, name) for name in columns.split()} for finding in findings], columns)


def effects(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row an effect that a claim is judged by."""
    rows = [
        {
            "claim": finding.claim,
            "effect": effect.label,
            "mean": effect.interval.mean,
            "mean_low": effect.interval.low,
            "mean_high": effect.interval.high,
            "level": effect.interval.level,
            "lanes": effect.interval.lanes,
            "claimed_above": effect.low,
            "claimed_below": effect.high,
            **_proviso(effect),
            "outcome": effect.outcome,
            "lanes_needed": effect.lanes_needed,
            "run_ids": " ".join(effect.run_ids),
        }
        for finding in findings
        for effect in finding.effects
    ]
    return frame(
        rows,
        "claim effect mean mean_low mean_high level lanes claimed_above claimed_below proviso proviso_low proviso_high outcome "
        "lanes_needed run_ids",
    )


def _proviso(effect: Effect) -> dict[str, float]:
    """How much better the last tenth of the tasks is learnt by the method that is to have kept plasticity, where that counts."""
    if effect.proviso is None:
        return {}
    return {"proviso": effect.proviso.mean, "proviso_low": effect.proviso.low, "proviso_high": effect.proviso.high}
