"""A sweep's trials in a storage of Optuna's own, as a view of its records: for optuna-dashboard and Optuna's plots.

The search itself keeps its studies in memory and builds them anew from the records, see `study.sweep.search`; nothing reads
this file again. It is made whole beside the old one and then takes its place, so that
at any time there is all of it or the one before.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from study import schema
from study.errors import StudyError, first_line
from study.files import draft_of
from study.sweep.folder import SweepFolder
from study.sweep.plan import Group
from study.sweep.record import TrialHistory

FILE = "optuna.db"

LOGARITHMIC_FROM = 20.0
"""Values whose largest is more than so many times the smallest, above 0, are shown on a logarithmic axis."""

STATES = {
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
    "waiting": TrialState.RUNNING,
}
"""Optuna's word for each outcome: a trial that was interrupted or lost its worker is still to go on."""


def write(folder: SweepFolder) -> Path:
    """Writes all trials of a sweep, a study for each method in each scenario, named SWEEP/SCENARIO-METHOD.

    Values are the objective, or mean test accuracy where no images were held out; with the sampler `nsga2` objective and decline.
    Intermediate values are the objective, or test accuracy, after each task. Parameters bear their slash names.

    Returns:
        The SQLite file.

    Raises:
        StudyError: it cannot be written.
    """
    path = folder.root / FILE
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with draft_of(path) as draft:
            storage = RDBStorage(f"sqlite:///{draft.resolve()}")
            event.listen(storage.engine, "connect", _without_waiting_for_the_disk)
            storage.engine.dispose()
            histories = folder.histories()
            for group in folder.plan.groups:
                _add(storage, folder, group, [history for history in histories if history.group == group.label])
            storage.remove_session()
            storage.engine.dispose()
            draft.replace(path)
    except (OSError, ValueError, TypeError, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise StudyError(
            f"The storage for Optuna's dashboard {str(path)!r} cannot be written: {first_line(error)}."
        ) from None
    return path


def _without_waiting_for_the_disk(connection: Any, _: object) -> None:
    """A draft that a crash damages is thrown away."""
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")


def _add(storage: RDBStorage, folder: SweepFolder, group: Group, histories: Sequence[TrialHistory]) -> None:
    names = _values(folder, histories)
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: len(names)]
    study = optuna.create_study(
        study_name=f"{folder.plan.name}/{group.label}", storage=storage, directions=directions, sampler=_NO_SAMPLER
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(names))
    about = {"space": folder.plan.space, "phase": folder.plan.phase, "scenario": group.scenario, "method": group.method}
    for name, value in about.items():
        study.set_user_attr(name, value)
    distributions = _distributions(group, histories)
    ordered = sorted(histories, key=lambda history: history.number)
    study.add_trials([_frozen(history, distributions, names, folder.plan.sampler) for history in ordered])


_NO_SAMPLER = optuna.samplers.RandomSampler()
"""Nothing is asked of these studies."""


def _values(folder: SweepFolder, histories: Sequence[TrialHistory]) -> dict[str, str]:
    """What the trials are judged by: names of their values, each with that of the summary."""
    validated = any(schema.OBJECTIVE in history.metrics for history in histories)
    if not validated:
        return {"test accuracy": "summary/accuracy_test"}
    values = {"objective": "objective"}
    return values | {"decline": "decline"} if folder.plan.sampler == "nsga2" else values


def _distributions(group: Group, histories: Sequence[TrialHistory]) -> dict[str, BaseDistribution]:
    """Of each setting that was tried: what it was drawn from if that has all of its values, else what spans them."""
    drawn = group.drawn()
    found: dict[str, BaseDistribution] = {}
    for name in dict.fromkeys(name for history in histories for name in history.tried):
        values = [history.tried[name] for history in histories if name in history.tried]
        fits = name in drawn and all(_contains(drawn[name], value) for value in values)
        found[name] = _kept(drawn[name]) if fits else _spanning(values)
    return found


def _kept(distribution: BaseDistribution) -> BaseDistribution:
    """A distribution with its choices as Optuna keeps them."""
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
    """A value as Optuna keeps it: lists and mappings as text."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _frozen(
    history: TrialHistory, distributions: Mapping[str, BaseDistribution], names: Mapping[str, str], sampler: str
) -> FrozenTrial:
    measured = {**history.metrics, **history.summary}
    state = STATES[history.outcome]
    known = all(summary in measured for summary in names.values())
    if state is TrialState.COMPLETE and not known:
        state = TrialState.FAIL
    shown = schema.OBJECTIVE if "objective" in names else schema.TEST_ACCURACY
    steps = {line["task"] + 1: line["metrics"][shown] for line in history.tasks if shown in line["metrics"]}
    params = {
        name: value if isinstance(distributions[name], FloatDistribution) else _text(value)
        for name, value in history.tried.items()
    }
    begun = history.started if history.started is not None else 0.0
    trial = create_trial(
        state=state,
        values=[measured[summary] for summary in names.values()] if state is TrialState.COMPLETE else None,
        params=params,
        distributions={name: distributions[name] for name in params},
        intermediate_values=steps if sampler != "nsga2" else {},
        user_attrs={
            "trial": history.key,
            "name": history.name,
            "outcome": history.outcome,
            "seeds": len(history.seeds),
            **history.summary,
        },
    )
    trial.datetime_start = datetime.fromtimestamp(begun)  # as Optuna's own: local time, without a zone
    if state.is_finished():
        trial.datetime_complete = datetime.fromtimestamp(history.ended or begun)
    return trial
