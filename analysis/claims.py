"""The claims of Koster and Kukla (arXiv 2409.17300), C1 to C7, each with a criterion, an effect with its interval, and a verdict.

The criteria were written down before the study had run the paper's grid. All are about test accuracy, per lane (one seed of one
setting), in the paper's six settings of a scenario: SGD, SAM and GNP at two learning rates.

- "similar", "stable", "noticeable" and "significant" are told apart by one margin, `MARGIN` = one percentage point of accuracy.
- An effect is a number per lane: the decline (first tenth of the tasks minus last tenth), the mean over the tasks, or a paired
  difference of these between two settings with the same seed. A criterion says between which bounds the effect must lie.
- An effect *holds* when its t interval over lanes lies within its bounds, *fails* when it lies beyond one of them, and is *open*
  otherwise. The intervals of one claim are simultaneous (Bonferroni: level 1 - 0.05 / number of its effects).
- A claim is *reproduced* when all its effects hold, *contradicted* when one fails, *undecided* otherwise: also when a setting is
  missing, when there are fewer lanes than a two-sided sign-flip test needs to reach 0.05 (6), or when what the paper states
  of its experiment (MNIST, 100 permutations or 45 pairs, three fully connected layers) is not so here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.evidence import PAIRS, PIXELS, Evidence, Setting
from analysis.statistics import Interval
from search_spaces.paper_grid import LR

MARGIN: Final = 0.01
"""One percentage point: a smaller difference in accuracy counts as none, a smaller decline as stable."""

ALPHA: Final = 0.05

Verdict = Literal["reproduced", "contradicted", "undecided"]
Outcome = Literal["holds", "fails", "open"]

HIGH, LOW = LR


@dataclass(frozen=True)
class Effect:
    """A number that a claim is about, with its interval over lanes, and the bounds between which the claim says it lies.

    Attributes:
        label: what it is.
        interval: shares; simultaneous with those of the claim's other effects.
        low, high: the bounds, shares.
        lanes_needed: lanes that would make its interval clear of the bounds at this spread; None: no such number, or not open.
        run_ids: the runs that it was computed from.
    """

    label: str
    interval: Interval
    low: float
    high: float
    lanes_needed: int | None
    run_ids: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """Whether the interval lies within the bounds, beyond one of them, or neither."""
        if self.interval.low > self.low and self.interval.high < self.high:
            return "holds"
        if self.interval.high < self.low or self.interval.low > self.high:
            return "fails"
        return "open"


@dataclass(frozen=True)
class Finding:
    """One claim and what became of it.

    Attributes:
        claim: "C1" to "C7".
        statement: the claim, in the words of the study.
        criterion: what must be so for it to count as reproduced.
        effects: the numbers it is judged by.
        verdict: on the paper's claim.
        here: what the criterion says of this sweep's own data and tasks, whether or not they are the paper's.
        reason: why it is undecided and what would decide it, or what decided it.
    """

    claim: str
    statement: str
    criterion: str
    effects: tuple[Effect, ...]
    verdict: Verdict
    here: Verdict
    reason: str


@dataclass
class _Case:
    """The effects of a claim as they are gathered: label, value of each lane, bounds, settings."""

    evidence: Evidence
    missing: list[Setting] = field(default_factory=list)
    gathered: list[tuple[str, pd.Series[float], float, float, tuple[Setting, ...]]] = field(default_factory=list)

    def of(
        self,
        what: Callable[[Any], Any],
        first: Setting,
        second: Setting | None = None,
        *,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> None:
        """An effect: a quantity of one setting, or that of the first minus that of the second, seed by seed."""
        settings = (first,) if second is None else (first, second)
        absent = [setting for setting in settings if setting not in self.evidence.accuracy]
        self.missing += absent
        if absent:
            return
        values = [_by_seed(what, self.evidence.accuracy[setting]) for setting in settings]
        lanes = values[0] if second is None else (values[0] - values[1]).dropna()
        name = what.__name__.replace("_", " ")
        self.gathered.append((f"{name}: {' minus '.join(map(str, settings))}", lanes, low, high, settings))


def _by_seed(what: Callable[[Any], Any], accuracy: pd.DataFrame) -> pd.Series[float]:
    return pd.Series(what(accuracy.to_numpy(dtype=float)), index=accuracy.columns)


def c1(evidence: Evidence) -> Finding:
    """No significant effect of sharpness regularisation on plasticity loss, in both scenarios, at both learning rates."""
    case = _Case(evidence)
    for tasks in (PIXELS, PAIRS):
        for method in ("sam", "gnp"):
            for lr in LR:
                case.of(statistics.decline, Setting(tasks, "sgd", lr), Setting(tasks, method, lr), high=MARGIN)
    return _finding(
        "C1",
        "Sharpness regularisation (SAM, GNP) has no significant effect on reducing plasticity loss.",
        f"In both scenarios and at both learning rates SAM and GNP decline at most {MARGIN:g} less than SGD does, seed by seed.",
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
    """Domain-incremental: SGD at the lower learning rate is the best of the six settings."""
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
    """Domain-incremental: SAM and GNP decline noticeably at the higher learning rate."""
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
    return _finding(
        "C7",
        "Class-incremental (class pairs): GNP keeps plasticity best.",
        "At both learning rates GNP declines less than SGD and less than SAM, seed by seed.",
        case,
    )


CLAIMS: Final = (c1, c2, c3, c4, c5, c6, c7)


def findings(evidence: Evidence) -> list[Finding]:
    """All seven claims, judged by one sweep."""
    return [claim(evidence) for claim in CLAIMS]


def _finding(claim: str, statement: str, criterion: str, case: _Case) -> Finding:
    level = 1 - ALPHA / max(1, len(case.gathered))
    effects = tuple(
        _effect(case.evidence, label, lanes, (low, high), settings, level)
        for label, lanes, low, high, settings in case.gathered
    )
    here, reason = _judge(effects, case.missing)
    if not case.evidence.stated:
        return Finding(claim, statement, criterion, effects, here, here, reason + ".")
    reason = (
        f"this is not the paper's experiment, `study run paper_grid` is; by its criterion it is {here} here: {reason}."
    )
    return Finding(claim, statement, criterion, effects, "undecided", here, reason)


def _effect(
    evidence: Evidence,
    label: str,
    lanes: pd.Series[float],
    bounds: tuple[float, float],
    settings: Sequence[Setting],
    level: float,
) -> Effect:
    values = lanes.to_numpy(dtype=float)
    interval = statistics.t_interval(values, level) if len(values) else Interval(math.nan, math.nan, math.nan, 0, level)
    effect = Effect(label, interval, *bounds, None, tuple(evidence.run_ids[setting] for setting in settings))
    if effect.outcome != "open" or len(values) < 2:
        return effect
    distance = min(abs(interval.mean - bound) for bound in bounds if math.isfinite(bound))
    needed = statistics.lanes_needed(float(np.std(values, ddof=1)), distance, level)
    return Effect(label, interval, *bounds, needed, effect.run_ids)


def _judge(effects: Sequence[Effect], missing: Sequence[Setting]) -> tuple[Verdict, str]:
    """The verdict on the data at hand, and why."""
    least = statistics.least_lanes(ALPHA)
    if missing:
        names = ", ".join(map(str, dict.fromkeys(missing)))
        return "undecided", f"not there: {names}. `study run paper_grid` has all of the paper's settings"
    lanes = min(effect.interval.lanes for effect in effects)
    if lanes < least:
        return "undecided", f"{_seeds(lanes)} cannot bear a verdict; at least {least} are needed, and the paper has 10"
    outcomes = [effect.outcome for effect in effects]
    if "fails" in outcomes:
        return (
            "contradicted",
            f"{outcomes.count('fails')} of {len(effects)} effects lie beyond their bounds, {lanes} seeds",
        )
    if "open" not in outcomes:
        return "reproduced", f"all {len(effects)} effects lie within their bounds, {lanes} seeds"
    needed = [effect.lanes_needed for effect in effects if effect.outcome == "open"]
    within = [count for count in needed if count is not None]
    words = f"{len(needed)} of {len(effects)} effects cannot be told from their bounds with {lanes} seeds"
    if len(within) < len(needed):
        return "undecided", f"{words}, and one lies so near that no number of seeds within reach would tell"
    return "undecided", f"{words}; about {max(within)} would tell, if estimates and spread stay as they are"


def _seeds(lanes: int) -> str:
    return "1 seed" if lanes == 1 else f"{lanes} seeds"
