"""The paper's claims and settings, judged by a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Final

import pandas as pd

from analysis import load, sample, statistics, tables
from analysis.figures import accuracy, charts, comparisons
from analysis.load import Sweep
from analysis.paper import claims
from analysis.paper.evidence import Evidence, gather, is_about_the_paper
from analysis.report.page import Column, Draw, Picture, Section, Table, count, joined
from analysis.settings import BASELINE

SCENARIOS: Final = {
    "permuted_pixels": "each task shows the same images with their pixels in a new random order (domain-incremental)",
    "class_pairs": "each task is to tell two classes apart with one shared head; the pairs always come in the same order "
    "(domain-incremental; class-incremental in the paper's words)",
    "class_splits": "each task is to tell the next classes apart, and there may be more of them in one task than in another",
    "permuted_labels": "each task shows the same images with their labels dealt out anew, to be learnt by heart; test "
    "accuracy is measured on images that were trained on",
}
"""What a task sequence is, by its name."""

PAPER_WORD: Final = "; class-incremental in the paper's words"
"""Of no interest where the sweep is about something else."""

SETTINGS_COLUMNS: Final = (
    Column("scenario", "scenario"),
    Column("name", "setting"),
    Column("lanes", "seeds", "count"),
    Column("accuracy", "mean test accuracy", "share"),
    Column("first_tenth", "first tenth", "share"),
    Column("last_tenth", "last tenth", "share"),
    Column("decline", "decline", "signed"),
    Column("decline_after_warmup", "decline after warm-up", "signed"),
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
    Column("effect_size", "effect size (standard deviations)", "number"),
    Column("superiority", "seeds where first is higher (share)", "number"),
    Column("lanes", "seeds", "count"),
    Column("run_id_first", "run of first", "run"),
    Column("run_id_second", "run of second", "run"),
)


def scenario_words(tasks: str, sweep: Sweep) -> str:
    """What a task sequence of the study is, otherwise ""."""
    words = SCENARIOS.get(tasks, "")
    return words if is_about_the_paper(sweep) else words.replace(PAPER_WORD, "")


def judged(sweeps: Sequence[Sweep]) -> tuple[Sweep, Evidence]:
    """The sweep that says most about the paper.

    With its evidence. The paper's own experiment comes before others, then more settings, then more lanes.
    """

    def weight(candidate: tuple[Sweep, Evidence]) -> tuple[bool, int, int]:
        _, evidence = candidate
        lanes = [table.shape[1] for table in evidence.accuracy.values()]
        return bool(lanes) and not evidence.stated, len(lanes), min(lanes, default=0)

    return max(((sweep, gather(sweep)) for sweep in sweeps), key=weight)


def verdicts(judge: Sweep, evidence: Evidence) -> str:
    """The verdicts on the paper's claims, in a sentence."""
    findings = claims.findings(evidence)
    by_verdict = {
        verdict: [finding.claim for finding in findings if finding.verdict == verdict]
        for verdict in ("reproduced", "contradicted", "undecided")
    }
    words = [f"{joined(names)} {verdict}" for verdict, names in by_verdict.items() if names]
    because = ", since this is not the paper's experiment" if evidence.stated else ""
    return f"The paper's claims, judged by `{judge.name}`: {'; '.join(words)}{because}."


