"""The metrics, tables and descriptions of MLflow's runs.

All of them are made from the records.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlflow.entities import Metric

from study import schema
from study.provenance import software_changes, spans
from study.sweep.folder import SweepFolder
from study.sweep.plan import Plan, own_settings
from study.sweep.race.configurations import places
from study.sweep.record import TrialHistory
from study.tracking.client import SOFTWARE_CHANGES_TAG


def task_metrics(line: Mapping[str, Any]) -> list[Metric]:
    """The metrics of one task, with its index as step.

    Means over the lanes and the values of each lane; of diagnostics and probes only the means. Test accuracy comes last: its
    presence in MLflow means that the step is complete, even if it was sent in two parts.
    """
    values = dict(line["metrics"])
    for name, lanes in line["lanes"].items():
        values |= {schema.lane_name(name, lane): value for lane, value in enumerate(lanes)}
    for name, lanes in line.get("diagnostics", {}).items():
        if numbers := [value for value in lanes if value is not None]:
            values[name] = sum(numbers) / len(numbers)
    for probed, copy in _copies(line):
        if numbers := [value for value in copy["lanes"][schema.PROBE_ONLINE_ACCURACY] if value is not None]:
            arm = schema.arm_name(probed["operation"], probed["level"], copy["undone"])
            values[schema.probe_metric(arm, copy["lr"])] = sum(numbers) / len(numbers)
    values[schema.TEST_ACCURACY] = values.pop(schema.TEST_ACCURACY)
    milliseconds = int(line["at"] * 1000)
    return [Metric(name, value, milliseconds, line["task"]) for name, value in values.items()]


def sweep_metrics(
    histories: Sequence[TrialHistory], configurations: Sequence[TrialHistory] | None = None
) -> dict[str, float]:
    """The metrics of a sweep's own run.

    Number of trials by outcome, and the best objective of each method and scenario, in a race of what has all seeds.

    Args:
        histories: of all trials.
        configurations: that may be the best; by default the trials.
    """
    values = {
        name: float(sum(1 for history in histories if history.outcome == name.removeprefix("trials/")))
        for name in (schema.FINISHED_TRIALS, schema.STOPPED_TRIALS, schema.FAILED_TRIALS)
    }
    for history in histories if configurations is None else configurations:
        value, name = history.objective, f"{schema.BEST_OBJECTIVE}/{history.group}"
        if value is not None and history.phase != "confirm":
            values[name] = max(values.get(name, value), value, key=history.objectives[0].score)
    return values


def lanes_csv(history: TrialHistory) -> str:
    """The table of lanes: a row per task and lane.

    Numbers are not rounded.
    """
    names = list(history.tasks[0]["lanes"])
    rows = [
        [line["task"], line["name"], lane, seed, *(line["lanes"][name][lane] for name in names)]
        for line in history.tasks
        for lane, seed in enumerate(history.seeds)
    ]
    return _csv(["task", "name", "lane", "seed", *names], rows)


def diagnostics_csv(history: TrialHistory) -> str:
    """The table of diagnostics: a row per task and lane.

    Numbers are not rounded. A cell is empty if the diagnostic did not run after that task or has no value. No table, "", if no
    diagnostic ran at all.
    """
    lines = [line for line in history.tasks if "diagnostics" in line]
    names = list(dict.fromkeys(name for line in lines for name in line["diagnostics"]))
    rows = [
        [line["task"], line["name"], lane, seed, *(_cell(line["diagnostics"], name, lane) for name in names)]
        for line in lines
        for lane, seed in enumerate(history.seeds)
    ]
    return _csv(["task", "name", "lane", "seed", *names], rows) if lines else ""


def probes_csv(history: TrialHistory) -> str:
    """The table of probes: tasks, copies and lanes as rows.

    Copies are those of one operation and learning rate. Numbers are not rounded; a cell is empty where there is no value. No
    table, "", if there are no probes.
    """
    names: dict[str, None] = {}
    for line in history.tasks:
        for probed, copy in _copies(line):
            names |= dict.fromkeys([*copy["lanes"], *probed["network"]])
    header = ["task", "name", "lane", "seed", "arm", "operation", "level", "undone", "lr", *names]
    rows = [
        [
            *(line["task"], line["name"], lane, seed),
            schema.arm_name(probed["operation"], probed["level"], copy["undone"]),
            *(probed["operation"], probed["level"], copy["undone"], copy["lr"]),
            *(_cell({**copy["lanes"], **probed["network"]}, name, lane) for name in names),
        ]
        for line in history.tasks
        for probed, copy in _copies(line)
        for lane, seed in enumerate(history.seeds)
    ]
    return _csv(header, rows) if rows else ""


def _copies(line: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Each operation of a task's probes, with each of its copies."""
    for probed in line.get("probes", ()):
        for copy in probed["trained"]:
            yield probed, copy


def _cell(diagnostics: Mapping[str, Sequence[float | None]], name: str, lane: int) -> float | str:
    value = diagnostics[name][lane] if name in diagnostics else None
    return "" if value is None else value


