"""Tables of search spaces, plans, results and next steps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from study import schema
from study.cli import terminal
from study.config import MOST_TRIALS, Labels, label_of, settings_words, short_value
from study.decision import halving
from study.errors import StudyError
from study.objective import Objective
from study.sweep import folder, winners
from study.sweep.execution import DEFAULT_DIRECTORY
from study.sweep.folder import SweepFolder
from study.sweep.plan import Group, Plan, check_count, own_settings, shared_settings
from study.sweep.race.configurations import configurations
from study.sweep.race.configurations import entrants as race_entrants
from study.sweep.record import TrialHistory

NUMBERS = {
    "test accuracy": "summary/accuracy_test",
    "test: first tenth": "summary/accuracy_test_first_tenth",
    "last tenth": "summary/accuracy_test_last_tenth",
}
"""Columns of the tables of results, and the names of their numbers in a trial's summary."""


def _numbers(goals: Sequence[Objective]) -> dict[str, str]:
    """`NUMBERS` with the objectives of a sweep before them."""
    first, *others = goals
    columns = {"objective" if first.is_default else first.name: first.column}
    return columns | {other.name: schema.SECOND_OBJECTIVE for other in others} | NUMBERS


LEGEND = (
    "Accuracies are shares of images, averaged over tasks and seeds; first and last tenth: test accuracy on the first and the "
    "last tenth of the tasks."
)
WINNERS = " Winners were chosen on held-out training images, so luck in the selection makes their objective too high."


def _selection(goals: Sequence[Objective]) -> str:
    """By what winners were chosen, and how that flatters them."""
    first, *others = goals
    if first.is_default and not others:
        return WINNERS
    beside = f" The search also optimised the {others[0].words}." if others else ""
    return (
        f" Winners were chosen by the {first.words}; luck in the selection makes that better than it is.{beside} "
        "No test image was read for it."
    )


def show_results(sweep: SweepFolder) -> None:
    """Shows a table of results for each scenario.

    It has the best trial of each method, all settings if there is no objective, or the trials of a confirmation.
    """
    histories = sweep.histories()
    if sweep.plan.is_race:
        _show_race(sweep.plan, histories)
        histories = configurations(sweep.plan, histories)
    finished = [history for history in histories if history.outcome == "finished"]
    if not finished:
        terminal.console.print(
            "No configuration has all seeds yet." if sweep.plan.is_race else "No trial has finished yet."
        )
        return
    if sweep.plan.confirms:
        _show_confirmed(sweep, finished)
        return
    best = winners.best_keys(histories)
    shown = [history for history in finished if history.key in best] if best else finished
    goals = sweep.plan.goals
    what = f"best of each method by {_by(goals)}" if best else "all settings (no images held out, so no objective)"
    _show_by_scenario(what, shown, ("method", "settings"), goals)
    terminal.remark(LEGEND + (_selection(goals) if best else ""))


def size(plan: Plan) -> str:
    """How many trials a sweep has, in words."""
    trials = f"{'at most ' if plan.deciding else ''}{plan.trial_count} trials"
    if not plan.is_race:
        return trials
    return f"{trials} of {sum(group.trials for group in plan.groups)} configurations"


def _show_race(plan: Plan, histories: Sequence[TrialHistory]) -> None:
    """Shows how many configurations got how many seeds."""
    rows = []
    for group in plan.groups:
        known = race_entrants(plan, [history for history in histories if history.group == group.label])
        for rung, (seeds, due) in enumerate(zip(plan.rungs, _sizes(plan, group), strict=True)):
            ranked = halving.ranked(known, rung)
            best = plan.goals[0].score(ranked[0].results[rung].score or 0.0) if ranked else None
            counts = (
                seeds,
                sum(len(each.results) > rung for each in known),
                due,
                sum(each.failed and each.begun == rung + 1 for each in known),
            )
            rows.append((group.scenario, group.method, *map(str, counts), terminal.number(best)))
    columns = ["scenario", "method", "seeds", "configurations", "of", "failed", f"best {_by(plan.goals)} of them"]
    terminal.show_table("Race: configurations that have so many seeds", columns, rows, numeric=5)
    spent = sum(len(history.seeds) for history in histories if history.outcome == "finished")
    most = len(plan.seeds) * sum(group.trials for group in plan.groups)
    terminal.remark(
        f"{spent} seeds were trained, where all seeds of all configurations are {most}. Only configurations with all "
        f"{len(plan.seeds)} seeds can be selected."
    )


def _sizes(plan: Plan, group: Group) -> tuple[int, ...]:
    return halving.sizes(group.trials, len(plan.rungs))