def section_claims(sweep: Sweep, evidence: Evidence) -> Section:
    """The claims with their verdicts and effects."""
    findings = claims.findings(evidence)
    words: list[str | tuple[str, ...]] = [
        verdicts(sweep, evidence),
        "The paper (Koster and Kukla 2024, arXiv 2409.17300) makes seven claims. Each is judged here by the sweep "
        f"`{sweep.name}` with a criterion that was written down before any result of the paper's grid was seen. "
        f"One margin separates small from noticeable: {claims.MARGIN:g}, one percentage point of test accuracy. A claim "
        "is *reproduced* if the intervals of all its effects lie within the bounds it sets, *contradicted* if one lies "
        "beyond them, and *undecided* otherwise. A decline in them is that of the first tenth of the tasks; the decline after "
        "warm-up judges no claim, since the criteria are older.",
    ]
    if not evidence.accuracy:
        words.append(
            f"None of the paper's settings has finished in `{sweep.name}`, so no claim can be judged; run `study run paper_grid`."
        )
    if evidence.stated:
        words.append(
            "This is not the paper's experiment: "
            + "; ".join(evidence.stated)
            + ". So no claim is decided here; the column *here* "
            "shows the criterion's result on this sweep's own data and tasks."
        )
    if evidence.assumed:
        words.append(
            "Where the paper says nothing, this sweep departs from the study's assumptions: "
            + "; ".join(evidence.assumed)
            + "."
        )
    if evidence.passed_over:
        words += ["Not used for the claims:", tuple(sample.few(evidence.passed_over, "trials like these"))]
    claim_table = Table(
        "claims",
        "The paper's claims.",
        tables.claims(findings),
        (
            Column("claim", "claim"),
            Column("statement", "what the paper says"),
            Column("criterion", "criterion for reproduced"),
            Column("verdict", "verdict", "verdict"),
            *((Column("here", "here", "verdict"),) if evidence.stated else ()),
            Column("reason", "why"),
        ),
    )
    effect_table = Table(
        "effects",
        "The effects that the claims are judged by, each a mean over seeds with its interval; the intervals of one "
        "claim hold jointly at 95 %.",
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
            Column("lanes_needed", "seeds needed to decide", "count"),
            Column("run_ids", "runs", "run"),
        ),
        folded=True,
    )
    blocks = (claim_table, effect_table) if len(effect_table.frame) else (claim_table,)
    return Section("claims", "The paper's claims", tuple(words), blocks)


def section_settings(sweep: Sweep, evidence: Evidence) -> Section:
    """The paper's settings: curves, numbers, differences between methods."""
    words: list[str | tuple[str, ...]] = [
        f"The paper's two figures: test accuracy on each task for its six settings, from the sweep `{sweep.name}`. "
        "A line that falls from left to right shows a network losing plasticity."
    ]
    if not evidence.accuracy:
        return Section("paper", "The paper's settings", ("None of the paper's settings has finished here.",))
    runs = sweep.finished[sweep.finished["run_id"].isin(list(evidence.run_ids.values()))]
    blocks: list[Table | Picture] = [*accuracy_pictures("paper", sweep, runs), *_gap_pictures(sweep, evidence)]
    blocks.append(
        Table(
            "paper_settings",
            "The paper's settings, over all tasks, with 95 % intervals.",
            tables.settings(sweep, runs),
            SETTINGS_COLUMNS,
        )
    )
    differences = tables.paper_differences(sweep, evidence)
    blocks += difference_blocks("paper_differences", "methods at equal learning rate", differences)
    return Section("paper", "The paper's settings", tuple(words), tuple(blocks))


def accuracy_pictures(name: str, sweep: Sweep, runs: pd.DataFrame) -> list[Picture]:
    """Test accuracy of the runs per task, by scenario."""
    pictures = []
    for scenario in dict.fromkeys(runs["scenario"]):
        chosen = load.rows(runs[runs["scenario"] == scenario])
        drawn = []
        for run in chosen:
            table = tables.per_task(sweep, run["run_id"])
            mean, low, high = (table[column].tolist() for column in ("accuracy", "accuracy_low", "accuracy_high"))
            lanes = lanes_of(sweep, run["run_id"])
            drawn.append(accuracy.Band(run["name"], run["method"], mean, low, high, lanes))
        counts = sorted({len(run["seeds"]) for run in chosen})
        what = scenario_words(chosen[0]["tasks/name"], sweep)
        pictures.append(
            Picture(
                f"{name}-{scenario}",
                f"{scenario}: {what + '. ' if what else ''}Test accuracy at the end of each task; lines are means over "
                f"{' or '.join(map(str, counts))} seeds, bands their 95 % t intervals.",
                _bands(f"{scenario}: test accuracy of each task", drawn),
                tuple(run["run_id"] for run in chosen),
                charts.accuracy_by_task(drawn),
            )
        )
    return pictures


def lanes_of(sweep: Sweep, run_id: str) -> dict[int, list[float]]:
    """Test accuracy of a run by its seed, [task]."""
    table = sweep.accuracy(run_id)
    return {int(seed): table[seed].tolist() for seed in table.columns}


