"""The plan of a confirmation.

A confirmation trains the winners of a sweep again on seeds that no tuning has used, and beside them the paper's own settings if
the sweep has the paper's data, network and tasks. If asked for, it also trains the incumbents, all trials that were the best so
far at some moment of the search, to show what the search gained and lost on the way.

Winners are selected on certain seeds and images, so their objective is biased upwards. An unbiased number needs a full run on
fresh seeds, on the same data or on a data set that was never tuned on (the two-phase protocol of Cha and Cho 2024, arXiv
2403.09066). A confirmation is a sweep of explicit points in phase `confirm`; nothing is ever selected by it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from search_spaces.paper_grid import POINTS, is_of_the_paper
from study.config import MOST_SEEDS, MOST_TRIALS, NAME_LENGTH, SEED_LIMIT, Flat
from study.decision.rule import FEWEST
from study.errors import StudyError
from study.parts import outside
from study.sweep import winners
from study.sweep.folder import SweepFolder
from study.sweep.plan import Deciding, Group, Origin, Plan, Tuning, check_count, check_name
from study.sweep.record import TrialHistory
from study.sweep.search_plan import check_overrides, check_trials, chosen, labelled

SEEDS = 10
"""The paper has as many runs of each setting."""

MOST_SEEDS_DECIDED = 30
"""Of each setting, if a confirmation ends when it is decided."""

BATCH = 6
"""Seeds of a batch then: the fewest after which anything can be decided."""

LEVEL, MARGIN = 0.95, 0.01
"""Of its intervals, and within which methods are alike: those of the report's questions on tuned methods."""

FIRST_SEED = 1000
"""Search spaces number their seeds from 0, so this is far from them."""


def default_name(tuned: str, overrides: Flat) -> str:
    """The default name of a confirmation.

    It contains the data set if that is overridden. A long name of the sweep is cut and followed by its digest.
    """
    end = "-".join(["", "confirm", *([outside.stem(str(overrides["data/name"]))] if "data/name" in overrides else [])])
    if len(tuned) + len(end) > NAME_LENGTH:
        digest = hashlib.blake2b(tuned.encode(), digest_size=4).hexdigest()
        tuned = f"{tuned[: max(1, NAME_LENGTH - len(end) - 1 - len(digest))]}-{digest}"
    return tuned + end


