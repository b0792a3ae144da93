"""Over-tuning: does a longer search end with a worse winner?

After t trials the incumbent is the trial with the best objective so far, l*_t. Its objective only improves, for it is what the
search selects by; what it is worth on fresh seeds can fall, for some of what is selected is luck. With a(l) the test accuracy of
l on fresh seeds, a mean over seeds, over-tuning after T trials is (Schneider, Bischl and Feurer 2025, arXiv 2506.19540, there of
a test error)

    ot_T = max_{t <= T} a(l*_t) - a(l*_T)  >=  0,

what an earlier incumbent had that the final one has not, and relative to what the search gained over its first incumbent

    rot_T = ot_T / (max_{t <= T} a(l*_t) - a(l*_1)),

above 1 if the final incumbent is worse than the first, and undefined if no incumbent is better than the first.

The best earlier incumbent is found by looking at the fresh seeds, so `ot_T` from a few of them is biased upwards: the maximum of
noisy means is above the maximum of the true ones. The interval is not. With K incumbents it is the union of what the K - 1
paired differences to the final one allow,

    [max(0, max_k low_k),  max(0, max_k high_k)],

with t intervals over seeds at level 1 - alpha / (K - 1) (Bonferroni). All K - 1 hold together with 1 - alpha, so the interval
contains the true over-tuning whichever incumbent is the best; it is wide rather than too narrow. Over-tuning is shown if its
lower end is above 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis import load, statistics, tables
from analysis.load import Sweep
from analysis.statistics import Array, Interval
from study import selection
from study.decision.intervals import checked, paired_differences


@dataclass(frozen=True)
class Incumbent:
    """A trial that was the best so far.

    Attributes:
        trials: number of trials spent when it became that, itself among them.
        trial, name: its key, and its settings in words.
        objective: as the search measured it.
        accuracy: its mean test accuracy on fresh seeds, share; None if it is not confirmed.
        run_ids: of the search and, if confirmed, of the confirmation.
    """

    trials: int
    trial: str
    name: str
    objective: float
    accuracy: Interval | None
    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class Overtuning:
    """What the final incumbent lacks of the best one.

    Attributes:
        best: the incumbent with the highest test accuracy on fresh seeds; the earlier of equal ones.
        amount: ot_T, a share; its bounds hold whichever incumbent is the best, see above, and are NaN with one seed.
        relative: rot_T; NaN if no incumbent is better than the first.
    """

    best: Incumbent
    amount: Interval
    relative: float

    @property
    def is_shown(self) -> bool:
        """Whether it is above 0 beyond chance."""
        return self.amount.above(0)


@dataclass(frozen=True)
class Trajectory:
    """The incumbents of one method in one scenario.

    Attributes:
        scenario, method: whose they are.
        trials: number of trials that the search has spent.
        incumbents: in order of their numbers.
        overtuning: None if an incumbent is not confirmed, or no seed is common to all.
    """

    scenario: str
    method: str
    trials: int
    incumbents: tuple[Incumbent, ...]
    overtuning: Overtuning | None

    @property
    def unconfirmed(self) -> list[str]:
        """Keys of the incumbents that are not confirmed."""
        return [each.trial for each in self.incumbents if each.accuracy is None]


def has_incumbents(confirmation: Sweep) -> bool:
    """Whether a confirmation was asked for all incumbents."""
    return any(origin.get("was_incumbent") for group in confirmation.plan["groups"] for origin in _origins(group))


def was_incumbent(confirmation: Sweep, run: Mapping[str, Any]) -> bool:
    """Whether a confirmation has a run as an incumbent.

    That one of the plan; a search that has grown since may have others.
    """
    place = run["scenario"], run["method"]
    origins = [
        origin for g in confirmation.plan["groups"] if (g["scenario"], g["method"]) == place for origin in _origins(g)
    ]
    return run["number"] < len(origins) and bool(origins[run["number"]].get("was_incumbent"))


def _origins(group: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return group.get("origins") or ()


def trajectories(tuned: Sweep, confirmation: Sweep) -> list[Trajectory]:
    """The incumbents of a search and what they are worth.

    One trajectory for each method of each scenario that the confirmation has; those without an objective are left out.

    Args:
        tuned: the search.
        confirmation: of its incumbents, with its batches joined and with test accuracy.
    """
    goal = tuned.objectives[0]
    chosen = selection.incumbents(tables.candidates(tuned), is_maximised=goal.is_maximised)
    before = {run["run_id"]: run for run in load.rows(tuned.runs)}
    after = {
        run["confirms_trial"]: run for run in load.rows(confirmation.finished) if isinstance(run["confirms_trial"], str)
    }
    found = []
    for group in confirmation.plan["groups"]:
        place = group["scenario"], group["method"]
        own = [before[each.trial] for each in chosen if (each.scenario, each.method) == place]
        if own:
            found.append(_trajectory(tuned, confirmation, place, own, after))
    return found


def _trajectory(
    tuned: Sweep,
    confirmation: Sweep,
    place: tuple[str, str],
    runs: Sequence[Mapping[str, Any]],
    after: Mapping[str, Mapping[str, Any]],
) -> Trajectory:
    goal = tuned.objectives[0]
    own = tuned.runs[(tuned.runs["scenario"] == place[0]) & (tuned.runs["method"] == place[1])]
    incumbents, lanes = [], []
    for run in runs:
        again = after.get(run["trial"])
        accuracy = None
        if again is not None:
            table = confirmation.accuracy(again["run_id"])
            values = pd.Series(statistics.mean_accuracy(table.to_numpy(dtype=float)), index=table.columns)
            lanes.append(values)
            accuracy = _as_logged(values, again["summary/accuracy_test"], confirmation.level)
        incumbents.append(
            Incumbent(
                trials=int(run["number"]) + 1,
                trial=run["trial"],
                name=run["name"],
                objective=float(run[goal.column]),
                accuracy=accuracy,
                run_ids=(run["run_id"], *([again["run_id"]] if again is not None else [])),
            )
        )
    overtuning = None
    if len(lanes) == len(incumbents):
        together = pd.concat(lanes, axis="columns", join="inner")  # seed by seed, those that all of them have
        if len(together):
            overtuning = _overtuning(incumbents, together.to_numpy(dtype=float).T, confirmation.level)
    ended = own[own["outcome"] != "running"]["number"]
    return Trajectory(*place, int(ended.max()) + 1, tuple(incumbents), overtuning)


def _as_logged(values: pd.Series[float], mean: float, level: float) -> Interval:
    """The interval over seeds around the mean that MLflow has."""
    interval = statistics.t_interval(values.to_numpy(dtype=float), level)
    return Interval(mean, interval.low, interval.high, interval.lanes, level)


def _overtuning(incumbents: Sequence[Incumbent], lanes: Array, level: float) -> Overtuning:
    """The over-tuning of accuracies [incumbent, lane]."""
    means = lanes.mean(axis=1)
    best = int(np.argmax(means))
    amount = overtuning(lanes, level)
    gained = float(means[best] - means[0])
    return Overtuning(incumbents[best], amount, amount.mean / gained if gained > statistics.TIE else math.nan)


def overtuning(lanes: Array, level: float = 0.95) -> Interval:
    """ot_T of accuracies [incumbent, lane], with its interval.

    The last incumbent is the final one. The interval covers the true value in at least a share `level` of all studies, for nearly
    normal values; of one incumbent it is 0 for certain. The bounds are NaN with one lane. Raises ValueError for other axes, for
    no lane, and for non-finite values.
    """
    *earlier, final = checked(lanes, "incumbent", "lane")
    if not earlier:
        return Interval(0.0, 0.0, 0.0, len(final), level)
    each = 1 - (1 - level) / len(earlier)
    found = [statistics.t_interval(paired_differences(other, final), each) for other in earlier]
    mean, low, high = (max(0.0, float(np.max([getattr(one, end) for one in found]))) for end in ("mean", "low", "high"))
    if len(final) == 1:
        low = high = math.nan
    return Interval(mean, low, high, len(final), level)


def incumbents_frame(found: Sequence[Trajectory]) -> pd.DataFrame:
    """One row per incumbent: tuned and confirmed."""
    rows = [
        {
            "scenario": trajectory.scenario,
            "method": trajectory.method,
            "trials": each.trials,
            "trial": each.trial,
            "name": each.name,
            "objective": each.objective,
            **_bounded("accuracy", each.accuracy),
            "run_ids": " ".join(each.run_ids),
        }
        for trajectory in found
        for each in trajectory.incumbents
    ]
    return tables.frame(rows, "scenario method trials trial name objective accuracy accuracy_low accuracy_high run_ids")


def frame(found: Sequence[Trajectory]) -> pd.DataFrame:
    """One row per method: its over-tuning."""
    rows = []
    for each in found:
        first, final, result = each.incumbents[0], each.incumbents[-1], each.overtuning
        rows.append(
            {
                "scenario": each.scenario,
                "method": each.method,
                "trials": each.trials,
                "incumbents": len(each.incumbents),
                **_bounded("first", first.accuracy),
                "best_trials": result.best.trials if result else None,
                **_bounded("best", result.best.accuracy if result else None),
                **_bounded("final", final.accuracy),
                **_bounded("overtuning", result.amount if result else None),
                "relative_overtuning": result.relative if result else None,
                "run_ids": " ".join(
                    run_id
                    for one in dict.fromkeys((first, result.best if result else first, final))
                    for run_id in one.run_ids
                ),
            }
        )
    bounded = {name: f"{name} {name}_low {name}_high" for name in ("first", "best", "final", "overtuning")}
    return tables.frame(
        rows,
        f"scenario method trials incumbents {bounded['first']} best_trials {bounded['best']} {bounded['final']} "
        f"{bounded['overtuning']} relative_overtuning run_ids",
    )


def _bounded(name: str, interval: Interval | None) -> dict[str, float | None]:
    mean, low, high = (interval.mean, interval.low, interval.high) if interval else (None, None, None)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