def _show_rungs(plan: Plan) -> None:
    """Shows what a race will spend."""
    rows = []
    for group in plan.groups:
        sizes = _sizes(plan, group)
        spent = sum(
            count * (seeds - before) for count, before, seeds in zip(sizes, (0, *plan.rungs), plan.rungs, strict=False)
        )
        most = group.trials * len(plan.seeds)
        counts = ", ".join(f"{count} with {seeds}" for count, seeds in zip(sizes, plan.rungs, strict=True))
        rows.append((group.scenario, group.method, counts, str(spent), str(most), f"{spent / most:.0%}"))
    columns = ["scenario", "method", "configurations and their seeds", "seeds trained", "of", "share"]
    terminal.show_table("Race, if no trial fails", columns, rows, numeric=3)
    terminal.remark(
        "The share is also that of the gradient evaluations of a plain search with as many configurations and all seeds; how "
        "many one seed takes depends on the method."
    )


def _by(goals: Sequence[Objective]) -> str:
    return "objective" if goals[0].is_default else goals[0].label


def _show_confirmed(sweep: SweepFolder, finished: Sequence[TrialHistory]) -> None:
    """Shows a table of confirmed trials for each scenario.

    It has the trial of the sweep that each confirms, for a confirmation numbers its trials anew; the objective as tuned and as
    confirmed; and the confirmed test accuracy. The difference is left out where the
    confirmation has another setting than the tuning, since it would measure that setting too.
    """
    tuned, goal = _tuned(sweep), sweep.plan.goals[0]
    changes: dict[str, Any] = {}
    for scenario in dict.fromkeys(history.scenario for history in finished):
        rows = []
        for batches in _by_point(sweep.plan, finished):
            history = batches[0]
            if history.scenario != scenario:
                continue
            origin = sweep.plan.origin(history.group, history.number)
            after = _mean([each.objective for each in batches])
            before = difference = None
            if origin.trial in tuned:
                before = tuned[origin.trial].objective
                changed = winners.changed_settings(tuned[origin.trial], history)
                changes |= changed
                if before is not None and after is not None and not changed:
                    difference = before - after
            rows.append(
                (
                    history.method,
                    settings_words(history.tried, history.labels),
                    origin.why,
                    origin.trial or "none",
                    terminal.number(before),
                    terminal.number(after),
                    terminal.number(difference),
                    terminal.number(_mean([each.summary["summary/accuracy_test"] for each in batches])),
                    _diverged(*batches),
                )
            )
        columns = [
            "method",
            "settings",
            "why",
            f"trial of {sweep.plan.confirms.sweep}" if sweep.plan.confirms else "trial",
            f"{'objective' if goal.is_default else goal.name} tuned",
            "confirmed",
            "tuned - confirmed",
            "test accuracy",
            "diverged",
        ]
        terminal.show_table(f"{scenario}: confirmed on fresh seeds", columns, rows, numeric=5)
    text = "Shares of images, averaged over tasks and seeds. The objective is accuracy on held-out training images"
    if not goal.is_default:
        text = f"The objective is the {goal.words}"
    sign = "positive" if goal.is_maximised else "negative"
    if changes:
        words = ", ".join(f"{name}={json.dumps(value)}" for name, value in changes.items())
        terminal.remark(f"{text}. The tuning used other settings than {words}, so no difference is given.")
    else:
        terminal.remark(
            f"{text}; where a selected trial has a {sign} difference, that is the luck of the selection, give or take chance."
        )
    _show_decided(sweep)


def _by_point(plan: Plan, finished: Sequence[TrialHistory]) -> list[list[TrialHistory]]:
    """The trials of the same settings, one for each batch of seeds."""
    points_of = {group.label: plan.points_of(group) for group in plan.groups}
    found: dict[tuple[str, int], list[TrialHistory]] = {}
    for history in finished:
        found.setdefault((history.group, history.number % points_of[history.group]), []).append(history)
    return list(found.values())


def _mean(numbers: Sequence[float | None]) -> float | None:
    """The mean over batches; None if one has no number."""
    known = [number for number in numbers if number is not None]
    return fmean(known) if len(known) == len(numbers) else None


def _show_decided(sweep: SweepFolder) -> None:
    """Shows what a confirmation decided, after how many seeds.

    Shows nothing if all of its trials were to run.
    """
    rule, course = sweep.plan.rule, winners.course(sweep.plan, sweep.histories())
    if rule is None or course is None:
        return
    rows = [
        (
            each.scenario,
            f"{each.first} minus {each.second}",
            rule.words[each.verdict],
            *(f"{number:+.4f}" for number in (each.interval.mean, each.interval.low, each.interval.high)),
            str(each.interval.lanes),
        )
        if each.interval
        else (each.scenario, f"{each.first} minus {each.second}", rule.words[each.verdict], *["-"] * 4)
        for each in course.differences
    ]
    columns = ["scenario", "test accuracy of", "is", "difference", "from", "to", "after seeds"]
    terminal.show_table("What is decided", columns, rows, numeric=4)
    seeds = [
        (
            scenario,
            method,
            str(spent),
            str(rule.most),
            str(course.saved[scenario, method]),
            course.ending(scenario, method),
        )
        for (scenario, method), spent in course.spent.items()
    ]
    spent, most = sum(int(row[2]) for row in seeds), rule.most * len(seeds)
    terminal.show_table(
        f"Seeds spent: {spent} of {most}, {sum(course.saved.values())} saved",
        ["scenario", "method", "spent", "of", "saved", "ended"],
        seeds,
    )
    terminal.remark(
        f"All intervals, after each of {rule.looks} looks, hold together at {100 * rule.level:g} %, so a method could end when "
        "its differences were decided. They are of mean test accuracy, seed by seed."
    )


