"""The question, and the limits of its answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from analysis import batches, load, sample, statistics, tables
from analysis.load import Sweep
from analysis.paper import claims
from analysis.paper.evidence import Evidence, parts_of
from analysis.report.page import Section, count, joined
from analysis.report.paper import scenario_words
from search_spaces.paper_grid import POINTS

LOSS: Final = (
    "A neural network trained on one task after another slowly loses the ability to learn new ones: it loses "
    "*plasticity*. "
)
HYPOTHESIS: Final = "One hypothesis is that it moves into sharp regions of the loss, where a small step changes a lot. "
TWO: Final = "Two methods steer away from such regions. "
WHETHER: Final = "The question is whether that keeps a network able to learn."

NETWORKS: Final = {"mlp": "fully connected network", "cnn": "convolutional network"}

METHODS: Final = {
    "sgd": "SGD, plain stochastic gradient descent",
    "sam": "SAM, sharpness-aware minimisation, which takes the gradient at a point a distance rho uphill",
    "gnp": "GNP, the gradient norm penalty, which adds lambda times the norm of the gradient to the loss",
}


def section_question(sweep: Sweep, *, is_other: bool = False) -> Section:
    """What was asked and how it was measured.

    A sweep about another experiment than the paper's asks a question of its own.
    """
    scenarios = {group["scenario"]: _tasks(group) for group in sweep.plan["groups"]}
    methods = dict.fromkeys(group["method"] for group in sweep.plan["groups"])
    return Section(
        "question",
        "What was asked",
        (
            LOSS + (_own_question(sweep, methods) if is_other else HYPOTHESIS + TWO + WHETHER),
            "Methods: "
            + "; ".join(METHODS.get(method, f"{method}, a method of this search space") for method in methods)
            + ".",
            "Scenarios: "
            + "; ".join(
                f"`{name}`: {scenario_words(tasks, sweep) or 'a task sequence of this search space'}"
                for name, tasks in scenarios.items()
            )
            + ".",
            "After each task the network is tested on images of that task that were never used for training"
            + "".join(
                f", in `{name}` on some that were" for name, tasks in scenarios.items() if tasks == "permuted_labels"
            )
            + ". *Test accuracy* is the share it classifies correctly, from 0 to 1. *Decline* is the mean accuracy on the first "
            "tenth of the tasks minus that on the last tenth: above 0, later tasks were learnt worse. Where the first tasks are "
            "slow, that hides what is lost later; so the *decline after warm-up* starts from an early tenth without the first "
            "tasks, 5 to 14 of 100. Tuned methods are judged by the last tenth and the decline after warm-up"
            + ("" if is_other else ", the paper's claims by the decline alone")
            + ". The files of the tables also have the interquartile mean and the slope of a straight line, per 100 tasks.",
            "A *seed* determines everything random in one training run. Tasks within a run depend on each other, so a "
            "run counts as one observation, and intervals (in brackets, 95 %, Student's t) are over seeds. Seed by seed, "
            "all methods share the initial weights, the tasks and the order of the images, so methods are compared by "
            "their paired differences.",
        ),
    )


def _tasks(group: Mapping[str, Any]) -> str:
    """The task sequence of a group of a plan."""
    return str(group["settings"].get("tasks/name", group["scenario"]))


def _own_question(sweep: Sweep, methods: Collection[str]) -> str:
    """What a sweep asks that is not about the paper, with its data and networks."""
    data, models = (
        joined(list(dict.fromkeys(f"`{name}`" for group in sweep.plan["groups"] for name in parts_of(group, part))))
        for part in ("data", "model")
    )
    where = f"here a {models} on {data}"
    if flat := [method.upper() for method in methods if method in ("sam", "gnp")]:
        steers = "steers" if len(flat) == 1 else "steer"
        return f"{HYPOTHESIS}{joined(flat)} {steers} away from such regions. {WHETHER.removesuffix('.')}, {where}."
    return f"The question is which of these methods keeps a network able to learn, {where}."


def section_limits(tuned: Sweep, confirmations: Sequence[Sweep], evidence: Evidence | None) -> Section:
    """What the numbers do not show.

    Args:
        tuned: the sweep.
        confirmations: of its winners.
        evidence: on the paper's claims; None if the sweep is about another experiment.
    """
    items = []
    sweeps, groups = [tuned, *confirmations], tuned.plan["groups"]
    least = statistics.least_lanes(claims.ALPHA)
    if evidence is None:
        items.append(
            "Nothing about the claims of Koster and Kukla (2024), which the study reproduces: they are about permuted pixels and "
            "class pairs of MNIST and three fully connected layers; `study run paper_grid` judges them."
        )
    elif evidence.stated:
        items.append("Nothing about the paper's own experiment: " + "; ".join(evidence.stated) + ".")
    absent = [method for method in POINTS if method not in {group["method"] for group in tuned.plan["groups"]}]
    if evidence and absent:
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
    if any(_tasks(group) == "class_pairs" for group in tuned.plan["groups"]):
        items.append(
            "Whether a decline on class pairs is loss of plasticity alone: the pairs differ in difficulty and always "
            "come in the same order. Differences between methods are free of this effect; a decline by itself is not."
        )
    networks = joined(
        list(
            dict.fromkeys(
                NETWORKS.get(name, f"network `{name}`") for group in groups for name in parts_of(group, "model")
            )
        )
    )
    items.append(
        f"How larger networks, other architectures or other kinds of data behave: this is one small {networks} on images."
    )
    items.append(
        "Why a method does better or worse: diagnostics that correlate with accuracy need not be its cause."
        if any(len(sweep.diagnostics) for sweep in sweeps)
        else "Why a method does better or worse: no diagnostics were measured, only accuracy."
    )
    return Section("limits", "What cannot be concluded", (tuple(items),))


def _undone(sweep: Sweep) -> list[str]:
    """What a sweep lacks, in sentences."""
    planned = sum(batches.due_trials(sweep).values())
    outcomes = sweep.recorded["outcome"]
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
