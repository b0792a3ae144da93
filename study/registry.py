"""The network of a confirmed configuration as a model in MLflow's registry, which predicts without this package.

Of each scenario it is the confirmed configuration that had the highest objective in the tuning: a confirmation measures, and to
choose by it would spoil its numbers. The network is that of the confirmation's first seed after the last task, which
it solves.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from analysis.store import connect, first_line
from study import checkpoint, experiment, folder, store
from study.config import StudyError, TrialConfig
from study.contracts import Experiment, Portable
from study.folder import SweepFolder
from study.record import TrialHistory
from study.trainer import State, train

EXAMPLES = 5
"""Images of the input example."""


@dataclass(frozen=True)
class Winner:
    """A confirmed configuration.

    Attributes:
        folder: of the confirmation.
        history: the confirmation's trial.
        tuned: objective of the trial in the tuning.
    """

    folder: SweepFolder
    history: TrialHistory
    tuned: float


@dataclass(frozen=True)
class Registered:
    """A version of a registered model, and whether it was made just now."""

    name: str
    version: str
    is_new: bool
    trial: str


def winners(tuning: SweepFolder) -> list[Winner]:
    """The confirmed configuration of each scenario, out of the newest confirmation that has finished it.

    Raises:
        StudyError: none has been confirmed yet.
    """
    histories = {history.key: history for history in tuning.histories()}
    chosen: dict[str, Winner] = {}
    for confirmation in _confirmations(tuning):
        best: dict[str, Winner] = {}
        for history in confirmation.histories():
            origin = confirmation.plan.origin(history.group, history.number)
            if history.outcome != "finished" or not origin.rank or origin.trial not in histories:
                continue
            tuned = histories[origin.trial].summary["summary/objective"]
            known = best.get(history.scenario)
            if known is None or tuned > known.tuned:
                best[history.scenario] = Winner(confirmation, history, tuned)
        chosen |= best
    if not chosen:
        name = tuning.plan.name
        raise StudyError(
            f"No configuration of {name!r} has been confirmed yet; begin with `study confirm {name}{tuning.option}`."
        )
    return list(chosen.values())


def _confirmations(tuning: SweepFolder) -> Iterator[SweepFolder]:
    """The sweeps in the same folder that confirm this one, oldest first."""
    found = []
    for name in folder.names(tuning.directory):
        try:
            opened = SweepFolder.open(tuning.directory, name)
        except StudyError:
            continue
        if opened.plan.confirms and opened.plan.confirms.identity == tuning.identity:
            started = [history.started for history in opened.histories() if history.started]
            found.append((min(started, default=0.0), name, opened))
    yield from (opened for _, _, opened in sorted(found, key=lambda entry: entry[:2]))


def register(tuning: SweepFolder, winner: Winner, uri: str, data_dir: Path) -> Registered:
    """Registers a winner's network as `SWEEP-SCENARIO`, with signature and example; a version that is there already serves.

    Args:
        tuning: the sweep whose name the model bears.
        winner: one of its `winners`.
        uri: of MLflow's store, which has the confirmation's runs.
        data_dir: folder of the data sets.

    Raises:
        StudyError: MLflow refuses or lacks the run, the data is not to be had, or the network is none of plain layers.
    """
    history = winner.history
    name = f"{tuning.plan.name}-{history.scenario}"
    store.Store(uri, tuning.directory)  # makes the database's tables where they are missing
    client = connect(uri)
    runs = store.runs_of(client, winner.folder.plan.name, winner.folder.identity)
    if history.key not in runs:
        again = f"study sync {winner.folder.plan.name}{winner.folder.option}"
        raise StudyError(
            f"MLflow at {uri} has no run of {history.key!r} of {winner.folder.plan.name!r}; bring it there: {again}."
        )
    run_id = runs[history.key]
    try:
        with _tracking(uri):
            return _found_or_made(name, run_id, winner, data_dir)
    except (MlflowException, OSError) as error:
        raise StudyError(f"MLflow at {uri} refuses: {first_line(error)}.") from None


def _found_or_made(name: str, run_id: str, winner: Winner, data_dir: Path) -> Registered:
    """The version that there is, or a new one, in the registry that MLflow is told of, which mostly is its store."""
    history, client = winner.history, MlflowClient()
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.run_id == run_id and version.tags.get("seed") == str(history.seeds[0]):
            return Registered(name, str(version.version), False, history.key)
    config = TrialConfig.from_plain(history.config)
    parts = experiment.build(config, experiment.load_dataset(config, data_dir))
    return _logged(client, name, run_id, winner, parts, _last_state(winner, config, parts))


def _last_state(winner: Winner, config: TrialConfig, parts: Experiment) -> State:
    """The state after the last task: out of the trial's last checkpoint, or trained again where that is gone."""
    identity = checkpoint.identity(config, parts.dataset.fingerprint)
    for place in reversed(winner.history.checkpoints):
        path = winner.folder.root / place / "state.pt"
        try:
            state = checkpoint.load(path, identity, parts.device)
        except (StudyError, OSError):
            continue
        if state.next_task == parts.tasks.count:
            return state
    torch.set_num_threads(int(winner.history.facts.get("threads", 1)))
    *_, last = train(parts)
    return last.state


