"""What deciding early saves and costs: `python tests/support/seeds_saved.py`.

Studies of three methods are simulated and decided by `study.decision.rule`. Two methods are equal, and the first is better by an
effect, in units of the standard deviation of the paired differences. Printed are the share of studies with a false answer or an
interval that misses the truth, the share that finds both differences of the first method, also with all seeds at once and with
e-values at the same looks, and the mean number of seeds of a method.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from study.decision.intervals import paired_differences, t_interval
from study.decision.rule import Course, Rule, decide

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
"""Independent noise of this shape, with mean 0 and variance 1."""

NOISE: dict[str, Draw] = {
    "normal": lambda draw, shape: draw.standard_normal(shape),
    "t with 3 degrees of freedom": lambda draw, shape: draw.standard_t(3, shape) / np.sqrt(3),
    "exponential": lambda draw, shape: draw.exponential(size=shape) - 1,
}

METHODS = ("a", "b", "c")
RULE = Rule(batch=6, most=30, level=0.95, margin=0.01)
SPREAD = 0.01
"""Standard deviation of a paired difference; the margin is as large."""


@dataclass(frozen=True)
class Study:
    """A simulated study that was decided.

    Attributes:
        course: its end.
        truth: mean of each method.
        values: accuracies of each method by seed.
    """

    course: Course
    truth: dict[str, float]
    values: dict[str, np.ndarray]

    @property
    def is_wrong(self) -> bool:
        """Whether any answer is false."""
        for each in self.course.differences:
            true = self.truth[each.first] - self.truth[each.second]
            is_true = {"higher": true > 0, "lower": true < 0, "alike": abs(true) < RULE.margin, "open": True}
            if not is_true[each.verdict]:
                return True
        return False

    @property
    def misses(self) -> bool:
        """Whether any last interval lacks the truth."""
        intervals = ((each, each.interval) for each in self.course.differences)
        return any(
            found is not None and not found.low <= self.truth[each.first] - self.truth[each.second] <= found.high
            for each, found in intervals
        )

    @property
    def seeds(self) -> float:
        """Mean number of seeds of a method."""
        return float(np.mean(list(self.course.due.values())))

    @property
    def finds(self) -> bool:
        """Whether the first method is found to be better than both others."""
        return all(each.verdict == "higher" for each in self.course.differences if each.first == "a")

    @property
    def finds_at_once(self) -> bool:
        """The same with all seeds at once, without looks."""
        level = 1 - (1 - RULE.level) / len(self.course.differences)
        return all(
            t_interval(paired_differences(self.values["a"], self.values[other]), level).above(0) for other in "bc"
        )

    @property
    def finds_by_e_values(self) -> bool:
        """The same as `finds` with an e-value of each difference."""
        needed = len(self.course.differences) / (1 - RULE.level)
        of_others = (paired_differences(self.values["a"], self.values[other]) for other in "bc")
        return all(any(e_value(d[:seeds]) >= needed for seeds in RULE.batches) for d in of_others)


def e_value(differences: np.ndarray) -> float:
    """The e-value of paired differences; 0 if their mean is negative.

    Likelihood ratio of the t statistic with a standard normal effect against none: ((1 + r) / (1 + r / (1 + n)))^(n / 2) /
    sqrt(1 + n), r = t^2 / (n - 1). It holds at any number of looks (Wang and Ramdas 2024, arXiv 2310.03722).
    """
    n, mean = len(differences), differences.mean()
    r = n * mean**2 / differences.var(ddof=1) / (n - 1)
    return float(((1 + r) / (1 + r / (1 + n))) ** (n / 2) / np.sqrt(1 + n)) if mean > 0 else 0.0


def studies(count: int, effect: float, noise: str = "normal", seed: int = 0) -> Iterator[Study]:
    """Simulates studies; `effect` in units of the spread."""
    draw = np.random.default_rng(seed)
    truth = {"a": 0.8 + effect * SPREAD, "b": 0.8, "c": 0.8}
    own = NOISE[noise](draw, (count, len(METHODS), RULE.most)) * SPREAD / np.sqrt(2)
    shared = draw.standard_normal((count, 1, RULE.most)) * 0.02  # the seed's own effect, which pairing removes
    for table in own + shared:
        values = {method: truth[method] + table[row] for row, method in enumerate(METHODS)}
        yield Study(decide(RULE, {"s": {name: list(map(float, row)) for name, row in values.items()}}), truth, values)


def main() -> None:
    """Prints a row for each kind of noise and effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--effects", type=float, nargs="*", default=[0.0, 0.5, 1.0, 2.0, 4.0])
    options = parser.parse_args()
    print(f"{options.studies} studies each; at most {RULE.most} seeds in batches of {RULE.batch}")
    for noise in NOISE:
        for effect in options.effects:
            found = list(studies(options.studies, effect, noise))
            share = {
                name: np.mean([getattr(each, name) for each in found])
                for name in ("is_wrong", "misses", "finds", "finds_at_once", "finds_by_e_values", "seeds")
            }
            print(
                f"{noise:28} effect {effect:4g}: false answer {share['is_wrong']:.4f}, interval misses "
                f"{share['misses']:.4f}, found {share['finds']:.3f} (all seeds at once {share['finds_at_once']:.3f}, "
                f"e-values {share['finds_by_e_values']:.3f}), seeds "
                f"{share['seeds']:.1f}, saved {1 - share['seeds'] / RULE.most:.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
