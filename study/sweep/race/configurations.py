"""The trials of a configuration in a race, put together.

In a race a trial has the further seeds of one rung only. Whatever selects, shows or exports configurations reads them here: a
configuration is one history with all seeds that it has, and has finished only with all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from study import schema
from study.decision.halving import Entrant, Result
from study.errors import StudyError
from study.sweep.plan import Plan
from study.sweep.record import TrialHistory
from study.sweep.task_line import TaskLine


def configurations(plan: Plan, histories: Sequence[TrialHistory]) -> list[TrialHistory]:
    """What is selected from: trials, or a race's configurations.

    A configuration has the key of its first trial, and the outcome "stopped" while it has not all seeds. Raises StudyError if
    the trials of one do not fit together.
    """
    return [joined(plan, trials) for trials in grouped(plan, histories)] if plan.is_race else list(histories)


def grouped(plan: Plan, histories: Sequence[TrialHistory]) -> list[list[TrialHistory]]:
    """The trials of each configuration, in their order.

    Raises StudyError if one is missing or has other settings.
    """
    found: dict[tuple[str, int], list[TrialHistory]] = {}
    for history in histories:
        found.setdefault((history.group, plan.configuration_of(history.number)), []).append(history)
    for trials in found.values():
        trials.sort(key=lambda history: history.number)
        rungs = [plan.rung_of(history.number) for history in trials]
        if rungs != list(range(len(trials))) or any(history.tried != trials[0].tried for history in trials):
            raise StudyError(
                f"The trial {trials[-1].key!r} does not continue a configuration: trials of {plan.name!r} with fewer seeds are "
                f"missing, or have other settings."
            )
    return list(found.values())


def joined(plan: Plan, trials: Sequence[TrialHistory]) -> TrialHistory:
    """The trials of a configuration as one history.

    It has the seeds and the results of the finished ones, without probes.
    """
    first, last = trials[0], trials[-1]
    finished = [history for history in trials if history.outcome == "finished"]
    parts = finished or [last]
    started = [history.started for history in trials if history.started is not None]
    whole = TrialHistory(
        key=first.key,
        number=first.number,
        scenario=first.scenario,
        method=first.method,
        phase=first.phase,
        tried=first.tried,
        config={**first.config, "seeds": list(chain.from_iterable(history.seeds for history in parts))},
        task_count=first.task_count,
        sampler_notes={},
        tasks=[_line(lines) for lines in zip(*(history.tasks for history in parts), strict=True)],
        facts=parts[-1].facts,
        past_facts=sorted((line for history in trials for line in history.past_facts), key=lambda line: line["at"]),
        notes=list(dict.fromkeys(note for history in trials for note in history.notes)),
        outcome=last.outcome,
        reason=last.reason,
        labels=first.labels,
        objectives=first.objectives,
        started=min(started, default=None),
        ended=last.ended,
    )
    if last.outcome == "finished" and len(finished) < len(plan.rungs):
        whole.outcome = "stopped"
    return whole


def places(plan: Plan, history: TrialHistory) -> dict[str, Any]:
    """Where a trial belongs, if the sweep is a race.

    The key of its configuration, its rung from 0, and its seeds out of all, as text.
    """
    if not plan.is_race:
        return {}
    number, rung = history.number, plan.rung_of(history.number)
    return {
        "configuration": f"{history.group}-{number - rung:03d}",
        "rung": rung,
        "seeds": ", ".join(map(str, history.seeds)),
    }


def _line(lines: Sequence[Mapping[str, Any]]) -> TaskLine:
    """The results of one task with the lanes of all these lines."""
    lanes = [len(next(iter(line["lanes"].values()))) for line in lines]
    whole = {
        "task": lines[0]["task"],
        "name": lines[0]["name"],
        "at": max(line["at"] for line in lines),
        "metrics": _numbers([line["metrics"] for line in lines], lanes),
        "lanes": _side_by_side([line["lanes"] for line in lines]),
    }
    if all("diagnostics" in line for line in lines):
        whole["diagnostics"] = _side_by_side([line["diagnostics"] for line in lines])
    if all("summary" in line for line in lines):
        whole["summary"] = _numbers([line["summary"] for line in lines], lanes)
    return TaskLine(whole)


def _numbers(tables: Sequence[Mapping[str, float]], lanes: Sequence[int]) -> dict[str, float]:
    """The numbers that all tables have, over all lanes."""
    names = [name for name in tables[0] if all(name in table for table in tables)]
    return {name: over_seeds(name, [table[name] for table in tables], lanes) for name in names}


def _side_by_side(tables: Sequence[Mapping[str, Sequence[float | None]]]) -> dict[str, list[float | None]]:
    names = [name for name in tables[0] if all(name in table for table in tables)]
    return {name: list(chain.from_iterable(table[name] for table in tables)) for name in names}


def over_seeds(name: str, values: Sequence[float], lanes: Sequence[int]) -> float:
    """A number of several trials of a configuration as one.

    What adds up over seeds is added, of all others the mean is taken, weighted by lanes.
    """
    if name in schema.SUMMED:
        return sum(values)
    return sum(value * count for value, count in zip(values, lanes, strict=True)) / sum(lanes)


def entrants(plan: Plan, histories: Sequence[TrialHistory]) -> list[Entrant]:
    """The configurations of one method, as a race judges them."""
    return [_entrant(plan, trials) for trials in grouped(plan, histories)]


def _entrant(plan: Plan, trials: Sequence[TrialHistory]) -> Entrant:
    finished = [history for history in trials if history.outcome == "finished"]
    goal = trials[0].objectives[0]
    values = [history.objective for history in finished]
    lanes = [len(history.seeds) for history in finished]
    diverged = [history.metrics[schema.DIVERGED_LANES] for history in finished]
    results = []
    for count in range(1, len(finished) + 1):
        known = [value for value in values[:count] if value is not None]
        is_known = len(known) == count
        score = goal.score(over_seeds(goal.quantity, known, lanes[:count])) if is_known else None
        results.append(Result(score, sum(diverged[:count])))
    return Entrant(
        number=plan.configuration_of(trials[0].number),
        results=tuple(results),
        begun=len(trials),
        failed=trials[-1].outcome == "failed",
    )
