"""The form of a search space: frozen, pure data.

A search space does not know how it is searched. Settings have slash names, `{"optimizer/lr": 0.01}`. Later settings override
earlier ones: first those of the space, then of the scenario, then of the method, then of the point or the sampler's suggestion.

A distribution is one of Optuna's, or a mapping that says the same:

    {"low": 1e-4, "high": 1.0, "log": True}    FloatDistribution(1e-4, 1.0, log=True)
    {"low": 16, "high": 128, "step": 16}       IntDistribution(16, 128, step=16)
    {"choices": [[100, 100], [200]]}           CategoricalDistribution([[100, 100], [200]])
"""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import field
from itertools import product
from typing import Annotated, Any, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic.dataclasses import dataclass

Point = Mapping[str, Any]
"""Settings by slash name."""

RANGE = ("low", "high", "log", "step")
"""Keys of a distribution over numbers."""

SEED_LIMIT = 2**31
"""Seeds are below it."""

LARGEST = 1e300
"""Upper bound of the numbers of a distribution."""


def distribution(given: BaseDistribution | Mapping[str, Any]) -> BaseDistribution:
    """The distribution that a mapping describes.

    Args:
        given: one of Optuna's, which is returned as it is; or `low` and `high`, both included, with `log` or `step` if wanted; or
            `choices`. Whole numbers draw whole numbers, and a single number with a point makes all of them real.

    Raises ValueError, whose message is a clause, if it is neither.
    """
    if isinstance(given, BaseDistribution):
        return given
    if not isinstance(given, Mapping):
        raise ValueError("a distribution is a mapping such as {low: 0.1, high: 1.0}, or one of Optuna's")
    known = ("choices",) if "choices" in given else RANGE
    for key in given:
        if key not in known:
            raise ValueError(f"a distribution has no key {key!r}; {_nearest(key, known)}")
    if "choices" in given:
        choices = given["choices"]
        if not isinstance(choices, list | tuple) or not choices:
            raise ValueError("choices must be a list of at least one value")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # lists are kept by JSON
            return CategoricalDistribution(choices)
    return _numbers(given)


def _numbers(given: Mapping[str, Any]) -> FloatDistribution | IntDistribution:
    """The distribution over numbers that a mapping describes."""
    for key in ("low", "high"):
        if key not in given:
            raise ValueError(f"a distribution needs low and high, or choices; {key} is missing")
    for key in ("low", "high", "step"):
        value = given.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float | None) or not abs(value or 0) <= LARGEST:
            raise ValueError(f"{key} must be a finite number")
    low, high, step, log = given["low"], given["high"], given.get("step"), given.get("log", False)
    if not isinstance(log, bool):
        raise ValueError("log must be true or false")
    if step is not None and not step > 0:
        raise ValueError("step must be above 0")
    if step is not None and log:
        raise ValueError("log and step exclude each other")
    if low > high or (log and low <= 0):
        raise ValueError("low must be at most high" + (" and above 0 with log" if log else ""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of what is refused below
        if any(isinstance(value, float) for value in (low, high, step)):
            made: FloatDistribution | IntDistribution = FloatDistribution(low, high, log=log, step=step)
        else:
            made = IntDistribution(low, high, log=log, step=1 if step is None else step)
    if not math.isclose(made.high, high):
        raise ValueError(f"high is not reached from low in whole steps; {made.high} is")
    return made


def _nearest(word: object, known: Iterable[str]) -> str:
    """A clause that lists known words, a similar one first."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(known)}"


def _tuple_of_list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _tuple_of_word(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Listed = BeforeValidator(_tuple_of_list)
"""Accepts a list for a declared tuple."""

Distribution = Annotated[BaseDistribution | Mapping[str, Any], PlainValidator(distribution)]
"""One of Optuna's, or a mapping; kept as one of Optuna's."""

STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, extra="forbid")


@dataclass(frozen=True, config=STRICT)
class Method:
    """The points and distributions of one method.

    Attributes:
        settings: fixed settings; `optimizer/name` is the name of the method unless it is set here.
        points: explicit points, tried first and in this order.
        distributions: a sampler draws the other trials from these, by slash name; empty: the points alone are tried.
    """

    settings: Point = field(default_factory=dict)
    points: Annotated[tuple[Point, ...], Listed] = ()
    distributions: Mapping[str, Distribution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.points and not self.distributions:
            raise ValueError("A method needs points or distributions.")

    @property
    def drawn(self) -> Mapping[str, BaseDistribution]:
        """The distributions as Optuna's objects."""
        return cast("Mapping[str, BaseDistribution]", self.distributions)


@dataclass(frozen=True, config=STRICT)
class SearchSpace:
    """The scenarios, methods and budget of a search.

    Attributes:
        name: default name of its sweeps.
        description: one or two sentences for people.
        scenarios: settings of each scenario, by its name.
        methods: points and distributions of each method, by its name.
        settings: fixed settings of all trials.
        seeds: one lane each.
        trials: number of trials of each method in each scenario, points included; the same for all methods. None, for a space
            without distributions: all points.
        search_seed: of the samplers.
        citation: source of the points or ranges.
        objectives: what a search optimises, by the names of `study.objective`; one, or two with the sampler nsga2. Without any:
            the mean validation accuracy, and with nsga2 also the decline.
    """

    name: str
    description: str
    scenarios: Mapping[str, Point]
    methods: Mapping[str, Method]
    settings: Point = field(default_factory=dict)
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=SEED_LIMIT)], ...], Listed] = (0, 1, 2)
    trials: Annotated[int, Field(ge=1)] | None = None
    search_seed: int = 0
    citation: str = ""
    objectives: Annotated[tuple[str, ...], BeforeValidator(_tuple_of_word), Listed] = ()

    def __post_init__(self) -> None:
        if not self.scenarios or not self.methods or not self.seeds:
            raise ValueError("A search space needs at least one scenario, one method and one seed.")
        if self.trials is None and any(method.distributions for method in self.methods.values()):
            raise ValueError("A search space with distributions needs `trials`, its budget for each method.")


def grid(**values: tuple[Any, ...]) -> tuple[Point, ...]:
    """All combinations of the optimizer's settings, `grid(lr=(0.01, 0.001))`.

    The last name varies fastest. A trailing underscore is dropped, for reserved words of Python: `lambda_`.
    """
    keys = [f"optimizer/{name.rstrip('_')}" for name in values]
    return tuple(dict(zip(keys, combination, strict=True)) for combination in product(*values.values()))
