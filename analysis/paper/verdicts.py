"""From effects to a verdict: what intervals and bounds say of a claim, and what would decide it where they leave it open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.evidence import Setting
from analysis.statistics import Interval

Verdict = Literal["reproduced", "contradicted", "undecided"]
Outcome = Literal["holds", "fails", "open"]


@dataclass(frozen=True)
class Effect:
    """A number that a claim is about, with its interval over lanes, and the bounds between which the claim says it lies.

    Attributes:
        label: what it is.
        interval: shares; simultaneous with those of the claim's other effects.
        low, high: the bounds, shares.
        lanes_needed: lanes with which its interval would clear the bound, were mean and spread to stay as they are (in new lanes
            they may turn out either way, so these decide in about half of all cases); None: no such number, or not open.
        run_ids: the runs that it was computed from.
        proviso: a second number that must lie above `proviso_low` for the effect to fail at all; surely below it, the effect
            holds. None: there is no such condition.
        proviso_low: share.
    """

    label: str
    interval: Interval
    low: float
    high: float
    lanes_needed: int | None
    run_ids: tuple[str, ...]
    proviso: Interval | None = None
    proviso_low: float = 0.0

    @property
    def outcome(self) -> Outcome:
        """Whether the interval lies within the bounds, beyond one of them (and the proviso is met), or neither."""
        if self.interval.within(self.low, self.high) or (self.proviso and self.proviso.below(self.proviso_low)):
            return "holds"
        beyond = self.interval.below(self.low) or self.interval.above(self.high)
        if beyond and (self.proviso is None or self.proviso.above(self.proviso_low)):
            return "fails"
        return "open"

    @property
    def leans_to_fail(self) -> bool:
        """Whether it is open and the means, were they exact, would make it fail."""
        beyond = not self.low <= self.interval.mean <= self.high
        met = self.proviso is None or self.proviso.mean > self.proviso_low
        return self.outcome == "open" and beyond and met


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


def judge(effects: Sequence[Effect], missing: Sequence[Setting], least: int) -> tuple[Verdict, str]:
    """The verdict on the data at hand, and why; none with fewer than `least` lanes or with settings missing."""
    if missing:
        names = ", ".join(map(str, dict.fromkeys(missing)))
        return "undecided", f"no finished trial of {names}"
    lanes = min(effect.interval.lanes for effect in effects)
    if lanes < least:
        return "undecided", f"{_seeds(lanes)} cannot bear a verdict; at least {least} are needed, and the paper has 10"
    outcomes = [effect.outcome for effect in effects]
    if fails := outcomes.count("fails"):
        return "contradicted", f"{_of(fails, effects)} beyond the bounds, {_seeds(lanes)}"
    if "open" not in outcomes:
        return "reproduced", f"all {len(effects)} effects lie within their bounds, {_seeds(lanes)}"
    return (
        "undecided",
        f"{_of(outcomes.count('open'), effects)} too near to a bound for {_seeds(lanes)}; {_would_tell(effects)}",
    )


def _would_tell(effects: Sequence[Effect]) -> str:
    """How many seeds would end the doubt: one effect that fails is enough, but to hold takes them all."""
    doubtful = [effect for effect in effects if effect.outcome == "open"]
    failing = [effect for effect in doubtful if effect.leans_to_fail]
    counts = [effect.lanes_needed for effect in failing or doubtful]
    known = [count for count in counts if count is not None]
    if not known or (not failing and len(known) < len(counts)):
        word = "it lies" if len(doubtful) == 1 else "one lies" if len(known) == len(counts) - 1 else "they lie"
        return f"{word} so near that no number of seeds within reach would tell"
    needed = min(known) if failing else max(known)
    return f"about {needed} would give an even chance to tell, if estimates and spread stay as they are"


def _of(count: int, effects: Sequence[Effect]) -> str:
    return f"{count} of {len(effects)} effects {'lies' if count == 1 else 'lie'}"


def _seeds(lanes: int) -> str:
    return "1 seed" if lanes == 1 else f"{lanes} seeds"
