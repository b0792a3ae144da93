"""Turns a search space and command-line options into a plan.

Every setting is checked before the first trial starts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json

import search_spaces
from search_spaces import SearchSpace
from study import parts
from study.config import Flat, Label
from study.errors import StudyError, nearest
from study.sweep.plan import Group, Phase, Plan, check_name, extreme_values, extremes

SAMPLERS = ("tpe", "random", "gp", "cmaes", "nsga2")
SCHEDULERS = ("none", "asha")


def load_space(name: str) -> SearchSpace:
    """Returns the search space of that name or path.

    Raises StudyError if there is none.
    """
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
        scenarios, methods: only these; all of the space's if empty.
        trials: budget for each method in each scenario; default: the space's.
        seeds: number of seeds; default: the space's. The space's own seeds come first, then the integers after the largest.
        overrides: settings by slash name with the last word; the distribution or the points of that name are dropped.
        sampler, scheduler: see SAMPLERS and SCHEDULERS.
        search_seed: that the sampler's draws depend on; default: the space's.

    Raises:
        StudyError: anything is unknown or out of range. Every point and both ends of every distribution are checked.
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
            raise StudyError(
                f"Two pairs of scenario and method would both be called {label!r}; rename a scenario or method."
            )
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
    return labelled(plan)


def labelled(plan: Plan) -> Plan:
    """The plan with the labels of its parts' settings.

    Where two parts give a setting of one name different units, it has none.
    """
    labels: dict[str, Label] = {}
    for group in plan.groups:
        for name, label in parts.labels(plan.trial_config(group, extremes(group)[0])).items():
            other = labels.get(name, label)
            labels[name] = other if other.unit == label.unit else other.model_copy(update={"unit": ""})
    return plan.model_copy(update={"labels": labels})


def check_overrides(overrides: Flat) -> None:
    """Raises StudyError if an override would change method or scenario."""
    for setting, option in (("optimizer/name", "--method"), ("tasks/name", "--scenario")):
        if setting in overrides:
            raise StudyError(f"{setting} cannot be set, since the parts of a sweep differ in it; choose with {option}.")


def _within(distribution: BaseDistribution, value: Any) -> bool:
    values = extreme_values(distribution)
    return value in values if isinstance(distribution, CategoricalDistribution) else values[0] <= value <= values[-1]


def _group(space: SearchSpace, scenario: str, method: str, overrides: Flat) -> Group:
    search = space.methods[method]
    settings = {
        **space.settings,
        **space.scenarios[scenario],
        "optimizer/name": method,
        **search.settings,
        **overrides,
    }
    points: list[Flat] = []
    for point in search.points:
        kept = {name: value for name, value in point.items() if name not in overrides}
        if kept not in points:
            points.append(kept)
    distributions = {
        name: distribution_to_json(drawn) for name, drawn in search.distributions.items() if name not in overrides
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
        for point in extremes(group):
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
                        f"{distribution}."
                    )
        if not config.tasks.settings.get("validation_fraction"):
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
    if plan.sampler == "nsga2" and plan.scheduler != "none":
        raise StudyError("--sampler nsga2 has two objectives and cannot stop trials early; use --scheduler none.")


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
    if count < 1:
        raise StudyError(f"--seeds must be at least 1, not {count}.")
    after = max(space.seeds) + 1
    return (space.seeds + tuple(range(after, after + count)))[:count]
