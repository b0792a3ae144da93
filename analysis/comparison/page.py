"""The page on several sweeps, and its sentences."""

from __future__ import annotations

import math
from typing import Any, Final

import pandas as pd

from analysis import load, sample, statistics
from analysis.comparison.contrasts import QUANTITIES
from analysis.comparison.matching import Matching, differing
from analysis.figures import charts, comparisons
from analysis.paper.claims import ALPHA, MARGIN
from analysis.report.page import Column, Draw, Page, Picture, Section, Table, is_missing, joined, written

NONE: Final = "–"
"""What is shown where there is nothing to compare."""

NOTE: Final = "The intervals of the differences hold together at 95 %, and so do those of their changes."

ANSWERS: Final = {
    "larger": f"larger by more than {MARGIN:g}",
    "smaller": f"smaller by more than {MARGIN:g}",
    "alike": f"alike, within {MARGIN:g}",
    "open": "open",
}
"""How a difference to the baseline changes, in words."""

LEGEND: Final = (
    "In brackets: 95 % t intervals over seeds; those of a column of differences or changes hold together (Bonferroni), and p is "
    "after Holm's correction for the column. A change is the difference in this sweep minus that in the first one, seed by seed "
    f"where seeds are shared; its answer is by a margin of {MARGIN:g}."
)


def make(matching: Matching, quantity: str, table: pd.DataFrame) -> Page:
    """The page about a comparison.

    `table` is `contrasts.frame` of the same matching and quantity.
    """
    names = list(matching.sweeps)
    what = QUANTITIES[quantity].words
    subtitle = (
        f"{what[0].upper()}{what[1:]}: each method against {matching.baseline}, and how that differs between sweeps."
    )
    results: list[str | tuple[str, ...]] = [tuple(sentences(matching, table))]
    blocks: list[Table | Picture] = [*_pictures(matching, quantity, table), _table(matching, quantity, table)]
    if len(differences := differing(matching)):
        caption = (
            "What the sweeps differ in. What is not here is the same in all of them, but for what every sweep varies."
        )
        columns = (Column("what", "what"), *(Column(name, name) for name in names))
        blocks.append(Table("differing", caption, differences, columns))
    else:
        results.append("Settings, seeds, versions and devices are the same in all sweeps.")
    return Page(
        f"Plasticity study: {joined(names)} compared",
        subtitle,
        (
            Section("summary", "In short", tuple(results), tuple(blocks)),
            Section("method", "How this was computed", _method(matching, quantity)),
        ),
    )


def sentences(matching: Matching, table: pd.DataFrame) -> list[str]:
    """The results, then what to know of the sweeps."""
    results = []
    before = {(row["scenario"], row["name"]): row for row in load.rows(table) if row["sweep"] == matching.reference}
    for row in load.rows(table[table["change"].notna()]):
        first = before[row["scenario"], row["name"]]
        results.append(
            f"{row['name']} minus {matching.baseline}, {row['scenario']}: {first['difference']:+.4f} in "
            f"`{matching.reference}` and {row['difference']:+.4f} in `{row['sweep']}`. The change is "
            f"{bounded(row, 'change')}, {paired_words(row)}: {ANSWERS[row['answer']]}."
        )
    if not results:
        results = [f"No method has a difference to {matching.baseline} in `{matching.reference}` and in another sweep."]
    return [*sample.few(results, "of this kind"), *matching.notes, *too_few(table)]


def bounded(row: dict[str, Any], name: str, sign: str = "+") -> str:
    """A number with its interval; a dash for none."""
    if is_missing(row[name]):
        return NONE
    if is_missing(row[f"{name}_low"]):
        return f"{row[name]:{sign}.4f} [unknown]"
    return f"{row[name]:{sign}.4f} [{row[f'{name}_low']:{sign}.4f}, {row[f'{name}_high']:{sign}.4f}]"


def p_words(row: dict[str, Any], name: str) -> str:
    """An adjusted p-value; a dash for none."""
    value = row[f"{name}_p_holm"]
    return NONE if is_missing(value) else written("p", float(value))


def paired_words(row: dict[str, Any]) -> str:
    """Over which seeds a change is taken."""
    return (
        "unpaired, no seeds shared" if is_missing(row["change_pairs"]) else f"paired over {row['change_pairs']} seeds"
    )


def too_few(table: pd.DataFrame) -> list[str]:
    """A sentence if no paired change can be significant."""
    tested = table[table["change_p"].notna()]
    least = statistics.least_lanes(ALPHA / max(1, len(tested)))
    pairs = tested["change_pairs"].dropna()
    if not len(pairs) or pairs.max() >= least:
        return []
    return [
        f"With {int(pairs.max())} shared seeds no paired change can be significant, however large: {len(tested)} comparisons at "
        f"level {ALPHA:g} take at least {least} seeds."
    ]


