"""A sweep and its trials as MLflow shows them: metrics, tables and Markdown, made out of the records."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlflow.entities import Metric

from study import schema
from study.sweep.folder import SweepFolder
from study.sweep.record import TrialHistory


def task_metrics(line: Mapping[str, Any]) -> list[Metric]:
    """The metrics of one task, step = index of the task: means over the lanes, then each lane; of diagnostics the means alone.

    Test accuracy, by which a step is known to be there, comes last: if a step should be cut in two, it is the end.
    """
    values = dict(line["metrics"])
    for name, lanes in line["lanes"].items():
        values |= {schema.lane_name(name, lane): value for lane, value in enumerate(lanes)}
    for name, lanes in line.get("diagnostics", {}).items():
        if known := [value for value in lanes if value is not None]:
            values[name] = sum(known) / len(known)
    values[schema.TEST_ACCURACY] = values.pop(schema.TEST_ACCURACY)
    when = int(line["at"] * 1000)
    return [Metric(name, value, when, line["task"]) for name, value in values.items()]


def sweep_metrics(histories: list[TrialHistory]) -> dict[str, float]:
    """What came out of a sweep: how many trials ended how, and the best objective of each method and scenario."""
    values = {
        name: float(sum(1 for history in histories if history.outcome == name.removeprefix("trials/")))
        for name in (schema.FINISHED_TRIALS, schema.STOPPED_TRIALS, schema.FAILED_TRIALS)
    }
    for history in histories:
        if "summary/objective" in history.summary and history.phase != "confirm":
            name = f"{schema.BEST_OBJECTIVE}/{history.group}"
            values[name] = max(values.get(name, 0.0), history.summary["summary/objective"])
    return values


def lanes_csv(history: TrialHistory) -> str:
    """The table of lanes: one row for each task and lane, numbers in full."""
    names = list(history.tasks[0]["lanes"])
    rows = [
        [line["task"], line["name"], lane, seed, *(line["lanes"][name][lane] for name in names)]
        for line in history.tasks
        for lane, seed in enumerate(history.seeds)
    ]
    return _csv(["task", "name", "lane", "seed", *names], rows)


def diagnostics_csv(history: TrialHistory) -> str:
    """The table of diagnostics: one row for each task and lane, numbers in full; empty where one is not known or was not due."""
    looks = [line for line in history.tasks if "diagnostics" in line]
    names = list(dict.fromkeys(name for line in looks for name in line["diagnostics"]))
    rows = [
        [line["task"], line["name"], lane, seed, *(_known(line["diagnostics"], name, lane) for name in names)]
        for line in looks
        for lane, seed in enumerate(history.seeds)
    ]
    return _csv(["task", "name", "lane", "seed", *names], rows) if looks else ""


def _known(diagnostics: Mapping[str, Sequence[float | None]], name: str, lane: int) -> float | str:
    value = diagnostics[name][lane] if name in diagnostics else None
    return "" if value is None else value


def trials_csv(histories: Sequence[TrialHistory]) -> str:
    """The table of trials: one row each, with what was tried and the summary, numbers in full; empty where there is none."""
    tried = list(dict.fromkeys(name for history in histories for name in history.tried))
    names = [quantity.name for quantity in schema.SUMMARY]
    rows = [
        [
            *(history.key, history.scenario, history.method, history.outcome, len(history.tasks)),
            *(history.tried.get(name, "") for name in tried),
            *(history.summary.get(name, "") for name in names),
        ]
        for history in histories
    ]
    return _csv(["trial", "scenario", "method", "outcome", "tasks", *tried, *names], rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def trial_description(history: TrialHistory, sweep: str) -> str:
    """What a run's page says of a trial, in Markdown; `sweep` is the address of the sweep's run."""
    seeds = "1 seed" if len(history.seeds) == 1 else f"{len(history.seeds)} seeds"
    done = f"{len(history.tasks)} of {history.task_count} tasks of `{history.scenario}`"
    text = [f"**{history.name}**: {done}, {seeds} on `{history.config['data']['name']}`. [The whole sweep]({sweep})"]
    text.append(
        {"stopped": "Stopped early by the scheduler.", "failed": f"Failed: {history.reason}"}.get(history.outcome, "")
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
    "Artifacts: `configuration/trial.yaml` says all that decides the result; `tables/lanes.csv` has each seed's accuracy on each "
    "task and `tables/diagnostics.csv` what was seen inside the network; `figures/` shows them; the best of its method has "
    "`best/`, a file that `study trial` runs."
)


def sweep_description(folder: SweepFolder, shown: Sequence[tuple[str, str]], artifacts: str) -> str:
    """What the sweep's run page says, in Markdown.

    Args:
        folder: of the sweep.
        shown: what there is to see, each with its address.
        artifacts: address of this run's artifacts.
    """
    plan = folder.plan
    lines = [", ".join(f"[{what}]({address})" for what, address in shown)]
    lines += [f"**{plan.name}**: {plan.description}", f"Search space `{plan.space}`. {plan.citation}"]
    lines.append(f"`study report {plan.name}` writes the report and attaches it [here, as `report`]({artifacts}).")
    lines.append("| scenario | method | trials | points | drawn |\n|---|---|---|---|---|")
    for group in plan.groups:
        drawn = ", ".join(f"`{name}`" for name in group.distributions) or "-"
        lines[-1] += f"\n| {group.scenario} | {group.method} | {group.trials} | {len(group.points)} | {drawn} |"
    if plan.confirms:
        lines.append(
            f"It confirms the sweep `{plan.confirms.sweep}` on the fresh seeds {list(plan.seeds)}; nothing is chosen by it."
        )
    else:
        lines.append(
            "Trials are the runs tagged `role = trial`; they are compared by `objective`, never by test accuracy."
        )
    return "\n\n".join(lines)