def _tuned(confirmation: SweepFolder) -> dict[str, TrialHistory]:
    """The trials of the sweep that is confirmed, by key.

    Empty if that sweep is elsewhere or unreadable.
    """
    tuned = confirmation.tuning()
    try:
        return {history.key: history for history in configurations(tuned.plan, tuned.histories())} if tuned else {}
    except StudyError:
        return {}


def show_best(directory: Path, name: str, top: int, *, as_json: bool = False) -> None:
    """Shows the best trials of each scenario and method.

    Args:
        directory: folder of all sweeps.
        name: of the sweep.
        top: how many of each.
        as_json: whether to print JSON with all digits instead of tables.

    Raises:
        StudyError: there is no such sweep, or nothing to choose from.
    """
    check_count("--top", top, MOST_TRIALS)
    sweep = SweepFolder.open(directory, name)
    histories = {history.key: history for history in winners.check_selectable(sweep)}
    best = winners.best_keys([*histories.values()], top)
    goals = sweep.plan.goals
    if as_json:
        shown = [_plain(histories[key]) for key in best]
        terminal.show_json({"sweep": name, "objectives": [goal.name for goal in goals], "trials": shown})
        return
    _show_by_scenario(f"best by {_by(goals)}", [histories[key] for key in best], ("trial", "settings"), goals)
    terminal.remark(LEGEND + _selection(goals))


def _plain(history: TrialHistory) -> dict[str, Any]:
    """A trial as plain data."""
    return {
        "trial": history.key,
        "scenario": history.scenario,
        "method": history.method,
        "settings": history.tried,
        "seeds": history.seeds,
        "objective": history.objective,
        "summary": history.summary,
    }


def _show_by_scenario(
    what: str, shown: Sequence[TrialHistory], words: tuple[str, str], goals: Sequence[Objective]
) -> None:
    numbers = _numbers(goals)
    for scenario in dict.fromkeys(history.scenario for history in shown):
        rows = [
            (
                history.key if words[0] == "trial" else history.method,
                settings_words(history.tried, history.labels),
                *(terminal.number(history.summary.get(name)) for name in numbers.values()),
                _diverged(history),
            )
            for history in shown
            if history.scenario == scenario
        ]
        columns = [*words, *numbers, "diverged"]
        terminal.show_table(f"{scenario}: {what}", columns, rows, numeric=len(numbers) + 1)


def _diverged(*batches: TrialHistory) -> str:
    diverged = sum(history.summary["summary/lanes_diverged"] for history in batches)
    return f"{diverged:.0f} of {sum(len(history.seeds) for history in batches)}"


def show_next_steps(sweep: SweepFolder, uri: str, *, is_logged: bool = True) -> None:
    """Shows the commands that may follow a sweep.

    Args:
        sweep: that has ended.
        uri: of MLflow's store.
        is_logged: whether MLflow has all of the sweep; otherwise that comes first.
    """
    command, best = sweep.command, winners.best_keys(configurations(sweep.plan, sweep.histories()))
    steps = [] if is_logged else [(command("sync"), "send MLflow what it lacks, when it is available")]
    steps.append((command("ui"), "compare the trials in MLflow"))
    if best:
        steps.append((command("confirm"), "rerun the best of each method on fresh seeds"))
    if tuned := sweep.tuning() if sweep.plan.confirms else sweep:
        steps.append((tuned.command("report"), "write one page with every number, interval and claim"))
    if best:
        if (path := sweep.root / "best" / f"{best[0]}.yaml").is_file():
            file = folder.command(DEFAULT_DIRECTORY, "trial", str(path))
            steps.append((file, "rerun one of the best in this process"))
        steps.append((command("best", "--top", 3), "show more of the best"))
    elif not sweep.plan.confirms:
        steps.append((command("export", "--trial", sweep.histories()[0].key), "write a trial to a file"))
    if sweep.plan.phase == "tune":
        more = 2 * max(group.trials for group in sweep.plan.groups)
        steps.append((command("resume", "--trials", more), "search longer"))
    terminal.console.print(f"\nMLflow store: {uri}", markup=False, soft_wrap=True)
    terminal.show_table("Next steps", ["command", "what it does"], steps, commands=True)


