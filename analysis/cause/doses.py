"""Experiment 2: doses of rho under conditions, and other ways.

The arms of a sweep are told by their settings. In each scenario and network there is one *baseline*: SGD at the learning rate and
batch size of most arms, with nothing held. A *dose* is SGD (rho = 0) or SAM with a rho, all else equal, under a *condition*: what
is held. A *way* is a run that holds nothing and differs from the baseline in its sharpness rule, its batch size or its learning
rate alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import load, statistics
from analysis.cause import SHARPNESS
from analysis.cause.surgery import slopes
from analysis.load import Sweep
from analysis.settings import BASELINE
from analysis.statistics import Array

NOTHING: Final = "nothing"
NORMS, IDLE_UNITS, LAYER_NORM = "norms", "idle units", "layer norm and L2"
BOTH: Final = f"{NORMS} and {IDLE_UNITS}"
CONDITIONS: Final = (NOTHING, NORMS, IDLE_UNITS, BOTH, LAYER_NORM)

HELD_BY: Final = {"weight_projection": NORMS, "redo": IDLE_UNITS}
"""What an intervention holds."""

RHO_UNIT: Final = 0.1
"""Effects of rho are for this change of it."""

LEAST_DOSES: Final = 3
"""Doses from which a condition has a slope."""

LR, BATCH, NORM = "optimizer/lr", "training/batch_size", "model/layer_norm"
DOSES: Final = ("optimizer/rho", "optimizer/lambda")
"""Settings of sharpness rules; an optimizer without any is no way to change sharpness alone."""

_STRATUM = ("data/", "tasks/", "model/", "training/")
_FREE = (BATCH, NORM, "training/device")
_PLAIN: Final = {
    "optimizer/schedule": "constant",
    "optimizer/base": "sgd",
    "optimizer/momentum": 0,
    "optimizer/weight_decay": 0,
}
"""Settings of an optimizer that arms of this experiment leave alone."""


@dataclass(frozen=True)
class Run:
    """A finished trial as an arm.

    Attributes:
        run_id: of the trial.
        kind: of the way, such as "sam" or "batch size".
        value, unit: what that kind is set to, and the setting's name if the kind does not say; "" for plain SGD.
        held: one of `CONDITIONS`.
        rho: of SAM, 0 of SGD; None of others.
        lr: learning rate.
        batch: images in a minibatch.
        stratum: everything else that must be equal: scenario, data, tasks, network.
    """

    run_id: str
    kind: str
    value: str
    unit: str
    held: str
    rho: float | None
    lr: float
    batch: int
    stratum: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """Kind and value: `sam 0.05`, `batch size 64`."""
        return f"{self.kind} {self.value}".strip()

    @property
    def label(self) -> str:
        """Kind, and what its value is: `sam, by rho`."""
        return f"{self.kind}, by {self.unit}" if self.unit else self.kind

    @property
    def network(self) -> str:
        """Scenario and activation function, for people."""
        named = dict(self.stratum)
        activation = named.get("model/activation", "relu")
        return named["scenario"] + ("" if activation == "relu" else f", {activation}")


@dataclass(frozen=True)
class Experiment:
    """The arms of one scenario and network.

    Attributes:
        baseline: SGD with nothing held.
        doses: by condition, in ascending rho; each has at least `LEAST_DOSES`.
        ways: runs that change sharpness in another way than the baseline.
    """

    baseline: Run
    doses: Mapping[str, tuple[Run, ...]]
    ways: tuple[Run, ...]

    @property
    def run_ids(self) -> list[str]:
        """Of all arms, each once."""
        runs = (self.baseline, *self.ways, *(run for doses in self.doses.values() for run in doses))
        return list(dict.fromkeys(run.run_id for run in runs))


def experiments(sweep: Sweep) -> list[Experiment]:
    """The dose-response experiments in a sweep, the paper's network first.

    Those where rho has at least three doses with nothing held and under another condition.
    """
    return experiments_of([run for row in load.rows(sweep.finished) if (run := arm(row)) is not None])


def experiments_of(runs: Sequence[Run]) -> list[Experiment]:
    """The experiments among arms, see `experiments`."""
    by_stratum: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        by_stratum.setdefault(run.stratum, []).append(run)
    found = [made for alike in by_stratum.values() if (made := _experiment(alike)) is not None]
    return sorted(found, key=lambda each: "relu" not in dict(each.baseline.stratum).values())


def late_accuracy(sweep: Sweep, run: Run) -> pd.Series[float]:
    """Mean test accuracy over the last tenth, by seed."""
    table = sweep.accuracy(run.run_id)
    return pd.Series(statistics.last_tenth(table.to_numpy(dtype=float)), index=table.columns)


def late_sharpness(sweep: Sweep, run: Run) -> pd.Series[float]:
    """Mean log2 of sharpness, by seed.

    Over the last half of the tasks, at their onsets, where measured. What is not above 0 is left out, and seeds without any.
    """
    rows = sweep.diagnostics[sweep.diagnostics["run_id"] == run.run_id]
    if SHARPNESS not in rows:
        return pd.Series(dtype=float)
    tasks = len(sweep.accuracy(run.run_id))
    rows = rows[(rows["task"] >= tasks / 2) & (rows[SHARPNESS] > 0)]
    logarithms: pd.Series[float] = np.log2(rows[SHARPNESS])
    return logarithms.groupby(rows["seed"]).mean()


def dose_slopes(sweep: Sweep, doses: Sequence[Run]) -> Array:
    """Change of late accuracy for each 0.1 of rho, [seed].

    Least squares over the doses, within the seeds that have all of them; empty if none has.
    """
    table = pd.concat([late_accuracy(sweep, run) for run in doses], axis=1).dropna().to_numpy(dtype=float)
    rho = np.array([[run.rho] for run in doses], dtype=float) / RHO_UNIT
    return slopes(rho, table.T) if len(table) else np.empty(0)


def changes(sweep: Sweep, baseline: Run, ways: Sequence[Run]) -> tuple[list[Run], Array, Array]:
    """Change of sharpness and of late accuracy against the baseline.

    Returns:
        The ways whose sharpness is known, doublings [way, seed] and accuracy [way, seed], over the seeds that all have.
    """
    outcome, sharpness = late_accuracy(sweep, baseline), late_sharpness(sweep, baseline)
    kept = [(way, late_sharpness(sweep, way)) for way in ways]
    kept = [(way, known) for way, known in kept if len(known)]
    if not len(sharpness) or not kept:
        return [], np.empty((0, 0)), np.empty((0, 0))
    x = pd.concat([known - sharpness for _, known in kept], axis=1)
    y = pd.concat([late_accuracy(sweep, way) - outcome for way, _ in kept], axis=1)
    seeds = x.dropna().index.intersection(y.dropna().index)
    return [way for way, _ in kept], x.loc[seeds].to_numpy(dtype=float).T, y.loc[seeds].to_numpy(dtype=float).T


def arm(row: Mapping[str, Any]) -> Run | None:
    """A trial as an arm, by its settings.

    `row` has `run_id`, `scenario` and the settings by slash name. None if it is no arm of this experiment.
    """
    if any(not _is_missing(row.get(name)) and row[name] != value for name, value in _PLAIN.items()):
        return None
    held = _held(row)
    if held is None:
        return None
    optimizer = row.get("optimizer/name")
    doses = [name for name in DOSES if not _is_missing(row.get(name))]
    if _is_missing(row.get(LR)) or _is_missing(row.get(BATCH)) or not (doses or optimizer == BASELINE):
        return None
    dose = float(row[doses[0]]) if doses and optimizer != BASELINE else 0.0
    stratum = [("scenario", str(row["scenario"]))]
    stratum += [
        (name, str(value)) for name, value in sorted(row.items()) if name.startswith(_STRATUM) and name not in _FREE
    ]
    return Run(
        run_id=str(row["run_id"]),
        kind=str(optimizer),
        value="" if optimizer == BASELINE else f"{dose:g}",
        unit="" if optimizer == BASELINE else doses[0].rpartition("/")[2],
        held=held,
        rho=dose if optimizer in (BASELINE, "sam") else None,
        lr=float(row[LR]),
        batch=int(row[BATCH]),
        stratum=tuple(stratum),
    )


def _held(row: Mapping[str, Any]) -> str | None:
    """Which condition; None if it is none of them."""
    active = {
        name.split("/")[1]
        for name, value in row.items()
        if name.startswith("interventions/") and not _is_missing(value)
    }
    has_layer_norm = row.get(NORM, "none") not in ("none", None)
    if has_layer_norm:
        return LAYER_NORM if active == {"l2"} else None
    if not active <= set(HELD_BY):
        return None
    return " and ".join(held for name, held in HELD_BY.items() if name in active) or NOTHING


def _experiment(runs: Sequence[Run]) -> Experiment | None:
    (lr, batch), _ = Counter((run.lr, run.batch) for run in runs).most_common(1)[0]
    usual = [run for run in runs if (run.lr, run.batch) == (lr, batch)]
    baseline = next((run for run in usual if run.rho == 0 and run.held == NOTHING), None)
    if baseline is None:
        return None
    doses: dict[str, tuple[Run, ...]] = {}
    for held in CONDITIONS:
        by_rho = {run.rho: run for run in reversed(usual) if run.held == held and run.rho is not None}
        if len(by_rho) >= LEAST_DOSES and 0 in by_rho:
            doses[held] = tuple(by_rho[rho] for rho in sorted(by_rho))
    if len(doses) < 2 or NOTHING not in doses:
        return None
    ways = [run for run in usual if run.held == NOTHING and run.rho != 0]
    for run in runs:
        if run.held == NOTHING and run.rho == 0 and (run.lr != lr) != (run.batch != batch):
            kind, value = ("learning rate", f"{run.lr:g}") if run.lr != lr else ("batch size", str(run.batch))
            ways.append(replace(run, kind=kind, value=value))
    return Experiment(baseline, doses, tuple(ways))


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))
