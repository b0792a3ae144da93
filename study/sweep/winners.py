"""The winners of a sweep: the best trials by objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from study import selection
from study.config import TrialConfig
from study.errors import StudyError
from study.sweep.folder import SweepFolder
from study.sweep.record import TrialHistory

NO_OBJECTIVE = (
    "has no objective: no images were held out for validation, and the test set must not be used for selection; "
    "run it with --set tasks/validation_fraction=0.1667."
)


def changed_settings(tuned: TrialHistory, confirmed: TrialHistory) -> dict[str, Any]:
    """The settings that differ between a trial and its confirmation.

    Returns:
        The confirmed trial's values by slash name. The device does not count.
    """
    before, after = (TrialConfig.from_plain(history.config).flat() for history in (tuned, confirmed))
    names = {**before, **after}.keys() - {"training/device"}
    return {name: after.get(name) for name in sorted(names) if before.get(name) != after.get(name)}


def trials_table(histories: Sequence[TrialHistory]) -> pd.DataFrame:
    """One row a trial, with the columns of `study.selection.TRIAL_COLUMNS`; numbers of finished trials only."""
    rows = []
    for history in histories:
        summary = history.summary
        rows.append(
            {
                "trial": history.key,
                "number": history.number,
                "scenario": history.scenario,
                "method": history.method,
                "phase": history.phase,
                "name": history.name,
                "outcome": history.outcome,
                "objective": summary.get("summary/objective"),
                "accuracy_test": summary.get("summary/accuracy_test"),
                "accuracy_first_tenth": summary.get("summary/accuracy_test_first_tenth"),
                "accuracy_last_tenth": summary.get("summary/accuracy_test_last_tenth"),
                "decline": summary.get("summary/decline_test"),
                "lanes_diverged": summary.get("summary/lanes_diverged"),
                "gradient_evaluations": summary.get("summary/gradient_evaluations"),
                "seconds": summary.get("summary/seconds"),
            }
        )
    table = pd.DataFrame(rows, columns=list(selection.TRIAL_COLUMNS))
    numbers = list(selection.TRIAL_COLUMNS[7:])
    return table.astype(dict.fromkeys(numbers, "float64"))


def best_keys(histories: Sequence[TrialHistory], count: int = 1) -> list[str]:
    """Keys of the best trials of each scenario and method by the objective, best first.

    Empty when nothing can be chosen: no trial with an objective has finished, or the trials confirm a choice made before.
    """
    candidates = [history for history in histories if history.phase != "confirm"]
    return [str(key) for key in selection.best(trials_table(candidates), count)["trial"]]


def check_selectable(folder: SweepFolder) -> None:
    """Raises StudyError if no winner can be selected.

    No trial has finished, none has an objective, or the sweep is a confirmation.
    """
    histories, name = folder.histories(), folder.plan.name
    if folder.plan.confirms:
        tuned = folder.plan.confirms.sweep
        raise StudyError(
            f"{name!r} confirms {tuned!r}; to choose by it would spoil the fresh seeds: choose by {tuned!r} instead."
        )
    if not any(history.outcome == "finished" for history in histories):
        raise StudyError(f"No trial of {name!r} has finished yet; go on with `study resume {name}{folder.option}`.")
    if not best_keys(histories):
        raise StudyError(f"The sweep {name!r} {NO_OBJECTIVE}")
