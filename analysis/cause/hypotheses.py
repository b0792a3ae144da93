"""The four hypotheses: their tests, and an answer to each.

The criteria are those of `study/docs/cause.md`. Each test takes numbers by seed; `answered` adjusts the p-values by Holm's method
over the family of four, in which a hypothesis that was not tested counts as p = 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from analysis import statistics
from analysis.cause import MARGIN
from analysis.cause.lines import Line, curve_p, line_through_zero
from analysis.paper.claims import ALPHA
from analysis.statistics import Array, Interval

Name = Literal["H1", "H2", "H3", "H4"]
Answer = Literal["yes", "no", "open", "not tested"]

QUESTIONS: Final[dict[Name, str]] = {
    "H1": "sharpness at the onset, set by experiment, changes the next task's online accuracy",
    "H2": "it does so only through step sizes",
    "H3": "all ways to change sharpness lie on one line",
    "H4": "rho has a direct effect when norms and idle units are held",
}

NUMBERS: Final[dict[Name, str]] = {
    "H1": "Online accuracy for a doubling of sharpness",
    "H2": "Change of the slope of H1 for a tenfold learning rate of the probe",
    "H3": "Late accuracy for a doubling of sharpness on the best line",
    "H4": "Late accuracy for 0.1 of rho with both held",
}
"""What is estimated."""

SPACES: Final[dict[Name, str]] = {"H1": "surgery", "H2": "surgery", "H3": "dose_response", "H4": "dose_response"}
"""The search space that tests each."""


@dataclass(frozen=True)
class Test:
    """A hypothesis put to numbers.

    Attributes:
        p: unadjusted.
        estimate: what it is about, with a 95 % interval over seeds.
        line: of H3.
        p_curve: of H3: of one curve through 0; 1 if one line fits.
    """

    __test__ = False  # for pytest, which collects classes of this name

    p: float
    estimate: Interval
    line: Line | None = None
    p_curve: float = 1.0


@dataclass(frozen=True)
class Verdict:
    """The answer to one hypothesis.

    Attributes:
        hypothesis: its name.
        answer: see `study/docs/cause.md`.
        test: None if it was not tested.
        p_adjusted: by Holm's method; 1 if not tested.
    """

    hypothesis: Name
    answer: Answer
    test: Test | None
    p_adjusted: float


def slope_test(slopes: Array) -> Test | None:
    """Whether the mean of slopes [seed] is 0.

    For H1, H2 and H4; None without a seed.
    """
    return Test(statistics.sign_flip_p(slopes), statistics.t_interval(slopes)) if len(slopes) else None


def line_test(x: Array, y: Array) -> Test | None:
    """H3: do the ways lie on one line through 0?

    Arguments as in `lines.line_through_zero`; None with fewer than two ways or three seeds.
    """
    if x.ndim != 2 or x.shape[0] < 2 or x.shape[1] < 3:
        return None
    line = line_through_zero(x, y)
    bent = curve_p(x, y) if line.p <= ALPHA else 1.0
    return Test(line.p, Interval(line.slope, line.low, line.high, x.shape[1], 0.95), line, bent)


def answered(tests: Mapping[Name, Test | None]) -> list[Verdict]:
    """An answer to each of the four hypotheses, in order."""
    names = list(QUESTIONS)
    found = [tests.get(name) for name in names]
    adjusted = statistics.holm([1.0 if test is None else test.p for test in found])
    changes = found[0] is not None and _answer("H1", found[0], float(adjusted[0]), True) == "yes"
    return [
        Verdict(
            name,
            "not tested" if test is None else _answer(name, test, float(p), changes),
            test,
            float(p),
        )
        for name, test, p in zip(names, found, adjusted, strict=True)
    ]


def _answer(name: Name, test: Test, p: float, changes: bool) -> Answer:
    """The answer, given the adjusted p-value.

    `changes` is whether H1 is answered yes.
    """
    estimate = test.estimate
    is_small = estimate.within(-MARGIN, MARGIN)
    match name:
        case "H1":
            return "no" if is_small else "yes" if p <= ALPHA else "open"
        case "H2":
            return ("no" if changes else "open") if is_small else "yes" if p <= ALPHA else "open"
        case "H3":
            assert test.line is not None
            if p <= ALPHA and test.p_curve <= ALPHA:
                return "no"
            fits = test.p > ALPHA and all(distance.within(-MARGIN, MARGIN) for distance in test.line.distances)
            return "yes" if fits and (estimate.above(0) or estimate.below(0)) else "open"
        case "H4":
            is_large = estimate.above(MARGIN) or estimate.below(-MARGIN)
            return "no" if is_small else "yes" if p <= ALPHA and is_large else "open"


def written(interval: Interval) -> str:
    """An estimate with its interval, for sentences."""
    if not interval.low <= interval.high:
        return f"{interval.mean:+.4f} (interval unknown)"
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def sentence(verdict: Verdict) -> str:
    """The verdict on one hypothesis in one sentence."""
    name, test = verdict.hypothesis, verdict.test
    beginning = f"{name}, {QUESTIONS[name]}: *{verdict.answer}*"
    if test is None:
        return f"{beginning} by this sweep; `study run {SPACES[name]}` does."
    words = f"{beginning}. {NUMBERS[name]}: {written(test.estimate)}, adjusted p = {verdict.p_adjusted:.3g}"
    if test.line is not None:
        line = test.line
        words += f"; Cochran's Q is {line.q:.3g} on {line.freedom} degrees of freedom, I² is {line.i_squared:.0%}"
        words += f", and of one bent curve p = {test.p_curve:.3g}" if test.p <= ALPHA else ""
    return f"{words}."
