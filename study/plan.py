"""The plan of a sweep: a search space with what the user overruled, every setting checked, as plain data that can be kept."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from pydantic import AfterValidator, Field, ValidationError

import search_spaces
from search_spaces import SearchSpace
from study import experiment
from study.config import Flat, Listed, StrictSettings, StudyError, TrialConfig, nearest, sentence
from study.contracts import Dataset

SAMPLERS = ("tpe", "random", "gp", "cmaes", "nsga2")
SCHEDULERS = ("none", "asha")
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


Name = Annotated[str, AfterValidator(check_name)]
"""A name of which folders and files are made, in a kept plan too: it comes from who knows where."""


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

    scenario: Name
    method: Name
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

    name: Name
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

    @classmethod
    def from_plain(cls, plain: object, source: str) -> Plan:
        """Reads a kept plan. Raises StudyError when it is none."""
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            raise StudyError(f"{source} is not the plan of a sweep: {sentence(error, cls.model_fields)}") from None

    def trial_config(self, group: Group, tried: Mapping[str, Any]) -> TrialConfig:
        """The complete configuration of one trial."""
        flat = {**group.settings, **tried, "seeds": list(self.seeds)}
        return experiment.complete(TrialConfig.from_flat(flat, f"method {group.method!r}"))

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


def load_space(name: str) -> SearchSpace:
    """The search space of that name or path. Raises StudyError when there is none."""
    try:
        return search_spaces.load(name)
    except ValueError as error:
        raise StudyError(str(error)) from None


def make_plan(
    space: SearchSpace,
    *,
    name: str,
    scenarios: Sequence[str] = (),
    methods: Sequence[str] = (),
    trials: int | None = None,
    seeds: int | None = None,
    overrides: Flat | None = None,
    sampler: str = "tpe",
    scheduler: str = "none",
    search_seed: int | None = None,
) -> Plan:
    """The plan of a sweep over a space.

    Args:
        space: what is tried.
        name: of the sweep.
        scenarios, methods: only these; empty: all of the space.
        trials: budget for each method in each scenario; default: the space's.
        seeds: how many; default: the space's. The space's own seeds come first, then the integers after the largest.
        overrides: settings by slash name that overrule everything; what was drawn or listed under that name is fixed.
        sampler, scheduler: see SAMPLERS and SCHEDULERS.
        search_seed: what the samplers' draws depend on; default: the space's.

    Raises:
        StudyError: anything of it is unknown or impossible. Every point, and both ends of every distribution, is checked.
    """
    check_name(name)
    _check_word("sampler", sampler, SAMPLERS)
    _check_word("scheduler", scheduler, SCHEDULERS)
    if trials is not None and trials < 1:
        raise StudyError(f"--trials must be at least 1, not {trials}.")
    overrides = dict(overrides or {})
    check_overrides(overrides)
    for label in (*space.scenarios, *space.methods):
        check_name(label)
    groups = []
    for scenario in chosen("scenario", scenarios, space.scenarios):
        for method in chosen("method", methods, space.methods):
            groups.append(_group(space, scenario, method, overrides))
    labels = [group.label for group in groups]
    for label in labels:
        if labels.count(label) > 1:
            raise StudyError(f"Two pairs of scenario and method would both be called {label!r}; rename one of them.")
    phase: Phase = "tune" if any(group.distributions for group in groups) else "grid"
    plan = Plan(
        name=name,
        space=space.name,
        description=space.description,
        citation=space.citation,
        phase=phase,
        seeds=_seeds(space, seeds),
        sampler=sampler,  # type: ignore[arg-type]
        scheduler=scheduler,  # type: ignore[arg-type]
        search_seed=space.search_seed if search_seed is None else search_seed,
        groups=tuple(groups),
    )
    if trials is not None:
        plan = plan.with_trials(trials)
    check_trials(plan)
    return plan


def check_overrides(overrides: Flat) -> None:
    """Refuses to overrule what tells the groups of a sweep apart. Raises StudyError."""
    for setting, option in (("optimizer/name", "--method"), ("tasks/name", "--scenario")):
        if setting in overrides:
            raise StudyError(f"{setting} is what tells the parts of a sweep apart; choose among them with {option}.")


@dataclass(frozen=True)
class Material:
    """What the trials of a plan are made of.

    Attributes:
        task_counts: number of tasks of each scenario.
        datasets: every data set that a trial names, on the CPU, by `data_key`.
    """

    task_counts: dict[str, int]
    datasets: dict[str, Dataset]


def data_key(config: TrialConfig) -> str:
    """What a trial asks for as its data set, as text."""
    return json.dumps(config.data.model_dump(), sort_keys=True)


def load_material(plan: Plan, data_dir: Path) -> Material:
    """Loads what the trials need and builds every different task sequence.

    Raises:
        StudyError: a data set is not to be had, or has fewer tasks or images than asked for, or trials of one scenario
            have different numbers of tasks.
    """
    material = Material({}, {})
    seen: dict[str, int] = {}
    for group in plan.groups:
        for point in [*group.points, *(ends(group) if group.distributions else [])]:
            config = plan.trial_config(group, point)
            dataset = experiment.load_dataset(config, data_dir)
            material.datasets[data_key(config)] = dataset
            what = json.dumps([config.data.model_dump(), config.tasks.model_dump()], sort_keys=True)
            if what not in seen:
                seen[what] = experiment.build_tasks(config, dataset).count
            count = material.task_counts.setdefault(group.scenario, seen[what])
            if count != seen[what]:
                raise StudyError(
                    f"The trials of {group.scenario} must have equally many tasks to be compared, but tasks/count is "
                    f"{count} in some and {seen[what]} in others; make two scenarios of them."
                )
    return material


def ends(group: Group) -> list[Flat]:
    """For each distribution its extreme values, the others at one of theirs: what must be valid for all draws to be."""
    values = {name: _extremes(distribution) for name, distribution in group.drawn().items()}
    lowest = {name: choices[0] for name, choices in values.items()}
    return [lowest | {name: value} for name, choices in values.items() for value in choices] or [lowest]


def _extremes(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return [distribution.low, distribution.high]
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    raise StudyError(f"{type(distribution).__name__} is not a distribution that the study can draw from.")


def _within(distribution: BaseDistribution, value: Any) -> bool:
    values = _extremes(distribution)
    return value in values if isinstance(distribution, CategoricalDistribution) else values[0] <= value <= values[-1]


def _group(space: SearchSpace, scenario: str, method: str, overrides: Flat) -> Group:
    tried = space.methods[method]
    settings = {
        **space.settings,
        **space.scenarios[scenario],
        "optimizer/name": method,
        **tried.settings,
        **overrides,
    }
    points: list[Flat] = []
    for point in tried.points:
        kept = {name: value for name, value in point.items() if name not in overrides}
        if kept not in points:
            points.append(kept)
    distributions = {
        name: distribution_to_json(drawn) for name, drawn in tried.distributions.items() if name not in overrides
    }
    budget = space.trials or len(points)
    if not distributions:
        budget = min(budget, len(points) or 1)
        points = points or [{}]
    return Group(
        scenario=scenario,
        method=method,
        settings=settings,
        points=tuple(points),
        distributions=distributions,
        trials=budget,
    )


def check_trials(plan: Plan) -> None:
    """Refuses any trial that could not run, before the first one does. Raises StudyError."""
    for group in plan.groups:
        drawn = group.drawn()
        for point in [*group.points, *(ends(group) if drawn else [])]:
            try:
                config = plan.trial_config(group, point)
            except StudyError as error:
                hint = f" (in method {group.method!r}; choose methods with --method)" if len(plan.groups) > 1 else ""
                raise StudyError(str(error).removesuffix(".") + hint + ".") from None
        for point in group.points:
            for name, distribution in drawn.items():
                if name in point and not _within(distribution, point[name]):
                    raise StudyError(
                        f"The point {name}={point[name]} of method {group.method!r} lies outside of its distribution "
                        f"{distribution}."
                    )
        if not config.tasks.settings.get("validation_fraction"):
            if drawn:
                raise StudyError(
                    "A search needs held-out images to score its trials; set tasks/validation_fraction above 0, "
                    "for example --set tasks/validation_fraction=0.1667."
                )
            if plan.scheduler != "none":
                raise StudyError(
                    f"--scheduler {plan.scheduler} needs held-out images to judge trials by; set "
                    f"tasks/validation_fraction above 0, or use --scheduler none."
                )
    if plan.sampler == "nsga2" and plan.scheduler != "none":
        raise StudyError("--sampler nsga2 has two objectives and cannot stop trials early; use --scheduler none.")


def chosen(what: str, words: Sequence[str], known: Collection[str]) -> list[str]:
    """The known words that are asked for, in their own order; all when none is. Raises StudyError for an unknown one."""
    for word in words:
        if word not in known:
            raise StudyError(f"Unknown {what} {word!r} here; {nearest(word, known)}.")
    return [word for word in known if word in words] if words else list(known)


def _check_word(what: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise StudyError(f"Unknown {what} {word!r}; {nearest(word, known)}.")


def _seeds(space: SearchSpace, count: int | None) -> tuple[int, ...]:
    if count is None:
        return space.seeds
    if count < 1:
        raise StudyError(f"--seeds must be at least 1, not {count}.")
    after = max(space.seeds) + 1
    return (space.seeds + tuple(range(after, after + count)))[:count]


def parse_setting(text: str) -> tuple[str, Any]:
    """Reads `key=value` as the command line gives it; the value is JSON, or else a plain word.

    Raises:
        StudyError: there is no `=`, or no slash in the key, or no such group of settings.
    """
    key, equals, value = text.partition("=")
    if not equals or "/" not in key:
        raise StudyError(f"--set {text} is not a setting; write it like --set training/batch_size=32.")
    groups = [name for name in TrialConfig.model_fields if name != "seeds"]
    if key.split("/")[0] not in groups:
        raise StudyError(f"--set {text}: unknown setting {key!r}; {nearest(key.split('/')[0], groups)}.")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
