"""The plan of a sweep as plain data.

It lists everything that the sweep tries and says how it searches. It is the first line of `sweep.jsonl`. Optuna takes half a
second to import, so it is imported only where distributions become objects.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from study import objective, parts
from study.config import (
    EARLIER_LABELS,
    MOST_TRIALS,
    NAME,
    NAME_LENGTH,
    Flat,
    Label,
    Listed,
    Seed,
    StrictSettings,
    TrialConfig,
    sentence,
)
from study.decision import halving
from study.errors import StudyError, brief
from study.objective import Objective
from study.parts import outside
from study.sweep.ranges import range_of
from study.sweep.upkeep.earlier import Predecessor

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from study.decision.rule import Rule

LISTS_WARNING = "Choices for a categorical distribution should be"
"""Optuna warns of choices that are lists. JSON keeps them."""

Phase = Literal["grid", "tune", "confirm"]


def check_name(name: str) -> str:
    """Returns the name of a sweep, method or scenario.

    Folders and files are named after it. Raises StudyError if it is not suitable.
    """
    if not NAME.fullmatch(name):
        raise StudyError(
            f"{name!r} cannot be a name: use at most {NAME_LENGTH} letters, digits, '.', '_' and '-', with a letter or digit "
            f"first, and no path."
        )
    return name


def check_count(option: str, count: int, most: float = math.inf) -> None:
    """Raises StudyError unless 1 <= `count` <= `most`."""
    if count < 1:
        raise StudyError(f"{option} must be at least 1, not {count}.")
    if count > most:
        raise StudyError(f"{option} must be at most {most:,}, not {count}.")


class Origin(StrictSettings):
    """Where a point of a confirmation comes from.

    Attributes:
        trial: key of the tuning trial with these settings; None if no trial had them.
        rank: its rank by the objective among the configurations of its method and scenario, from 1; None if it was not
            selected but stands beside, as an earlier incumbent or as one of the paper's own settings.
        was_incumbent: whether the confirmation is to have all incumbents, and it was one: the best so far at some moment of
            the search. The winner was the last of them.
    """

    trial: str | None = None
    rank: int | None = Field(None, ge=1)
    was_incumbent: bool = False

    @model_serializer(mode="wrap")
    def _serialized(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `was_incumbent` if it was none, as in plans of earlier versions."""
        plain: dict[str, Any] = handler(self)
        return (
            plain if self.was_incumbent else {name: value for name, value in plain.items() if name != "was_incumbent"}
        )

    @property
    def why(self) -> str:
        """Why it is confirmed, in a few words."""
        if self.rank:
            return f"best, place {self.rank}"
        return "best so far" if self.was_incumbent else "the paper's own"


class Tuning(StrictSettings):
    """The sweep that a confirmation confirms.

    Attributes:
        sweep: its name.
        identity: see `study.sweep.folder.SweepFolder.identity`; it tells sweeps of the same name apart.
    """

    sweep: str
    identity: str


def _checked_distribution(text: str) -> str:
    try:
        range_of(text)
    except (ValueError, RecursionError):
        raise ValueError("is no distribution") from None
    return text


class Group(StrictSettings):
    """The trials of one method in one scenario.

    Attributes:
        settings: shared by all of them, by slash name.
        points: explicit points, tried first.
        distributions: that a sampler draws from, as Optuna's JSON, by slash name; empty if only the points are tried.
        trials: number of trials; in a race, of configurations.
        origins: in a confirmation, where each point comes from; otherwise empty.
    """

    scenario: str
    method: str
    settings: dict[str, Any]
    points: Annotated[tuple[dict[str, Any], ...], Listed]
    distributions: dict[str, Annotated[str, AfterValidator(_checked_distribution)]]
    trials: int = Field(ge=1)
    origins: Annotated[tuple[Origin, ...], Listed] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Group:
        if self.origins and len(self.origins) != len(self.points):
            raise ValueError(f"it has {len(self.points)} points, but {len(self.origins)} origins")
        if not self.distributions and self.trials > max(1, len(self.points)):
            raise ValueError(f"it has {len(self.points)} points, but {self.trials} trials")
        return self

    def fault_of(self, number: int, tried: Mapping[str, Any]) -> str:
        """Why a configuration cannot have tried these settings, or "".

        Args:
            number: of the configuration, which is that of its trial unless the sweep is a race.
            tried: settings by slash name.
        """
        point = self.points[number] if number < len(self.points) else {}
        due = point.keys() | self.distributions.keys()
        if tried.keys() != due:
            name = min(tried.keys() ^ due)
            return f"{name!r} is {'missing in' if name in due else 'not among'} the settings tried"
        for name, value in tried.items():
            fits = value == point[name] if name in point else range_of(self.distributions[name]).contains(value)
            if not fits:
                return f"{name} is {brief(value)}, which the sweep does not try"
        return ""

    @property
    def label(self) -> str:
        """Scenario and method, as in the key of a trial."""
        return f"{self.scenario}-{self.method}"

    def with_trials(self, trials: int) -> Group:
        """The same group with another budget.

        Without distributions the number of points limits it.
        """
        return self.model_copy(update={"trials": trials if self.distributions else min(trials, len(self.points))})

    def drawn(self) -> dict[str, BaseDistribution]:
        """The distributions as objects."""
        from optuna.distributions import json_to_distribution  # slow to import

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", LISTS_WARNING, UserWarning)
            return {name: json_to_distribution(text) for name, text in self.distributions.items()}