def trials_csv(histories: Sequence[TrialHistory], plan: Plan | None = None) -> str:
    """The table of trials: the settings tried, and the summary.

    In a race also the configuration, rung and seeds of each trial. Numbers are not rounded. A cell is empty if the trial has no
    such setting or summary.
    """
    tried = dict.fromkeys(name for history in histories for name in history.tried)
    columns = [
        "trial",
        *(("configuration", "rung", "seeds") if plan and plan.is_race else ()),
        "scenario",
        "method",
        "outcome",
        "tasks",
        *tried,
    ]
    rows = [{**history.row, **(places(plan, history) if plan else {})} for history in histories]
    columns += [
        quantity.name
        for quantity in schema.SUMMARY
        if not quantity.may_lack or any(quantity.name in row for row in rows)
    ]
    return _csv(columns, [[row.get(column, "") for column in columns] for row in rows])


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def trial_description(history: TrialHistory, sweep: str, place: Mapping[str, Any] | None = None) -> str:
    """The description of a trial's run, in Markdown.

    Args:
        history: the trial.
        sweep: address of the sweep's run.
        place: of the trial in a race, see `study.sweep.race.configurations.places`.
    """
    seeds = "1 seed" if len(history.seeds) == 1 else f"{len(history.seeds)} seeds"
    done = f"{len(history.tasks)} of {history.task_count} tasks of `{history.scenario}`"
    text = [f"**{history.name}**: {done}, {seeds} on `{history.config['data']['name']}`. [The whole sweep]({sweep})"]
    text.append(
        {"stopped": "Stopped early by the scheduler.", "failed": f"Failed: {history.reason}"}.get(history.outcome, "")
    )
    if place:
        text.append(
            f"Part of a race: only seeds {place['seeds']} of the configuration `{place['configuration']}`; runs with that tag "
            "belong together."
        )
    text += [f"Note: {note}." for note in history.notes]
    rows = [(schema.QUANTITIES[name], value) for name, value in history.summary.items()]
    if rows:
        text.append("| quantity | value | unit | definition |\n|---|---|---|---|")
        text[-1] += "".join(f"\n| `{q.name}` | {value:.4g} | {q.unit} | {q.definition} |" for q, value in rows)
    if history.tasks:
        text.append(ARTIFACTS)
    return "\n\n".join(part for part in text if part)


ARTIFACTS = (
    "Artifacts: `configuration/trial.yaml` has everything that decides the result; `tables/lanes.csv` has each seed's accuracy "
    "on each task, `tables/diagnostics.csv` the diagnostics of the network and `tables/probes.csv` its probes, if there are any; "
    "`figures/` shows them; the best trial of its method also has `best/`, a file for `study trial`."
)


def software_tags(facts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Source, commit and versions as tags of a run.

    A tag has several values if they changed, the oldest first; then there is also the tag `software_changes`.

    Args:
        facts: as of `study.provenance.spans`.
    """
    tags = {name: ", then ".join(values) for name, values in spans(facts).items()}
    changes = software_changes(facts)
    return {**tags, **({SOFTWARE_CHANGES_TAG: changes} if changes else {})}


def sweep_description(
    folder: SweepFolder, shown: Sequence[tuple[str, str]], artifacts: str, facts: Sequence[Mapping[str, Any]]
) -> str:
    """The description of a sweep's own run, in Markdown.

    Args:
        folder: of the sweep.
        shown: titles and addresses of the sweep's views.
        artifacts: address of this run's artifacts.
        facts: of its trials, in the order of time.
    """
    plan = folder.plan
    goals = [f"`{goal.running or goal.column}` ({goal.words})" for goal in plan.goals]
    optimised = "`objective`" if plan.goals[0].is_default else goals[0]
    lines = [", ".join(f"[{title}]({address})" for title, address in shown)]
    lines += [f"**{plan.name}**: {plan.description}", f"Search space `{plan.space}`. {plan.citation}"]
    lines.append(f"`study report {plan.name}` writes the report and attaches it [here, as `report`]({artifacts}).")
    counted = "configurations" if plan.is_race else "trials"
    lines.append(f"| scenario | method | {counted} | points | drawn | fixed |\n|---|---|---|---|---|---|")
    for group in plan.groups:
        drawn = ", ".join(f"`{name}`" for name in group.distributions) or "-"
        fixed = ", ".join(f"`{name}={json.dumps(value)}`" for name, value in own_settings(plan, group).items()) or "-"
        cells = (group.scenario, group.method, group.trials, len(group.points), drawn, fixed)
        lines[-1] += f"\n| {' | '.join(map(str, cells))} |"
    if changes := software_changes(facts):
        lines.append(f"Its software changed while it ran, so numbers may differ: {changes}.")
    if plan.after:
        lines.append(
            f"Its search began with what trials of `{plan.after.sweep}` had found; they are no runs of this sweep."
        )
    if plan.confirms:
        lines.append(
            f"It confirms the sweep `{plan.confirms.sweep}` on the fresh seeds {list(plan.seeds)}; nothing is selected by it."
        )
    elif plan.is_race:
        seeds = ", ".join(map(str, plan.rungs))
        lines.append(
            f"It is a race: its configurations have {seeds} seeds, the better half of each rung the next number. A run has the "
            "further seeds of one rung; runs with the same tag `configuration` belong together. Only configurations with all "
            f"seeds can be the best. Compare runs of the same `rung` by {optimised}, never by test accuracy."
        )
    else:
        lines.append(
            f"Trials are the runs with the tag `role = trial`; compare them by {optimised}, never by test accuracy."
        )
    return "\n\n".join(lines)