def _gap_pictures(sweep: Sweep, evidence: Evidence) -> list[Picture]:
    """Test accuracy minus SGD's per task, by scenario and learning rate."""
    pictures = []
    for baseline, baseline_id in evidence.run_ids.items():
        if baseline.method != BASELINE:
            continue
        drawn, run_ids = [], [baseline_id]
        for setting, run_id in evidence.run_ids.items():
            if (setting.tasks, setting.lr) != (baseline.tasks, baseline.lr) or setting == baseline:
                continue
            table = tables.difference_per_task(sweep, run_id, baseline_id)
            if len(table):
                mean, low, high = (table[n].tolist() for n in ("difference", "difference_low", "difference_high"))
                drawn.append(accuracy.Band(setting.method.upper(), setting.method, mean, low, high))
                run_ids.append(run_id)
        if drawn:
            pictures.append(
                Picture(
                    f"paper-{baseline.tasks}-lr_{baseline.lr:g}-minus_sgd",
                    f"{baseline.tasks}, learning rate {baseline.lr:g}: test accuracy on each task minus that of SGD with the "
                    "same learning rate, seed by seed; lines are means over seeds, bands their 95 % t intervals.",
                    _gaps(f"{baseline.tasks}, learning rate {baseline.lr:g}: difference from SGD", drawn),
                    tuple(run_ids),
                    charts.difference_by_task(drawn, BASELINE.upper()),
                )
            )
    return pictures


def _gaps(title: str, drawn: Sequence[accuracy.Band]) -> Draw:
    return lambda path, size: accuracy.difference_by_task(path, title, drawn, BASELINE.upper(), size)


def _bands(title: str, drawn: Sequence[accuracy.Band]) -> Draw:
    return lambda path, size: accuracy.accuracy_by_task(path, title, drawn, size)


def difference_blocks(name: str, what: str, differences: pd.DataFrame) -> list[Table | Picture]:
    """Paired differences as figures and a table.

    One figure per scenario and quantity.
    """
    if not len(differences):
        return []
    note = out_of_reach(differences)
    blocks: list[Table | Picture] = []
    for scenario, quantity in product(dict.fromkeys(differences["scenario"]), tables.QUANTITIES):
        rows = load.rows(differences[(differences["scenario"] == scenario) & (differences["quantity"] == quantity)])
        drawn = [
            comparisons.Difference(
                f"{row['first']} minus {row['second']}",
                row["difference"],
                row["difference_low"],
                row["difference_high"],
                row["p_holm"],
            )
            for row in rows
        ]
        blocks.append(
            Picture(
                f"{name}-{scenario}-{quantity.replace(' ', '_')}",
                f"{scenario}: paired differences in {quantity}, seed by seed, with 95 % t intervals; {what}. The "
                f"shaded band marks differences below the margin of {claims.MARGIN:g}; p is after Holm's correction."
                + (f" {note}" if note else ""),
                _differences(f"{scenario}: differences in {quantity}, first minus second", "share", drawn, note),
                tuple(dict.fromkeys(run for row in rows for run in (row["run_id_first"], row["run_id_second"]))),
                charts.differences(drawn, "share", claims.MARGIN, note),
            )
        )
    caption = (
        f"Paired differences between {what}. p: exact two-sided sign-flip test over the seeds, also after Holm's "
        f"correction for all {len(differences)} rows of this table. Effect size: mean difference divided by the "
        "differences' standard deviation over seeds, corrected for few seeds (Hedges' g)."
        + (f" {note}" if note else "")
    )
    return [*blocks, Table(name, caption, differences, DIFFERENCE_COLUMNS, folded=True)]


def out_of_reach(differences: pd.DataFrame) -> str:
    """A sentence if nothing in the family can be significant.

    Whatever the results, there are too few seeds for so many comparisons.
    """
    tested = differences[differences["p"].notna()]
    if not len(tested):
        return ""
    looks = int(tested["looks"].iloc[0]) if "looks" in tested else 1
    lanes, least = int(tested["lanes"].max()), statistics.least_lanes(claims.ALPHA / len(tested) / looks)
    if lanes >= least:
        return ""
    return (
        f"No p-value can fall below {statistics.least_p(lanes, len(tested)):.3f} here, however large the differences: "
        f"with {count(len(tested), 'comparison')}, significance at {claims.ALPHA:g} takes at least {least} seeds, and there "
        f"{'is' if lanes == 1 else 'are'} {lanes}. The intervals are those of each difference alone."
    )


def _differences(title: str, unit: str, drawn: Sequence[comparisons.Difference], note: str) -> Draw:
    return lambda path, size: comparisons.differences(path, title, drawn, unit, claims.MARGIN, size, note)
