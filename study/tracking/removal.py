"""The removal of a sweep from MLflow.

MLflow has no public way to delete for good. The experiment is marked as deleted, with its runs, which hides both; before that
it is renamed, so that a new sweep may have the name. `mlflow gc` removes for good what is marked.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlflow import MlflowClient

from study.errors import StudyError
from study.sweep import folder
from study.sweep.folder import SweepFolder
from study.tracking import artifacts
from study.tracking.client import SWEEP_TAG, check_reachable, connect, find_runs, is_missing, reader, refusals


@dataclass(frozen=True)
class Logged:
    """What a store has of one sweep only.

    Attributes:
        uri: of the store.
        experiment: its identifier; None if the store has nothing that may be removed.
        name: what the experiment is called once it is removed.
        runs: number of runs in it.
        reason: why nothing may be removed, as a clause, or "".
    """

    uri: str
    experiment: str | None
    name: str
    runs: int
    reason: str = ""


def logged(uri: str, sweep: SweepFolder) -> Logged:
    """What a store has of a sweep, to be removed.

    The runs of a sweep that was copied stay, since they may belong to the other copy.

    Raises:
        StudyError: the store cannot be read, or the experiment has runs that are not the sweep's, or a registered model has its
            network in one of the runs.
    """
    check_reachable(uri)
    nothing = Logged(uri, None, "", 0)
    if is_missing(uri):
        return nothing
    with refusals(uri):
        client = reader(uri)
        experiment = client.get_experiment_by_name(sweep.plan.name)
        if experiment is None or experiment.tags.get(SWEEP_TAG) != sweep.identity:
            return nothing
        if reason := _copied(uri, sweep):
            return Logged(uri, None, "", 0, reason)
        if experiment.lifecycle_stage != "active":
            return Logged(
                uri, None, "", 0, "they are marked as deleted there already; `mlflow gc` removes them for good"
            )
        runs = find_runs(client, str(experiment.experiment_id), "")
        own = {str(run.info.run_id) for run in runs if run.data.tags.get("role") in ("trial", "sweep")}
        if foreign := [run for run in runs if run.info.run_id not in own]:
            raise StudyError(
                f"MLflow's experiment {sweep.plan.name!r} has {len(foreign)} runs that are not the sweep's, such as "
                f"{foreign[0].info.run_name!r}; delete or move them in MLflow first."
            )
        if model := _model_of(client, sweep, own):
            raise StudyError(
                f"The network of the registered model {model} is in a run of this sweep; delete that first."
            )
    return Logged(uri, str(experiment.experiment_id), f"{sweep.plan.name}-deleted-{sweep.identity}", len(runs))


def remove(found: Logged) -> None:
    """Marks a sweep's experiment, with its runs, as deleted.

    Raises StudyError if the store refuses.
    """
    if found.experiment is None:
        return
    with refusals(found.uri):
        client = connect(found.uri)
        client.rename_experiment(found.experiment, found.name)
        client.delete_experiment(found.experiment)


def _copied(uri: str, sweep: SweepFolder) -> str:
    """Why the runs may be those of another copy, or ""."""
    others = [root for root in folder.roots(sweep.directory).get(sweep.identity, []) if root.name != sweep.name]
    if others:
        return f"{str(others[0])!r} is a copy of the same sweep, whose runs they are too"
    try:
        artifacts.check_place(uri, sweep)
    except StudyError:
        return "this is a copy of a sweep elsewhere, whose runs they are"
    return ""


def _model_of(client: MlflowClient, sweep: SweepFolder, runs: set[str]) -> str:
    """Name and version of a model whose network is in a run, or ""."""
    tuned = sweep.plan.confirms.sweep if sweep.plan.confirms else sweep.plan.name
    for scenario in dict.fromkeys(group.scenario for group in sweep.plan.groups):
        for version in client.search_model_versions(f"name = '{tuned}-{scenario}'"):
            if version.run_id in runs:
                return f"{version.name} {version.version}"
    return ""
