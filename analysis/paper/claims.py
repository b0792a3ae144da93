"""Claims C1 to C7 of the paper, with criteria.

The paper is Koster and Kukla (arXiv 2409.17300). The criteria were written down before any result of the full grid was seen. All
are about test accuracy per lane (one seed of one setting), at the paper's six settings of a scenario: SGD, SAM and GNP at two
learning rates.

- One margin, `MARGIN` = one percentage point of accuracy, defines "similar", "stable", "noticeable" and "significant".
- An effect is one number per lane: the decline (first tenth of the tasks minus last tenth), the mean over the tasks, or a paired
  difference of these between two settings with the same seed. A criterion sets the bounds that the effect must lie between.
- The decline after warm-up (`study.schema.after_warmup`) judges no claim: the criteria are older than it.
- A decline is that of the curve. If later tasks are harder, as pairs of digits may be, that is part of it; a difference between
  methods is free of it.
- A method that never learns has nothing to lose and does not decline. So a smaller decline counts as kept plasticity (C1, C7)
  only if the last tenth of the tasks is learnt as well as by the other method, to within the margin.
- An effect *holds* if its t interval over lanes lies within its bounds, *fails* if it lies beyond one of them, and is *open*
  otherwise. The intervals of one claim are simultaneous (Bonferroni: level 1 - 0.05 / number of its effects).
- A claim is *reproduced* if all its effects hold, *contradicted* if one fails, and *undecided* otherwise. It is also undecided if
  a setting is missing, if there are fewer lanes than a two-sided sign-flip test needs to reach 0.05 (6), or if this sweep's
  experiment is not the one the paper states (MNIST, 100 permutations or 45 pairs, three fully connected layers). What the paper
  leaves open has no part in that: `analysis.paper.assumptions` judges the claims under each assumption of a sweep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.paper.evidence import PAIRS, PIXELS, Evidence, Setting
from analysis.paper.verdicts import Effect, Finding, judge
from analysis.statistics import Interval
from search_spaces.paper_grid import LR

MARGIN: Final = 0.01
"""One percentage point: smaller differences and declines count as none."""

ALPHA: Final = 0.05

DIGITS: Final = 12
"""Decimals that a lane's number is rounded to.

