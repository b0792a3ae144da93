"""A sweep's trials in a database for optuna-dashboard.

Optuna's plots can read it too. The study itself never does: its search keeps Optuna's studies in memory and rebuilds them from
the records, see `study.sweep.search`. A new file is written beside the old one and then replaces its content, in one transaction.
So the file is complete at any time, and a dashboard that has it open sees what is new.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from study import addresses, schema
from study.errors import StudyError, first_line
from study.files import draft_of
from study.objective import Objective
from study.sweep.folder import SweepFolder
from study.sweep.plan import Group, Plan
from study.sweep.race.configurations import entrants, grouped, joined
from study.sweep.race.search import frozen_configuration
from study.sweep.record import TrialHistory
from study.sweep.search import directions_of, frozen_trial

FILE = "optuna.db"

LOGARITHMIC_FROM = 20.0
"""Positive values whose largest is more than this many times the smallest get a logarithmic axis."""


def write(folder: SweepFolder, *, is_running: bool = False) -> Path:
    """Writes all trials of a sweep.

    Each method in each scenario is a study of its own, named SWEEP/SCENARIO-METHOD. Of a race it has the configurations, as the
    race itself tells Optuna, see `study.sweep.race.search`. A trial's value is the sweep's objective, or
    the mean test accuracy if no trial has one; with two objectives it has two. Its intermediate values are the objective, or the
    test accuracy, after each task. Parameters have their slash names.

    Args:
        folder: of the sweep.
        is_running: whether trials that are planned but not begun are there too, as waiting ones. Every trial then keeps its
            number in the database, by which a dashboard knows it.

    Returns:
        The SQLite file.

    Raises:
        StudyError: it cannot be written.
    """
    path = folder.root / FILE
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    histories = folder.histories()
    try:
        with draft_of(path) as draft:
            storage = RDBStorage(addresses.database(draft))
            event.listen(storage.engine, "connect", _write_without_sync)
            storage.engine.dispose()
            for group in folder.plan.groups:
                own = [history for history in histories if history.group == group.label]
                _add(storage, folder, group, own, group.trials - len(own) if is_running else 0)
            storage.remove_session()
            storage.engine.dispose()
            _put(draft, path)
    except (OSError, ValueError, TypeError, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise StudyError(
            f"The storage for Optuna's dashboard {str(path)!r} cannot be written: {first_line(error)}."
        ) from None
    return path


def _put(draft: Path, path: Path) -> None:
    """Puts the content of a new file into the old one.

    A file that is missing, damaged or kept busy is replaced.
    """
    if path.is_file():
        try:
            with closing(sqlite3.connect(draft)) as new, closing(sqlite3.connect(path)) as old:
                new.backup(old)
        except sqlite3.Error:
            pass
        else:
            return
    draft.replace(path)


def _write_without_sync(connection: Any, _: object) -> None:
    """Turns off SQLite's waiting for the disk.

    A crash can damage the draft only, which is then deleted.
    """
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")


def _add(
    storage: RDBStorage, folder: SweepFolder, group: Group, histories: Sequence[TrialHistory], waiting: int
) -> None:
    """Adds a method's trials, and so many that wait."""
    goals = folder.plan.goals if any(_is_scored(history) for history in histories) else ()
    names = {goal.quantity: goal.quantity for goal in goals} or {"test accuracy": "summary/accuracy_test"}
    study = optuna.create_study(
        study_name=f"{folder.plan.name}/{group.label}",
        storage=storage,
        directions=directions_of(goals) or ["maximize"],
        sampler=_NO_SAMPLER,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(names))
    attributes = {"space": folder.plan.space, "phase": folder.plan.phase}
    attributes |= {"scenario": group.scenario, "method": group.method}
    for name, value in attributes.items():
        study.set_user_attr(name, value)
    distributions = _distributions(group, histories)
    if folder.plan.is_race:
        known = [_raced(folder.plan, trials, distributions) for trials in grouped(folder.plan, histories)]
        left = group.trials - len(known) if waiting else 0
        study.add_trials([*known, *(create_trial(state=TrialState.WAITING) for _ in range(left))])
        return
    ordered = sorted(histories, key=lambda history: history.number)
    trials = [_frozen(history, distributions, names, goals) for history in ordered]
    study.add_trials([*trials, *(create_trial(state=TrialState.WAITING) for _ in range(waiting))])


_NO_SAMPLER = optuna.samplers.RandomSampler()
"""These studies suggest nothing, so the default sampler need not be made."""


def _is_scored(history: TrialHistory) -> bool:
    """Whether a trial has a value of its sweep's first objective."""
    return history.objectives[0].value(history.tasks) is not None


def _distributions(group: Group, histories: Sequence[TrialHistory]) -> dict[str, BaseDistribution]:
    """The distribution of each setting tried.

    It is the one that the setting was drawn from if it contains all values, else one that spans the values.
    """
    drawn = group.drawn()
    distributions: dict[str, BaseDistribution] = {}
    for name in dict.fromkeys(name for history in histories for name in history.tried):
        values = [history.tried[name] for history in histories if name in history.tried]
        fits = name in drawn and all(_contains(drawn[name], value) for value in values)
        distributions[name] = _with_text(drawn[name]) if fits else _spanning(values)
    return distributions


def _with_text(distribution: BaseDistribution) -> BaseDistribution:
    """The distribution with its choices as Optuna stores them."""
    if isinstance(distribution, CategoricalDistribution):
        return CategoricalDistribution([_text(choice) for choice in distribution.choices])
    return distribution


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False


def _spanning(values: Sequence[Any]) -> BaseDistribution:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        low, high = float(min(values)), float(max(values))
        return FloatDistribution(low, high, log=low > 0 and high > LOGARITHMIC_FROM * low)
    return CategoricalDistribution(list(dict.fromkeys(map(_text, values))))


def _text(value: Any) -> Any:
    """A value that Optuna can store: lists become text."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _frozen(
    history: TrialHistory,
    distributions: Mapping[str, BaseDistribution],
    names: Mapping[str, str],
    goals: Sequence[Objective],
) -> FrozenTrial:
    course = {line["task"] + 1: line["metrics"][schema.TEST_ACCURACY] for line in history.tasks}
    if goals:
        course = goals[0].course(history.tasks) if len(goals) == 1 else {}
    attributes = {"trial": history.key, "name": history.name, "outcome": history.outcome, "seeds": len(history.seeds)}
    trial = frozen_trial(
        history,
        {name: _text(value) for name, value in history.tried.items()},
        distributions,
        names.values(),
        course,
        user_attrs=attributes | history.summary,
    )
    return _dated(trial, history)


def _raced(plan: Plan, trials: Sequence[TrialHistory], distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """A configuration of a race as Optuna's database keeps it."""
    history, (entrant,) = joined(plan, trials), entrants(plan, trials)
    params = {name: _text(value) for name, value in history.tried.items()}
    attributes = {"trial": history.key, "name": history.name, "outcome": history.outcome, "seeds": len(history.seeds)}
    attributes |= history.summary
    frozen = frozen_configuration(entrant, plan.rungs, plan.goals[0], params, distributions, attributes)
    return _dated(frozen, history)


def _dated(trial: FrozenTrial, history: TrialHistory) -> FrozenTrial:
    """The trial with the times of its history."""
    started = history.started or 0.0
    trial.datetime_start = datetime.fromtimestamp(started)  # as Optuna's own: local time, without a zone
    if trial.state.is_finished():
        trial.datetime_complete = datetime.fromtimestamp(history.ended or started)
    return trial
