"""The form of a search space: pure data, frozen, knowing nothing of how it is searched.

Settings go by their slash names, `{"optimizer/lr": 0.01}`. Later groups overrule earlier ones: the space's settings, then
the scenario's, then the method's, then the point or what a sampler suggests.
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
    """What is tried of one method.

    Attributes:
        settings: fixed settings; `optimizer/name` is the method's own name unless it stands here.
        points: explicit points, tried first and in this order.
        distributions: what a sampler draws the other trials from, by slash name; empty: nothing but the points.
    """

    settings: Point = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.points and not self.distributions:
            raise ValueError("A method needs points or distributions.")


@dataclass(frozen=True, config=STRICT)
class SearchSpace:
    """A search space.

    Attributes:
        name: what a sweep of it is called unless it is given a name.
        description: one or two sentences for people.
        scenarios: settings of each scenario, by its name.
        methods: what is tried of each method, by its name.
        settings: fixed settings of all trials.
        seeds: one lane each.
        trials: trials of each method in each scenario, the points counted in; the same for all methods. None for a space
            of points alone: all of them.
        search_seed: what the samplers' draws depend on.
        citation: where the points or ranges come from.
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
    """All combinations of settings of the optimizer, `grid(lr=(0.01, 0.001))`; the last name varies fastest.

    A trailing underscore is dropped, for names that Python keeps to itself: `lambda_`.
    """
    keys = [f"optimizer/{name.rstrip('_')}" for name in values]
    return tuple(dict(zip(keys, combination, strict=True)) for combination in product(*values.values()))