class Deciding(StrictSettings):
    """How a confirmation ends as soon as it is decided.

    Its points are repeated for each batch of seeds. See `study.decision.rule` for the attributes.
    """

    batch: int = Field(ge=2)
    level: float = Field(gt=0, lt=1)
    margin: float = Field(ge=0)


class Plan(StrictSettings):
    """Everything that a sweep tries, and how it searches.

    Where it runs is not part of it: see `study.sweep.execution`. `confirms` is set in phase `confirm` only. A sampler draws
    `batch` trials of a method at once. `files` are parts from outside, by name. `objectives` are names of
    `study.objective`; plans of earlier versions have none, which stands for what was optimised then. `after` has
    the earlier trials that a search begins with. `deciding` is set if the
    trials of a confirmation have `deciding.batch` of the seeds each, and not all of them have to run.

    In a race a trial is a configuration on the further seeds of one rung, see `study.decision.halving`. Its number is that of
    the configuration times the number of rungs, plus that of the rung: so a budget may grow.
    """

    name: str
    space: str
    description: str
    citation: str
    phase: Phase
    seeds: Annotated[tuple[Seed, ...], Listed]
    sampler: Literal["tpe", "random", "gp", "cmaes", "nsga2"]
    scheduler: Literal["none", "asha", "race"]
    search_seed: int
    groups: Annotated[tuple[Group, ...], Listed]
    confirms: Tuning | None = None
    batch: int = Field(1, ge=1)
    labels: dict[str, Label] = Field(default_factory=lambda: dict(EARLIER_LABELS))
    files: dict[str, outside.PartFile] = Field(default_factory=dict)
    objectives: Annotated[tuple[str, ...], Listed] = ()
    after: Predecessor | None = None
    deciding: Deciding | None = None

    @model_validator(mode="after")
    def _has_whole_batches(self) -> Plan:
        if self.deciding is None:
            return self
        batches, left = divmod(len(self.seeds), self.deciding.batch)
        if not batches or left or any(len(group.points) % batches for group in self.groups):
            raise ValueError(f"its seeds or points are not in whole batches of {self.deciding.batch} seeds")
        if self.rule is None or not self.rule.looks:
            raise ValueError("it has too few seeds to decide anything")
        return self

    @model_validator(mode="after")
    def _has_objectives(self) -> Plan:
        try:
            objective.parse_all(self.objectives, self.sampler)
        except StudyError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return self

    @model_validator(mode="after")
    def _can_race(self) -> Plan:
        if self.is_race and (fault := race_fault(self.sampler, len(self.seeds), len(self.goals))):
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _fits_what_came_before(self) -> Plan:
        distributions = {group.label: group.distributions for group in self.groups}
        for label, trials in self.after.trials.items() if self.after else ():
            for earlier in trials:
                if not earlier.fits(distributions.get(label, {}), len(self.goals)):
                    raise ValueError(f"the earlier trial {brief(earlier.trial)} does not fit into {brief(label)}")
        return self

    @classmethod
    def from_plain(cls, plain: object, source: str) -> Plan:
        """Reads a plan from a file. Raises StudyError if malformed."""
        try:
            plan = cls.model_validate(plain)
        except ValidationError as error:
            raise StudyError(f"{source} is not the plan of a sweep: {sentence(error, cls.model_fields)}") from None
        labels = [group.label for group in plan.groups]
        if not labels or not plan.seeds or len(set(labels)) < len(labels) or len(set(plan.seeds)) < len(plan.seeds):
            raise StudyError(f"{source} is not the plan of a sweep: it needs seeds and methods, each of them once.")
        for name in (plan.name, *(word for group in plan.groups for word in (group.scenario, group.method))):
            check_name(name)  # folders and files are named after it, and the file is untrusted input
        outside.register(plan.files)  # executed by nobody who only reads
        return plan

    def plain(self) -> dict[str, Any]:
        """The plan as plain data.

        Without `deciding` if nothing is decided, as plans of earlier versions.
        """
        plain = super().plain()
        return plain if self.deciding else {name: value for name, value in plain.items() if name != "deciding"}

    def trial_config(self, group: Group, tried: Mapping[str, Any], number: int = 0) -> TrialConfig:
        """The complete configuration of one trial, by its number."""
        flat = {**group.settings, **tried, "seeds": list(self.seeds_of(group, number))}
        return parts.complete(TrialConfig.from_flat(flat, f"method {group.method!r}"))

    def seeds_of(self, group: Group, number: int) -> tuple[int, ...]:
        """The seeds of a trial, by its number."""
        if self.is_race:
            rung = self.rung_of(number)
            return self.seeds[self.rungs[rung - 1] if rung else 0 : self.rungs[rung]]
        first = self.lanes * (number // self.points_of(group))
        return self.seeds[first : first + self.lanes] if self.deciding else self.seeds

    def points_of(self, group: Group) -> int:
        """Number of a group's trials on the same seeds."""
        return group.trials if self.rule is None else len(group.points) // len(self.rule.batches)

    @property
    def lanes(self) -> int:
        """Number of seeds of a trial, at most."""
        if self.is_race:
            return max(rung - before for before, rung in zip((0, *self.rungs), self.rungs, strict=False))
        return self.deciding.batch if self.deciding else len(self.seeds)

    @property
    def is_race(self) -> bool:
        """Whether configurations get their seeds by halving."""
        return self.scheduler == halving.SCHEDULER

    @property
    def rungs(self) -> tuple[int, ...]:
        """Seeds of a configuration after each of its trials."""
        return halving.rungs_of(len(self.seeds)) if self.is_race else (len(self.seeds),)

    def rung_of(self, number: int) -> int:
        """Which of its configuration's trials one is, from 0."""
        return number % len(self.rungs)

    def configuration_of(self, number: int) -> int:
        """Number of a trial's configuration, mostly its own."""
        return number // len(self.rungs)

    def trials_of(self, group: Group) -> int:
        """Number of a group's trials, if none fails."""
        return sum(halving.sizes(group.trials, len(self.rungs)))

    @property
    def rule(self) -> Rule | None:
        """The rule that ends a confirmation, or None."""
        if self.deciding is None:
            return None
        from study.decision.rule import Rule  # slow to import

        return Rule(most=len(self.seeds), **self.deciding.plain())

    def origin(self, label: str, number: int) -> Origin:
        """The origin of trial `number` of a group.

        Empty unless the plan is a confirmation.
        """
        origins = next(group.origins for group in self.groups if group.label == label)
        return origins[number] if origins else Origin()

    @property
    def goals(self) -> tuple[Objective, ...]:
        """What the search optimises, the first for selections."""
        return objective.parse_all(self.objectives, self.sampler)

    @property
    def trial_count(self) -> int:
        """Number of trials of all groups together."""
        return sum(map(self.trials_of, self.groups))

    def with_trials(self, trials: int) -> Plan:
        """The same plan with another budget for each method.

        Raises StudyError if no method has that many trials.
        """
        check_count("--trials", trials, MOST_TRIALS)
        most = max(trials if group.distributions else len(group.points) for group in self.groups)
        if trials > most:
            raise StudyError(
                f"--trials {trials} is too many: the methods have {most} explicit points and no distributions to draw "
                f"more from."
            )
        return self.model_copy(update={"groups": tuple(group.with_trials(trials) for group in self.groups)})

    @property
    def needs_no_gpu(self) -> bool:
        """Whether all trials are set to train on the CPU."""
        return all(group.settings.get("training/device") == "cpu" for group in self.groups)

    @property
    def needs_gpu(self) -> bool:
        """Whether any trial is set to require a GPU."""
        return any(group.settings.get("training/device") == "cuda" for group in self.groups)


RACED: Final = ("tpe", "random")
"""Samplers that learn from configurations without all seeds, or from nothing."""


def race_fault(sampler: str, seeds: int, goals: int) -> str:
    """Why a sweep cannot be a race, or ""."""
    if sampler not in RACED:
        return f"a race needs the sampler tpe or random: {sampler} learns nothing from configurations without all seeds"
    if goals > 1:
        return "a race ranks configurations by one objective"
    if seeds < halving.REDUCTION:
        return "a race gives few configurations all seeds, so it needs at least 2 of them"
    return ""


def ends(group: Group) -> list[Flat]:
    """Settings at the extremes of each distribution in turn.

    The other distributions are at their first extreme. If all of these are valid, so is every draw.
    """
    extremes_of = {name: extreme_values(distribution) for name, distribution in group.drawn().items()}
    lowest = {name: values[0] for name, values in extremes_of.items()}
    return [lowest | {name: value} for name, values in extremes_of.items() for value in values] or [lowest]


def completed(group: Group, point: Flat) -> list[Flat]:
    """The point completed with the extremes of distributions left free.

    Only the point itself if it sets everything that is drawn.
    """
    if group.distributions.keys() <= point.keys():
        return [point]
    candidates = [{**end, **point} for end in ends(group)]
    return [candidate for place, candidate in enumerate(candidates) if candidate not in candidates[:place]]


def extremes(group: Group) -> list[Flat]:
    """All points, completed, and the ends of all distributions.

    If all of these are valid, so is every trial of the group.
    """
    points = [settings for point in group.points for settings in completed(group, point)]
    return [*points, *(ends(group) if group.distributions else [])]


MOST_CORNERS = 256
"""Combinations of extremes that are all checked; of more, only those of `extremes`."""


def corners(group: Group) -> list[Flat]:
    """`extremes`, and all combinations of the distributions' extremes.

    A pair of settings may be possible at each end, but not at both ends together.
    """
    values = {name: extreme_values(distribution) for name, distribution in group.drawn().items()}
    few = math.prod(map(len, values.values())) <= MOST_CORNERS
    combined = (
        [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())] if values and few else []
    )
    return [*extremes(group), *combined]