def _table(matching: Matching, quantity: str, table: pd.DataFrame) -> Table:
    against, first = matching.baseline, matching.reference
    shown = table.assign(
        answer_words=table["answer"].map(ANSWERS),
        paired=[NONE if is_missing(row["change"]) else paired_words(row) for row in load.rows(table)],
        run_ids=[f"{row['run_id']} {row['run_id_baseline']}".strip() for row in load.rows(table)],
    )
    several = table["scenario"].nunique() > 1
    is_share = quantity in ("accuracy", "late_accuracy")
    columns = (
        *((Column("scenario", "scenario"),) if several else ()),
        Column("setting", "method and setting"),
        Column("sweep", "sweep"),
        Column("lanes", "seeds", "count"),
        Column(quantity, QUANTITIES[quantity].short, "share" if is_share else "signed"),
        Column("difference", f"minus {against}", "signed", NONE),
        Column("difference_p_holm", "its p (Holm)", "p", NONE),
        Column("change", f"minus {against}, change from {first}", "signed", NONE),
        Column("change_p_holm", "p of the change (Holm)", "p", NONE),
        Column("answer_words", "answer", absent=NONE),
        Column("paired", "seeds of the change"),
        Column(f"change_of_{quantity}", f"{QUANTITIES[quantity].short} minus that in {first}", "signed", NONE),
        Column("run_ids", f"runs: own, {against}", "run"),
    )
    scenario = "" if several else f" Scenario: {table['scenario'].iloc[0]}."
    what = QUANTITIES[quantity].words
    caption = (
        f"{what[0].upper()}{what[1:]}, with 95 % t intervals over seeds; its "
        f"difference to {against} in the same sweep; and the change of that difference from `{first}`. The intervals of a column "
        "of differences or changes hold together at 95 % (Bonferroni), and p is adjusted for all rows of its column (Holm)."
        f"{scenario}"
    )
    return Table("comparison", caption, shown, columns)


def _pictures(matching: Matching, quantity: str, table: pd.DataFrame) -> list[Picture]:
    """A figure for each scenario, of what can be drawn."""
    pictures = []
    for scenario in dict.fromkeys(table["scenario"]):
        own = table[(table["scenario"] == scenario) & table["difference"].notna()]
        titles = list(dict.fromkeys(own["name"]))
        shown = own[own["name"].isin(titles[: sample.MOST_SENTENCES])]
        if not len(shown):
            continue
        left_out = len(titles) - sample.MOST_SENTENCES
        caption = (
            f"{scenario}: {QUANTITIES[quantity].short} of each method minus that of {matching.baseline}, in each sweep, and how "
            "the difference changes between sweeps. p is after Holm's correction."
            + (
                f" The first {sample.MOST_SENTENCES} of {len(titles)} settings; the table has all."
                if left_out > 0
                else ""
            )
        )
        runs = [run for row in load.rows(shown) for run in (row["run_id"], row["run_id_baseline"])]
        title = f"{scenario}: {QUANTITIES[quantity].short} against {matching.baseline}, sweep by sweep"
        drawn = _rows(matching, shown)
        chart = charts.differences(drawn, "share", MARGIN, NOTE)
        pictures.append(
            Picture(f"comparison-{scenario}", caption, _forest(title, drawn), tuple(dict.fromkeys(runs)), chart)
        )
    return pictures


def _forest(title: str, drawn: list[comparisons.Difference]) -> Draw:
    return lambda path, size: comparisons.differences(path, title, drawn, "share", MARGIN, size, NOTE)


def _rows(matching: Matching, table: pd.DataFrame) -> list[comparisons.Difference]:
    """Differences and their changes, method by method."""
    drawn = []
    for name in dict.fromkeys(table["name"]):
        rows = load.rows(table[table["name"] == name])
        what = f"{name} minus {matching.baseline}"
        drawn += [_drawn(f"{what}: {row['sweep']}", row, "difference") for row in rows]
        drawn += [
            _drawn(f"{what}, change: {row['sweep']} minus {matching.reference}", row, "change")
            for row in rows
            if not is_missing(row["change"])
        ]
    return drawn


def _drawn(label: str, row: dict[str, Any], name: str) -> comparisons.Difference:
    numbers = [row[f"{name}{end}"] for end in ("", "_low", "_high", "_p_holm")]
    return comparisons.Difference(label, *(math.nan if is_missing(number) else float(number) for number in numbers))


def _method(matching: Matching, quantity: str) -> tuple[str, ...]:
    chosen = (
        "The winner of each method stands for it: the trial confirmed as the first, or else the best by the objective of its "
        "sweep. So the same method may have other settings in another sweep; the table names them."
        if matching.is_selected
        else "Not every sweep has selected trials, so settings are compared one by one: trials of the same method with the same "
        "values of all that any of the sweeps varies."
    )
    return (
        f"{chosen} Each seed is one number, its {QUANTITIES[quantity].words}; intervals are over seeds (Student's t).",
        f"Within a sweep, a method is compared with {matching.baseline} seed by seed. Two sweeps that share seeds are compared "
        "seed by seed too, over the shared ones, by exact sign-flip tests: a seed decides the initial weights and the random "
        "draws of the tasks, so what is common to both cancels. Sweeps that do not share two seeds are compared as independent "
        "(Welch's t test), which is less sharp.",
        f"A change is called *larger* or *smaller* if its interval lies beyond the margin of {MARGIN:g}, one percentage point, "
        f"*alike* if it lies within the margin, and *open* otherwise, or with fewer than {statistics.least_lanes(ALPHA)} seeds.",
        "A change says that a method's advantage differs between the sweeps, not why: look at all that differs.",
    )
