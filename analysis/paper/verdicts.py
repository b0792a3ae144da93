"""From effects to a verdict on a claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.paper.evidence import Setting
from analysis.statistics import Interval

Verdict = Literal["reproduced", "contradicted", "undecided"]
Outcome = Literal["holds", "fails", "open"]


@dataclass(frozen=True)
class Effect:
    """A number that a claim puts bounds on.

    Attributes:
        label: what it is.
        interval: over lanes, shares; simultaneous with the intervals of the claim's other effects.
        low, high: the bounds that the claim sets, shares.
        lanes_needed: lanes with which the interval would clear the bound if mean and spread stayed as they are. New lanes may
            move them either way, so this number decides in about half of all cases. None: no such number, or not open.
        run_ids: the runs it was computed from.
        proviso: a second number that must lie above `proviso_low` for the effect to fail at all; if it surely lies below, the
            effect holds. None: there is no such condition.
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
        """Whether the effect holds, fails or is open.

        It holds within the bounds, fails beyond one of them, and is open otherwise. It fails only if the proviso, where there is
        one, is met.
        """
        if self.interval.within(self.low, self.high) or (self.proviso and self.proviso.below(self.proviso_low)):
            return "holds"
        beyond = self.interval.below(self.low) or self.interval.above(self.high)
        if beyond and (self.proviso is None or self.proviso.above(self.proviso_low)):
            return "fails"
        return "open"

    @property
    def leans_to_fail(self) -> bool:
        """Whether it is open but would fail at its means."""
        beyond = not self.low <= self.interval.mean <= self.high
        met = self.proviso is None or self.proviso.mean > self.proviso_low
        return self.outcome == "open" and beyond and met


@dataclass(frozen=True)
class Finding:
    """One claim with its verdict.

    Attributes:
        claim: "C1" to "C7".
        statement: the claim, in the words of the study.
        criterion: what must hold for it to count as reproduced.
        effects: the numbers it is judged by.
        verdict: on the paper's claim.
        here: the criterion's result on this sweep's own data and tasks, whether or not they are the paper's.
        reason: what decided it, or why it is undecided and what would decide it.
    """

    claim: str
    statement: str
    criterion: str
    effects: tuple[Effect, ...]
    verdict: Verdict
    here: Verdict
    reason: str


def judge(effects: Sequence[Effect], missing: Sequence[Setting], least: int) -> tuple[Verdict, str]:
    """The verdict on this sweep's data, and why.

    It is undecided with fewer than `least` lanes, and if settings are missing.
    """
    if missing:
        names = ", ".join(map(str, dict.fromkeys(missing)))
        return "undecided", f"no finished trial of {names}"
    lanes = min(effect.interval.lanes for effect in effects)
    if lanes < least:
        return (
            "undecided",
            f"{_seeds(lanes)} cannot support a verdict; at least {least} are needed, and the paper has 10",
        )
    outcomes = [effect.outcome for effect in effects]
    if fails := outcomes.count("fails"):
        return "contradicted", f"{_of(fails, effects)} beyond the bounds, {_seeds(lanes)}"
    if "open" not in outcomes:
        return "reproduced", f"all {len(effects)} effects lie within their bounds, {_seeds(lanes)}"
    return (
        "undecided",
        f"{_of(outcomes.count('open'), effects)} too close to a bound for {_seeds(lanes)}; {_would_decide(effects)}",
    )


def _would_decide(effects: Sequence[Effect]) -> str:
    """How many seeds would decide the claim."""
    undecided = [effect for effect in effects if effect.outcome == "open"]
    failing = [effect for effect in undecided if effect.leans_to_fail]
    counts = [effect.lanes_needed for effect in failing or undecided]
    finite = [count for count in counts if count is not None]
    if not finite or (not failing and len(finite) < len(counts)):
        word = "it lies" if len(undecided) == 1 else "one lies" if len(finite) == len(counts) - 1 else "they lie"
        return f"{word} so close that no feasible number of seeds would decide it"
    needed = min(finite) if failing else max(finite)  # one effect that fails is enough, but all must hold
    return f"about {needed} would have an even chance of deciding it, if estimates and spread stay as they are"


def _of(count: int, effects: Sequence[Effect]) -> str:
    return f"{count} of {len(effects)} effects {'lies' if count == 1 else 'lie'}"


def _seeds(lanes: int) -> str:
    return "1 seed" if lanes == 1 else f"{lanes} seeds"