def extreme_values(distribution: BaseDistribution) -> list[Any]:
    """Both ends of a range, or all choices.

    Raises StudyError for a kind of distribution that the study cannot draw from.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # slow to import

    if isinstance(distribution, FloatDistribution | IntDistribution):
        return [distribution.low, distribution.high]
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    raise StudyError(f"{type(distribution).__name__} is not a distribution that the study can draw from.")


def shared_settings(plan: Plan, scenario: str) -> Flat:
    """The settings equal in all trials of a scenario."""
    return _equal(plan, [group for group in plan.groups if group.scenario == scenario])


def own_settings(plan: Plan, group: Group) -> Flat:
    """The fixed settings that only this group has.

    They are equal in its trials, and other groups of its scenario have other values. Those that are tried are not among them,
    nor is the optimizer where the method is named after it, nor what other optimizers lack and this one has at its default.
    """
    shared = shared_settings(plan, group.scenario)
    lacking = _defaults_that_others_lack(plan, group)
    own = {
        name: value
        for name, value in _equal(plan, [group]).items()
        if name not in shared and not (name in lacking and lacking[name] == value)
    }
    if own.get("optimizer/name") == group.method:
        del own["optimizer/name"]
    tried = {*group.distributions, *(name for point in group.points for name in point)}
    return {name: value for name, value in own.items() if name not in tried}


def _defaults_that_others_lack(plan: Plan, group: Group) -> Flat:
    """Defaults of the group's optimizer that another one does not have."""
    names = {
        plan.trial_config(each, point).optimizer.name
        for each in plan.groups
        if each.scenario == group.scenario
        for point in extremes(each)
    }
    own = plan.trial_config(group, next(iter(extremes(group)))).optimizer.name
    known = {name: parts.find("optimizers", name).Settings.model_construct().plain() for name in names}
    return {
        f"optimizer/{word}": default
        for word, default in known[own].items()
        if any(word not in other for other in known.values())
    }


def _equal(plan: Plan, groups: Sequence[Group]) -> Flat:
    configs = [plan.trial_config(group, point).flat() for group in groups for point in extremes(group)]
    return {
        name: value
        for name, value in configs[0].items()
        if all(name in config and config[name] == value for config in configs)
    }
