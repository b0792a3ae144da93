"""After how many seeds a comparison of methods is decided.

Methods of a scenario are trained on the same seeds, in batches. After each batch every pair of methods that is still open is
judged by an interval of its paired differences, and a method ends once nothing about it is open. Looking often makes false
answers likelier, so the level is divided: alpha is spent in equal parts on the looks (a linear spending function, Lan and DeMets
1983; Kim and DeMets 1987 with power 1), and within a look on the pairs:

    each interval has the level 1 - alpha / (pairs looks)

By the union bound all of these intervals, of all looks and pairs, hold together in a share 1 - alpha of all studies: repeated
confidence intervals (Jennison and Turnbull 1989). So whatever is read off them may be wrong in a share alpha at most, however
the answers decide who goes on. That is exact for normal differences with unknown spread at any number of seeds. The boundaries
that Lan and DeMets integrate numerically are exact for a known spread only, and win little: see `study/docs/statistics.md`.

Everything here is a function of accuracies by seed, so it gives the same whenever it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from study.decision.intervals import Interval, checked, paired_differences, t_interval

FEWEST: Final = 6
"""Seeds before the first look: with fewer no exact test of one pair reaches 0.05."""

NOT_ENDED: Final = "not ended yet"

Verdict = Literal["higher", "lower", "alike", "open"]

Accuracies = Mapping[str, Mapping[str, Sequence[float]]]
"""By scenario and method: one number for each seed, in the order of the seeds that all methods share."""


def mean_accuracy(values: npt.ArrayLike) -> list[float]:
    """What is compared: the mean over all tasks.

    Values [task, lane] to [lane].
    """
    table = np.ascontiguousarray(checked(values, "task", "lane"))  # so that tasks are summed in the same order
    return [float(number) for number in table.mean(axis=0)]


@dataclass(frozen=True)
class Rule:
    """How often is looked, and what counts as decided.

    Attributes:
        batch: seeds between two looks.
        most: seeds of a method at most, a multiple of `batch`.
        level: at which all intervals hold together.
        margin: methods are alike if their difference lies within it on both sides, in the unit of the accuracies.
    """

    batch: int
    most: int
    level: float
    margin: float

    @property
    def batches(self) -> list[int]:
        """Numbers of seeds after each batch."""
        return list(range(self.batch, self.most + 1, self.batch))

    @property
    def looks(self) -> int:
        """Batches after which differences are judged."""
        return sum(seeds >= FEWEST for seeds in self.batches)

    @property
    def words(self) -> dict[Verdict, str]:
        """The verdicts in words."""
        return {"higher": "higher", "lower": "lower", "alike": f"alike within {self.margin:g}", "open": "not decided"}

    def level_of(self, intervals: int = 1) -> float:
        """Level of each of so many intervals at every look."""
        return 1 - (1 - self.level) / (intervals * self.looks)


@dataclass(frozen=True)
class Difference:
    """One method's accuracy minus another's, as last judged.

    Attributes:
        scenario, first, second: what is compared.
        verdict: on the first: higher, lower, alike within the margin, or open.
        interval: of the mean difference, simultaneous with all others; None before the first look.
    """

    scenario: str
    first: str
    second: str
    verdict: Verdict = "open"
    interval: Interval | None = None


@dataclass(frozen=True)
class Course:
    """What is decided so far, and what is due.

    Attributes:
        spent, due: seeds that each method has, and that it is to have by now, by scenario and method.
        most: seeds that a method can have.
        differences: of all pairs.
    """

    spent: Mapping[tuple[str, str], int]
    due: Mapping[tuple[str, str], int]
    most: int
    differences: tuple[Difference, ...]

    @property
    def saved(self) -> dict[tuple[str, str], int]:
        """Seeds that each method did not need.

        None of a method that has not ended.
        """
        return {
            place: self.most - spent if spent == self.due.get(place) and self.ending(*place) != NOT_ENDED else 0
            for place, spent in self.spent.items()
        }

    def due_of(self, scenario: str, method: str) -> int:
        """Seeds that a method is to have by now.

        What is not compared goes on as long as anything of its scenario.
        """
        of_scenario = [seeds for (where, _), seeds in self.due.items() if where == scenario]
        return self.due.get((scenario, method), max(of_scenario, default=0))

    def ending(self, scenario: str, method: str) -> str:
        """Why a method gets no more seeds."""
        undecided = sum(
            each.verdict == "open" and each.scenario == scenario and method in (each.first, each.second)
            for each in self.differences
        )
        if not undecided:
            return "all its differences are decided"
        if self.spent[scenario, method] < self.most:
            return NOT_ENDED
        return f"no seeds left, {undecided} not decided"


def decide(rule: Rule, accuracies: Accuracies) -> Course:
    """What the accuracies so far decide.

    The next batch is due only when every method that goes on has all seeds of the batches before.
    """
    pairs = {scenario: list(combinations(methods, 2)) for scenario, methods in accuracies.items()}
    level = rule.level_of(max(1, sum(map(len, pairs.values()))))
    due: dict[tuple[str, str], int] = {}
    judged: list[Difference] = []
    for scenario, methods in accuracies.items():
        found = {pair: Difference(scenario, *pair) for pair in pairs[scenario]}
        going = list(methods)
        for seeds in rule.batches:
            due |= {(scenario, method): seeds for method in going}
            if any(len(methods[method]) < seeds for method in going):
                break
            if seeds < FEWEST:
                continue
            for pair in [pair for pair, each in found.items() if each.verdict == "open"]:
                first, second = (methods[method][:seeds] for method in pair)
                interval = t_interval(paired_differences(first, second), level)
                found[pair] = Difference(scenario, *pair, verdict_of(interval, rule.margin), interval)
            undecided = {method for pair, each in found.items() if each.verdict == "open" for method in pair}
            going = [method for method in going if method in undecided]
            if not going:
                break
        judged += found.values()
    spent = {(scenario, method): len(each) for scenario, of in accuracies.items() for method, each in of.items()}
    return Course(spent, due, rule.most, tuple(judged))


def rule_of_plan(plan: Mapping[str, Any]) -> Rule | None:
    """The rule of a confirmation's plan as plain data.

    None if all of its trials are to run. Raises ValueError if it is malformed.
    """
    deciding = plan.get("deciding")
    if deciding is None:
        return None
    try:
        rule = Rule(most=len(plan["seeds"]), **deciding)
        rule.level_of()
        whole = rule.most % rule.batch == 0 and all(
            group["trials"] % len(rule.batches) == 0 for group in plan["groups"]
        )
        fits = whole and 0 < rule.level < 1 and rule.margin >= 0
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ValueError(f"its 'deciding' is no rule: {error}") from None
    if not fits:
        raise ValueError("its 'deciding' does not fit its seeds and trials")
    return rule


def verdict_of(interval: Interval, margin: float) -> Verdict:
    """What an interval says of a difference."""
    if interval.above(0):
        return "higher"
    if interval.below(0):
        return "lower"
    return "alike" if interval.within(-margin, margin) else "open"
