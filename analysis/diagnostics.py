"""Diagnostics of the networks, and accuracy on the next task.

The table has one row per measurement of a lane: `run_id`, `trial`, `scenario`, `method`, `lane`, `seed`, `task`, and a column per
diagnostic of `study.schema.DIAGNOSTICS`; those of a layer are named by `schema.layer_name`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.correlation import Correlation, within_lanes
from analysis.runs import LANE_COLUMNS
from study import schema

FILE: Final = "tables/diagnostics.csv"
"""A run's artifact with its lanes' diagnostics."""

WEIGHT_NORM, RANK = schema.WEIGHT_NORM, schema.EFFECTIVE_RANK
CONTROLS: Final = (WEIGHT_NORM, RANK)
"""Quantities that may explain an association, and are controlled for."""

NEXT: Final = "next"
"""Column of the test accuracy on the next task."""

PROPERTIES: Final = tuple(
    quantity.name
    for quantity in schema.DIAGNOSTICS
    if quantity.name not in (schema.HESSIAN_TRACE_ERROR, schema.FIRST_TASK_ACCURACY, schema.EARLIER_TASKS_ACCURACY)
)
"""Diagnostics of the network itself, not of what it remembers."""


def empty() -> pd.DataFrame:
    """The table without rows."""
    return pd.DataFrame(columns=list(LANE_COLUMNS))


def has_any(metrics: Mapping[str, Any]) -> bool:
    """Whether a run with these metrics has diagnostics."""
    return any(quantity.name in metrics for quantity in schema.DIAGNOSTICS) or any(
        schema.layer_name(quantity.name, "0") in metrics for quantity in schema.DIAGNOSTICS
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
    position = {quantity.name: i for i, quantity in enumerate(schema.DIAGNOSTICS)}
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
    for quantity in schema.DIAGNOSTICS:
        layers = table[[name for name in table if str(name).startswith(f"{quantity.name}/layer_")]]
        if quantity.by_layer and layers.shape[1]:
            norms = quantity.name in (schema.WEIGHT_NORM, schema.WEIGHT_DISTANCE)
            squares = (layers**2).sum(axis=1, skipna=False)
            reduced[quantity.name] = np.sqrt(squares) if norms else layers.mean(axis=1, skipna=False)
        elif quantity.name in table:
            reduced[quantity.name] = table[quantity.name]
    return reduced


def with_next(table: pd.DataFrame, lanes: pd.DataFrame) -> pd.DataFrame:
    """Networks after each task, with accuracy on the next.

    The accuracy is the same lane's, in column `NEXT`. The last task has no next one and no row.
    """
    after = lanes[["run_id", "lane", "task", schema.TEST_ACCURACY]].rename(columns={schema.TEST_ACCURACY: NEXT})
    after = after.assign(task=after["task"].astype("int64") - 1)
    return of_networks(table).merge(after, on=["run_id", "lane", "task"], how="inner")


def associations(networks: pd.DataFrame) -> dict[str, dict[str, Correlation]]:
    """How each property correlates with accuracy on the next task.

    Args:
        networks: of one run, see `with_next`.

    Returns:
        By property, within lanes: `alone`; `given` weight norm and rank, unless the property is one of them or the distance,
        which is the norm by another name; and `in_time`, given these and the task's index. All three use the same pairs. An
        unknown correlation is NaN.
    """
    by_property = {}
    for name in PROPERTIES:
        if name not in networks or not networks[name].notna().any():
            continue
        rows = networks[networks[name].notna()]
        with_controls = rows.dropna(subset=list(CONTROLS)) if set(CONTROLS) <= set(rows) else rows[:0]
        controlled = name not in (*CONTROLS, schema.WEIGHT_DISTANCE) and len(with_controls) > 0
        rows = with_controls if controlled else rows
        pair = rows[name], rows[NEXT], rows["lane"]
        correlations = {"alone": within_lanes(*pair)}
        if controlled:
            controls = tuple(rows[control] for control in CONTROLS)
            correlations["given"] = within_lanes(*pair, controls)
            correlations["in_time"] = within_lanes(*pair, (*controls, rows["task"]))
        by_property[name] = correlations
    return by_property
