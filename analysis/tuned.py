"""Do tuned methods keep plasticity? Contrasts of late accuracy.

The criteria are those of `study/docs/statistics.md`, "Tuned methods". They were written down before any tuned sweep was started.

- The late accuracy of a lane is its mean test accuracy over the last tenth of the tasks.
- A method keeps plasticity better than another if its late accuracy, seed by seed, is higher by more than one percentage point,
  the margin of the paper's claims: *yes* if the interval of the paired differences lies above it, *no* if it lies below, *open*
  otherwise.
- The intervals of one question are simultaneous (Bonferroni over its scenarios, data sets and pairs of methods).
- With fewer seeds than an exact test of one pair needs (6) the answer is open.

Only confirmed winners count: trials of rank 1, on seeds that no tuning has used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt
import pandas as pd

from analysis import load, statistics
from analysis.load import Sweep
from analysis.paper.claims import ALPHA, MARGIN
from analysis.settings import BASELINE
from analysis.statistics import Interval

Answer = Literal["yes", "no", "open"]


@dataclass(frozen=True)
class Contrast:
    """Late accuracy of one confirmed winner against another's.

    Attributes:
        sweep: the confirmation.
        scenario, data: where they were compared.
        first, second: the methods.
        late: mean late accuracy of each, a share.
        difference: first minus second, seed by seed, a share; simultaneous with the other contrasts of the question.
        declines: decline after warm-up of each, a share; simultaneous in the same way.
        run_ids: of both.
    """

    sweep: str
    scenario: str
    data: str
    first: str
    second: str
    late: tuple[float, float]
    difference: Interval
    declines: tuple[Interval, Interval]
    run_ids: tuple[str, str]

    @property
    def answer(self) -> Answer:
        """Whether the first method keeps plasticity better."""
        return beyond(self.difference)


def beyond(interval: Interval) -> Answer:
    """Whether a number is greater than the margin.

    Open with too few lanes.
    """
    if interval.lanes < statistics.least_lanes(ALPHA):
        return "open"
    return "yes" if interval.above(MARGIN) else "no" if interval.below(MARGIN) else "open"


def contrasts(confirmations: Sequence[Sweep], pairs: Sequence[tuple[str, str]]) -> list[Contrast]:
    """The contrasts of one question.

    Args:
        confirmations: of winners, with test accuracy.
        pairs: of methods, by name; those that a confirmation lacks are left out.
    """
    found = [found for confirmation in confirmations for found in _rivals(confirmation, pairs)]
    return [_contrast(*rivals, 1 - ALPHA / (len(found) * rivals[0].looks)) for rivals in found]


def against_baseline(confirmations: Sequence[Sweep]) -> list[Contrast]:
    """Each method against plain SGD."""
    methods = dict.fromkeys(method for sweep in confirmations for method in _winners(sweep)["method"])
    return contrasts(confirmations, [(method, BASELINE) for method in methods if method != BASELINE])


def conclusion(found: Sequence[Contrast]) -> str:
    """The answer on one method in one sentence.

    `found` are its contrasts; there is at least one.
    """
    where: dict[Answer, list[str]] = {"yes": [], "no": [], "open": []}
    for contrast in found:
        where[contrast.answer].append(f"{contrast.scenario} of {contrast.data}")
    if len(where["yes"]) == len(found):
        verdict = "yes"
    elif len(where["no"]) == len(found):
        verdict = "no"
    else:
        verdict = "; ".join(f"{answer} on {', '.join(places)}" for answer, places in where.items() if places)
    return f"{found[0].first} against {found[0].second}: {verdict}"


def frame(found: Sequence[Contrast]) -> pd.DataFrame:
    """One row per contrast, with its answer."""
    rows = [
        {
            "sweep": each.sweep,
            "scenario": each.scenario,
            "data": each.data,
            "first": each.first,
            "second": each.second,
            "late_first": each.late[0],
            "late_second": each.late[1],
            **_bounded("difference", each.difference),
            **_bounded("decline_first", each.declines[0]),
            **_bounded("decline_second", each.declines[1]),
            "answer": each.answer,
            "lanes": each.difference.lanes,
            "run_ids": " ".join(each.run_ids),
        }
        for each in found
    ]
    return pd.DataFrame(rows)


def _bounded(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _winners(sweep: Sweep) -> pd.DataFrame:
    return sweep.finished[sweep.finished["selected_rank"] == 1]


def _rivals(sweep: Sweep, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[Sweep, dict[str, Any], dict[str, Any]]]:
    """The runs of each pair, scenario by scenario."""
    runs = load.rows(_winners(sweep))
    by_place = {(run["scenario"], run["method"]): run for run in runs}
    for scenario in dict.fromkeys(run["scenario"] for run in runs):
        for pair in pairs:
            both = [by_place.get((scenario, method)) for method in pair]
            if both[0] is not None and both[1] is not None:
                yield sweep, both[0], both[1]


def _contrast(sweep: Sweep, first: dict[str, Any], second: dict[str, Any], level: float) -> Contrast:
    tables = [sweep.accuracy(run["run_id"]) for run in (first, second)]
    seeds = [seed for seed in tables[0].columns if seed in tables[1].columns]
    values: list[npt.NDArray[Any]] = [table[seeds].to_numpy(dtype=float) for table in tables]
    late = [statistics.last_tenth(lanes) for lanes in values]
    declines = [statistics.t_interval(statistics.decline_after_warmup(lanes), level) for lanes in values]
    return Contrast(
        sweep=sweep.name,
        scenario=str(first["scenario"]),
        data=str(first["data/name"]),
        first=str(first["method"]),
        second=str(second["method"]),
        late=(float(late[0].mean()), float(late[1].mean())),
        difference=statistics.t_interval(late[0] - late[1], level),
        declines=(declines[0], declines[1]),
        run_ids=(str(first["run_id"]), str(second["run_id"])),
    )
