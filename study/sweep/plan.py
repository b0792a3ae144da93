"""The plan of a sweep: all that it tries and how it looks for more, as plain data that can be kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)
from pydantic import Field, ValidationError

from study import parts
from study.config import EARLIER_LABELS, Flat, Label, Listed, StrictSettings, TrialConfig, sentence
from study.errors import StudyError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Phase = Literal["grid", "tune", "confirm"]


def check_name(name: str) -> str:
    """The name, if it can name a sweep, a method or a scenario, and so a folder. Raises StudyError otherwise."""
    if not NAME.fullmatch(name):
        raise StudyError(
            f"{name!r} cannot be a name: use at most 100 letters, digits, '.', '_' and '-', with a letter or digit first, "
            f"and no path."
        )
    return name


class Origin(StrictSettings):
    """Where a point of a confirmation comes from.

    Attributes:
        trial: key of the tuning trial with these settings; None: no trial had them.
        rank: its place by the objective among the configurations of its method and scenario, from 1; None: it was not
            selected, but is one of the paper's own settings.
    """

    trial: str | None = None
    rank: int | None = Field(None, ge=1)


class Tuning(StrictSettings):
    """The sweep that a confirmation confirms: its name, and what tells it from any other of that name."""

    sweep: str
    identity: str


class Group(StrictSettings):
    """The trials of one method in one scenario.

    Attributes:
        settings: what all of them share, by slash name.
        points: explicit points, tried first.
        distributions: Optuna's JSON of what a sampler draws from, by slash name; empty: nothing but the points.
        trials: how many.
        origins: of a confirmation, where each point comes from; empty otherwise.
    """

    scenario: str
    method: str
    settings: dict[str, Any]
    points: Annotated[tuple[dict[str, Any], ...], Listed]
    distributions: dict[str, str]
    trials: int = Field(ge=1)
    origins: Annotated[tuple[Origin, ...], Listed] = ()

    @property
    def label(self) -> str:
        """Scenario and method, as in the key of a trial."""
        return f"{self.scenario}-{self.method}"

    def with_trials(self, trials: int) -> Group:
        """The same group with another budget, which explicit points without distributions limit."""
        return self.model_copy(update={"trials": trials if self.distributions else min(trials, len(self.points))})

    def drawn(self) -> dict[str, BaseDistribution]:
        """The distributions as objects."""
        return {name: json_to_distribution(text) for name, text in self.distributions.items()}


class Plan(StrictSettings):
    """All that a sweep tries, and how it looks for more; not where it runs. `confirms` is set in phase `confirm` alone."""

    name: str
    space: str
    description: str
    citation: str
    phase: Phase
    seeds: Annotated[tuple[int, ...], Listed]
    sampler: Literal["tpe", "random", "gp", "cmaes", "nsga2"]
    scheduler: Literal["none", "asha"]
    search_seed: int
    groups: Annotated[tuple[Group, ...], Listed]
    confirms: Tuning | None = None
    labels: dict[str, Label] = Field(default_factory=lambda: dict(EARLIER_LABELS))

    @classmethod
    def from_plain(cls, plain: object, source: str) -> Plan:
        """Reads a kept plan. Raises StudyError when it is none."""
        try:
            plan = cls.model_validate(plain)
        except ValidationError as error:
            raise StudyError(f"{source} is not the plan of a sweep: {sentence(error, cls.model_fields)}") from None
        for name in (plan.name, *(word for group in plan.groups for word in (group.scenario, group.method))):
            check_name(name)  # folders and files are made of it, and a kept plan comes from who knows where
        return plan

    def trial_config(self, group: Group, tried: Mapping[str, Any]) -> TrialConfig:
        """The complete configuration of one trial."""
        flat = {**group.settings, **tried, "seeds": list(self.seeds)}
        return parts.complete(TrialConfig.from_flat(flat, f"method {group.method!r}"))

    def origin(self, label: str, number: int) -> Origin:
        """Where trial `number` of the group of that label comes from; an empty origin outside of a confirmation."""
        origins = next(group.origins for group in self.groups if group.label == label)
        return origins[number] if origins else Origin()

    @property
    def trial_count(self) -> int:
        """Trials of all groups together."""
        return sum(group.trials for group in self.groups)

    def with_trials(self, trials: int) -> Plan:
        """The same plan with another budget for each method. Raises StudyError when no method can have it."""
        if trials < 1:
            raise StudyError(f"--trials must be at least 1, not {trials}.")
        most = max(trials if group.distributions else len(group.points) for group in self.groups)
        if trials > most:
            raise StudyError(
                f"--trials {trials} is too many: the methods have {most} explicit points and no distributions to draw "
                f"more from."
            )
        return self.model_copy(update={"groups": tuple(group.with_trials(trials) for group in self.groups)})

    @property
    def needs_no_gpu(self) -> bool:
        """Whether the trials are told to train on the CPU."""
        return all(group.settings.get("training/device") == "cpu" for group in self.groups)

    @property
    def needs_gpu(self) -> bool:
        """Whether the trials are told to train on a GPU and nowhere else."""
        return any(group.settings.get("training/device") == "cuda" for group in self.groups)


def ends(group: Group) -> list[Flat]:
    """For each distribution its extreme values, the others at one of theirs: what must be valid for all draws to be."""
    values = {name: _extremes(distribution) for name, distribution in group.drawn().items()}
    lowest = {name: choices[0] for name, choices in values.items()}
    return [lowest | {name: value} for name, choices in values.items() for value in choices] or [lowest]


def completed(group: Group, point: Flat) -> list[Flat]:
    """A point, with what it leaves open at the ends of what that is drawn from: alone when it leaves nothing open."""
    drawn = group.drawn()
    if drawn.keys() <= point.keys():
        return [point]
    found = [{**end, **point} for end in ends(group)]
    return [one for place, one in enumerate(found) if one not in found[:place]]


def extremes(group: Group) -> list[Flat]:
    """All points, completed, and the ends of all distributions: what must be valid for every trial to be."""
    listed = [one for point in group.points for one in completed(group, point)]
    return [*listed, *(ends(group) if group.distributions else [])]


def _extremes(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return [distribution.low, distribution.high]
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    raise StudyError(f"{type(distribution).__name__} is not a distribution that the study can draw from.")
