"""Diagnostics of the networks, and accuracy that follows.

The table has one row per measurement of a lane: `run_id`, `trial`, `scenario`, `method`, `lane`, `seed`, `task`, and a column per
diagnostic of `study.schema`; those of a layer are named by `schema.layer_name`. Those of `schema.DIAGNOSTICS` were measured after
the task, and are set beside accuracy on the next one. Those of `schema.ONSET` were measured before its first step, and are set
beside accuracy on that very task.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.correlation import Correlation, within_lanes
from analysis.runs import LANE_COLUMNS
from study import schema

FILE: Final = "tables/diagnostics.csv"
"""A run's artifact with its lanes' diagnostics."""

ACCURACY: Final = "learnt"
"""Column of the test accuracy on the task that follows the measurement."""

_NOT_OF_NETWORKS: Final = (schema.HESSIAN_TRACE_ERROR, schema.FIRST_TASK_ACCURACY, schema.EARLIER_TASKS_ACCURACY)


@dataclass(frozen=True)
class Moment:
    """When networks are measured, and the task that follows.

    Attributes:
        properties: diagnostics of the network itself, not of what it remembers.
        controls: those that may explain an association, and are controlled for: weight norm and rank.
        uncontrolled: those that are the controls by another name.
        ahead: index of the task that follows, minus the index that the measurement is logged with.
        words: when, "after a task".
        follows: the task that follows, "the next task".
    """

    properties: tuple[str, ...]
    controls: tuple[str, ...]
    uncontrolled: tuple[str, ...]
    ahead: int
    words: str
    follows: str


AFTER: Final = Moment(
    properties=tuple(quantity.name for quantity in schema.DIAGNOSTICS if quantity.name not in _NOT_OF_NETWORKS),
    controls=(schema.WEIGHT_NORM, schema.EFFECTIVE_RANK),
    uncontrolled=(schema.WEIGHT_NORM, schema.EFFECTIVE_RANK, schema.WEIGHT_DISTANCE),
    ahead=1,
    words="after a task",
    follows="the next task",
)

ONSET: Final = Moment(
    properties=tuple(
        quantity.name
        for quantity in schema.ONSET
        if quantity.name.removeprefix(schema.ONSET_PREFIX) not in _NOT_OF_NETWORKS
    ),
    controls=tuple(map(schema.onset_name, AFTER.controls)),
    uncontrolled=tuple(map(schema.onset_name, AFTER.controls)),
    ahead=0,
    words="at the onset of a task",
    follows="that task",
)


def empty() -> pd.DataFrame:
    """The table without rows."""
    return pd.DataFrame(columns=list(LANE_COLUMNS))


def has_any(metrics: Mapping[str, Any]) -> bool:
    """Whether a run with these metrics has diagnostics."""
    return any(quantity.name in metrics for quantity in schema.ALL_DIAGNOSTICS) or any(
        schema.layer_name(quantity.name, "0") in metrics for quantity in schema.ALL_DIAGNOSTICS
    )


def read(text: str, key: Mapping[str, Any], run_id: str) -> pd.DataFrame:
    """The rows of one run's file. Raises ValueError if malformed."""
    table = pd.read_csv(io.StringIO(text), dtype=str).drop(columns="name")
    place = {name: key[name] for name in ("trial", "scenario", "method")}
    return in_order([table.assign(run_id=run_id, **place)])


def in_order(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows of the tables, columns in schema order.

    Values may be numbers or their text.
    """
    nonempty = [table for table in tables if len(table)]
    if not nonempty:
        return empty()
    joined = pd.concat(nonempty, ignore_index=True)
    position = {quantity.name: i for i, quantity in enumerate(schema.ALL_DIAGNOSTICS)}
    names = [name for name in joined if str(name).split("/layer_")[0] in position]
    names.sort(key=lambda name: (position[str(name).split("/layer_")[0]], str(name)))
    integers = dict.fromkeys(("lane", "seed", "task"), "int64")
    return joined[[*LANE_COLUMNS, *names]].astype({**dict.fromkeys(names, "float64"), **integers})


def of_networks(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the layers reduced to one number each.

    Norms become the norm over all weights, shares the mean over the hidden layers.
    """
    # run by run, for a deeper network beside would add layers that a shallow one lacks
    runs = [_of_networks(run.dropna(axis=1, how="all")) for _, run in table.groupby("run_id", sort=False)]
    return in_order(runs)


def _of_networks(table: pd.DataFrame) -> pd.DataFrame:
    """`of_networks` for networks of one depth."""
    reduced = table[list(LANE_COLUMNS)].copy()
    for quantity in schema.ALL_DIAGNOSTICS:
        layers = table[[name for name in table if str(name).startswith(f"{quantity.name}/layer_")]]
        if quantity.by_layer and layers.shape[1]:
            norms = quantity.name.removeprefix(schema.ONSET_PREFIX) in (schema.WEIGHT_NORM, schema.WEIGHT_DISTANCE)
            squares = (layers**2).sum(axis=1, skipna=False)
            reduced[quantity.name] = np.sqrt(squares) if norms else layers.mean(axis=1, skipna=False)
        elif quantity.name in table:
            reduced[quantity.name] = table[quantity.name]
    return reduced


def with_accuracy(table: pd.DataFrame, lanes: pd.DataFrame, moment: Moment) -> pd.DataFrame:
    """Networks with accuracy on the task that follows.

    The accuracy is the same lane's, in column `ACCURACY`. After the last task none follows, and there is no row.
    """
    learnt = lanes[["run_id", "lane", "task", schema.TEST_ACCURACY]].rename(columns={schema.TEST_ACCURACY: ACCURACY})
    learnt = learnt.assign(task=learnt["task"].astype("int64") - moment.ahead)
    return of_networks(table).merge(learnt, on=["run_id", "lane", "task"], how="inner")


def associations(networks: pd.DataFrame, moment: Moment) -> dict[str, dict[str, Correlation]]:
    """How each property correlates with the accuracy that follows.

    Args:
        networks: of one run, see `with_accuracy`.
        moment: when they were measured.

    Returns:
        By property, within lanes: `alone`; `given` weight norm and rank, unless the property is one of them or the distance,
        which is the norm by another name; and `in_time`, given these and the task's index. All three use the same pairs. An
        unknown correlation is NaN.
    """
    by_property = {}
    for name in moment.properties:
        if name not in networks or not networks[name].notna().any():
            continue
        rows = networks[networks[name].notna()]
        has_controls = set(moment.controls) <= set(rows)
        with_controls = rows.dropna(subset=list(moment.controls)) if has_controls else rows[:0]
        controlled = name not in moment.uncontrolled and len(with_controls) > 0
        rows = with_controls if controlled else rows
        pair = rows[name], rows[ACCURACY], rows["lane"]
        correlations = {"alone": within_lanes(*pair)}
        if controlled:
            controls = tuple(rows[control] for control in moment.controls)
            correlations["given"] = within_lanes(*pair, controls)
            correlations["in_time"] = within_lanes(*pair, (*controls, rows["task"]))
        by_property[name] = correlations
    return by_property