def beginning(plan: Plan) -> str:
    """Which earlier trials the search begins with, as a sentence."""
    if plan.after is None:
        return ""
    counts = ", ".join(f"{len(trials)} of {label}" for label, trials in plan.after.trials.items())
    return (
        f"the search begins with what trials of {plan.after.sweep!r} have found: {counts}; they are not trained again and count "
        "towards no budget."
    )


def show_plan(plan: Plan) -> None:
    """Shows what a sweep tries."""
    terminal.headline(f"{plan.space}: {plan.description}")
    if plan.citation:
        terminal.remark(plan.citation)
    if not all(goal.is_default for goal in plan.goals):
        terminal.remark(f"Objective: {'; '.join(goal.words for goal in plan.goals)}.")
    if plan.after:
        terminal.remark(f"Note: {beginning(plan)}")
    rows = []
    own = {group.label: own_settings(plan, group) for group in plan.groups}
    for group in plan.groups:
        points = (
            f"{len(group.points)}, see below" if _are_listed(group.points) else _points_words(group.points, plan.labels)
        )
        drawn = "; ".join(
            f"{label_of(name, plan.labels).short} in {_range(value)}" for name, value in group.drawn().items()
        )
        fixed = "; ".join(f"{name}={_exact(value)}" for name, value in own[group.label].items())
        rows.append((group.scenario, group.method, str(group.trials), points or "-", drawn or "-", fixed or "-"))
    counted = "configurations" if plan.is_race else "trials"
    columns = ["scenario", "method", counted, "points, tried first", "then drawn from", "fixed in this method"]
    shown = len(columns) if any(own.values()) else len(columns) - 1
    terminal.show_table("What is tried", columns[:shown], [row[:shown] for row in rows])
    _show_points(plan)
    if plan.is_race:
        _show_rungs(plan)
    scenarios = list(dict.fromkeys(group.scenario for group in plan.groups))
    shared = [shared_settings(plan, scenario) for scenario in scenarios]
    names = dict.fromkeys(name for settings in shared for name in settings)
    title = f"The same in all trials of a scenario, with seeds {list(plan.seeds)}"
    rows_of_settings = [
        (name, *(_exact(settings[name]) if name in settings else "-" for settings in shared)) for name in names
    ]
    terminal.show_table(title, ["setting", *scenarios], rows_of_settings)


def _exact(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


FEW_POINTS = 6
"""Up to this many points are listed one by one, even if they are a grid."""


def _show_points(plan: Plan) -> None:
    """Shows points that are too many for a cell, one a row, once for all scenarios that have them."""
    scenarios: dict[tuple[str, str], list[str]] = {}  # by method and points
    for group in plan.groups:
        if _are_listed(group.points):
            scenarios.setdefault((group.method, json.dumps(group.points)), []).append(group.scenario)
    for (method, text), where in scenarios.items():
        points = json.loads(text)
        names = list(dict.fromkeys(name for point in points for name in point))
        rows = [[short_value(point[name]) if name in point else "-" for name in names] for point in points]
        title = f"Points of {method} in {' and '.join(where)}, tried first; -: as in all trials"
        short = [label_of(name, plan.labels).short for name in names]
        unique = [word if short.count(word) == 1 else name for word, name in zip(short, names, strict=True)]
        terminal.show_table(title, unique, rows)


def _are_listed(points: Sequence[Mapping[str, Any]]) -> bool:
    """Whether points have a table of their own: many, and no grid."""
    return len(points) > FEW_POINTS and not _is_grid(points)


def _is_grid(points: Sequence[Mapping[str, Any]]) -> bool:
    """Whether points are all combinations of their values."""
    return math.prod(map(len, _values(points).values())) == len({json.dumps(p, sort_keys=True) for p in points})


def _values(points: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The values of each setting of the first point, by their text."""
    return {name: {json.dumps(point.get(name)): point.get(name) for point in points} for name in points[0]}


def _points_words(points: Sequence[Mapping[str, Any]], labels: Labels) -> str:
    """Points in words, or the values of a large grid."""
    if len(points) <= FEW_POINTS:
        return "; ".join(settings_words(point, labels) for point in points)
    sets = [
        f"{label_of(name, labels).short} in {{{', '.join(map(short_value, distinct.values()))}}}"
        for name, distinct in _values(points).items()
    ]
    return f"all {len(points)} of {', '.join(sets)}"


def _range(distribution: Any) -> str:
    if hasattr(distribution, "choices"):
        return "{" + ", ".join(map(str, distribution.choices)) + "}"
    scale = " (log)" if distribution.log else ""
    return f"[{distribution.low:g}, {distribution.high:g}]{scale}"