def make_confirmation(
    tuned: SweepFolder,
    *,
    name: str,
    top: int = 1,
    incumbents: bool = False,
    seeds: int | None = None,
    until_decided: bool = False,
    batch: int | None = None,
    first_seed: int = FIRST_SEED,
    overrides: Flat | None = None,
    scenarios: Sequence[str] = (),
    methods: Sequence[str] = (),
    others: Iterable[Plan] = (),
) -> Plan:
    """Returns the plan that confirms a sweep.

    Args:
        tuned: the sweep; its best trials are those with the best objective, see `study.selection.best`.
        name: of the confirmation.
        top: number of best configurations of each method and scenario; fewer if fewer have finished.
        incumbents: whether all trials are confirmed too that were the best so far of their method and scenario at some moment,
            see `study.selection.incumbents`.
        seeds, first_seed: this many consecutive seeds from the first one; by default `SEEDS`, or `MOST_SEEDS_DECIDED`.
        until_decided: whether a method ends once its differences from all others are decided, see `study.decision.rule`.
        batch: seeds of each batch then, by default `BATCH`; otherwise None.
        overrides: settings by slash name that differ from the tuning, such as the data set; never a setting that was tuned.
        scenarios, methods: only these; all of the sweep's if empty.
        others: plans of further sweeps whose seeds are not fresh either.

    Raises:
        StudyError: nothing can be selected, a tuning has used one of the seeds, a tuned setting is overridden, an option is
            unknown or out of range, or a race has no incumbents.
    """
    overrides = dict(overrides or {})
    check_overrides(overrides)
    check_count("--top", top, MOST_TRIALS)
    deciding = _deciding(top, seeds, batch) if until_decided else None
    if batch is not None and not until_decided:
        raise StudyError("--batch is the number of seeds between two decisions, so it needs --until-decided.")
    if incumbents and tuned.plan.is_race:
        raise StudyError(
            f"--incumbents follows the best trial so far from trial to trial, but {tuned.plan.name!r} is a race, in which few "
            f"configurations get all seeds; leave it out."
        )
    if seeds is None:
        seeds = MOST_SEEDS_DECIDED if until_decided else SEEDS
    check_count("--seeds", seeds)
    histories = winners.check_selectable(tuned)
    _check_untuned(overrides, histories)
    rank = {key: rank for group in _ranked(histories, top) for rank, key in enumerate(group, 1)}
    once_best = set(winners.incumbent_keys(histories)) if incumbents else set()
    groups = [
        _group(
            tuned.plan,
            group,
            [history for history in histories if history.group == group.label],
            rank,
            once_best,
            overrides,
        )
        for group in _chosen_groups(tuned.plan, scenarios, methods)
    ]
    plan = Plan(
        name=name,
        space=tuned.plan.space,
        description=_description(tuned.plan, top, overrides, groups) + (DECIDED if deciding else ""),
        citation=tuned.plan.citation,
        phase="confirm",
        seeds=_fresh(seeds, first_seed, [tuned.plan, *others]),
        sampler=tuned.plan.sampler,
        scheduler="none",
        search_seed=tuned.plan.search_seed,
        groups=tuple(_repeated(group, seeds // deciding.batch if deciding else 1) for group in groups if group.points),
        confirms=Tuning(sweep=tuned.plan.name, identity=tuned.identity),
        objectives=tuned.plan.objectives,
        deciding=deciding,
    )
    if not plan.groups:
        raise StudyError(
            f"Nothing of {tuned.plan.name!r} can be confirmed: no trial of these methods has finished with an objective."
        )
    if deciding:
        _check_rivals(plan)
    check_trials(plan)
    check_name(name)
    return labelled(plan)


DECIDED = " A method ends as soon as its differences from all others are decided."


def _deciding(top: int, seeds: int | None, batch: int | None) -> Deciding:
    """How a confirmation is decided.

    Raises StudyError if the options cannot be combined.
    """
    seeds, batch = MOST_SEEDS_DECIDED if seeds is None else seeds, BATCH if batch is None else batch
    if top != 1:
        raise StudyError(f"--until-decided compares the best of each method, so it needs --top 1, not {top}.")
    check_count("--seeds", seeds, MOST_SEEDS)
    if batch < 2:
        raise StudyError(f"--batch must be at least 2, not {batch}: one seed has no spread.")
    least = max(FEWEST, 2 * batch)
    if seeds < least:
        raise StudyError(
            f"--until-decided needs at least {least} seeds, two batches of {batch} and no fewer than {FEWEST}, not {seeds}; "
            f"choose other --seeds or a smaller --batch."
        )
    if seeds % batch:
        fewer = max(seeds // batch * batch, -(-least // batch) * batch)
        raise StudyError(f"--seeds {seeds} is no multiple of --batch {batch}; use --seeds {fewer} or {fewer + batch}.")
    return Deciding(batch=batch, level=LEVEL, margin=MARGIN)


def _check_rivals(plan: Plan) -> None:
    """Raises StudyError if a scenario has not two winners."""
    winners_of = {group.scenario: 0 for group in plan.groups}
    for group in plan.groups:
        winners_of[group.scenario] += any(origin.rank == 1 for origin in group.origins)
    for scenario, count in winners_of.items():
        if count < 2:
            raise StudyError(
                f"--until-decided compares the winners of two methods or more, but {scenario} has {count or 'none'}; leave "
                f"--until-decided out, or name other scenarios and methods."
            )


def _repeated(group: Group, times: int) -> Group:
    """The group with its points once for each batch."""
    return group.model_copy(
        update={"points": group.points * times, "origins": group.origins * times, "trials": group.trials * times}
    )


def unconfirmed(
    tuned: SweepFolder, plan: Plan, scenarios: Sequence[str] = (), methods: Sequence[str] = ()
) -> list[str]:
    """Labels of the groups without a winner in the plan.

    No trial of theirs has finished with an objective. Only groups of these scenarios and methods are looked at.
    """
    selected = {group.label for group in plan.groups if any(origin.rank for origin in group.origins)}
    labels = [group.label for group in _chosen_groups(tuned.plan, scenarios, methods)]
    return [label for label in labels if label not in selected]


def _chosen_groups(plan: Plan, scenarios: Sequence[str], methods: Sequence[str]) -> list[Group]:
    """The groups of these scenarios and methods, by default all.

    Raises StudyError for an unknown scenario or method.
    """
    in_scenarios = chosen("scenario", scenarios, list(dict.fromkeys(group.scenario for group in plan.groups)))
    of_methods = chosen("method", methods, list(dict.fromkeys(group.method for group in plan.groups)))
    return [group for group in plan.groups if group.scenario in in_scenarios and group.method in of_methods]


def _description(tuned: Plan, top: int, overrides: Flat, groups: Sequence[Group]) -> str:
    origins = [origin for group in groups for origin in group.origins]
    is_beside = any(origin.rank is None and not origin.was_incumbent for origin in origins)
    beside = ["all trials that were the best so far"] if any(origin.was_incumbent for origin in origins) else []
    beside += ["the paper's own settings"] if is_beside else []
    more = "".join(f", {words}" for words in beside[:-1]) + "".join(f", and {words}," for words in beside[-1:])
    goal = "objective" if tuned.goals[0].is_default else f"objective ({tuned.goals[0].words})"
    best = "the best" if top == 1 else f"up to {top} of the best"
    changes = ", ".join(f"{name}={json.dumps(value)}" for name, value in overrides.items())
    return (
        f"Confirmation of {tuned.name}: {best} of each method and scenario by the {goal}{more} on fresh seeds, without early "
        f"stopping{f', with {changes}' if changes else ''}."
    )


def _ranked(histories: Sequence[TrialHistory], top: int) -> list[list[str]]:
    """Keys of the best trials of each group, best first.

    A configuration that was tried twice counts once.
    """
    history_of = {history.key: history for history in histories}
    ranked: dict[str, dict[str, str]] = {}  # by group, the best key of each configuration
    for key in winners.best_keys(histories, len(histories)):
        configuration = json.dumps(history_of[key].config, sort_keys=True)
        ranked.setdefault(history_of[key].group, {}).setdefault(configuration, key)
    return [list(keys.values())[:top] for keys in ranked.values()]


def _check_untuned(overrides: Flat, histories: Sequence[TrialHistory]) -> None:
    tuned = sorted({name for history in histories for name in history.tried})
    for override in overrides:
        for name in tuned:
            if override == name or override.startswith(f"{name}/") or name.startswith(f"{override}/"):
                raise StudyError(
                    f"{name} was tuned, so it cannot be set in a confirmation, which would then not confirm what was "
                    f"selected; leave it out, or run a new sweep with it."
                )


def _group(
    plan: Plan,
    group: Group,
    histories: Sequence[TrialHistory],
    rank: dict[str, int],
    once_best: set[str],
    overrides: Flat,
) -> Group:
    """The group with the selected trials as its points.

    The best is first. Incumbents that are not selected follow in order of their numbers, then the paper's own settings unless
    they are among these, or the sweep is about something else.
    """
    config_of = {history.key: plan.trial_config(group, history.tried) for history in histories}
    selected = sorted((history for history in histories if history.key in rank), key=lambda history: rank[history.key])
    earlier = [history for history in histories if history.key in once_best and history.key not in rank]
    selected += sorted(earlier, key=lambda history: history.number)
    keys = {history.key for history in selected}
    points: list[dict[str, Any]] = [history.tried for history in selected]
    origins = [
        Origin(trial=history.key, rank=rank.get(history.key), was_incumbent=history.key in once_best)
        for history in selected
    ]
    is_paper_method = group.settings.get("optimizer/name") == group.method
    for point in POINTS.get(group.method, ()) if is_paper_method else ():
        config = plan.trial_config(group, point)
        if not is_of_the_paper(config.flat()):
            continue
        same = [key for key, other in config_of.items() if other == config]
        if not keys.intersection(same):
            for name in overrides:
                if name in point:
                    raise StudyError(
                        f"{name} cannot be set in a confirmation: it also runs the paper's own settings, which include "
                        f"{name}; leave it out, or run a new sweep with it."
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
    """Returns `count` consecutive seeds from `first`.

    Raises StudyError if a tuning has used one of them.
    """
    seeds = range(first, first + count)
    if first < 0 or seeds[-1] >= SEED_LIMIT:
        raise StudyError(
            f"Seeds must be from 0 to {SEED_LIMIT - 1}, not from {first} to {seeds[-1]}; choose others with --first-seed and "
            f"--seeds."
        )
    check_count("--seeds", count, MOST_SEEDS)
    for plan in tunings:
        used = [seed for seed in plan.seeds if seed in seeds]
        if used:
            free = 1 + max(seed for tuning in tunings for seed in tuning.seeds)
            hint = f" {free}" if free <= SEED_LIMIT - count else ""
            raise StudyError(
                f"Seed {min(used)} is not fresh: the sweep {plan.name!r} has used it; choose others with --first-seed{hint}."
            )
    return tuple(seeds)
