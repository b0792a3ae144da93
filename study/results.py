"""What a sweep has found: the table of its trials, the best of each method, their exported files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import export, selection
from study import schema
from study.config import StudyError
from study.folder import SweepFolder
from study.record import TrialHistory

PROVENANCE_FACTS = ("data_fingerprint", "device", "device_name", "threads", "versions", "git_commit")

NO_OBJECTIVE = (
    "has no objective: no images were held out for validation, and choosing by test accuracy would be choosing by the exam; "
    "run it with --set tasks/validation_fraction=0.1667."
)


def trials_table(histories: Sequence[TrialHistory]) -> pd.DataFrame:
    """One row a trial, with the columns of `analysis.selection.TRIAL_COLUMNS`; numbers of finished trials only."""
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


def best_trials(folder: SweepFolder, count: int = 1) -> pd.DataFrame:
    """The best trials of each scenario and method by the objective.

    Raises:
        StudyError: nothing has finished yet, or there is no objective to choose by.
    """
    histories = folder.histories()
    if not any(history.outcome == "finished" for history in histories):
        raise StudyError(f"No trial of {folder.plan.name!r} has finished yet; go on with `study resume {folder.plan.name}`.")
    chosen = selection.best(trials_table(histories), count)
    if chosen.empty:
        raise StudyError(f"The sweep {folder.plan.name!r} {NO_OBJECTIVE}")
    return chosen


def best_or_none(folder: SweepFolder) -> pd.DataFrame | None:
    """The best trial of each scenario and method, or None where there is nothing to choose from."""
    chosen = selection.best(trials_table(folder.histories()))
    return None if chosen.empty else chosen


def has_objective(histories: Sequence[TrialHistory]) -> bool:
    """Whether the trials were scored on held-out images."""
    return any(schema.OBJECTIVE in history.metrics for history in histories)


def provenance(folder: SweepFolder, history: TrialHistory, run_id: str | None) -> dict[str, Any]:
    """Where an exported configuration comes from."""
    finished = sum(1 for h in folder.histories() if h.group == history.group and h.outcome == "finished")
    return {
        "sweep": folder.plan.name,
        "space": folder.plan.space,
        "phase": history.phase,
        "scenario": history.scenario,
        "method": history.method,
        "trial": history.key,
        "mlflow_run_id": run_id,
        "selected_by": f"objective, the highest of {finished} finished trials",
        "objective": history.summary["summary/objective"],
        "accuracy_test": history.summary["summary/accuracy_test"],
        **{name: history.facts[name] for name in PROVENANCE_FACTS},
    }


def export_best(folder: SweepFolder, target: Path, run_ids: dict[str, str]) -> list[Path]:
    """Writes the best configuration of each scenario and method, `SCENARIO-METHOD-NUMBER.yaml`.

    Raises:
        StudyError: there is nothing to choose from, or another file stands in the place of one of them.
    """
    histories = {history.key: history for history in folder.histories()}
    written = []
    for key in best_trials(folder)["trial"]:
        path = target / f"{key}.yaml"
        export.write(path, histories[key].config, provenance(folder, histories[key], run_ids.get(key)))
        written.append(path)
    return written
