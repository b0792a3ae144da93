"""The result of a task as logged numbers.

They have the flat names of the schema, and for each lane its own values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from study import schema
from study.training import metrics
from study.training.trainer import TaskResult


def measures(result: TaskResult) -> dict[str, float]:
    """The logged numbers of a task by schema name.

    Always finite. Means over the lanes, seconds and counts.
    """
    state = result.state
    values = {
        **{name: float(lanes.mean()) for name, lanes in _by_lane(result).items()},
        schema.GRADIENT_EVALUATIONS: float(state.gradient_evaluations),
        schema.TRAINING_SECONDS: result.training_seconds,
        schema.EVALUATION_SECONDS: result.evaluation_seconds,
        schema.DIAGNOSTICS_SECONDS: result.diagnostics_seconds,
        schema.DIVERGED_LANES: float(state.diverged.sum()),
    }
    if len(state.validation):
        values[schema.OBJECTIVE] = float(state.validation.mean())
        values[schema.DECLINE] = float(metrics.decline(state.validation).mean())
        values[schema.DECLINE_AFTER_WARMUP] = float(metrics.decline_after_warmup(state.validation).mean())
        values[schema.LATE_ACCURACY] = float(metrics.last_tenth(state.validation).mean())
    return values


def lane_measures(result: TaskResult) -> dict[str, list[float]]:
    """Each lane's values by schema name, in seed order."""
    return {name: lanes.tolist() for name, lanes in _by_lane(result).items()}


def diagnostics(result: TaskResult) -> dict[str, list[float | None]]:
    """Each lane's diagnostics by name, in seed order.

    None where a value is unknown.
    """
    return _known(result.diagnostics)


def probes(result: TaskResult) -> list[dict[str, Any]]:
    """The probes before a task, lanes in seed order.

    None where a value is unknown.
    """
    return [
        {
            "operation": probed.operation,
            "level": probed.level,
            "network": _known(probed.network),
            "trained": [
                {"lr": copy.lr, "undone": copy.undone, "lanes": _known(copy.values)} for copy in probed.trained
            ],
        }
        for probed in result.probes
    ]


def _known(values: Mapping[str, Tensor]) -> dict[str, list[float | None]]:
    """Values [lane] by name; None in place of NaN."""
    return {name: [None if math.isnan(value) else value for value in lanes.tolist()] for name, lanes in values.items()}


def summary(result: TaskResult) -> dict[str, float]:
    """The numbers logged once for a finished trial.

    They are computed from the result of its last task. `summary/seconds` is not among them.
    """
    state = result.state
    values: dict[str, Tensor | int] = {
        "summary/accuracy_test": state.test.mean(),
        "summary/accuracy_test_first_tenth": metrics.first_tenth(state.test).mean(),
        "summary/accuracy_test_last_tenth": metrics.last_tenth(state.test).mean(),
        "summary/decline_test": metrics.decline(state.test).mean(),
        schema.DECLINE_AFTER_WARMUP_TEST: metrics.decline_after_warmup(state.test).mean(),
        "summary/gradient_evaluations": state.gradient_evaluations,
        "summary/lanes_diverged": state.diverged.sum(),
    }
    if len(state.validation):
        values |= {
            "summary/objective": state.validation.mean(),
            "summary/accuracy_validation_first_tenth": metrics.first_tenth(state.validation).mean(),
            "summary/accuracy_validation_last_tenth": metrics.last_tenth(state.validation).mean(),
        }
    return {name: float(value) for name, value in values.items()}


def task_line(result: TaskResult, task_count: int) -> dict[str, Any]:
    """The line of a trial's record for one task.

    The line of the last task has the summary.
    """
    line: dict[str, Any] = {
        "task": result.task,
        "name": result.name,
        "metrics": measures(result),
        "lanes": lane_measures(result),
    }
    if result.diagnostics:
        line["diagnostics"] = diagnostics(result)
    if result.probes:
        line["probes"] = probes(result)
    if result.task + 1 == task_count:
        line["summary"] = summary(result)
    return line


def _by_lane(result: TaskResult) -> dict[str, Tensor]:
    values = {
        schema.TEST_ACCURACY: result.test_accuracy,
        schema.ONLINE_ACCURACY: result.online_accuracy,
        schema.ONLINE_LOSS: result.online_loss,
    }
    if result.validation_accuracy is not None:
        values[schema.VALIDATION_ACCURACY] = result.validation_accuracy
    return values
