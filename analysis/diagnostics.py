"""What was seen inside the network after each task, beside how well the next task was then learnt.

The table has one row for each look into a lane: `run_id`, `trial`, `scenario`, `method`, `lane`, `seed`, `task`, and a column for
each diagnostic of `study.schema.DIAGNOSTICS`, those of layers under `schema.layer_name`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.correlation import Correlation, within_lanes
from analysis.trial import LANE_COLUMNS
from study import schema

FILE: Final = "tables/diagnostics.csv"
"""A run's artifact with the values of its lanes."""

WEIGHT_NORM, RANK = schema.WEIGHT_NORM, schema.EFFECTIVE_RANK
CONTROLS: Final = (WEIGHT_NORM, RANK)
"""What a diagnostic may merely go along with."""

NEXT: Final = "next"
"""Column of the test accuracy on the task after."""

PROPERTIES: Final = tuple(
    quantity.name
    for quantity in schema.DIAGNOSTICS
    if quantity.name not in (schema.HESSIAN_TRACE_ERROR, schema.FIRST_TASK_ACCURACY, schema.EARLIER_TASKS_ACCURACY)
)
"""The diagnostics that describe the network after a task, rather than what it still knows."""


def empty() -> pd.DataFrame:
    """The table without a row."""
    return pd.DataFrame(columns=list(LANE_COLUMNS))


def has_any(metrics: Mapping[str, Any]) -> bool:
    """Whether a run with these metrics was looked into."""
    return any(quantity.name in metrics for quantity in schema.DIAGNOSTICS) or any(
        schema.layer_name(quantity.name, "0") in metrics for quantity in schema.DIAGNOSTICS
    )


def read(text: str, key: Mapping[str, Any], run_id: str) -> pd.DataFrame:
    """The rows of one run's file. Raises ValueError when it is no such file."""
    table = pd.read_csv(io.StringIO(text), dtype=str).drop(columns="name")
    place = {name: key[name] for name in ("trial", "scenario", "method")}
    return in_order([table.assign(run_id=run_id, **place)])


def in_order(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows of the tables, of numbers or of their texts, the columns in the schema's order."""
    whole = [table for table in tables if len(table)]
    if not whole:
        return empty()
    joined = pd.concat(whole, ignore_index=True)
    place = {quantity.name: i for i, quantity in enumerate(schema.DIAGNOSTICS)}
    found = [name for name in joined if str(name).split("/layer_")[0] in place]
    found.sort(key=lambda name: (place[str(name).split("/layer_")[0]], str(name)))
    whole_numbers = dict.fromkeys(("lane", "seed", "task"), "int64")
    return joined[[*LANE_COLUMNS, *found]].astype({**dict.fromkeys(found, "float64"), **whole_numbers})


def of_networks(table: pd.DataFrame) -> pd.DataFrame:
    """The same with one number for all layers: the norm over all weights, the mean share over the hidden layers."""
    runs = [_of_networks(run.dropna(axis=1, how="all")) for _, run in table.groupby("run_id", sort=False)]
    return in_order(runs)


def _of_networks(table: pd.DataFrame) -> pd.DataFrame:
    """Of networks of one depth."""
    found = table[list(LANE_COLUMNS)].copy()
    for quantity in schema.DIAGNOSTICS:
        layers = table[[name for name in table if str(name).startswith(f"{quantity.name}/layer_")]]
        if quantity.by_layer and layers.shape[1]:
            norms = quantity.name in (schema.WEIGHT_NORM, schema.WEIGHT_DISTANCE)
            squares = (layers**2).sum(axis=1, skipna=False)
            found[quantity.name] = np.sqrt(squares) if norms else layers.mean(axis=1, skipna=False)
        elif quantity.name in table:
            found[quantity.name] = table[quantity.name]
    return found


def with_next(table: pd.DataFrame, lanes: pd.DataFrame) -> pd.DataFrame:
    """Networks after a task, each with the test accuracy of the same lane on the task after; the last task has none."""
    after = lanes[["run_id", "lane", "task", schema.TEST_ACCURACY]].rename(columns={schema.TEST_ACCURACY: NEXT})
    after = after.assign(task=after["task"].astype("int64") - 1)
    return of_networks(table).merge(after, on=["run_id", "lane", "task"], how="inner")


def associations(looks: pd.DataFrame) -> dict[str, dict[str, Correlation]]:
    """Of each property of one run's networks: how it goes with accuracy on the next task, within lanes.

    Args:
        looks: of one run, see `with_next`.

    Returns:
        By property: `alone`; `given` weight norm and rank, unless it is one of them or the distance, which is the norm by another
        name; and `in_time`, given these and the number of the task as well. All are of the same pairs. A correlation that is
        not known is NaN.
    """
    found = {}
    for name in PROPERTIES:
        if name not in looks or not looks[name].notna().any():
            continue
        seen = looks[looks[name].notna()]
        both = seen.dropna(subset=list(CONTROLS)) if set(CONTROLS) <= set(seen) else seen[:0]
        controlled = name not in (*CONTROLS, schema.WEIGHT_DISTANCE) and len(both) > 0
        seen = both if controlled else seen
        pair = seen[name], seen[NEXT], seen["lane"]
        rows = {"alone": within_lanes(*pair)}
        if controlled:
            controls = tuple(seen[control] for control in CONTROLS)
            rows["given"] = within_lanes(*pair, controls)
            rows["in_time"] = within_lanes(*pair, (*controls, seen["task"]))
        found[name] = rows
    return found