def _logged(
    client: MlflowClient, name: str, run_id: str, winner: Winner, parts: Experiment, state: State
) -> Registered:
    history, last = winner.history, parts.tasks.count - 1
    task = parts.tasks.task(last)
    if not isinstance(parts.model, Portable):
        raise StudyError(
            f"The model of {history.key!r} cannot be written as layers of torch; give it a method `layers`."
        )
    params = {key: value[:1].cpu() for key, value in state.params.items()}
    if task.pixel_order is not None:  # pixels stay where they are: W x[p] = W[:, argsort(p)] x
        params = parts.model.take_features(params, task.pixel_order[:1].argsort(dim=1))
    network = torch.nn.Sequential(*parts.model.layers(params, 0), torch.nn.Softmax(dim=1)).eval()
    classes = [int((task.outputs == output).nonzero()[0]) for output in range(parts.tasks.output_count)]
    images = parts.dataset.test_images.cpu()[task.test[:EXAMPLES].cpu()].numpy().astype(np.float32) / 255
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, images.shape[1]))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(classes)))]),
    )
    tags: dict[str, Any] = {
        "sweep": winner.folder.plan.name,
        "trial": history.key,
        "configuration": history.name,
        "scenario": history.scenario,
        "task": task.name,
        "classes": str(classes),
        "seed": history.seeds[0],
        "objective_tuned": winner.tuned,
        "objective_confirmed": history.summary["summary/objective"],
        "accuracy_test_of_seed_on_task": history.tasks[last]["lanes"]["accuracy/test"][0],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mlflow.start_run(run_id=run_id, log_system_metrics=False):
            info = mlflow.pytorch.log_model(
                network,
                name="network",
                signature=signature,
                input_example=images,
                registered_model_name=name,
                pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", "numpy"],
                metadata={key: str(value) for key, value in tags.items()},
            )
    version = str(info.registered_model_version)
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, str(value))
    client.update_model_version(name, version, description=_described(winner, task.name, classes))
    return Registered(name, version, True, history.key)


def _described(winner: Winner, task: str, classes: list[int]) -> str:
    history = winner.history
    return (
        f"**{history.name}**, confirmed in `{winner.folder.plan.name}`: the network of seed {history.seeds[0]} after the last "
        f"task, `{task}`, which it solves. Input: images as rows of grey values from 0 to 1, float32. Output: the probability "
        f"of the classes {classes}."
    )


@contextmanager
def _tracking(uri: str) -> Iterator[None]:
    """MLflow's functions without a client go to this store inside, and say nothing."""
    before, log = mlflow.get_tracking_uri(), logging.getLogger("mlflow")
    mlflow.set_tracking_uri(uri)
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
        log.setLevel(level)
