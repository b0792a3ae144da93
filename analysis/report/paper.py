"""What a sweep says about the paper: its claims, its settings as curves and as a table, the differences between methods."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Final

import pandas as pd

from analysis import claims, evidence, load, tables
from analysis.evidence import Evidence
from analysis.figures import bands, comparisons
from analysis.load import Sweep
from analysis.report.page import Column, Draw, Picture, Section, Table

SCENARIOS: Final = {
    "permuted_pixels": "each task shows the same images with their pixels shuffled in a new order (domain-incremental)",
    "class_pairs": "each task is to tell two classes apart, the pairs always in the same order (class-incremental)",
}

SETTINGS_COLUMNS: Final = (
    Column("scenario", "scenario"),
    Column("name", "setting"),
    Column("lanes", "seeds", "count"),
    Column("accuracy", "mean test accuracy", "share"),
    Column("accuracy_iqm", "interquartile mean", "share"),
    Column("first_tenth", "first tenth", "share"),
    Column("last_tenth", "last tenth", "share"),
    Column("decline", "decline", "signed"),
    Column("slope", "slope per 100 tasks", "signed"),
    Column("lanes_diverged", "diverged seeds", "count"),
    Column("run_id", "run", "run"),
)

DIFFERENCE_COLUMNS: Final = (
    Column("scenario", "scenario"),
    Column("quantity", "quantity"),
    Column("first", "first"),
    Column("second", "second"),
    Column("difference", "first minus second", "signed"),
    Column("p", "p (sign flip)", "p"),
    Column("p_holm", "p (Holm)", "p"),
    Column("effect_size", "effect size (spreads)", "number"),
    Column("superiority", "seeds where first is higher (share)", "number"),
    Column("lanes", "seeds", "count"),
    Column("run_id_first", "run of first", "run"),
    Column("run_id_second", "run of second", "run"),
)


def judged(sweeps: Sequence[Sweep]) -> tuple[Sweep, Evidence]:
    """The sweep that can say most about the paper: the paper's experiment before another, more settings, then more lanes."""

    def weight(found: tuple[Sweep, Evidence]) -> tuple[bool, int, int]:
        lanes = [table.shape[1] for table in found[1].accuracy.values()]
        return bool(lanes) and not found[1].stated, len(lanes), min(lanes, default=0)

    return max(((sweep, evidence.gather(sweep)) for sweep in sweeps), key=weight)


def section_claims(sweep: Sweep, found: Evidence) -> Section:
    """The claims with their verdicts, and the effects that they were judged by."""
    findings = claims.findings(found)
    words: list[str | tuple[str, ...]] = [
        "The paper (Koster and Kukla 2024, arXiv 2409.17300) makes seven claims. Each is judged here by the sweep "
        f"`{sweep.name}` with a criterion that was written down before any result of the paper's grid was seen. "
        "One margin tells small "
        f"from noticeable: {claims.MARGIN:g}, one percentage point of test accuracy. A claim is *reproduced* when the "
        "intervals of all its effects lie within the bounds that it sets, *contradicted* when one lies beyond, and "
        "*undecided* otherwise."
    ]
    if not found.accuracy:
        words.append(
            f"None of the paper's settings has finished in `{sweep.name}`, so no claim can be judged; run `study run paper_grid`."
        )
    if found.stated:
        words.append(
            "This is not the paper's experiment: "
            + "; ".join(found.stated)
            + ". So no claim is decided here; the column *here* "
            "tells what the criterion says of this sweep's own data and tasks."
        )
    if found.assumed:
        words.append(
            "Where the paper says nothing, this sweep differs from what the study assumes: "
            + "; ".join(found.assumed)
            + "."
        )
    if found.passed_over:
        words += ["Left out of the claims:", found.passed_over]
    claim_table = Table(
        "claims",
        "The paper's claims.",
        tables.claims(findings),
        (
            Column("claim", "claim"),
            Column("statement", "what the paper says"),
            Column("criterion", "when it counts as reproduced"),
            Column("verdict", "verdict", "verdict"),
            *((Column("here", "here", "verdict"),) if found.stated else ()),
            Column("reason", "why"),
        ),
    )
    effect_table = Table(
        "effects",
        "The effects that the claims are judged by, each a mean over seeds with an interval; the intervals of one "
        "claim hold together at 95 %.",
        tables.effects(findings),
        (
            Column("claim", "claim"),
            Column("effect", "effect"),
            Column("mean", "mean", "signed"),
            Column("claimed_above", "claimed above", "number"),
            Column("claimed_below", "claimed below", "number"),
            Column("proviso", "last tenth: second minus first", "signed"),
            Column("outcome", "outcome", "verdict"),
            Column("lanes", "seeds", "count"),
            Column("lanes_needed", "seeds that would tell", "count"),
            Column("run_ids", "runs", "run"),
        ),
        folded=True,
    )
    blocks = (claim_table, effect_table) if len(effect_table.frame) else (claim_table,)
    return Section("claims", "The paper's claims", tuple(words), blocks)


