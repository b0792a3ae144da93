"""A sweep's results as a few small files.

They outlive the store they come from:

    sweep.json          its plan, versions and commit, and one entry per trial: settings, summary, machine, times
    lanes.csv.gz        one row per lane and task: test accuracy and everything else logged per task
    diagnostics.csv.gz  one row per measurement of a lane, if there are any
    probes.csv.gz       one row per trained copy of a network, if there are any
    verdicts.csv        the verdicts on the paper's claims
    assumptions.csv     the same under other assumptions, if the sweep has any

`read` turns the first four into the same `Sweep` that `analysis.load` makes from MLflow, to the last digit. So everything in
this package can be recomputed from them: the report, the statistics, the verdicts.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from analysis import archive_form, diagnostics, load, probes, tables
from analysis.archive_form import FORMAT
from analysis.batches import configurations
from analysis.load import Sweep
from analysis.paper import assumptions, claims, evidence
from analysis.runs import LANE_COLUMNS
from study import schema
from study.errors import StudyError, first_line
from study.files import draft_of

SWEEP, LANES, DIAGNOSTICS, VERDICTS = "sweep.json", "lanes.csv.gz", "diagnostics.csv.gz", "verdicts.csv"
PROBES, ASSUMPTIONS = "probes.csv.gz", "assumptions.csv"

NARROW: Final = tuple(name for name in LANE_COLUMNS if name not in ("run_id", "scenario", "method"))

QUANTITIES: Final = tuple(quantity.name for quantity in schema.PER_TASK)
"""The quantities kept per task."""


def save(sweep: Sweep, folder: Path) -> None:
    """Writes a sweep, loaded with `QUANTITIES`, into a new folder.

    Raises:
        StudyError: the folder exists or cannot be written.
    """
    if folder.exists():
        raise StudyError(f"{str(folder)!r} already exists and is left as it is; name another folder with --to.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(folder) as draft:
            draft.mkdir()
            (draft / SWEEP).write_text(json.dumps(_plain(sweep), indent=1, allow_nan=False) + "\n", encoding="utf-8")
            _write_compressed(draft / LANES, _narrow(sweep.lanes))
            if len(sweep.diagnostics):
                _write_compressed(draft / DIAGNOSTICS, _narrow(sweep.diagnostics))
            if len(sweep.probes):
                _write_compressed(draft / PROBES, _narrow(sweep.probes))
            verdicts(sweep).to_csv(draft / VERDICTS, index=False)
            if len(under := verdicts_under_assumptions(sweep)):
                under.to_csv(draft / ASSUMPTIONS, index=False)
            draft.rename(folder)
    except OSError as error:
        raise StudyError(f"The folder {str(folder)!r} cannot be written: {error.strerror}.") from None


def read(folder: Path) -> Sweep:
    """The sweep saved in a folder.

    Raises:
        StudyError: the folder holds no sweep, or its files are damaged.
    """
    try:
        plain = archive_form.parse((folder / SWEEP).read_text(encoding="utf-8"))
        runs = load.frame([{**run, "seeds": tuple(run["seeds"])} for run in plain["runs"]])
        text = pd.read_csv(folder / LANES, dtype=str)  # Python parses a float to the last digit, in every pandas
        text = text.reindex(columns=[*NARROW, *QUANTITIES])  # a quantity may be newer than the archive
        lanes = text.astype({**dict.fromkeys(QUANTITIES, "float64"), "lane": "int64", "seed": "int64", "task": "int64"})
        of_trial = runs.set_index("trial")[["run_id", "scenario", "method"]]
        lanes = lanes.join(of_trial, on="trial")[[*LANE_COLUMNS, *QUANTITIES]]
        if lanes["run_id"].isna().any():
            raise ValueError(f"{LANES} has trials that {SWEEP} lacks")
        archive_form.check_lanes(lanes, runs)
        runs = load.with_later_summary(runs, lanes)

        def own_table(name: str) -> list[pd.DataFrame]:
            """The rows of a table that not every archive has."""
            path = folder / name
            return [pd.read_csv(path, dtype=str).join(of_trial, on="trial")] if path.is_file() else []

        return Sweep(
            **{name: plain[name] for name in ("name", "identity", "experiment_id", "run_id", "status", "plan", "tags")},
            uri="",
            runs=runs,
            lanes=lanes,
            notes=tuple(plain["notes"]),
            diagnostics=diagnostics.in_order(own_table(DIAGNOSTICS)),
            probes=probes.in_order(own_table(PROBES)),
        )
    except FileNotFoundError:
        raise StudyError(f"There is no archived sweep in {str(folder)!r}; `study archive` makes one.") from None
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, OverflowError) as error:
        raise StudyError(f"The archived sweep in {str(folder)!r} cannot be read: {first_line(error)}.") from None


def confirmations(folder: Path, tuned: Sweep) -> list[Sweep]:
    """The archives beside an archive that confirm it, oldest first.

    Others there are not looked into further than their plan. Raises StudyError if one of these cannot be read.
    """
    found = [place.parent for place in sorted(folder.resolve().parent.glob(f"*/{SWEEP}"))]
    confirming = [read(place) for place in found if _confirms(place) == tuned.identity]
    return sorted(confirming, key=lambda sweep: sweep.runs["started"].min())


def _confirms(folder: Path) -> str:
    """The identity of the sweep that an archive confirms, or ""."""
    try:
        plain = archive_form.parse((folder / SWEEP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""  # no archive, whose business it is not
    return str((plain["plan"].get("confirms") or {}).get("identity", ""))


def verdicts(sweep: Sweep) -> pd.DataFrame:
    """The verdicts on the paper's claims, one row each."""
    return tables.claims(claims.findings(evidence.gather(configurations(sweep))))


def verdicts_under_assumptions(sweep: Sweep) -> pd.DataFrame:
    """The verdicts under each assumption, one row for each claim.

    Empty if the sweep has no other assumption than its main experiment.
    """
    whole = configurations(sweep)
    others = evidence.under_assumptions(whole)
    return assumptions.reasons(assumptions.judged(evidence.gather(whole), others) if others else [])


def _plain(sweep: Sweep) -> dict[str, Any]:
    """All but the lanes and the store's whereabouts."""
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
    """A row of `Sweep.runs` as JSON: milliseconds, no missing values."""
    return {
        name: round(value.timestamp() * 1000) if isinstance(value, pd.Timestamp) else value
        for name, value in run.items()
        if not (value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value)))
    }


def _narrow(lanes: pd.DataFrame) -> pd.DataFrame:
    """The table without columns implied by the trial."""
    return lanes.drop(columns=["run_id", "scenario", "method"])


def _write_compressed(path: Path, lanes: pd.DataFrame) -> None:
    """Writes a compressed CSV; equal rows give equal bytes.

    It is never in memory as a whole.
    """
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        lanes.to_csv(text, index=False, lineterminator="\n")
