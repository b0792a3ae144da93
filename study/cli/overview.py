"""What a person is shown of search spaces and sweeps, as tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import search_spaces
from study.cli import terminal
from study.config import Labels, label_of, settings_words, short_value
from study.errors import StudyError
from study.sweep import folder, plan, winners
from study.sweep.folder import SweepFolder
from study.sweep.plan import Group, Plan
from study.sweep.record import TrialHistory

NUMBERS = {
    "objective": "summary/objective",
    "test accuracy": "summary/accuracy_test",
    "test: first tenth": "summary/accuracy_test_first_tenth",
    "last tenth": "summary/accuracy_test_last_tenth",
}
"""Columns of the tables of results, and where their numbers stand."""

LEGEND = "Accuracies are shares, averaged over tasks and seeds; first and last tenth are of the tasks, on test images."
WINNERS = " Chosen on held-out training images, so the objective of a winner is too good by luck of the draw."


def show_results(opened: SweepFolder) -> None:
    """A table for each scenario: the best of each method, or every setting of a sweep without objective."""
    histories = opened.histories()
    finished = [history for history in histories if history.outcome == "finished"]
    if not finished:
        terminal.console.print("No trial has finished yet.")
        return
    if opened.plan.confirms:
        _show_confirmed(opened, finished)
        return
    best = winners.best_keys(histories)
    shown = [history for history in finished if history.key in best] if best else finished
    what = "best of each method by objective" if best else "all settings (no images held out, so no objective)"
    _show_by_scenario(what, shown, ("method", "settings"))
    terminal.remark(LEGEND + (WINNERS if best else ""))


def _show_confirmed(opened: SweepFolder, finished: Sequence[TrialHistory]) -> None:
    """A table for each scenario: objective where it was tuned and on fresh seeds, and the confirmed test accuracy.

    Their difference is left out where a setting is not what it was in the tuning, for then it would tell of that setting too.
    """
    tuned = _tuned(opened)
    changes: dict[str, Any] = {}
    for scenario in dict.fromkeys(history.scenario for history in finished):
        rows = []
        for history in finished:
            if history.scenario != scenario:
                continue
            origin = opened.plan.origin(history.group, history.number)
            after = history.summary.get("summary/objective")
            before = difference = None
            if origin.trial in tuned:
                before = tuned[origin.trial].summary.get("summary/objective")
                changed = winners.changed_settings(tuned[origin.trial], history)
                changes |= changed
                if before is not None and after is not None and not changed:
                    difference = before - after
            rows.append(
                (
                    history.method,
                    settings_words(history.tried, history.labels),
                    f"best, place {origin.rank}" if origin.rank else "the paper's own",
                    terminal.number(before),
                    terminal.number(after),
                    terminal.number(difference),
                    terminal.number(history.summary["summary/accuracy_test"]),
                    f"{history.summary['summary/lanes_diverged']:.0f} of {len(history.seeds)}",
                )
            )
        columns = [
            "method",
            "settings",
            "why",
            "objective tuned",
            "confirmed",
            "tuned - confirmed",
            "test accuracy",
            "diverged",
        ]
        terminal.show_table(f"{scenario}: confirmed on fresh seeds", columns, rows, numeric=5)
    text = "Shares, averaged over tasks and seeds. The objective is accuracy on held-out training images"
    if changes:
        words = ", ".join(f"{name}={json.dumps(value)}" for name, value in changes.items())
        terminal.remark(f"{text}. The tuning had other settings than {words}, so there is no difference to tell.")
    else:
        terminal.remark(
            f"{text}; a positive difference of a selected trial is the luck that it was selected by, give or take chance."
        )


def _tuned(confirmation: SweepFolder) -> dict[str, TrialHistory]:
    """The trials of the sweep that a confirmation confirms, by key; none when its folder is elsewhere or cannot be read."""
    tuning = confirmation.plan.confirms
    if tuning is None:
        return {}
    try:
        tuned = SweepFolder.open(confirmation.directory, tuning.sweep)
    except StudyError:
        return {}
    return {history.key: history for history in tuned.histories()} if tuned.identity == tuning.identity else {}


def show_best(histories: Sequence[TrialHistory], keys: Sequence[str]) -> None:
    """A table for each scenario of the trials of these keys, in their order."""
    found = {history.key: history for history in histories}
    _show_by_scenario("best by objective", [found[key] for key in keys], ("trial", "settings"))
    terminal.remark(LEGEND + WINNERS)


def _show_by_scenario(what: str, shown: Sequence[TrialHistory], words: tuple[str, str]) -> None:
    for scenario in dict.fromkeys(history.scenario for history in shown):
        rows = [
            (
                history.key if words[0] == "trial" else history.method,
                settings_words(history.tried, history.labels),
                *(terminal.number(history.summary.get(name)) for name in NUMBERS.values()),
                f"{history.summary['summary/lanes_diverged']:.0f} of {len(history.seeds)}",
            )
            for history in shown
            if history.scenario == scenario
        ]
        columns = [*words, *NUMBERS, "diverged"]
        terminal.show_table(f"{scenario}: {what}", columns, rows, numeric=len(NUMBERS) + 1)


def show_next_steps(opened: SweepFolder, uri: str) -> None:
    """The commands to go on with."""
    name = opened.plan.name
    option = opened.option
    best = winners.best_keys(opened.histories())
    steps = [(f"study ui {name}{option}", "compare the trials in MLflow")]
    if best:
        steps.append((f"study confirm {name}{option}", "the best of each method again, on fresh seeds"))
    reported = opened.plan.confirms.sweep if opened.plan.confirms else name
    steps.append((f"study report {reported}{option}", "one page with every number, interval and claim"))
    if best:
        steps.append(
            (f"study trial {opened.root / 'best' / best[0]}.yaml", "run one of the best again, in this process")
        )
        steps.append((f"study best {name}{option} --top 3", "more of the best"))
    elif not opened.plan.confirms:
        steps.append((f"study export {name}{option} --trial {opened.histories()[0].key}", "write a trial as a file"))
    if opened.plan.phase == "tune":
        more = 2 * max(group.trials for group in opened.plan.groups)
        steps.append((f"study resume {name}{option} --trials {more}", "search on"))
    terminal.console.print(f"\nMLflow store: {uri}", soft_wrap=True)
    terminal.show_table("How to go on", ["command", "what it does"], steps, commands=True)


def show_all(directory: Path) -> None:
    """The search spaces and the sweeps there are."""
    spaces = [(name, search_spaces.load(name).description) for name in search_spaces.names()]
    terminal.show_table("Search spaces", ["space", "what it tries"], spaces)
    rows, faults = [], []
    for name in folder.names(directory):
        try:
            opened = SweepFolder.open(directory, name)
        except StudyError as error:  # such as a copy in a folder that no sweep can have the name of
            faults.append(str(error))
            continue
        outcomes = [history.outcome for history in opened.histories()]
        planned = opened.plan.trial_count
        done = outcomes.count("finished") + outcomes.count("stopped")
        words = [f"{outcomes.count(word)} {word}" for word in ("finished", "stopped", "failed") if word in outcomes]
        rows.append((name, opened.plan.space, f"{done}/{planned}", ", ".join(words) or "nothing done yet"))
    if rows:
        terminal.show_table(f"Sweeps in {directory}", ["sweep", "space", "trials", "outcomes"], rows)
    else:
        terminal.console.print(f"\nNo sweeps in {directory} yet; begin with: study run quickstart", soft_wrap=True)
    for fault in faults:
        terminal.complain(f"note: {fault}")


def show_plan(made: Plan) -> None:
    """What a sweep tries."""
    terminal.headline(f"{made.space}: {made.description}")
    if made.citation:
        terminal.remark(made.citation)
    rows = []
    for group in made.groups:
        points = _points_words(group.points, made.labels)
        drawn = "; ".join(
            f"{label_of(name, made.labels).short} in {_range(value)}" for name, value in group.drawn().items()
        )
        rows.append((group.scenario, group.method, str(group.trials), points or "-", drawn or "-"))
    columns = ["scenario", "method", "trials", "points, tried first", "then drawn from"]
    terminal.show_table("What is tried", columns, rows)
    scenarios = list(dict.fromkeys(group.scenario for group in made.groups))
    fixed = [_fixed(made, [group for group in made.groups if group.scenario == scenario]) for scenario in scenarios]
    names = dict.fromkeys(name for found in fixed for name in found)
    title = f"The same in all trials of a scenario, with seeds {list(made.seeds)}"
    values = [(name, *(found.get(name, "-") for found in fixed)) for name in names]
    terminal.show_table(title, ["setting", *scenarios], values)


def _fixed(made: Plan, groups: Sequence[Group]) -> dict[str, str]:
    """The settings that have one value in all trials of these groups."""
    configs = [made.trial_config(group, point).flat() for group in groups for point in plan.extremes(group)]
    first = configs[0]
    return {
        name: f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
        for name, value in first.items()
        if all(name in config and config[name] == value for config in configs)
    }


FEW_POINTS = 6
"""So many points are listed one by one, even if they are a grid."""


def _points_words(points: Sequence[Mapping[str, Any]], labels: Labels) -> str:
    """Points for a table: each of them, or the values that a large full grid combines."""
    values = (
        {name: {json.dumps(point.get(name)): point.get(name) for point in points} for name in points[0]}
        if points
        else {}
    )
    full = math.prod(map(len, values.values())) == len({json.dumps(point, sort_keys=True) for point in points})
    if len(points) <= FEW_POINTS or not full:
        return "; ".join(settings_words(point, labels) for point in points)
    sets = [
        f"{label_of(name, labels).short} in {{{', '.join(map(short_value, found.values()))}}}"
        for name, found in values.items()
    ]
    return f"all {len(points)} of {', '.join(sets)}"


def _range(distribution: Any) -> str:
    if hasattr(distribution, "choices"):
        return "{" + ", ".join(map(str, distribution.choices)) + "}"
    scale = " (log)" if distribution.log else ""
    return f"[{distribution.low:g}, {distribution.high:g}]{scale}"
