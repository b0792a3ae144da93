"""The answer in short: three sentences, one figure, one table.

It is about the user's own comparison: the confirmed winners of each method, else the best of each. A sweep that selects nothing
shows the paper's settings, or its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from analysis import load, statistics, tables
from analysis import tuned as tuned_methods
from analysis.figures import charts, comparisons
from analysis.load import Sweep
from analysis.paper import claims
from analysis.paper.evidence import Evidence
from analysis.report import decided
from analysis.report.page import Column, Draw, Picture, Section, Table, joined
from analysis.report.paper import out_of_reach, verdicts
from analysis.settings import BASELINE

MOST_ROWS: Final = 24
"""The most settings in the first figure and table."""

UNIT: Final = "mean test accuracy over all tasks (share)"

COLUMNS: Final = (
    Column("sweep", "sweep"),
    Column("scenario", "scenario"),
    Column("name", "setting"),
    Column("lanes", "seeds", "count"),
    Column("accuracy", "mean test accuracy", "share"),
    Column("last_tenth", "last tenth", "share"),
    Column("decline_after_warmup", "decline after warm-up", "signed"),
    Column("run_id", "run", "run"),
)


@dataclass(frozen=True)
class Compared:
    """The settings that the page is about.

    Attributes:
        what: what they are, for titles and captions.
        runs: of each sweep.
        is_confirmed, is_selected: whether they are winners on fresh seeds, and whether they are the best by the objective.
    """

    what: str
    runs: Sequence[tuple[Sweep, pd.DataFrame]]
    is_confirmed: bool = False
    is_selected: bool = False

    @property
    def places(self) -> list[tuple[Sweep, str, pd.DataFrame]]:
        """The runs of each sweep and scenario."""
        return [
            (sweep, scenario, runs[runs["scenario"] == scenario])
            for sweep, runs in self.runs
            for scenario in dict.fromkeys(runs["scenario"])
        ]

    def named(self, sweep: Sweep, scenario: str) -> str:
        """A scenario, with its sweep where there are several."""
        return f"{scenario} (`{sweep.name}`)" if len(self.runs) > 1 else scenario


def compared(tuned: Sweep, confirmations: Sequence[Sweep], judgement: tuple[Sweep, Evidence] | None) -> Compared:
    """What the page leads with.

    The arguments are those of `section_summary`.
    """
    winners = [(sweep, sweep.finished[sweep.finished["selected_rank"] == 1]) for sweep in confirmations]
    if winners := [(sweep, runs) for sweep, runs in winners if len(runs)]:
        return Compared(
            "the best of each method, confirmed on fresh seeds", winners, is_confirmed=True, is_selected=True
        )
    if len(best := tables.best(tuned)):
        what = "the best of each method, on the seeds that they were chosen by"
        return Compared(what, [(tuned, best)], is_selected=True)
    if judgement and judgement[1].accuracy:
        judge, evidence = judgement
        runs = judge.finished[judge.finished["run_id"].isin(list(evidence.run_ids.values()))]
        return Compared("the paper's settings", [(judge, runs)])
    return Compared("all settings", [(tuned, tables.shown(tuned))] if len(tuned.finished) else [])


def section_summary(tuned: Sweep, confirmations: Sequence[Sweep], judgement: tuple[Sweep, Evidence] | None) -> Section:
    """The answer in three sentences, one figure and one table.

    Args:
        tuned: the sweep.
        confirmations: of its winners.
        judgement: the sweep that judges the paper's claims, with its evidence; None if no claim is judged.
    """
    shown = compared(tuned, confirmations, judgement)
    frames = [tables.settings(sweep, runs) for sweep, runs in shown.runs]
    if not frames:
        return Section("summary", "In short", (("No trial has finished, so there is nothing to compare yet.",),))
    whole = pd.concat(frames, ignore_index=True)
    frame = whole.sort_values("accuracy", ascending=False, kind="stable").head(MOST_ROWS).sort_index()
    own_sweep = frame["sweep"].nunique() > 1
    columns = tuple(column for column in COLUMNS if column.key != "sweep" or own_sweep)
    of_all = f" Of {len(whole)} settings, the {len(frame)} most accurate are shown." if len(frame) < len(whole) else ""
    sweeps = {sweep.name: sweep for sweep, _ in shown.runs}
    drawn = [_score(sweeps[str(row["sweep"])], row, frame) for row in load.rows(frame)]
    title = shown.what[0].upper() + shown.what[1:]
    picture = Picture(
        "answer",
        f"{title}: test accuracy over all tasks, with 95 % t intervals over seeds.{of_all}",
        _drawn(title, drawn),
        tuple(frame["run_id"]),
        charts.scores(drawn, UNIT),
    )
    table = Table("answer", f"{title}, with 95 % intervals.{of_all}", whole, columns, rows=frame)
    sentences = (
        _best(shown, whole),
        _differ(tuned, confirmations, shown, judgement),
        _kept(confirmations, whole, shown),
    )
    return Section("summary", "In short", (sentences,), (picture, table))


def _score(sweep: Sweep, row: dict[str, object], frame: pd.DataFrame) -> comparisons.Score:
    run = str(row["run_id"])
    table = sweep.accuracy(run)
    lanes = statistics.mean_accuracy(table.to_numpy(dtype=float))
    place = [str(row[name]) for name in ("scenario", "sweep") if frame[name].nunique() > 1]
    label = str(row["name"]) + (f", {joined(place)}" if place else "")
    mean, low, high = (float(str(row[name])) for name in ("accuracy", "accuracy_low", "accuracy_high"))
    seeds = {int(seed): float(value) for seed, value in zip(table.columns, lanes, strict=True)}
    return comparisons.Score(label, str(row["method"]), mean, low, high, seeds)


def _drawn(title: str, drawn: Sequence[comparisons.Score]) -> Draw:
    return lambda path, size: comparisons.scores(path, title, drawn, UNIT, size)


def _best(shown: Compared, frame: pd.DataFrame) -> str:
    """Which setting is the most accurate, and the next."""
    found = []
    for sweep, scenario, runs in shown.places:
        own = frame[frame["run_id"].isin(runs["run_id"])].sort_values("accuracy", ascending=False, kind="stable")
        first, *others = load.rows(own.head(2))
        bounds = f" [{first['accuracy_low']:.4f}, {first['accuracy_high']:.4f}]" if first["lanes"] > 1 else ""
        words = f"{shown.named(sweep, scenario)}: {first['name']} with {first['accuracy']:.4f}{bounds}"
        found.append(words + "".join(f", before {next_['name']} with {next_['accuracy']:.4f}" for next_ in others))
    where = " on fresh seeds" if shown.is_confirmed else " on the seeds of the search" if shown.is_selected else ""
    return f"The highest mean test accuracy{where}, {'; '.join(found)}."


def _differ(
    tuned: Sweep, confirmations: Sequence[Sweep], shown: Compared, judgement: tuple[Sweep, Evidence] | None
) -> str:
    """Whether the differences between methods hold."""
    if not shown.is_selected:
        if shown.runs and judgement and judgement[1].accuracy:
            return verdicts(*judgement)
        return "Nothing was selected: there is no trial with an objective."
    if not shown.is_confirmed:
        again = "" if confirmations else f": `study confirm {tuned.name}`"
        return f"The best of each method has not been confirmed on fresh seeds yet{again}."
    return " ".join(decided.sentence(sweep) or differences(sweep) for sweep, _ in shown.runs)


def differences(confirmation: Sweep) -> str:
    """The winners' differences that hold after Holm's correction."""
    found = tables.winners_differences(confirmation)
    if not len(found):
        return f"`{confirmation.name}` has one winner only, so there is nothing to compare."
    significant = load.rows(found[found["p_holm"] < claims.ALPHA])
    if not significant:
        return (
            f"No difference between the methods' winners in `{confirmation.name}`, in mean accuracy or in decline, can be "
            f"distinguished from chance ({len(found)} paired comparisons, sign-flip tests, Holm's correction at "
            f"{claims.ALPHA:g})." + (f" {note}" if (note := out_of_reach(found)) else "")
        )
    words = [
        f"{row['scenario']}: {row['quantity']} of {row['first']} minus {row['second']} {row['difference']:+.4f} (p "
        f"{'< 0.001' if row['p_holm'] < 0.001 else format(row['p_holm'], '.3f')})"
        for row in sorted(significant, key=lambda row: -abs(row["difference"]))
    ]
    more = f" and {len(words) - 3} smaller ones" if len(words) > 3 else ""
    return (
        f"Of {len(found)} differences between winners in `{confirmation.name}`, {len(words)} "
        f"{'holds' if len(words) == 1 else 'hold'} after Holm's correction: {'; '.join(words[:3])}{more}."
    )


def _kept(confirmations: Sequence[Sweep], frame: pd.DataFrame, shown: Compared) -> str:
    """Whether any method keeps plasticity."""
    found = tuned_methods.against_baseline(confirmations) if shown.is_confirmed else []
    if found:
        by_method: dict[str, list[tuned_methods.Contrast]] = {}
        for contrast in found:
            by_method.setdefault(contrast.first, []).append(contrast)
        answers = "; ".join(tuned_methods.conclusion(contrasts) for contrasts in by_method.values())
        question = (
            f"Does any method keep plasticity better than {BASELINE}, by more than {claims.MARGIN:g} of late accuracy?"
        )
        return f"{question} {answers[0].upper()}{answers[1:]}."
    known = frame[frame["decline_after_warmup"].notna()].sort_values("decline_after_warmup", kind="stable")
    if not len(known):
        return "The sequence is too short for a decline after warm-up."
    least, most = (load.rows(known)[place] for place in (0, -1))
    if least["run_id"] == most["run_id"] or math.isclose(least["decline_after_warmup"], most["decline_after_warmup"]):
        return f"The decline after warm-up is {least['decline_after_warmup']:+.4f}; above 0, later tasks were learnt worse."
    return (
        f"The decline after warm-up, above 0 where later tasks were learnt worse, is from {least['decline_after_warmup']:+.4f} "
        f"({least['name']}, {least['scenario']}) to {most['decline_after_warmup']:+.4f} ({most['name']}, {most['scenario']})."
    )
