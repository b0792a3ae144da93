"""The winners of a sweep: the best trials by objective.

And how many trials are due, where results decide that: in a race, and in a confirmation that ends when it is decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from study import schema, selection
from study.config import TrialConfig
from study.decision import halving
from study.errors import StudyError
from study.selection import Candidate
from study.sweep.folder import SweepFolder
from study.sweep.plan import Plan
from study.sweep.race.configurations import configurations, entrants
from study.sweep.record import TrialHistory

if TYPE_CHECKING:
    from study.decision.rule import Course

NO_OBJECTIVE = (
    "has no objective: no images were held out for validation, and the test set must not be used for selection; "
    "run it with --set tasks/validation_fraction=0.1667."
)


def changed_settings(tuned: TrialHistory, confirmed: TrialHistory) -> dict[str, Any]:
    """The settings that differ between a trial and its confirmation.

    Returns:
        The confirmed trial's values by slash name. The device does not count, nor does a setting that is off and that the tuned
        trial's version of the study did not have.
    """
    before, after = (TrialConfig.from_plain(history.config).flat() for history in (tuned, confirmed))
    names = {**before, **after}.keys() - {"training/device"}
    return {
        name: after.get(name)
        for name in sorted(names)
        if before.get(name) != after.get(name) and (name in before or after[name])
    }


def best_keys(histories: Sequence[TrialHistory], count: int = 1) -> list[str]:
    """Keys of the best trials of each scenario and method.

    Of a race, the histories are those of its configurations, see `study.sweep.race.configurations`.

    Best by the objective and best first. Empty when nothing can be chosen: no trial with an objective has finished, or the trials
    confirm a choice made before.
    """
    return [winner.trial for winner in selection.best(_candidates(histories), count, is_maximised=_rises(histories))]


def incumbent_keys(histories: Sequence[TrialHistory]) -> list[str]:
    """Keys of the trials that were once the best.

    Of each scenario and method in order of their numbers, see `study.selection.incumbents`.
    """
    return [found.trial for found in selection.incumbents(_candidates(histories), is_maximised=_rises(histories))]


def _rises(histories: Sequence[TrialHistory]) -> bool:
    """Whether the highest objective is the best."""
    return all(history.objectives[0].is_maximised for history in histories)


def _candidates(histories: Sequence[TrialHistory]) -> list[Candidate]:
    """What a selection reads of the trials; nothing of a confirmation."""
    return [
        Candidate(
            trial=history.key,
            number=history.number,
            scenario=history.scenario,
            method=history.method,
            outcome=history.outcome,
            objective=history.objective,
        )
        for history in histories
        if history.phase != "confirm"
    ]


def check_selectable(folder: SweepFolder) -> list[TrialHistory]:
    """Returns the trials of a sweep, to select winners from.

    Of a race, its configurations.

    Raises StudyError if no trial has finished, none has an objective, or the sweep is a confirmation.
    """
    histories, name = configurations(folder.plan, folder.histories()), folder.plan.name
    if folder.plan.confirms:
        tuned = folder.plan.confirms.sweep
        raise StudyError(
            f"{name!r} confirms {tuned!r}; to choose by it would spoil the fresh seeds: choose by {tuned!r} instead."
        )
    if not any(history.outcome == "finished" for history in histories):
        what = "configuration" if folder.plan.is_race else "trial"
        seeds = f" with all {len(folder.plan.seeds)} seeds" if folder.plan.is_race else ""
        raise StudyError(f"No {what} of {name!r} has finished{seeds} yet; go on with `{folder.command('resume')}`.")
    if not best_keys(histories):
        goal = folder.plan.goals[0]
        why = NO_OBJECTIVE if goal.declared.needs_validation else f"has no trial with {goal.label}."
        raise StudyError(f"The sweep {name!r} {why}")
    return histories


def course(plan: Plan, histories: Sequence[TrialHistory]) -> Course | None:
    """What the trials of a confirmation decide so far.

    By mean test accuracy of the winners, seed by seed. None if all of its trials are to run.
    """
    if plan.rule is None:
        return None
    from study.decision.rule import decide, mean_accuracy  # slow to import

    found: dict[str, dict[str, list[float]]] = {}
    finished = {history.key: history for history in histories if history.outcome == "finished"}
    for group in plan.groups:
        if not any(origin.rank == 1 for origin in group.origins):
            continue
        numbers = found.setdefault(group.scenario, {}).setdefault(group.method, [])
        for number in [number for number, origin in enumerate(group.origins) if origin.rank == 1]:
            history = finished.get(f"{group.label}-{number:03d}")
            if history is None:
                break
            numbers += mean_accuracy([line["lanes"][schema.TEST_ACCURACY] for line in history.tasks])
    return decide(plan.rule, found)


def trial_count(folder: SweepFolder) -> int:
    """Number of trials of a sweep that are due.

    Records are read only if results decide how many are due.
    """
    plan = folder.plan
    if not (plan.deciding or plan.is_race):
        return plan.trial_count
    return sum(due_trials(plan, folder.histories()).values())


def due_trials(plan: Plan, histories: Sequence[TrialHistory]) -> dict[str, int]:
    """Number of trials due by now, by group.

    All that are planned, unless the confirmation ends when it is decided. What is no winner, such as the paper's own settings,
    goes on as long as the winner of its method, and without one as long as any of its scenario. In a race, failed trials have no
    successors until they are tried again.
    """
    if plan.is_race:
        own = {group.label: [each for each in histories if each.group == group.label] for group in plan.groups}
        return {
            group.label: sum(halving.due(entrants(plan, own[group.label]), group.trials, len(plan.rungs)))
            for group in plan.groups
        }
    decided = course(plan, histories)
    if decided is None:
        return {group.label: group.trials for group in plan.groups}
    return {
        group.label: decided.due_of(group.scenario, group.method) // plan.lanes * plan.points_of(group)
        for group in plan.groups
    }