Finer than one image in the mean over a task sequence, coarser than rounding error.
"""

HIGH, LOW = LR


@dataclass(frozen=True)
class _Gathered:
    """An effect before its interval: values per lane, bounds, settings."""

    label: str
    lanes: pd.Series[float]
    low: float
    high: float
    settings: tuple[Setting, ...]
    proviso: pd.Series[float] | None


@dataclass
class _Case:
    """The effects of one claim, and the missing settings."""

    evidence: Evidence
    missing: list[Setting] = field(default_factory=list)
    gathered: list[_Gathered] = field(default_factory=list)

    @property
    def level(self) -> float:
        """Of each interval, so that all hold together (Bonferroni)."""
        intervals = sum(1 if effect.proviso is None else 2 for effect in self.gathered)
        return 1 - ALPHA / max(1, intervals)

    def of(
        self,
        what: Callable[[Any], Any],
        first: Setting,
        second: Setting | None = None,
        *,
        low: float = -math.inf,
        high: float = math.inf,
        if_learnt: bool = False,
    ) -> None:
        """Adds an effect: of one setting, or a paired difference.

        Args:
            what: reduces accuracies [task, lane] to [lane].
            first: the setting.
            second: what is subtracted, seed by seed; None: nothing.
            low, high: the bounds that the claim sets.
            if_learnt: whether the effect fails only if the second setting learns the last tenth of the tasks as well as the
                first.
        """
        settings = (first,) if second is None else (first, second)
        absent = [setting for setting in settings if setting not in self.evidence.accuracy]
        self.missing += absent
        if absent:
            return
        values = [_by_seed(what, self.evidence.accuracy[setting]) for setting in settings]
        lanes = values[0] if second is None else (values[0] - values[1]).dropna().round(DIGITS)
        name = what.__name__.replace("_", " ")
        label = f"{name}: {' minus '.join(map(str, settings))}"
        proviso = None
        if if_learnt:
            ends = [_by_seed(statistics.last_tenth, self.evidence.accuracy[setting]) for setting in settings]
            proviso = (ends[1] - ends[0]).dropna().round(DIGITS)
        self.gathered.append(_Gathered(label, lanes, low, high, settings, proviso))


def _by_seed(what: Callable[[Any], Any], accuracy: pd.DataFrame) -> pd.Series[float]:
    return pd.Series(what(accuracy.to_numpy(dtype=float)), index=accuracy.columns).round(DIGITS)


def c1(evidence: Evidence) -> Finding:
    """Sharpness regularisation has no significant effect on plasticity loss."""
    case = _Case(evidence)
    for tasks in (PIXELS, PAIRS):
        for method in ("sam", "gnp"):
            for lr in LR:
                settings = Setting(tasks, "sgd", lr), Setting(tasks, method, lr)
                case.of(statistics.decline, *settings, high=MARGIN, if_learnt=True)
    return _finding(
        "C1",
        "Sharpness regularisation (SAM, GNP) has no significant effect on reducing plasticity loss.",
        f"In both scenarios and at both learning rates SAM and GNP decline at most {MARGIN:g} less than SGD does, seed "
        f"by seed, or learn the last tenth of the tasks worse than SGD by more than {MARGIN:g}.",
        case,
    )


def c2(evidence: Evidence) -> Finding:
    """Domain-incremental: all methods perform similarly."""
    case = _Case(evidence)
    for lr in LR:
        for first, second in combinations(("sgd", "sam", "gnp"), 2):
            settings = Setting(PIXELS, first, lr), Setting(PIXELS, second, lr)
            case.of(statistics.mean_accuracy, *settings, low=-MARGIN, high=MARGIN)
    return _finding(
        "C2",
        "Domain-incremental (permuted pixels): all methods perform similarly.",
        f"At each learning rate the mean accuracies of any two methods differ by less than {MARGIN:g}, seed by seed.",
        case,
    )


def c3(evidence: Evidence) -> Finding:
    """Domain-incremental: SGD at the lower learning rate is best."""
    case = _Case(evidence)
    best = Setting(PIXELS, "sgd", LOW)
    for method in ("sgd", "sam", "gnp"):
        for lr in LR:
            if Setting(PIXELS, method, lr) != best:
                case.of(statistics.mean_accuracy, best, Setting(PIXELS, method, lr), low=0.0)
    return _finding(
        "C3",
        f"Domain-incremental (permuted pixels): SGD with learning rate {LOW:g} is the best of the six settings.",
        "Its mean accuracy is above that of each other setting, seed by seed.",
        case,
    )


def c4(evidence: Evidence) -> Finding:
    """Domain-incremental: SAM and GNP at the higher rate decline noticeably."""
    case = _Case(evidence)
    for method in ("sam", "gnp"):
        case.of(statistics.decline, Setting(PIXELS, method, HIGH), low=MARGIN)
    return _finding(
        "C4",
        f"Domain-incremental (permuted pixels): SAM and GNP with learning rate {HIGH:g} decline noticeably over the tasks.",
        f"Both decline by more than {MARGIN:g}.",
        case,
    )


def c5(evidence: Evidence) -> Finding:
    """Class-incremental: SGD stays stable over the tasks."""
    case = _Case(evidence)
    for lr in LR:
        case.of(statistics.decline, Setting(PAIRS, "sgd", lr), high=MARGIN)
    return _finding(
        "C5",
        "Class-incremental (class pairs): SGD stays stable over the tasks.",
        f"At both learning rates SGD declines by less than {MARGIN:g}; to get better is not to decline.",
        case,
    )


def c6(evidence: Evidence) -> Finding:
    """Class-incremental: SAM declines significantly over the tasks."""
    case = _Case(evidence)
    for lr in LR:
        case.of(statistics.decline, Setting(PAIRS, "sam", lr), low=MARGIN)
    return _finding(
        "C6",
        "Class-incremental (class pairs): SAM declines significantly over the tasks.",
        f"At both learning rates, since the claim names none, SAM declines by more than {MARGIN:g}.",
        case,
    )


def c7(evidence: Evidence) -> Finding:
    """Class-incremental: GNP keeps plasticity best."""
    case = _Case(evidence)
    for lr in LR:
        for method in ("sgd", "sam"):
            case.of(statistics.decline, Setting(PAIRS, method, lr), Setting(PAIRS, "gnp", lr), low=0.0)
            case.of(statistics.last_tenth, Setting(PAIRS, "gnp", lr), Setting(PAIRS, method, lr), low=-MARGIN)
    return _finding(
        "C7",
        "Class-incremental (class pairs): GNP keeps plasticity best.",
        "At both learning rates GNP declines less than SGD and less than SAM, seed by seed, and learns the last tenth "
        f"of the tasks at most {MARGIN:g} worse than either.",
        case,
    )


CLAIMS: Final = (c1, c2, c3, c4, c5, c6, c7)


def findings(evidence: Evidence) -> list[Finding]:
    """All seven claims, judged by one sweep."""
    return [claim(evidence) for claim in CLAIMS]


def _finding(claim: str, statement: str, criterion: str, case: _Case) -> Finding:
    effects = tuple(_effect(case.evidence, gathered, case.level) for gathered in case.gathered)
    here, reason = judge(effects, case.missing, statistics.least_lanes(ALPHA))
    used = dict.fromkeys(setting for gathered in case.gathered for setting in gathered.settings)
    lost = [f"{case.evidence.diverged[setting]} of {setting}" for setting in used if setting in case.evidence.diverged]
    if lost:
        reason += f"; diverged seeds, which count at chance accuracy: {', '.join(lost)}"
    if not case.evidence.stated:
        hint = "; `study run paper_grid` has all of the paper's settings" if case.missing else ""
        return Finding(claim, statement, criterion, effects, here, here, f"{reason}{hint}.")
    reason = (
        f"this is not the paper's experiment, `study run paper_grid` is; by its criterion it is {here} here: {reason}."
    )
    return Finding(claim, statement, criterion, effects, "undecided", here, reason)


def _effect(evidence: Evidence, gathered: _Gathered, level: float) -> Effect:
    effect = Effect(
        gathered.label,
        _interval(gathered.lanes, level),
        gathered.low,
        gathered.high,
        None,
        tuple(evidence.run_ids[setting] for setting in gathered.settings),
        None if gathered.proviso is None else _interval(gathered.proviso, level),
        -MARGIN,
    )
    if effect.outcome != "open" or len(gathered.lanes) < 2:
        return effect
    beyond = effect.interval.above(gathered.high) or effect.interval.below(gathered.low)
    if beyond and gathered.proviso is not None and effect.proviso is not None:
        return replace(effect, lanes_needed=_lanes_needed(gathered.proviso, effect.proviso, (-MARGIN,)))
    return replace(effect, lanes_needed=_lanes_needed(gathered.lanes, effect.interval, (gathered.low, gathered.high)))


def _interval(lanes: pd.Series[float], level: float) -> Interval:
    values = lanes.to_numpy(dtype=float)
    return statistics.t_interval(values, level) if len(values) else Interval(math.nan, math.nan, math.nan, 0, level)


def _lanes_needed(lanes: pd.Series[float], interval: Interval, bounds: Sequence[float]) -> int | None:
    """Lanes needed to separate the mean from the nearest bound."""
    distance = min(abs(interval.mean - bound) for bound in bounds if math.isfinite(bound))
    spread = float(np.std(lanes.to_numpy(dtype=float), ddof=1))
    return statistics.lanes_needed(spread, distance, interval.level)