def section_settings(sweep: Sweep, found: Evidence) -> Section:
    """The paper's settings: accuracy of each task, the table of numbers, the differences between methods."""
    words: list[str | tuple[str, ...]] = [
        f"The paper's two figures: the test accuracy of each task for its six settings, from the sweep `{sweep.name}`. "
        "A line that falls from left to right is a network that loses plasticity."
    ]
    if not found.accuracy:
        return Section("paper", "The paper's settings", ("None of the paper's settings has finished here.",))
    runs = sweep.finished[sweep.finished["run_id"].isin(list(found.run_ids.values()))]
    blocks: list[Table | Picture] = list(accuracy_pictures("paper", sweep, runs))
    blocks.append(
        Table(
            "paper_settings",
            "The paper's settings, over all tasks, with 95 % intervals.",
            tables.settings(sweep, runs),
            SETTINGS_COLUMNS,
        )
    )
    differences = tables.paper_differences(sweep, found)
    blocks += difference_blocks("paper_differences", "methods at equal learning rate", differences)
    return Section("paper", "The paper's settings", tuple(words), tuple(blocks))


def accuracy_pictures(name: str, sweep: Sweep, runs: pd.DataFrame) -> list[Picture]:
    """For each scenario the test accuracy of each task of these runs, with intervals over lanes."""
    pictures = []
    for scenario in dict.fromkeys(runs["scenario"]):
        chosen = load.rows(runs[runs["scenario"] == scenario])
        drawn = []
        for run in chosen:
            table = tables.per_task(sweep, run["run_id"])
            columns = (table[column].tolist() for column in ("accuracy", "accuracy_low", "accuracy_high"))
            drawn.append(bands.Band(run["name"], run["method"], *columns))
        lanes = sorted({len(run["seeds"]) for run in chosen})
        what = SCENARIOS.get(chosen[0]["tasks/name"], "")
        pictures.append(
            Picture(
                f"{name}-{scenario}",
                f"{scenario}: {what + '. ' if what else ''}Test accuracy at the end of each task; lines are means over "
                f"{' or '.join(map(str, lanes))} seeds, bands their 95 % t intervals.",
                _bands(f"{scenario}: test accuracy of each task", drawn),
                tuple(run["run_id"] for run in chosen),
            )
        )
    return pictures


def _bands(title: str, drawn: Sequence[bands.Band]) -> Draw:
    return lambda path, size: bands.accuracy_by_task(path, title, drawn, size)


def difference_blocks(name: str, what: str, differences: pd.DataFrame) -> list[Table | Picture]:
    """A family of paired differences as pictures, one for each scenario and quantity, and as a table."""
    if not len(differences):
        return []
    blocks: list[Table | Picture] = []
    for scenario, quantity in product(dict.fromkeys(differences["scenario"]), tables.QUANTITIES):
        found = load.rows(differences[(differences["scenario"] == scenario) & (differences["quantity"] == quantity)])
        drawn = [
            comparisons.Difference(
                f"{row['first']} minus {row['second']}",
                row["difference"],
                row["difference_low"],
                row["difference_high"],
                row["p_holm"],
            )
            for row in found
        ]
        blocks.append(
            Picture(
                f"{name}-{scenario}-{quantity.replace(' ', '_')}",
                f"{scenario}: paired differences in {quantity}, seed by seed, with 95 % t intervals; {what}. In the "
                f"shaded band a difference is below the margin of {claims.MARGIN:g}; p is after Holm's correction.",
                _differences(f"{scenario}: differences in {quantity}, first minus second", "share", drawn),
                tuple(dict.fromkeys(run for row in found for run in (row["run_id_first"], row["run_id_second"]))),
            )
        )
    caption = (
        f"Paired differences between {what}. p: exact two-sided sign-flip test over the seeds, also after Holm's "
        f"correction for all {len(differences)} rows of this table. Effect size: mean difference in units of its spread "
        "over seeds (Hedges' g)."
    )
    return [*blocks, Table(name, caption, differences, DIFFERENCE_COLUMNS, folded=True)]


def _differences(title: str, unit: str, drawn: Sequence[comparisons.Difference]) -> Draw:
    return lambda path, size: comparisons.differences(path, title, drawn, unit, claims.MARGIN, size)
