"""Turns a search space and command-line options into a plan.

Every setting is checked before the first trial starts.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution, distribution_to_json

import search_spaces
from search_spaces import Method, SearchSpace
from study import objective, parts
from study.config import MOST_SEEDS, MOST_TRIALS, SEED_LIMIT, Flat, Label, TrialConfig, is_too_nested
from study.decision import halving
from study.errors import StudyError, nearest
from study.objective import Objective
from study.parts import outside
from study.sweep import space_file
from study.sweep.plan import LISTS_WARNING, Group, Phase, Plan, check_count, check_name, corners, extremes, race_fault

SAMPLERS = ("tpe", "random", "gp", "cmaes", "nsga2")
SCHEDULERS = ("none", "asha", "race")


def load_space(name: str) -> SearchSpace:
    """Returns the search space of that name or path.

    Raises StudyError if there is none, or it names a file that cannot be read.
    """
    if name.endswith(search_spaces.YAML):
        return adopted(space_file.read(Path(name)), Path(name).parent)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", LISTS_WARNING, UserWarning)
            space = search_spaces.load(name)
    except ValueError as error:
        raise StudyError(str(error)) from None
    return adopted(space, Path(name).parent if search_spaces.is_path(name) else Path())


def adopted(space: SearchSpace, folder: Path) -> SearchSpace:
    """The space with the files of its parts read.

    Args:
        space: a search space.
        folder: that relative paths start from.

    Raises StudyError if a file cannot be read.
    """

    def method(given: Method) -> Method:
        return replace(
            given,
            settings=outside.adopted(given.settings, folder),
            points=tuple(outside.adopted(point, folder) for point in given.points),
            distributions={
                name: _adopted_choices(name, drawn, folder)
                for name, drawn in outside.adopted(given.drawn, folder).items()
            },
        )

    return replace(
        space,
        settings=outside.adopted(space.settings, folder),
        scenarios={name: outside.adopted(point, folder) for name, point in space.scenarios.items()},
        methods={name: method(given) for name, given in space.methods.items()},
    )


def _adopted_choices(name: str, distribution: BaseDistribution, folder: Path) -> BaseDistribution:
    """A distribution over parts, with the files among them read."""
    if isinstance(distribution, CategoricalDistribution) and any(map(outside.is_path, distribution.choices)):
        choices = [outside.adopted({name: choice}, folder)[name] for choice in distribution.choices]
        return CategoricalDistribution(choices)
    return distribution


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
    objectives: str | Sequence[str] = (),
) -> Plan:
    """The plan of a sweep over a space.

    Args:
        space: what is tried.
        name: of the sweep.
        scenarios, methods: only these; all of the space's if empty.
        trials: budget for each method in each scenario; default: the space's.
        seeds: number of seeds; default: the space's. The space's own seeds come first, then the integers after the largest.
        overrides: settings by slash name with the last word; the distribution or the points of that name are dropped.
        sampler, scheduler: see SAMPLERS and SCHEDULERS.
        search_seed: that the sampler's draws depend on; default: the space's.
        objectives: what the search optimises, see `study.objective`; default: the space's.

    Raises:
        StudyError: anything is unknown or out of range. Every point and both ends of every distribution are checked.
    """
    check_name(name)
    _check_word("sampler", sampler, SAMPLERS)
    _check_word("scheduler", scheduler, SCHEDULERS)
    if trials is not None:
        check_count("--trials", trials, MOST_TRIALS)
    given = [objectives] if isinstance(objectives, str) else objectives
    goals = objective.parse_all(given or space.objectives, sampler)
    overrides = dict(overrides or {})
    check_overrides(overrides)
    for label in (*space.scenarios, *space.methods):
        check_name(label)
    _check_names(space)
    if space.trials is not None:
        check_count("`trials` of the search space", space.trials, MOST_TRIALS)
    groups = []
    for scenario in chosen("scenario", scenarios, space.scenarios):
        for method in chosen("method", methods, space.methods):
            groups.append(_group(space, scenario, method, overrides))
    labels = [group.label for group in groups]
    for label in labels:
        if labels.count(label) > 1:
            raise StudyError(
                f"Two pairs of scenario and method would both be called {label!r}; rename a scenario or method."
            )
    seeds_used = _seeds(space, seeds)
    _check_race(scheduler, sampler, len(seeds_used), len(goals))
    phase: Phase = "tune" if any(group.distributions for group in groups) else "grid"
    plan = Plan(
        name=name,
        space=space.name,
        description=space.description,
        citation=space.citation,
        phase=phase,
        seeds=seeds_used,
        sampler=sampler,  # type: ignore[arg-type]
        scheduler=scheduler,  # type: ignore[arg-type]
        search_seed=space.search_seed if search_seed is None else search_seed,
        groups=tuple(groups),
        objectives=tuple(goal.name for goal in goals),
    )
    if trials is not None:
        plan = plan.with_trials(trials)
    check_trials(plan)
    return labelled(plan)


def labelled(plan: Plan) -> Plan:
    """The plan with its files and its settings' labels.

    Where two parts give a setting of one name different units, it has none.
    """
    labels: dict[str, Label] = {}
    for group in plan.groups:
        for name, label in parts.labels(plan.trial_config(group, extremes(group)[0])).items():
            other = labels.get(name, label)
            labels[name] = other if other.unit == label.unit else other.model_copy(update={"unit": ""})
    files = outside.sources(sorted(outside.named_in(plan.model_dump_json())))
    return plan.model_copy(update={"labels": labels, "files": files})


def check_overrides(overrides: Flat) -> None:
    """Raises StudyError if an override would change method or scenario."""
    for setting, option in (("optimizer/name", "--method"), ("tasks/name", "--scenario")):
        if setting in overrides:
            raise StudyError(f"{setting} cannot be set, since the parts of a sweep differ in it; choose with {option}.")


def _check_names(space: SearchSpace) -> None:
    """Raises StudyError if a name is no setting."""
    places: list[tuple[str, Collection[Any]]] = [("the space", space.settings)]
    places += [(f"scenario {name!r}", settings) for name, settings in space.scenarios.items()]
    for name, method in space.methods.items():
        places += [(f"method {name!r}", names) for names in (method.settings, *method.points, method.distributions)]
    for place, names in places:
        for name in names:
            if name == "seeds":
                raise StudyError(
                    f"seeds cannot be a setting of {place}: all trials have the same; give the space itself `seeds`, or --seeds."
                )
            if not isinstance(name, str) or "/" not in name:
                raise StudyError(f"{name!r} in {place} is not a setting; write it like 'training/batch_size'.")


def _plain(value: Any, name: str) -> Any:
    """A value as JSON has it.

    Tuples become lists, and numpy's numbers Python's. Raises StudyError if it is no plain value.
    """
    if isinstance(value, Mapping):
        return {key: _plain(item, name) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if hasattr(value, "tolist"):  # of numpy or torch; neither is imported for this
        value = value.tolist()
    if value is None or isinstance(value, bool | int | float | str | list):
        return value
    raise StudyError(f"{name}={value!r} is not possible: a {type(value).__name__} is no number, word, list or mapping.")


def _plain_settings(settings: Mapping[str, Any]) -> Flat:
    """Settings by slash name, as plain values."""
    for name, value in settings.items():
        if is_too_nested(value):
            raise StudyError(f"{name} is not possible: its value is nested too deep, or has too many values.")
    return {name: _plain(value, name) for name, value in settings.items()}


def _distribution_text(name: str, distribution: BaseDistribution) -> str:
    """A distribution as Optuna's JSON, its choices as plain values."""
    if isinstance(distribution, CategoricalDistribution):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", LISTS_WARNING, UserWarning)
            plain = _plain_settings({name: list(distribution.choices)})[name]
            distribution = CategoricalDistribution(plain)
    return distribution_to_json(distribution)


