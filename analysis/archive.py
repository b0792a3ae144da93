"""A sweep's results as a few small files that outlive the store they come from.

    sweep.json          its plan, versions and commit, and one entry a trial: settings, summary, machine, times
    lanes.csv.gz        one row for each lane and task: test accuracy and whatever else is logged for each task
    diagnostics.csv.gz  one row for each look into a lane, if there was any
    verdicts.csv        what they say of the paper's claims

`read` makes of the first three the same `Sweep` as `analysis.load` makes of MLflow, to the last digit, so that everything in this
package can be done again from them: the report, the statistics, the verdicts.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from analysis import claims, diagnostics, evidence, load, tables
from analysis.load import Sweep
from analysis.trial import LANE_COLUMNS
from study import schema
from study.errors import StudyError

SWEEP, LANES, DIAGNOSTICS, VERDICTS = "sweep.json", "lanes.csv.gz", "diagnostics.csv.gz", "verdicts.csv"

FORMAT: Final = 1

NARROW: Final = tuple(name for name in LANE_COLUMNS if name not in ("run_id", "scenario", "method"))

QUANTITIES: Final = tuple(quantity.name for quantity in schema.PER_TASK)
"""What is kept of each task."""


def save(sweep: Sweep, folder: Path) -> None:
    """Writes a sweep that was loaded with `QUANTITIES` into a new folder.

    Raises:
        StudyError: the folder exists or cannot be written.
    """
    draft = folder.with_name(f".{folder.name}.tmp")
    if folder.exists():
        raise StudyError(f"{str(folder)!r} exists already and is left as it is; name another folder with --to.")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        (draft / SWEEP).write_text(json.dumps(_plain(sweep), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (draft / LANES).write_bytes(_compressed(_narrow(sweep.lanes)))
        if len(sweep.diagnostics):
            (draft / DIAGNOSTICS).write_bytes(_compressed(_narrow(sweep.diagnostics)))
        verdicts(sweep).to_csv(draft / VERDICTS, index=False)
        draft.rename(folder)
    except OSError as error:
        raise StudyError(f"The folder {str(folder)!r} cannot be written: {error.strerror}.") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read(folder: Path) -> Sweep:
    """The sweep that was saved in a folder.

    Raises:
        StudyError: there is none, or its files are damaged.
    """
    try:
        plain = json.loads((folder / SWEEP).read_text(encoding="utf-8"))
        if plain["format"] != FORMAT:
            raise ValueError(f"format {plain['format']}")
        runs = load.frame([{**run, "seeds": tuple(run["seeds"])} for run in plain["runs"]])
        words = pd.read_csv(folder / LANES, dtype=str)  # Python reads a float to the last digit, in every pandas
        words = words.reindex(columns=[*NARROW, *QUANTITIES])  # a quantity may be younger than the archive
        lanes = words.astype(
            {**dict.fromkeys(QUANTITIES, "float64"), "lane": "int64", "seed": "int64", "task": "int64"}
        )
        known = runs.set_index("trial")[["run_id", "scenario", "method"]]
        lanes = lanes.join(known, on="trial")[[*LANE_COLUMNS, *QUANTITIES]]
        if lanes["run_id"].isna().any():
            raise ValueError(f"{LANES} has trials that {SWEEP} has not")
        looks = []
        if (folder / DIAGNOSTICS).is_file():
            looks.append(pd.read_csv(folder / DIAGNOSTICS, dtype=str).join(known, on="trial"))
        return Sweep(
            **{name: plain[name] for name in ("name", "identity", "experiment_id", "run_id", "status", "plan", "tags")},
            uri="",
            runs=runs,
            lanes=lanes,
            notes=tuple(plain["notes"]),
            diagnostics=diagnostics.in_order(looks),
        )
    except FileNotFoundError:
        raise StudyError(f"There is no archived sweep in {str(folder)!r}; `study archive` makes one.") from None
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"The archived sweep in {str(folder)!r} cannot be read: {error}.") from None


def verdicts(sweep: Sweep) -> pd.DataFrame:
    """What a sweep says of the paper's claims: a row for each claim."""
    return tables.claims(claims.findings(evidence.gather(sweep)))


def _plain(sweep: Sweep) -> dict[str, Any]:
    """All but the lanes, without what says where the store was."""
    return {
        "format": FORMAT,
        "name": sweep.name,
        "identity": sweep.identity,
        "experiment_id": sweep.experiment_id,
        "run_id": sweep.run_id,
        "status": sweep.status,
        "plan": dict(sweep.plan),
        "tags": {name: value for name, value in sweep.tags.items() if not name.startswith("mlflow.")},
        "notes": list(sweep.notes),
        "runs": [_run(run) for run in load.rows(sweep.runs)],
    }


def _run(run: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `Sweep.runs` as `load` found it: times in milliseconds, nothing where there is no value."""
    return {
        name: round(value.timestamp() * 1000) if isinstance(value, pd.Timestamp) else value
        for name, value in run.items()
        if not (value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value)))
    }


def _narrow(lanes: pd.DataFrame) -> pd.DataFrame:
    """Without the columns that the trial's name stands for."""
    return lanes.drop(columns=["run_id", "scenario", "method"])


def _compressed(lanes: pd.DataFrame) -> bytes:
    """The same rows give the same bytes, at any time."""
    text = io.StringIO()
    lanes.to_csv(text, index=False)
    return gzip.compress(text.getvalue().encode(), mtime=0)
