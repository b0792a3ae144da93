"""The plan of a confirmation: the best of a sweep, and the paper's own settings, once more on seeds that no tuning has seen.

A winner won on the seeds and the images that it was chosen by, so its objective is too good. Its honest number comes from a run
in full on fresh seeds, on the same data, or on a data set that was never tuned on (the two-phase protocol of Cha and Cho 2024,
arXiv 2403.09066). A confirmation is a sweep like any other, of explicit points and phase `confirm`; nothing is ever chosen by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from search_spaces.paper_grid import POINTS
from study import results
from study.config import SEED_LIMIT, Flat, StudyError
from study.folder import SweepFolder
from study.plan import Group, Origin, Plan, Tuning, check_name, check_overrides, check_trials, chosen
from study.record import TrialHistory

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
        tuned: the sweep; its best trials are those with the highest objective, see `analysis.selection.best`.
        name: of the confirmation.
        top: how many of the best of each method and scenario.
        seeds, first_seed: so many seeds from this one up.
        overrides: settings by slash name that are to differ from the tuning, such as the data set; none that was tried.
        scenarios, methods: only these; empty: all of the sweep.
        others: plans of further sweeps whose seeds are not fresh either.

    Raises:
        StudyError: nothing can be selected, the seeds overlap with those of a tuning, a setting that was tuned is overruled, or
            anything else of it is unknown or impossible.
    """
    check_name(name)
    overrides = dict(overrides or {})
    check_overrides(overrides)
    for option, count in (("--top", top), ("--seeds", seeds)):
        if count < 1:
            raise StudyError(f"{option} must be at least 1, not {count}.")
    results.check_selectable(tuned)
    histories = tuned.histories()
    _check_untuned(overrides, histories)
    rank = {key: rank for group in _ranked(histories, top) for rank, key in enumerate(group, 1)}
    in_scenarios = chosen("scenario", scenarios, list(dict.fromkeys(group.scenario for group in tuned.plan.groups)))
    of_methods = chosen("method", methods, list(dict.fromkeys(group.method for group in tuned.plan.groups)))
    groups = [
        _group(tuned.plan, group, [history for history in histories if history.group == group.label], rank, overrides)
        for group in tuned.plan.groups
        if group.scenario in in_scenarios and group.method in of_methods
    ]
    plan = Plan(
        name=name,
        space=tuned.plan.space,
        description=f"Confirmation of {tuned.plan.name}: the best {top} of each method by the objective and the paper's own "
        "settings, in full, on fresh seeds.",
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
        raise StudyError(f"Nothing of {tuned.plan.name!r} can be confirmed: no trial of these methods has finished.")
    check_trials(plan)
    return plan


def unconfirmed(tuned: SweepFolder, plan: Plan) -> list[str]:
    """Groups that the plan could have but of which no trial was selected, because none has finished."""
    selected = {group.label for group in plan.groups if any(origin.rank for origin in group.origins)}
    wanted = {group.scenario for group in plan.groups}, {group.method for group in plan.groups}
    return [
        group.label
        for group in tuned.plan.groups
        if group.scenario in wanted[0] and group.method in wanted[1] and group.label not in selected
    ]


def _ranked(histories: Sequence[TrialHistory], top: int) -> list[list[str]]:
    """Keys of the best trials of each group, best first."""
    best = results.best_keys(histories, top)
    group_of = {history.key: history.group for history in histories}
    return [[key for key in best if group_of[key] == group] for group in dict.fromkeys(group_of.values())]


def _check_untuned(overrides: Flat, histories: Sequence[TrialHistory]) -> None:
    tuned = {name for history in histories for name in history.tried}
    for name in overrides:
        if name in tuned:
            raise StudyError(
                f"{name} was tuned, so it cannot be set in a confirmation: what would be confirmed is not what was selected; "
                f"leave it away, or run a new sweep with it."
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
    if not 0 <= first <= SEED_LIMIT - count:
        raise StudyError(
            f"--first-seed must be from 0 to {SEED_LIMIT - count} for {count} seeds below 2^31, not {first}."
        )
    seeds = tuple(range(first, first + count))
    for plan in tunings:
        seen = sorted(set(seeds) & set(plan.seeds))
        if seen:
            free = 1 + max(seed for tuning in tunings for seed in tuning.seeds)
            raise StudyError(
                f"Seed {seen[0]} is not fresh: the sweep {plan.name!r} has used it; choose others with --first-seed {free}."
            )
    return seeds
