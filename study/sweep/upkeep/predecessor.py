"""A search that begins with an earlier sweep's trials.

The sampler learns from them as from its own. They are not trained again, and are no trials of the new sweep: they count towards
no budget and cannot be its best.
"""

from __future__ import annotations

from typing import Final

from study.config import TrialConfig
from study.errors import StudyError, brief
from study.sweep.folder import SweepFolder
from study.sweep.plan import Group, Plan
from study.sweep.race.configurations import configurations
from study.sweep.ranges import range_of
from study.sweep.record import TrialHistory
from study.sweep.upkeep.earlier import EarlierTrial, Predecessor

SAMPLERS: Final = ("tpe", "gp")
"""Samplers that learn from trials which they have not drawn."""

FREE: Final = ("seeds", "training/device")
"""Settings in which the earlier trials may differ."""


def begun_after(plan: Plan, earlier: SweepFolder) -> Plan:
    """The plan with the finished trials of an earlier sweep.

    Raises:
        StudyError: the plan draws nothing or by a sampler that does not learn from them, or objective, methods, ranges or other
            settings of the earlier trials do not fit.
    """
    name = earlier.name
    if plan.phase != "tune":
        raise StudyError(
            f"--after {name} is for a search, and {plan.name!r} draws nothing: it tries given points only."
        )
    if plan.sampler not in SAMPLERS:
        raise StudyError(
            f"--after {name} needs --sampler tpe or gp: {plan.sampler} does not learn from trials that it has not drawn."
        )
    if earlier.plan.confirms:
        raise StudyError(
            f"--after {name} names a confirmation, and its fresh seeds must tune nothing; name the sweep itself."
        )
    wanted, found = ([goal.name for goal in each.goals] for each in (plan, earlier.plan))
    if wanted != found:
        raise StudyError(
            f"--after {name} has the objective {' and '.join(found)}, not {' and '.join(wanted)} as this search."
        )
    histories = configurations(earlier.plan, earlier.histories())
    trials = {group.label: _trials(plan, group, histories, name) for group in plan.groups if group.distributions}
    return plan.model_copy(update={"after": Predecessor(sweep=name, identity=earlier.identity, trials=trials)})


def _trials(plan: Plan, group: Group, histories: list[TrialHistory], name: str) -> tuple[EarlierTrial, ...]:
    """The earlier trials of one group. Raises StudyError if they do not fit."""
    found = []
    for history in histories:
        if history.group != group.label or history.outcome != "finished" or history.objective is None:
            continue
        values = tuple(float(history.summary[goal.column]) for goal in plan.goals)
        found.append(EarlierTrial(trial=history.key, drawn=_drawn(plan, group, history, name), values=values))
    if not found:
        raise StudyError(
            f"--after {name} has no finished trial of {group.method!r} in {group.scenario!r} with an objective; choose with "
            f"--method and --scenario what it has."
        )
    return tuple(found)


def _drawn(plan: Plan, group: Group, history: TrialHistory, name: str) -> dict[str, object]:
    """The settings of an earlier trial that are drawn here."""
    settings = TrialConfig.from_plain(history.config).flat()
    for setting, text in group.distributions.items():
        if setting not in settings or not range_of(text).contains(settings[setting]):
            raise StudyError(
                f"--after {name} does not fit: {setting} is {brief(settings.get(setting))} in its trial {history.key}, which is "
                f"outside the range here."
            )
    drawn = {setting: settings[setting] for setting in group.distributions}
    here = plan.trial_config(group, drawn).flat()
    for setting in sorted((here.keys() | settings.keys()) - set(FREE)):
        if here.get(setting) != settings.get(setting):
            raise StudyError(
                f"--after {name} does not fit: {setting} is {brief(settings.get(setting))} in its trial {history.key}, but "
                f"{brief(here.get(setting))} here."
            )
    return drawn
