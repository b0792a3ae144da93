"""The report's words for a reader who comes fresh, and its accounts: budget, failures, limits of what can be said, versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from analysis import claims, load, statistics, tables
from analysis.evidence import Evidence
from analysis.load import Sweep
from analysis.report.page import Column, Section, Table, joined
from analysis.report.paper import SCENARIOS
from search_spaces.paper_grid import POINTS
from study import schema

METHODS: Final = {
    "sgd": "SGD, plain stochastic gradient descent",
    "sam": "SAM, sharpness-aware minimisation, which takes the gradient at a point a distance rho uphill",
    "gnp": "GNP, the gradient norm penalty, which adds lambda times the length of the gradient to the loss",
}

BUDGET_COLUMNS: Final = (
    Column("sweep", "sweep"),
    Column("scenario", "scenario"),
    Column("method", "method"),
    Column("planned", "trials planned", "count"),
    Column("finished", "finished", "count"),
    Column("stopped", "stopped early", "count"),
    Column("failed", "failed", "count"),
    Column("other", "not done", "count"),
    Column("lanes", "seeds each", "count"),
    Column("tasks_trained", "tasks trained", "count"),
    Column("gradient_evaluations", "gradient evaluations, all seeds", "count"),
    Column("trial_hours", "time of the trials", "hours"),
    Column("trials_with_diverged_lanes", "trials with diverged seeds", "count"),
    Column("run_id", "run of the sweep", "run"),
)


DIVERGED_COLUMNS: Final = (
    Column("sweep", "sweep"),
    Column("scenario", "scenario"),
    Column("name", "setting"),
    Column("outcome", "outcome"),
    Column("lanes_diverged", "diverged seeds", "count"),
    Column("lanes", "seeds", "count"),
    Column("run_id", "run", "run"),
)

VERSION_COLUMNS: Final = (
    Column("sweep", "sweep"),
    Column("what", "what"),
    Column("version", "version"),
    Column("run_id", "run of the sweep", "run"),
)

TRIAL_COLUMNS: Final = (
    Column("sweep", "sweep"),
    Column("trial", "trial"),
    Column("name", "setting"),
    Column("outcome", "outcome"),
    Column("tasks", "tasks", "count"),
    Column(schema.OBJECTIVE, "objective so far", "share"),
    Column("summary/accuracy_test", "mean test accuracy", "share"),
    Column("summary/decline_test", "decline", "signed"),
    Column("reason", "why it failed"),
    Column("run_id", "run", "run"),
)


def section_question(sweep: Sweep) -> Section:
    """What was asked and how it was measured, for a person who has not read the paper."""
    scenarios = dict.fromkeys(group["scenario"] for group in sweep.plan["groups"])
    methods = dict.fromkeys(group["method"] for group in sweep.plan["groups"])
    return Section(
        "question",
        "What was asked",
        (
            "A neural network that is trained on task after task slowly loses the ability to learn new ones: it loses "
            "*plasticity*. One suspicion is that it moves into sharp regions of the loss, where a small step changes "
            "much. Two methods steer away from them, and the question is whether that keeps a network able to learn.",
            "Methods: "
            + "; ".join(METHODS.get(method, f"{method}, a method of this search space") for method in methods)
            + ".",
            "Scenarios: "
            + "; ".join(
                f"`{name}`: {SCENARIOS.get(name, 'a task sequence of this search space')}" for name in scenarios
            )
            + ".",
            "After each task the network is tested on images of that task which it has never seen. *Test accuracy* is "
            "the share that it gets right, from 0 to 1. *Decline* is the mean accuracy of the first tenth of the tasks "
            "minus that of the last tenth: above 0, later tasks were learnt worse. *Slope* is that of the straight "
            "line through the accuracies of all tasks, per 100 tasks.",
            "A *seed* decides all that is random in one training run. Tasks within a run depend on each other, so a "
            "run counts as one observation, and intervals (in brackets, 95 %, Student's t) are over seeds. All methods "
            "share, seed by seed, the initial weights, the tasks and the order of the images, so methods are compared "
            "by their differences seed by seed.",
        ),
    )


def section_summary(tuned: Sweep, confirmations: Sequence[Sweep], judge: Sweep, found: Evidence) -> Section:
    """The report in a few sentences."""
    findings = claims.findings(found)
    by_verdict = {
        verdict: [finding.claim for finding in findings if finding.verdict == verdict]
        for verdict in ("reproduced", "contradicted", "undecided")
    }
    verdicts = [f"{joined(names)} {verdict}" for verdict, names in by_verdict.items() if names]
    because = ", since this is not the paper's experiment" if found.stated else ""
    items = [f"The paper's claims, judged by `{judge.name}`: {'; '.join(verdicts)}{because}."]
    for sweep in confirmations:
        winners = sweep.finished[sweep.finished["selected_rank"] == 1]
        for scenario in dict.fromkeys(winners["scenario"]):
            rows = load.rows(winners[winners["scenario"] == scenario])
            numbers = []
            for run in rows:
                interval = statistics.t_interval(
                    statistics.mean_accuracy(sweep.accuracy(run["run_id"]).to_numpy(dtype=float))
                )
                bounds = f" [{interval.low:.4f}, {interval.high:.4f}]" if interval.lanes > 1 else ""
                numbers.append(f"{run['name']}: {run['summary/accuracy_test']:.4f}{bounds}")
            items.append(
                f"Confirmed on fresh seeds, `{sweep.name}`, {scenario}, mean test accuracy: {'; '.join(numbers)}."
            )
        items += _told_apart(sweep)
    if not confirmations and len(tables.best(tuned)):
        items.append(
            f"The best of each method have not been confirmed on fresh seeds yet: `study confirm {tuned.name}`."
        )
    return Section("summary", "In short", (tuple(items),))


def _told_apart(confirmation: Sweep) -> list[str]:
    """Which of the winners' differences hold after Holm's correction."""
    differences = tables.winners_differences(confirmation)
    if not len(differences):
        return []
    sure = load.rows(differences[differences["p_holm"] < claims.ALPHA])
    if not sure:
        return [
            f"No difference between the winners of the methods in `{confirmation.name}`, in mean accuracy or in "
            f"decline, can be told from chance ({len(differences)} paired comparisons, sign-flip tests, Holm's "
            f"correction at {claims.ALPHA:g})."
        ]
    words = [
        f"{row['scenario']}: {row['quantity']} of {row['first']} minus {row['second']} {row['difference']:+.4f} (p "
        f"{row['p_holm']:.3f})"
        for row in sure
    ]
    return [
        f"Differences between winners in `{confirmation.name}` that hold after Holm's correction: {'; '.join(words)}."
    ]


def section_limits(tuned: Sweep, confirmations: Sequence[Sweep], found: Evidence) -> Section:
    """What the numbers do not tell."""
    items = []
    sweeps = [tuned, *confirmations]
    least = statistics.least_lanes(claims.ALPHA)
    if found.stated:
        items.append("Nothing about the paper's own experiment: " + "; ".join(found.stated) + ".")
    absent = [method for method in POINTS if method not in {group["method"] for group in tuned.plan["groups"]}]
    if absent:
        items.append(f"Nothing about {joined(absent)}: not part of this sweep.")
    for sweep in sweeps:
        items += _undone(sweep)
        if len(sweep.plan["seeds"]) < least:
            items.append(
                f"`{sweep.name}` has {_count(len(sweep.plan['seeds']), 'seed')}: too few for a test of any difference "
                f"(at least {least})"
                + ("; and with one seed no interval is known." if len(sweep.plan["seeds"]) == 1 else ".")
            )
    if not confirmations and len(tables.best(tuned)):
        items.append(
            "How good the selected trials really are: their numbers come from the seeds and images they were chosen by."
        )
    data = {name for sweep in sweeps if "data/name" in sweep.runs for name in sweep.runs["data/name"]}
    if len(data) == 1:
        items.append(f"How it would be on other data: all of it was tuned and measured on {data.pop()}.")
    if any(group["distributions"] for group in tuned.plan["groups"]):
        trials = min(group["trials"] for group in tuned.plan["groups"])
        items.append(
            f"Where the true best of each method lies: a search of {_count(trials, 'trial')} a method finds a good one, "
            "not the best, and more settings to tune make the same budget thinner."
        )
    if any(group["scenario"] == "class_pairs" for group in tuned.plan["groups"]):
        items.append(
            "Whether a decline on class pairs is loss of plasticity alone: the pairs differ in difficulty and always "
            "come in the same order. Differences between methods are free of that; a decline by itself is not."
        )
    items.append(
        "How larger networks, other architectures or other kinds of data behave: this is one small fully connected "
        "network on images."
    )
    items.append(
        "Why a method does better or worse: what is seen inside the networks goes along with accuracy, and need not cause it."
        if any(len(sweep.diagnostics) for sweep in sweeps)
        else "Why a method does better or worse: the networks were not looked into, only accuracy was measured."
    )
    return Section("limits", "What cannot be concluded", (tuple(items),))


def _undone(sweep: Sweep) -> list[str]:
    """What is missing of a sweep, in sentences."""
    planned = sum(group["trials"] for group in sweep.plan["groups"])
    outcomes = sweep.runs["outcome"]
    done = int(outcomes.isin(["finished", "stopped"]).sum())
    items = [f"`{sweep.name}`: {note}" for note in sweep.notes]
    if done < planned:
        words = [f"{int((outcomes == word).sum())} {word}" for word in dict.fromkeys(outcomes)] or ["none begun"]
        items.append(f"`{sweep.name}` is not complete: {planned} trials were planned, there are {', '.join(words)}.")
    for group in sweep.plan["groups"]:
        own = sweep.finished[
            (sweep.finished["scenario"] == group["scenario"]) & (sweep.finished["method"] == group["method"])
        ]
        if not len(own):
            items.append(
                f"Nothing about {group['method']} on {group['scenario']} from `{sweep.name}`: no trial has finished."
            )
    lost = sweep.runs[sweep.runs["outcome"] == "failed"]
    items += [f"`{sweep.name}`: {run['trial']} ({run['name']}) failed: {run['reason']}" for run in load.rows(lost)]
    return items


def section_budget(sweeps: Sequence[Sweep]) -> Section:
    """What was spent, what was lost, and with what it was made."""
    blocks = [Table("budget", "What each method was given and what it spent.", tables.budget(sweeps), BUDGET_COLUMNS)]
    diverged = tables.diverged(sweeps)
    words = "No seed of any trial diverged. "
    if len(diverged):
        words = f"{_count(len(diverged), 'trial')} had seeds whose loss or weights became non-finite. "
        blocks.append(Table("diverged", "Trials with diverged seeds.", diverged, DIVERGED_COLUMNS))
    words += "A diverged seed is frozen and counted at chance accuracy from then on; it stays in every mean."
    blocks.append(
        Table("versions", "Versions, commit and devices.", tables.versions(sweeps), VERSION_COLUMNS, folded=True)
    )
    return Section("budget", "Budget, failures, versions", (words,), tuple(blocks))


def section_sources(sweeps: Sequence[Sweep]) -> Section:
    """Where every number comes from."""
    words = (
        "Every number above comes from MLflow: the experiments "
        + joined([f"`{sweep.name}` (id {sweep.experiment_id})" for sweep in sweeps])
        + ". Each row names its runs by the first 8 digits of their ids; the CSV files have ids and numbers in full. "
        "`mlflow.search_runs` finds the same: mean test accuracy is the metric `summary/accuracy_test`, the accuracy "
        "of seed number i on each task is the history of `accuracy/test/lane_i`.",
    )
    return Section(
        "sources",
        "Where the numbers come from",
        words,
        (Table("all_trials", "All trials and their runs.", tables.trials(sweeps), TRIAL_COLUMNS, folded=True),),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
