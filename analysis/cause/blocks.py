"""Probes as arrays: one network, operated on differently.

A probe is a copy of a network, changed by an operation and trained on the next task. Probes of one seed before one task form a
block: images, their order and everything else are the same, but for the operation and the learning rate. `analysis.probes` has
the table. Trials whose settings differ in the learning rates of the probes alone share a trunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import load
from analysis.cause import SHARPNESS
from analysis.load import Sweep
from analysis.statistics import Array
from study import schema

RATES: Final = "probes/lr"
"""The setting in which trials of one trunk may differ."""

OTHERS: Final = tuple(map(schema.onset_name, (schema.HESSIAN_TRACE, schema.SAM_SHARPNESS)))
"""Other measures of sharpness, at which the primary result is looked at again."""

WEIGHT_NORM: Final = schema.onset_name(schema.WEIGHT_NORM)

UNTOUCHED: Final = schema.UNTOUCHED
"""The arm that changes nothing, named after its operation."""


@dataclass(frozen=True)
class Arm:
    """One way to treat a copy.

    Attributes:
        name: unique among the arms.
        operation: its kind.
        level: of the operation; NaN if it has none.
        undone: whether learning rates of the layers undo the rescaling.
    """

    name: str
    operation: str
    level: float
    undone: bool

    @property
    def is_rescaled(self) -> bool:
        """Whether layers are rescaled, and training feels it."""
        return self.operation == "layer_rescaling" and not self.undone


@dataclass(frozen=True)
class Blocks:
    """The probes of one trunk.

    Attributes:
        run_ids: of the trials.
        scenario, method: of the trunk.
        arms: in the order of the table, the untouched copy first.
        rates: learning rates of the probes, ascending.
        boundaries: index of the task that each probe was trained on.
        seeds: that have all probes.
        left_out: seeds that lack a number of some probe.
        accuracy: online accuracy, share [arm, rate, boundary, seed].
        sharpness: log2 of the largest eigenvalue before the first step, [arm, boundary, seed]; NaN where it is not above 0.
        others: the same of other measures of sharpness, by schema name; those that were measured.
        norm: log2 of the norm of all weights before the first step, [arm, boundary, seed]; NaN where unknown.
        function_change: largest change of a logit, [arm, boundary, seed]; NaN where unknown.
    """

    run_ids: tuple[str, ...]
    scenario: str
    method: str
    arms: tuple[Arm, ...]
    rates: tuple[float, ...]
    boundaries: tuple[int, ...]
    seeds: tuple[int, ...]
    left_out: tuple[int, ...]
    accuracy: Array
    sharpness: Array
    others: Mapping[str, Array]
    norm: Array
    function_change: Array

    def places(self, chosen: Callable[[Arm], bool]) -> list[int]:
        """The places of some arms."""
        return [place for place, arm in enumerate(self.arms) if chosen(arm)]

    @property
    def rescaled(self) -> list[int]:
        """The places of the levels of layer rescaling, not undone."""
        return self.places(lambda arm: arm.is_rescaled)

    @property
    def changes(self) -> Array:
        """Accuracy minus that of the untouched copy.

        A share, [arm, rate, boundary, seed].
        """
        return self.accuracy - self.accuracy[:1]


def blocks(sweep: Sweep) -> list[Blocks]:
    """The blocks of each trunk with probes.

    In the order of the table. Trunks without an untouched copy are left out.
    """
    settings = {str(run["run_id"]): _trunk(run) for run in load.rows(sweep.runs)}
    trunks: dict[Any, list[pd.DataFrame]] = {}
    for run_id, rows in sweep.probes.groupby("run_id", sort=False):
        trunks.setdefault(settings.get(str(run_id), run_id), []).append(rows)
    tables = [pd.concat(tables) for tables in trunks.values()]
    return [_blocks(rows) for rows in tables if (rows["arm"] == UNTOUCHED).any()]


def _trunk(run: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What all trials of a trunk have in common."""
    shared = [
        (name, str(value))
        for name, value in run.items()
        if "/" in name and name != RATES and name not in schema.QUANTITIES
    ]
    return (*sorted(shared), *((name, str(run[name])) for name in ("scenario", "method", "seeds") if name in run))


def _blocks(rows: pd.DataFrame) -> Blocks:
    first = rows.drop_duplicates("arm")
    first = pd.concat([first[first["arm"] == UNTOUCHED], first[first["arm"] != UNTOUCHED]])
    arms = tuple(
        Arm(str(name), str(operation), float(level), bool(undone))
        for name, operation, level, undone in zip(
            first["arm"], first["operation"], first["level"], first["undone"], strict=True
        )
    )
    rates, boundaries, seeds = (sorted(set(rows[name])) for name in ("lr", "task", "seed"))
    axes = {"arm": [arm.name for arm in arms], "lr": rates, "task": boundaries, "seed": seeds}
    shape = [len(values) for values in axes.values()]
    table = rows.set_index(list(axes)).reindex(pd.MultiIndex.from_product(list(axes.values()), names=list(axes)))

    def values(name: str) -> Array:
        return table[name].to_numpy(dtype=float).reshape(shape)

    accuracy = values(schema.PROBE_ONLINE_ACCURACY)
    sharpness = _log2(values(SHARPNESS)[:, 0])  # before the first step, so the same at every learning rate
    norms = [name for name in rows if str(name).partition("/layer_")[0] == WEIGHT_NORM]
    squares = (
        np.array([values(str(name))[:, 0] ** 2 for name in norms]) if norms else np.full((1, *sharpness.shape), np.nan)
    )
    whole = np.asarray(np.isfinite(accuracy).all(axis=(0, 1, 2)) & np.isfinite(sharpness).all(axis=(0, 1)))
    key = rows.iloc[0]
    return Blocks(
        run_ids=tuple(map(str, dict.fromkeys(rows["run_id"]))),
        scenario=str(key["scenario"]),
        method=str(key["method"]),
        arms=arms,
        rates=tuple(map(float, rates)),
        boundaries=tuple(map(int, boundaries)),
        seeds=tuple(int(seed) for seed, is_whole in zip(seeds, whole, strict=True) if is_whole),
        left_out=tuple(int(seed) for seed, is_whole in zip(seeds, whole, strict=True) if not is_whole),
        accuracy=accuracy[..., whole],
        sharpness=sharpness[..., whole],
        others={name: _log2(values(name)[:, 0])[..., whole] for name in OTHERS if name in rows},
        norm=_log2(squares.sum(axis=0))[..., whole] / 2,
        function_change=values(schema.FUNCTION_CHANGE)[..., whole].max(axis=1),
    )


def _log2(values: Array) -> Array:
    """Base-2 logarithms; NaN of what is not above 0."""
    return np.log2(np.where(values > 0, values, np.nan))
