"""Exports configurations of a sweep as YAML files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study.config import yaml_text
from study.errors import StudyError, nearest
from study.files import draft_of
from study.parts import outside
from study.sweep.folder import SweepFolder
from study.sweep.race.configurations import grouped, joined
from study.sweep.record import TrialHistory
from study.sweep.winners import best_keys, check_selectable

PROVENANCE_FACTS = (
    "data_fingerprint",
    "device",
    "device_name",
    "threads",
    "versions",
    "git_commit",
    "source_fingerprint",
)


def why_best(folder: SweepFolder) -> str:
    """Why the best configuration of a method was selected."""
    goal = folder.plan.goals[0]
    return f"{'the highest objective' if goal.is_default else goal.best_words} of its method and scenario"


def provenance(folder: SweepFolder, history: TrialHistory, run_id: str | None, selected_by: str) -> dict[str, Any]:
    """Returns the provenance of an exported configuration."""
    goal = folder.plan.goals[0]
    return {
        "sweep": folder.plan.name,
        "space": folder.plan.space,
        "phase": history.phase,
        "scenario": history.scenario,
        "method": history.method,
        "trial": history.key,
        "mlflow_run_id": run_id,
        "selected_by": selected_by,
        "objective": history.objective,
        **({} if goal.is_default else {"objective_is": goal.words}),
        "accuracy_test": history.summary["summary/accuracy_test"],
        **{name: history.facts[name] for name in PROVENANCE_FACTS if name in history.facts},
    }


def export_best(folder: SweepFolder, target: Path, run_ids: Mapping[str, str]) -> list[Path]:
    """Writes the best configuration of each scenario and method.

    Args:
        folder: of the sweep.
        target: folder for the files, `SCENARIO-METHOD-NUMBER.yaml`.
        run_ids: MLflow's run of each trial, by the trial's key.

    Returns:
        The files.

    Raises:
        StudyError: there is nothing to choose from, or a different file of that name exists.
    """
    histories = check_selectable(folder)
    best = best_keys(histories)
    chosen = {history: why_best(folder) for history in histories if history.key in best}
    return _export(folder, target, run_ids, chosen)


def export_named(folder: SweepFolder, keys: Sequence[str], target: Path, run_ids: Mapping[str, str]) -> list[Path]:
    """Writes the configurations of the trials that the user names.

    In a race any trial stands for its configuration, which must have all seeds.

    Raises:
        StudyError: there is no such trial, it has not finished, or a different file of that name exists.
    """
    plan = folder.plan
    histories = {
        trial.key: joined(plan, trials) if plan.is_race else trial
        for trials in grouped(plan, folder.histories())
        for trial in trials
    }
    for key in keys:
        if key not in histories:
            raise StudyError(f"The sweep {plan.name!r} has no trial {key!r}; {nearest(key, histories)}.")
        if histories[key].outcome == "stopped" and plan.is_race:
            raise StudyError(
                f"The configuration of {key!r} has {len(histories[key].seeds)} of {len(plan.seeds)} seeds; only those with all "
                f"seeds can be exported."
            )
        if histories[key].outcome != "finished":
            raise StudyError(
                f"The trial {key!r} is {histories[key].outcome}, not finished; only finished trials can be exported."
            )
    named = {histories[key].key: histories[key] for key in keys}  # trials of one configuration are one file
    return _export(folder, target, run_ids, dict.fromkeys(named.values(), "named by the user"))


def _export(
    folder: SweepFolder, target: Path, run_ids: Mapping[str, str], chosen: Mapping[TrialHistory, str]
) -> list[Path]:
    written = []
    for history, selected_by in chosen.items():
        path = target / f"{history.key}.yaml"
        write(path, history.config, provenance(folder, history, run_ids.get(history.key), selected_by))
        written.append(path)
    return written


def write(path: Path, config: Mapping[str, Any], provenance: Mapping[str, Any]) -> bool:
    """Writes a configuration with its provenance to a YAML file.

    Parts in files of the user's own are written beside it. Each file is complete or does not exist.

    Returns:
        Whether it was written; False if the file exists with the same content.

    Raises:
        StudyError: a different file exists, or the folder cannot be written.
    """
    files = texts(path.name, config, provenance)
    return [_write(path.with_name(name), text) for name, text in files.items()][-1]


def texts(name: str, config: Mapping[str, Any], provenance: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The files of a configuration; the YAML file comes last.

    Args:
        name: of the YAML file.
        config: nested plain data.
        provenance: see `provenance`; None to leave it out.
    """
    shown, files = outside.written_out(config)
    source = {} if provenance is None else {"provenance": dict(provenance)}
    return {**files, name: yaml_text({**shown, **source})}


def _write(path: Path, text: str) -> bool:
    """Writes a file unless it exists with the same content."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if path.read_bytes() == text.encode():
                return False
            raise StudyError(f"{str(path)!r} exists and differs; move it away, or export to another folder with --to.")
        with draft_of(path) as draft:
            draft.write_text(text, encoding="utf-8", newline="")
            os.link(draft, path)  # unlike a rename, never replaces a file that another process has created meanwhile
    except OSError as error:
        raise StudyError(f"{str(path)!r} cannot be written: {error.strerror}.") from None
    return True
