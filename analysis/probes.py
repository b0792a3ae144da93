"""Probes: copies of networks, changed before a task.

The table has one row per run, task, copies and lane: `run_id`, `trial`, `scenario`, `method`, `lane`, `seed`, `task`, then

    arm         copies that were treated alike, such as `layer_rescaling 0.25 undone`
    operation   the part; `none` changes nothing
    level       of the operation; NaN if it has none
    undone      whether learning rates of each layer undid the operation
    lr          learning rate of the copies

and a column per quantity of `study.schema.PROBES` and `study.schema.ONSET`; those of a layer are named by `schema.layer_name`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from analysis.runs import LANE_COLUMNS
from study import schema

FILE: Final = "tables/probes.csv"
"""A run's artifact with its probes."""

COPY_COLUMNS: Final = ("arm", "operation", "level", "undone", "lr")
"""Columns that tell copies apart, after those of the lane."""

WORDS: Final = {"True": True, "False": False}


def empty() -> pd.DataFrame:
    """The table without rows."""
    return pd.DataFrame(columns=[*LANE_COLUMNS, *COPY_COLUMNS])


def has_any(metrics: Mapping[str, Any]) -> bool:
    """Whether a run with these metrics has probes."""
    return any(name.startswith(f"{schema.PROBE_ONLINE_ACCURACY}/") for name in metrics)


def read(text: str, key: Mapping[str, Any], run_id: str) -> pd.DataFrame:
    """The rows of one run's file. Raises ValueError if malformed."""
    table = pd.read_csv(io.StringIO(text), dtype=str).drop(columns="name")
    place = {name: key[name] for name in ("trial", "scenario", "method")}
    return in_order([table.assign(run_id=run_id, **place)])


def in_order(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows of the tables, columns in schema order.

    Values may be numbers or their text. Raises ValueError if one is neither.
    """
    nonempty = [table for table in tables if len(table)]
    if not nonempty:
        return empty()
    joined = pd.concat(nonempty, ignore_index=True)
    position = {quantity.name: place for place, quantity in enumerate((*schema.PROBES, *schema.ONSET))}
    names = [name for name in joined if str(name).split("/layer_")[0] in position]
    names.sort(key=lambda name: (position[str(name).split("/layer_")[0]], str(name)))
    undone = joined["undone"].astype(str).map(WORDS)
    if undone.isna().any():
        raise ValueError("a value of `undone` is neither True nor False")
    types = {
        **dict.fromkeys((*map(str, names), "level", "lr"), "float64"),
        **dict.fromkeys(("lane", "seed", "task"), "int64"),
        "undone": "bool",
    }
    return joined.assign(undone=undone)[[*LANE_COLUMNS, *COPY_COLUMNS, *names]].astype(types)
