"""The form of a search space: frozen, pure data.

A search space does not know how it is searched. Settings have slash names, `{"optimizer/lr": 0.01}`. Later settings override
earlier ones: first those of the space, then of the scenario, then of the method, then of the point or the sampler's suggestion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from itertools import product
from typing import Annotated, Any

from optuna.distributions import BaseDistribution
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Point = Mapping[str, Any]
"""Settings by slash name."""


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
    points: tuple[Point, ...] = ()
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.points and not self.distributions:
            raise ValueError("A method needs points or distributions.")


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
    """

    name: str
    description: str
    scenarios: Mapping[str, Point]
    methods: Mapping[str, Method]
    settings: Point = field(default_factory=dict)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    trials: Annotated[int, Field(ge=1)] | None = None
    search_seed: int = 0
    citation: str = ""

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
