"""What a sweep has found: the table of its trials, the best of each method, their exported files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import export, selection
from study.config import StudyError, TrialConfig, nearest
from study.folder import SweepFolder
from study.record import TrialHistory

PROVENANCE_FACTS = ("data_fingerprint", "device", "device_name", "threads", "versions", "git_commit")

HIGHEST = "the highest objective of its method and scenario"

NO_OBJECTIVE = (
    "has no objective: no images were held out for validation, and choosing by test accuracy would be choosing by the exam; "
    "run it with --set tasks/validation_fraction=0.1667."
)


def changed_settings(tuned: TrialHistory, confirmed: TrialHistory) -> dict[str, Any]:
    """The settings of a confirmed trial, by slash name, that are not those of the tuning; where it is computed does not count."""
    before, after = (TrialConfig.from_plain(history.config).flat() for history in (tuned, confirmed))
    names = {**before, **after}.keys() - {"training/device"}
    return {name: after.get(name) for name in sorted(names) if before.get(name) != after.get(name)}


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


def best_keys(histories: Sequence[TrialHistory], count: int = 1) -> list[str]:
    """Keys of the best trials of each scenario and method by the objective, best first.

    Empty when nothing can be chosen: no trial with an objective has finished, or the trials confirm a choice made before.
    """
    candidates = [history for history in histories if history.phase != "confirm"]
    return [str(key) for key in selection.best(trials_table(candidates), count)["trial"]]


def check_selectable(folder: SweepFolder) -> None:
    """Refuses to choose from nothing, or by a confirmation.

    Raises StudyError when no trial has finished, none has an objective, or the sweep is a confirmation.
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


def provenance(folder: SweepFolder, history: TrialHistory, run_id: str | None, selected_by: str) -> dict[str, Any]:
    """Where an exported configuration comes from."""
    return {
        "sweep": folder.plan.name,
        "space": folder.plan.space,
        "phase": history.phase,
        "scenario": history.scenario,
        "method": history.method,
        "trial": history.key,
        "mlflow_run_id": run_id,
        "selected_by": selected_by,
        "objective": history.summary.get("summary/objective"),
        "accuracy_test": history.summary["summary/accuracy_test"],
        **{name: history.facts[name] for name in PROVENANCE_FACTS if name in history.facts},
    }


def export_best(folder: SweepFolder, target: Path, run_ids: Mapping[str, str]) -> list[Path]:
    """Writes the best configuration of each scenario and method, `SCENARIO-METHOD-NUMBER.yaml`.

    Raises:
        StudyError: there is nothing to choose from, or another file stands in the place of one of them.
    """
    check_selectable(folder)
    histories = folder.histories()
    best = best_keys(histories)
    chosen = {history: HIGHEST for history in histories if history.key in best}
    return _export(folder, target, run_ids, chosen)


def export_named(folder: SweepFolder, keys: Sequence[str], target: Path, run_ids: Mapping[str, str]) -> list[Path]:
    """Writes the configurations of the trials that the user names.

    Raises:
        StudyError: there is no such trial or it has not finished, or another file stands in the place of one of them.
    """
    histories = {history.key: history for history in folder.histories()}
    for key in keys:
        if key not in histories:
            raise StudyError(f"The sweep {folder.plan.name!r} has no trial {key!r}; {nearest(key, histories)}.")
        if histories[key].outcome != "finished":
            raise StudyError(
                f"The trial {key!r} is {histories[key].outcome}, not finished; only finished ones are exported."
            )
    return _export(folder, target, run_ids, {histories[key]: "named by the user" for key in keys})


def _export(
    folder: SweepFolder, target: Path, run_ids: Mapping[str, str], chosen: Mapping[TrialHistory, str]
) -> list[Path]:
    written = []
    for history, selected_by in chosen.items():
        path = target / f"{history.key}.yaml"
        export.write(path, history.config, provenance(folder, history, run_ids.get(history.key), selected_by))
        written.append(path)
    return written