def _within(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a distribution could draw the value.

    A search that is rebuilt from its records accepts no other.
    """
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (TypeError, ValueError):  # of another kind, or none of the choices
        return False


def _group(space: SearchSpace, scenario: str, method: str, overrides: Flat) -> Group:
    search = space.methods[method]
    settings = {
        **_plain_settings(space.settings),
        **_plain_settings(space.scenarios[scenario]),
        "optimizer/name": method,
        **_plain_settings(search.settings),
        **overrides,
    }
    points: list[Flat] = []
    for point in search.points:
        kept = {name: value for name, value in _plain_settings(point).items() if name not in overrides}
        if kept not in points:
            points.append(kept)
    distributions = {
        name: _distribution_text(name, drawn) for name, drawn in search.drawn.items() if name not in overrides
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
    """Raises StudyError if any trial of the plan cannot run."""
    for group in plan.groups:
        drawn = group.drawn()
        for point in corners(group):
            try:
                config = plan.trial_config(group, point)
            except StudyError as error:
                hint = f" (in method {group.method!r}; choose methods with --method)" if len(plan.groups) > 1 else ""
                raise StudyError(str(error).removesuffix(".") + hint + ".") from None
        for point in group.points:
            for name, distribution in drawn.items():
                if name in point and not _within(distribution, point[name]):
                    raise StudyError(
                        f"The point {name}={point[name]} of method {group.method!r} lies outside its distribution "
                        f"{distribution}, or between its steps."
                    )
        for name, distribution in drawn.items():
            if isinstance(distribution, IntDistribution) and isinstance(config.flat()[name], float):
                raise StudyError(
                    f"Method {group.method!r} draws {name}, which may be any real number, from whole numbers alone; write "
                    f"{float(distribution.low)} to {float(distribution.high)}, with a step of 1.0 if that is meant."
                )
        validated = any(goal.declared.needs_validation for goal in plan.goals)
        if validated and not config.tasks.settings.get("validation_fraction"):
            if drawn:
                raise StudyError(
                    "A search scores its trials on held-out images; set tasks/validation_fraction above 0, "
                    "for example --set tasks/validation_fraction=0.1667."
                )
            if plan.scheduler != "none":
                raise StudyError(
                    f"--scheduler {plan.scheduler} judges trials on held-out images; set "
                    f"tasks/validation_fraction above 0, or use --scheduler none."
                )
        for goal in plan.goals:
            _check_measured(goal, config)
    _check_stopping(plan)


def _check_measured(goal: Objective, config: TrialConfig) -> None:
    """Raises StudyError if a diagnostic that is an objective is off."""
    period = objective.PERIODS.get(goal.quantity.partition("/")[0])
    if period and goal.quantity in config.diagnostics.leave_out:
        raise StudyError(
            f"{goal.quantity} cannot be an objective, since diagnostics/leave_out leaves it out; measure it, or choose another."
        )
    if period and not getattr(config.diagnostics, period):
        raise StudyError(
            f"{goal.quantity} cannot be an objective with diagnostics/{period}=0, which never measures it; set a period."
        )


def _check_race(scheduler: str, sampler: str, seeds: int, goals: int) -> None:
    """Raises StudyError if a race is asked for and not possible."""
    if scheduler != halving.SCHEDULER:
        return
    if fault := race_fault(sampler, seeds, goals):
        raise StudyError(f"--scheduler race is not possible: {fault}; use --scheduler none, or change that.")
    if not hasattr(optuna.trial.FrozenTrial, "set_constraint"):
        raise StudyError(
            f"--scheduler race needs Optuna 5, whose trials have constraints; {optuna.__version__} is here."
        )


def _check_stopping(plan: Plan) -> None:
    """Raises StudyError if the scheduler cannot judge by the objectives."""
    if plan.scheduler != "asha":
        return
    if len(plan.goals) > 1:
        raise StudyError("--sampler nsga2 has two objectives and cannot stop trials early; use --scheduler none.")
    goal = plan.goals[0]
    if not goal.has_course:
        raise StudyError(
            f"--scheduler {plan.scheduler} compares trials after a part of the tasks, and {goal.quantity} need not have a value "
            f"there; use --scheduler none, or another objective."
        )


def chosen(what: str, words: Sequence[str], choices: Collection[str]) -> list[str]:
    """The choices that the user named, in the choices' order.

    All choices if the user named none. Raises StudyError for an unknown word.
    """
    for word in words:
        if word not in choices:
            raise StudyError(f"Unknown {what} {word!r} here; {nearest(word, choices)}.")
    return [choice for choice in choices if choice in words] if words else list(choices)


def _check_word(what: str, word: str, choices: Sequence[str]) -> None:
    if word not in choices:
        raise StudyError(f"Unknown {what} {word!r}; {nearest(word, choices)}.")


def _seeds(space: SearchSpace, count: int | None) -> tuple[int, ...]:
    if count is None:
        return space.seeds
    check_count("--seeds", count, MOST_SEEDS)
    after = max(space.seeds) + 1
    seeds = (space.seeds + tuple(range(after, after + count)))[:count]
    if max(seeds) >= SEED_LIMIT:
        raise StudyError(
            f"--seeds {count} is too many: the largest seed of the space is {after - 1}, and seeds must be below {SEED_LIMIT}."
        )
    return seeds
