"""The plan of a confirmation: the best of a sweep, and the paper's own settings, once more on seeds that no tuning has seen.

A winner won on the seeds and the images that it was chosen by, so its objective is too good. Its honest number comes from a run
in full on fresh seeds, on the same data, or on a data set that was never tuned on (the two-phase protocol of Cha and Cho 2024,
arXiv 2403.09066). A confirmation is a sweep like any other, of explicit points and phase `confirm`; nothing is ever chosen by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from search_spaces.paper_grid import POINTS
from study.config import SEED_LIMIT, Flat
from study.errors import StudyError
from study.sweep import winners
from study.sweep.folder import SweepFolder
from study.sweep.plan import Group, Origin, Plan, Tuning, check_name
from study.sweep.record import TrialHistory
from study.sweep.search_plan import check_overrides, check_trials, chosen, labelled

SEEDS = 10
"""As many runs as the paper has of each setting."""

FIRST_SEED = 1000
"""Far from the seeds that search spaces count from 0."""


def default_name(tuned: str, overrides: Flat) -> str:
    """What a confirmation is called unless it is given a name; another data set is part of it."""
    return "-".join([tuned, "confirm", *([str(overrides["data/name"])] if "data/name" in overrides else [])])


def make_confirmation(
    tuned: SweepFolder,
    *,
    name: str,
    top: int = 1,
    seeds: int = SEEDS,
    first_seed: int = FIRST_SEED,
    overrides: Flat | None = None,
    scenarios: Sequence[str] = (),
    methods: Sequence[str] = (),
    others: Iterable[Plan] = (),
) -> Plan:
    """The plan that confirms a sweep.

    Args:
        tuned: the sweep; its best trials are those with the highest objective, see `study.selection.best`.
        name: of the confirmation.
        top: how many of the best configurations of each method and scenario; fewer where fewer have finished.
        seeds, first_seed: so many seeds from this one up.
        overrides: settings by slash name that are to differ from the tuning, such as the data set; none that was tried.
        scenarios, methods: only these; empty: all of the sweep.
        others: plans of further sweeps whose seeds are not fresh either.

    Raises:
        StudyError: nothing can be selected, the seeds overlap with those of a tuning, a setting that was tuned is overruled, or
            anything else of it is unknown or impossible.
    """
    overrides = dict(overrides or {})
    check_overrides(overrides)
    for option, count in (("--top", top), ("--seeds", seeds)):
        if count < 1:
            raise StudyError(f"{option} must be at least 1, not {count}.")
    winners.check_selectable(tuned)
    histories = tuned.histories()
    _check_untuned(overrides, histories)
    rank = {key: rank for group in _ranked(histories, top) for rank, key in enumerate(group, 1)}
    groups = [
        _group(tuned.plan, group, [history for history in histories if history.group == group.label], rank, overrides)
        for group in _chosen_groups(tuned.plan, scenarios, methods)
    ]
    plan = Plan(
        name=name,
        space=tuned.plan.space,
        description=_description(tuned.plan.name, top, overrides),
        citation=tuned.plan.citation,
        phase="confirm",
        seeds=_fresh(seeds, first_seed, [tuned.plan, *others]),
        sampler=tuned.plan.sampler,
        scheduler="none",
        search_seed=tuned.plan.search_seed,
        groups=tuple(group for group in groups if group.points),
        confirms=Tuning(sweep=tuned.plan.name, identity=tuned.identity),
    )
    if not plan.groups:
        raise StudyError(
            f"Nothing of {tuned.plan.name!r} can be confirmed: no trial of these methods has finished with an objective."
        )
    check_trials(plan)
    check_name(name)
    return labelled(plan)


def unconfirmed(
    tuned: SweepFolder, plan: Plan, scenarios: Sequence[str] = (), methods: Sequence[str] = ()
) -> list[str]:
    """Labels of the groups asked for of which the plan has no selected trial, because none has finished with an objective."""
    selected = {group.label for group in plan.groups if any(origin.rank for origin in group.origins)}
    wanted = [group.label for group in _chosen_groups(tuned.plan, scenarios, methods)]
    return [label for label in wanted if label not in selected]


def _chosen_groups(plan: Plan, scenarios: Sequence[str], methods: Sequence[str]) -> list[Group]:
    """The groups of these scenarios and methods; empty: all. Raises StudyError for an unknown one."""
    in_scenarios = chosen("scenario", scenarios, list(dict.fromkeys(group.scenario for group in plan.groups)))
    of_methods = chosen("method", methods, list(dict.fromkeys(group.method for group in plan.groups)))
    return [group for group in plan.groups if group.scenario in in_scenarios and group.method in of_methods]


def _description(tuned: str, top: int, overrides: Flat) -> str:
    best = "the best" if top == 1 else f"up to {top} of the best"
    changes = ", ".join(f"{name}={json.dumps(value)}" for name, value in overrides.items())
    return (
        f"Confirmation of {tuned}: {best} of each method and scenario by the objective, and the paper's own settings, on fresh "
        f"seeds, without early stopping{f', with {changes}' if changes else ''}."
    )


def _ranked(histories: Sequence[TrialHistory], top: int) -> list[list[str]]:
    """Keys of the best trials of each group, best first; a configuration that was tried again counts once."""
    found = {history.key: history for history in histories}
    ranked: dict[str, dict[str, str]] = {}
    for key in winners.best_keys(histories, len(histories)):
        configuration = json.dumps(found[key].config, sort_keys=True)
        ranked.setdefault(found[key].group, {}).setdefault(configuration, key)
    return [list(keys.values())[:top] for keys in ranked.values()]


def _check_untuned(overrides: Flat, histories: Sequence[TrialHistory]) -> None:
    tuned = sorted({name for history in histories for name in history.tried})
    for given in overrides:
        for name in tuned:
            if given == name or given.startswith(f"{name}/") or name.startswith(f"{given}/"):
                raise StudyError(
                    f"{name} was tuned, so it cannot be set in a confirmation: what would be confirmed is not what was "
                    f"selected; leave it away, or run a new sweep with it."
                )


def _group(plan: Plan, group: Group, histories: Sequence[TrialHistory], rank: dict[str, int], overrides: Flat) -> Group:
    """The group with the selected trials as its points, best first, then the paper's own settings if they are not among them."""
    tuned_as = {history.key: plan.trial_config(group, history.tried) for history in histories}
    selected = sorted((history for history in histories if history.key in rank), key=lambda history: rank[history.key])
    points: list[dict[str, Any]] = [history.tried for history in selected]
    origins = [Origin(trial=history.key, rank=rank[history.key]) for history in selected]
    is_paper_method = group.settings.get("optimizer/name") == group.method
    for point in POINTS.get(group.method, ()) if is_paper_method else ():
        config = plan.trial_config(group, point)
        same = [key for key, other in tuned_as.items() if other == config]
        if not any(key in rank for key in same):
            for name in overrides:
                if name in point:
                    raise StudyError(
                        f"{name} cannot be set in a confirmation: the paper's own settings, which it runs too, have a value of "
                        f"their own for it; leave it away, or run a new sweep with it."
                    )
            points.append(dict(point))
            origins.append(Origin(trial=same[0] if same else None))
    return Group(
        scenario=group.scenario,
        method=group.method,
        settings={**group.settings, **overrides},
        points=tuple(points),
        distributions={},
        trials=max(1, len(points)),
        origins=tuple(origins),
    )


def _fresh(count: int, first: int, tunings: Sequence[Plan]) -> tuple[int, ...]:
    """So many seeds from `first` up. Raises StudyError when a tuning has seen one of them."""
    seeds = range(first, first + count)
    if first < 0 or seeds[-1] >= SEED_LIMIT:
        raise StudyError(
            f"Seeds must be from 0 to {SEED_LIMIT - 1}, not from {first} to {seeds[-1]}; choose others with --first-seed and "
            f"--seeds."
        )
    for plan in tunings:
        seen = [seed for seed in plan.seeds if seed in seeds]
        if seen:
            free = 1 + max(seed for tuning in tunings for seed in tuning.seeds)
            hint = f" {free}" if free <= SEED_LIMIT - count else ""
            raise StudyError(
                f"Seed {min(seen)} is not fresh: it is one of the sweep {plan.name!r}; choose others with --first-seed{hint}."
            )
    return tuple(seeds)
