"""The question, the results in short, and their limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from analysis import load, sample, statistics, tables
from analysis.load import Sweep
from analysis.paper import claims
from analysis.paper.evidence import Evidence
from analysis.report.page import Section, count, joined
from analysis.report.paper import SCENARIOS, out_of_reach
from search_spaces.paper_grid import POINTS

METHODS: Final = {
    "sgd": "SGD, plain stochastic gradient descent",
    "sam": "SAM, sharpness-aware minimisation, which takes the gradient at a point a distance rho uphill",
    "gnp": "GNP, the gradient norm penalty, which adds lambda times the norm of the gradient to the loss",
}


def section_question(sweep: Sweep) -> Section:
    """What was asked and how it was measured."""
    scenarios = dict.fromkeys(group["scenario"] for group in sweep.plan["groups"])
    methods = dict.fromkeys(group["method"] for group in sweep.plan["groups"])
    return Section(
        "question",
        "What was asked",
        (
            "A neural network trained on one task after another slowly loses the ability to learn new ones: it loses "
            "*plasticity*. One hypothesis is that it moves into sharp regions of the loss, where a small step changes a "
            "lot. Two methods steer away from such regions. The question is whether that keeps a network able to learn.",
            "Methods: "
            + "; ".join(METHODS.get(method, f"{method}, a method of this search space") for method in methods)
            + ".",
            "Scenarios: "
            + "; ".join(
                f"`{name}`: {SCENARIOS.get(name, 'a task sequence of this search space')}" for name in scenarios
            )
            + ".",
            "After each task the network is tested on images of that task that were never used for training. *Test accuracy* is "
            "the share it classifies correctly, from 0 to 1. *Decline* is the mean accuracy on the first tenth of the "
            "tasks minus that on the last tenth: above 0, later tasks were learnt worse. *Slope* is the slope of the "
            "straight line fitted to the accuracies of all tasks, per 100 tasks.",
            "A *seed* determines everything random in one training run. Tasks within a run depend on each other, so a "
            "run counts as one observation, and intervals (in brackets, 95 %, Student's t) are over seeds. Seed by seed, "
            "all methods share the initial weights, the tasks and the order of the images, so methods are compared by "
            "their paired differences.",
        ),
    )


def section_summary(tuned: Sweep, confirmations: Sequence[Sweep], judge: Sweep, evidence: Evidence) -> Section:
    """The results in a few sentences."""
    findings = claims.findings(evidence)
    by_verdict = {
        verdict: [finding.claim for finding in findings if finding.verdict == verdict]
        for verdict in ("reproduced", "contradicted", "undecided")
    }
    verdicts = [f"{joined(names)} {verdict}" for verdict, names in by_verdict.items() if names]
    because = ", since this is not the paper's experiment" if evidence.stated else ""
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
        items += _significant(sweep)
    if not confirmations and len(tables.best(tuned)):
        items.append(
            f"The best of each method has not been confirmed on fresh seeds yet: `study confirm {tuned.name}`."
        )
    return Section("summary", "In short", (tuple(items),))


def _significant(confirmation: Sweep) -> list[str]:
    """The winners' differences that hold after Holm's correction."""
    differences = tables.winners_differences(confirmation)
    if not len(differences):
        return []
    significant = load.rows(differences[differences["p_holm"] < claims.ALPHA])
    if not significant:
        return [
            f"No difference between the methods' winners in `{confirmation.name}`, in mean accuracy or in decline, can be "
            f"distinguished from chance ({len(differences)} paired comparisons, sign-flip tests, Holm's correction at "
            f"{claims.ALPHA:g})." + (f" {note}" if (note := out_of_reach(differences)) else "")
        ]
    words = [
        f"{row['scenario']}: {row['quantity']} of {row['first']} minus {row['second']} {row['difference']:+.4f} (p "
        f"{row['p_holm']:.3f})"
        for row in significant
    ]
    return [
        f"Differences between winners in `{confirmation.name}` that hold after Holm's correction: {'; '.join(words)}."
    ]


def section_limits(tuned: Sweep, confirmations: Sequence[Sweep], evidence: Evidence) -> Section:
    """What the numbers do not show."""
    items = []
    sweeps = [tuned, *confirmations]
    least = statistics.least_lanes(claims.ALPHA)
    if evidence.stated:
        items.append("Nothing about the paper's own experiment: " + "; ".join(evidence.stated) + ".")
    absent = [method for method in POINTS if method not in {group["method"] for group in tuned.plan["groups"]}]
    if absent:
        items.append(f"Nothing about {joined(absent)}: not part of this sweep.")
    for sweep in sweeps:
        items += _undone(sweep)
        if len(sweep.plan["seeds"]) < least:
            items.append(
                f"`{sweep.name}` has {count(len(sweep.plan['seeds']), 'seed')}: too few to test any difference "
                f"(at least {least} are needed)"
                + ("; and with one seed there is no interval." if len(sweep.plan["seeds"]) == 1 else ".")
            )
    if not confirmations and len(tables.best(tuned)):
        items.append(
            "How good the selected trials really are: their numbers come from the seeds and images they were chosen by."
        )
    data = {name for sweep in sweeps if "data/name" in sweep.runs for name in sweep.runs["data/name"]}
    if len(data) == 1:
        items.append(f"How this would turn out on other data: everything was tuned and measured on {data.pop()}.")
    if any(group["distributions"] for group in tuned.plan["groups"]):
        trials = min(group["trials"] for group in tuned.plan["groups"])
        items.append(
            f"What the true best of each method is: a search of {count(trials, 'trial')} per method finds a good setting, "
            "not the best one, and the more settings there are to tune, the thinner the same budget is spread."
        )
    if any(group["scenario"] == "class_pairs" for group in tuned.plan["groups"]):
        items.append(
            "Whether a decline on class pairs is loss of plasticity alone: the pairs differ in difficulty and always "
            "come in the same order. Differences between methods are free of this effect; a decline by itself is not."
        )
    items.append(
        "How larger networks, other architectures or other kinds of data behave: this is one small fully connected "
        "network on images."
    )
    items.append(
        "Why a method does better or worse: diagnostics that correlate with accuracy need not be its cause."
        if any(len(sweep.diagnostics) for sweep in sweeps)
        else "Why a method does better or worse: no diagnostics were measured, only accuracy."
    )
    return Section("limits", "What cannot be concluded", (tuple(items),))


def _undone(sweep: Sweep) -> list[str]:
    """What a sweep lacks, in sentences."""
    planned = sum(group["trials"] for group in sweep.plan["groups"])
    outcomes = sweep.runs["outcome"]
    done = int(outcomes.isin(["finished", "stopped"]).sum())
    items = sample.few([f"`{sweep.name}`: {note}" for note in sweep.notes], "notes of this kind")
    if done < planned:
        words = [f"{int((outcomes == word).sum())} {word}" for word in dict.fromkeys(outcomes)] or ["none started"]
        items.append(f"`{sweep.name}` is not complete: of {planned} planned trials there are {', '.join(words)}.")
    for group in sweep.plan["groups"]:
        own = sweep.finished[
            (sweep.finished["scenario"] == group["scenario"]) & (sweep.finished["method"] == group["method"])
        ]
        if not len(own):
            items.append(
                f"Nothing about {group['method']} on {group['scenario']} from `{sweep.name}`: no trial has finished."
            )
    failed = sweep.runs[sweep.runs["outcome"] == "failed"]
    reasons = [f"`{sweep.name}`: {run['trial']} ({run['name']}) failed: {run['reason']}" for run in load.rows(failed)]
    return items + sample.few(reasons, "failed trials, which `tables/all_trials.csv` has")
