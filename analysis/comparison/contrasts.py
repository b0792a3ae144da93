"""Differences to a baseline, and how they change between sweeps.

Each seed of a trial is one number first, see `QUANTITIES`. In each sweep a method is compared with the baseline, seed by seed.
Then its difference in each sweep is compared with that in the first: a difference of differences. Where two sweeps share at
least two seeds, they are compared over these seed by seed, by exact sign-flip tests; otherwise as independent (Welch's t test).
The differences in all sweeps are one family, their changes another, and the changes of the quantity itself a third. In each,
intervals are simultaneous (Bonferroni) and p-values are adjusted by Holm's method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from analysis import statistics, tables
from analysis.comparison.matching import Matching, Place
from analysis.paper.claims import ALPHA, MARGIN
from analysis.statistics import Interval
from study import schema

Answer = Literal["larger", "smaller", "alike", "open"]


@dataclass(frozen=True)
class Quantity:
    """What methods are compared by: test accuracy, reduced.

    Attributes:
        words: what it is.
        short: the same for a heading.
        reduce: accuracies [task, lane] to [lane].
        column: of `Sweep.runs`, which has its mean over lanes.
    """

    words: str
    short: str
    reduce: Callable[[Any], Any]
    column: str


QUANTITIES: Final[Mapping[str, Quantity]] = {
    "accuracy": Quantity(
        "mean test accuracy over all tasks", "mean test accuracy", statistics.mean_accuracy, "summary/accuracy_test"
    ),
    "late_accuracy": Quantity(
        "late accuracy, which is mean test accuracy over the last tenth of the tasks",
        "late accuracy",
        statistics.last_tenth,
        "summary/accuracy_test_last_tenth",
    ),
    "decline": Quantity(
        "decline of test accuracy from the first to the last tenth of the tasks",
        "decline",
        statistics.decline,
        "summary/decline_test",
    ),
    "decline_after_warmup": Quantity(
        "decline of test accuracy from an early to the last tenth of the tasks, after warm-up",
        "decline after warm-up",
        statistics.decline_after_warmup,
        schema.DECLINE_AFTER_WARMUP_TEST,
    ),
}
"""By name."""


@dataclass(frozen=True)
class Effect:
    """A mean difference over seeds; p is unadjusted.

    `pairs` counts the seeds that it is paired over; None if the two sides are independent.
    """

    interval: Interval
    p: float
    pairs: int | None


def effect(first: pd.Series[float], second: pd.Series[float], level: float) -> Effect:
    """First minus second, values by seed.

    Paired over the seeds that both have, if at least two; otherwise as independent samples.
    """
    shared = [seed for seed in first.index if seed in second.index]
    if len(shared) > 1 or (len(shared) == len(first) == len(second)):
        compared = tables.compared(first[shared].to_numpy(), second[shared].to_numpy(), level)
        return Effect(compared.interval, compared.p, len(shared))
    interval, p = statistics.compare_unpaired(first.to_numpy(), second.to_numpy(), level)
    return Effect(interval, p, None)


def answer(interval: Interval) -> Answer:
    """Whether a change is larger or smaller than the margin.

    Alike if it lies within the margin. Open otherwise, and with fewer lanes than an exact test needs (6).
    """
    if interval.lanes < statistics.least_lanes(ALPHA):
        return "open"
    if interval.above(MARGIN):
        return "larger"
    if interval.below(-MARGIN):
        return "smaller"
    return "alike" if interval.within(-MARGIN, MARGIN) else "open"


def frame(matching: Matching, quantity: str) -> pd.DataFrame:
    """One row for each method, scenario and sweep.

    Columns: scenario, method, name (the method or its settings), setting, sweep, trial, lanes; the quantity under its name; and

        difference              to the baseline of the same sweep, p, p_holm
        change                  of that difference from the first sweep, p, p_holm, pairs; answer, see `answer`
        change_of_QUANTITY      of the quantity itself from the first sweep

    each with its interval, `_low` and `_high`. What does not exist is missing: the difference of the baseline, a change of the
    first sweep, `change_pairs` where sweeps share no seeds.

    Args:
        matching: of the sweeps.
        quantity: one of `QUANTITIES`.
    """
    reduce = QUANTITIES[quantity].reduce
    values = {
        (place, name): [_by_seed(matching, name, run["run_id"], reduce) for run in runs]
        for place, each in enumerate(matching.places)
        for name, runs in _pairs(each)
    }
    reference = matching.reference
    own = {key: pair[0] for key, pair in values.items()}
    differences = {key: _subtracted(*pair) for key, pair in values.items() if len(pair) > 1}
    within = _family({key: values[key][:2] for key in differences})
    change = _family(_changes(differences, reference))
    change_of_value = _family(_changes(own, reference))
    rows = []
    for (place, name), lanes in own.items():
        each = matching.places[place]
        run = each.runs[name]
        interval = statistics.t_interval(lanes.to_numpy())
        row: dict[str, Any] = {
            "scenario": each.scenario,
            "method": each.method,
            "name": each.title,
            "setting": run["name"],
            "sweep": name,
            "trial": run["trial"],
            "lanes": len(lanes),
            quantity: run[QUANTITIES[quantity].column],
            f"{quantity}_low": interval.low,
            f"{quantity}_high": interval.high,
            "run_id": run["run_id"],
            "run_id_baseline": each.baselines[name]["run_id"] if name in each.baselines else "",
        }
        row |= _columns("difference", within.get((place, name)))
        if (found := change.get((place, name))) is not None:
            row |= _columns("change", found) | {"change_pairs": found.pairs, "answer": answer(found.interval)}
        row |= _columns(f"change_of_{quantity}", change_of_value.get((place, name)))
        rows.append(row)
    table = pd.DataFrame(rows, columns=_names(quantity)).astype({"change_pairs": "Int64"})
    for family in ("difference", "change", f"change_of_{quantity}"):
        tested = table[f"{family}_p"].notna()
        table.loc[tested, f"{family}_p_holm"] = statistics.holm(table.loc[tested, f"{family}_p"].to_numpy(dtype=float))
    return table


Key = tuple[int, str]
"""A place, by its number, and a sweep."""


def _pairs(place: Place) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """The trial of each sweep, followed by its baseline if it has one."""
    return [
        (name, [run, *([place.baselines[name]] if name in place.baselines else [])]) for name, run in place.runs.items()
    ]


def _by_seed(matching: Matching, name: str, run_id: str, reduce: Callable[[Any], Any]) -> pd.Series[float]:
    """A quantity of a run, by seed."""
    accuracy = matching.sweeps[name].accuracy(run_id)
    return pd.Series(reduce(accuracy.to_numpy(dtype=float)), index=accuracy.columns)


def _subtracted(first: pd.Series[float], second: pd.Series[float]) -> pd.Series[float]:
    """First minus second over the seeds of both.

    Equal values give exactly 0, as in `statistics.compare`.
    """
    difference = (first - second).dropna()
    equal = np.isclose(first[difference.index], second[difference.index], rtol=statistics.TIE, atol=0)
    return difference.mask(equal, 0.0)


def _changes(values: Mapping[Key, pd.Series[float]], reference: str) -> dict[Key, Sequence[pd.Series[float]]]:
    """What each sweep but the reference is compared with."""
    return {
        (place, name): (found, values[place, reference])
        for (place, name), found in values.items()
        if name != reference and (place, reference) in values and len(found) and len(values[place, reference])
    }


def _family(pairs: Mapping[Key, Sequence[pd.Series[float]]]) -> dict[Key, Effect]:
    """The effects of one family, with simultaneous intervals."""
    level = 1 - ALPHA / max(1, len(pairs))
    return {key: effect(first, second, level) for key, (first, second) in pairs.items()}


def _columns(name: str, found: Effect | None) -> dict[str, float]:
    if found is None:
        return {}
    bounds = {name: found.interval.mean, f"{name}_low": found.interval.low, f"{name}_high": found.interval.high}
    return bounds | {f"{name}_p": found.p}


def _names(quantity: str) -> list[str]:
    """The columns of the table."""
    bounded = ("", "_low", "_high")
    tested = (*bounded, "_p", "_p_holm")
    return [
        *("scenario", "method", "name", "setting", "sweep", "trial", "lanes"),
        *(f"{quantity}{end}" for end in bounded),
        *(f"difference{end}" for end in tested),
        *(f"change{end}" for end in tested),
        *("change_pairs", "answer"),
        *(f"change_of_{quantity}{end}" for end in tested),
        *("run_id", "run_id_baseline"),
    ]
