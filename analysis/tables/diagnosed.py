"""What was seen inside the networks: after each task, and how it goes with accuracy on the next."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis import diagnostics, load
from analysis.correlation import Correlation
from analysis.load import Sweep
from analysis.tables.frames import frame

KINDS = ("alone", "given", "in_time")
"""See `diagnostics.associations`."""


def associations(sweep: Sweep, runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each run and property of its networks: correlation with test accuracy on the next task, within lanes."""
    looks = diagnostics.with_next(sweep.diagnostics, sweep.lanes)
    rows = []
    for run in load.rows(runs):
        for name, found in diagnostics.associations(looks[looks["run_id"] == run["run_id"]]).items():
            rows.append(
                {
                    **{key: run[key] for key in ("scenario", "method", "name", "trial")},
                    "sweep": sweep.name,
                    "diagnostic": name,
                    "lanes": found["alone"].lanes,
                    "pairs": found["alone"].pairs,
                    **{key: value for kind in KINDS for key, value in _bounded(kind, found).items()},
                    "run_id": run["run_id"],
                }
            )
    bounded = " ".join(f"{kind} {kind}_low {kind}_high" for kind in KINDS)
    return frame(rows, f"sweep scenario method name trial diagnostic lanes pairs {bounded} run_id")


def _bounded(kind: str, found: Mapping[str, Correlation]) -> dict[str, float]:
    known = found.get(kind)
    values = (known.value, known.low, known.high) if known else (np.nan, np.nan, np.nan)
    return dict(zip((kind, f"{kind}_low", f"{kind}_high"), values, strict=True))


def networks(sweep: Sweep, run_id: str) -> pd.DataFrame:
    """Mean over the lanes of each diagnostic of one run after each task: columns task, then the diagnostics."""
    table = diagnostics.of_networks(sweep.diagnostics[sweep.diagnostics["run_id"] == run_id])
    names = [name for name in diagnostics.PROPERTIES if name in table]
    return table.groupby("task", as_index=False)[names].mean()
