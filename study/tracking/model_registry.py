"""Confirmed networks as models in MLflow's registry.

A registered model predicts without this package. For each scenario it is the confirmed configuration that had the highest
objective in the tuning; selecting by the confirmation would bias the confirmation's numbers. The network is that of the
confirmation's first seed that has not diverged, after the last task.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
import torch.fx
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from study import redaction
from study.config import TrialConfig
from study.contracts import Experiment, Portable, Selective, Task
from study.errors import StudyError
from study.experiment import build, load_dataset
from study.lanes import Tensors
from study.pixels import LARGEST_BYTE, Scale
from study.sweep import folder, storage, winners
from study.sweep.folder import SweepFolder
from study.sweep.race.configurations import configurations
from study.sweep.record import TrialHistory
from study.tracking import artifacts, store
from study.tracking.client import refusals
from study.training import checkpoint
from study.training.trainer import State, train

EXAMPLES = 5
"""Number of images in the input example."""

ROUNDING = 1e-3
"""Allowed difference of test accuracies. The first layer adds up permuted pixels in another order than in training."""

INPUT = "The input must be rows of grey values from 0 to 1, float32 [image, pixel]; divide bytes from 0 to 255 by 255 first."
"""What a registered network says to other input."""


@dataclass(frozen=True)
class Winner:
    """A confirmed configuration.

    Attributes:
        folder: of the confirmation.
        history: the confirmation's trial.
        tuned: objective of the trial in the tuning.
        as_tuned: whether it was confirmed with the same settings as in the tuning, including the data set.
    """

    folder: SweepFolder
    history: TrialHistory
    tuned: float
    as_tuned: bool


@dataclass(frozen=True)
class Registered:
    """A version of a registered model.

    Attributes:
        name, version: of the model.
        is_new: whether it has just been registered.
        trial: key of the confirmation's trial.
        note: what a user of the model should know, or "".
    """

    name: str
    version: str
    is_new: bool
    trial: str
    note: str = ""


def confirmed_winners(tuning: SweepFolder) -> list[Winner]:
    """The best confirmed configuration of each scenario.

    The best is that with the best objective in the tuning. One that was confirmed with other settings, such as another data
    set, counts only if none was confirmed with the same settings. If a configuration was confirmed several times, the newest
    confirmation counts.

    Raises:
        StudyError: no configuration has been confirmed yet.
    """
    histories = {history.key: history for history in configurations(tuning.plan, tuning.histories())}
    best: dict[str, Winner] = {}
    ranks: dict[str, tuple[bool, float, int, int]] = {}
    for age, confirmation in enumerate(_confirmations(tuning)):
        for history in confirmation.histories():
            origin = confirmation.plan.origin(history.group, history.number)
            if history.outcome != "finished" or not origin.rank or origin.trial not in histories:
                continue
            trial = histories[origin.trial]
            if (tuned := trial.objective) is None:
                continue
            as_tuned = not winners.changed_settings(trial, history)
            rank = (as_tuned, trial.objectives[0].score(tuned), age, -origin.rank)
            if history.scenario not in ranks or rank > ranks[history.scenario]:
                ranks[history.scenario] = rank
                best[history.scenario] = Winner(confirmation, history, tuned, as_tuned)
    if not best:
        raise StudyError(
            f"No configuration of {tuning.name!r} has been confirmed yet; begin with `{tuning.command('confirm')}`."
        )
    return list(best.values())


def _confirmations(tuning: SweepFolder) -> list[SweepFolder]:
    """The confirmations of a sweep in its folder, oldest first."""
    confirmations = []
    for name in folder.names(tuning.directory):
        try:
            sweep = SweepFolder.open(tuning.directory, name)
        except StudyError:
            continue
        if sweep.plan.confirms and sweep.plan.confirms.identity == tuning.identity:
            starts = [history.started for history in sweep.histories() if history.started]
            confirmations.append((min(starts, default=0.0), name, sweep))
    return [sweep for _, _, sweep in sorted(confirmations, key=lambda entry: entry[:2])]


def register(tuning: SweepFolder, winner: Winner, uri: str, data_dir: Path, say: Callable[[str], None]) -> Registered:
    """Registers a winner's network as the model `SWEEP-SCENARIO`.

    It has a signature and an input example. A version that is registered already is returned as it is.

    Args:
        tuning: the sweep that the model is named after.
        winner: one of its `confirmed_winners`.
        uri: of MLflow's store, which has the confirmation's runs.
        data_dir: folder of the data sets.
        say: called with a message if the network has to be trained again, which takes a while.

    Raises:
        StudyError: MLflow refuses or lacks the run, the data cannot be loaded, all seeds have diverged, or the network has
            other than plain layers.
    """
    history = winner.history
    name = f"{tuning.plan.name}-{history.scenario}"
    with refusals(uri):
        client = store.Store(uri).client  # creates the database's tables if missing
        runs = store.runs_of(client, winner.folder.plan.name, winner.folder.identity)
        if history.key not in runs:
            again = winner.folder.command("sync", "--tracking-uri", uri)
            raise StudyError(
                f"MLflow at {uri} has no run of {history.key!r} of {winner.folder.plan.name!r}; bring it there: {again}."
            )
        artifacts.settle(uri, winner.folder)
        with _tracking(uri):
            return _registered(name, runs[history.key], winner, data_dir, say)


def _registered(name: str, run_id: str, winner: Winner, data_dir: Path, say: Callable[[str], None]) -> Registered:
    """The version for a run, registered if missing.

    The registry is that of MLflow's environment, usually the store itself.
    """
    history, client = winner.history, MlflowClient()
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.run_id == run_id and version.tags.get("accuracy_test"):  # set last: missing after an interruption
            return Registered(name, str(version.version), False, history.key)
    config = TrialConfig.from_plain(history.config)
    experiment = build(config, load_dataset(config, data_dir))
    return _logged(client, name, run_id, winner, experiment, _last_state(winner, config, experiment, say))


def _last_state(winner: Winner, config: TrialConfig, experiment: Experiment, say: Callable[[str], None]) -> State:
    """The state of a trial after its last task.

    It comes from the last checkpoint, or from training again if that is gone.
    """
    identity = checkpoint.identity(config, experiment.dataset.fingerprint)
    for place in winner.folder.checkpoints(winner.history):
        try:
            data = storage.read(place, checkpoint.FILE)
            state = checkpoint.load(data, identity, experiment.device, place)
        except (StudyError, OSError):
            continue
        if state.next_task == experiment.tasks.count:
            return state
    say(
        f"{winner.history.key} of {winner.folder.plan.name} no longer has a checkpoint of its last task: training it again"
    )
    torch.set_num_threads(int(winner.history.facts.get("threads", 1)))
    *_, last = train(experiment)
    return last.state


def _logged(
    client: MlflowClient, name: str, run_id: str, winner: Winner, experiment: Experiment, state: State
) -> Registered:
    """Registers the network of a state as a new version."""
    history, last = winner.history, experiment.tasks.count - 1
    task = experiment.tasks.task(last)
    if task.relabelled is not None:
        raise StudyError(
            f"{history.key!r} learnt random labels by heart; there is nothing that its network could tell."
        )
    healthy = (~state.diverged).nonzero()  # [lane, 1]
    if not len(healthy):
        raise StudyError(f"All seeds of {history.key!r} have diverged; there is no network to register.")
    lane = int(healthy[0])
    if not isinstance(experiment.model, Portable):
        raise StudyError(
            f"The model of {history.key!r} cannot be written as layers of torch; give it a method `layers`."
        )
    network = _portable(torch.nn.Sequential(*_layers(experiment, task, state.params, lane), torch.nn.Softmax(dim=1)))
    # classes[output] is the label that an output of the network stands for; -1 if the last task has no such class
    classes = [_class_of(task.outputs, output) for output in range(experiment.tasks.output_count)]
    test = task.test.cpu()
    images = experiment.dataset.test_images.cpu()[test].numpy().astype(np.float32) / LARGEST_BYTE  # [image, pixel]
    labels = experiment.dataset.test_labels.cpu()[test].numpy()  # [image]
    accuracy = float((np.array(classes)[_predicted(network, images)] == labels).mean())
    recorded = float(history.tasks[last]["lanes"]["accuracy/test"][lane])
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
        "data": history.config["data"]["name"],
        "classes": str(classes),
        "seed": history.seeds[lane],
        "objective_tuned": winner.tuned,
        "objective_confirmed": history.objective,
        "objective_is": None if history.objectives[0].is_default else history.objectives[0].words,
        "accuracy_test_recorded": recorded,
        "accuracy_test": accuracy,
    }
    tags = {key: str(value) for key, value in tags.items() if value is not None}
    with warnings.catch_warnings(), _ended_as_before(client, run_id):
        warnings.simplefilter("ignore")
        with mlflow.start_run(run_id=run_id, log_system_metrics=False):
            info = mlflow.pytorch.log_model(
                network,
                name="network",
                signature=signature,
                input_example=images[:EXAMPLES],
                registered_model_name=name,
                pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", "numpy"],
                metadata=tags,
            )
    version = str(info.registered_model_version)
    client.update_model_version(name, version, description=_described(winner, tags))
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)
    notes = []
    if abs(accuracy - recorded) > ROUNDING:
        notes.append(
            f"its test accuracy is {accuracy:.4f}, but that of the trial, trained elsewhere, was {recorded:.4f}"
        )
    if not winner.as_tuned:
        notes.append(
            "it was confirmed with other settings than it was tuned with; none was confirmed with the same settings"
        )
    return Registered(name, version, True, history.key, "; ".join(notes))


def _layers(experiment: Experiment, task: Task, params: Tensors, lane: int) -> list[torch.nn.Module]:
    """One lane's network on images from 0 to 1, pixels in their own order."""
    model, layers = experiment.model, list[torch.nn.Module]()
    assert isinstance(model, Portable)
    params = {key: value[lane : lane + 1].cpu() for key, value in params.items()}  # [1, ...]
    if not experiment.dataset.scale.keeps_zero:
        layers.append(_Scaled(experiment.dataset.scale.to("cpu")))
    if task.pixel_order is not None:
        order = task.pixel_order[lane : lane + 1].cpu()
        if isinstance(model, Selective):  # W x[p] = W[:, argsort(p)] x
            params = model.take_features(params, order.argsort(dim=1))
        else:
            layers.append(_Moved(order[0]))
    return [*layers, *model.layers(params, 0)]


def _class_of(outputs: torch.Tensor, output: int) -> int:
    """The class that has this output, or -1."""
    return next(iter((outputs == output).nonzero().flatten().tolist()), -1)


class _Scaled(torch.nn.Module):
    """Images from 0 to 1 as the network was trained on them."""

    shift: torch.Tensor
    factor: torch.Tensor

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.register_buffer("shift", torch.as_tensor(scale.shift, dtype=torch.float32))
        self.register_buffer("factor", torch.as_tensor(scale.factor, dtype=torch.float32))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [image, pixel] by the scale of `training/pixels`."""
        return (images * LARGEST_BYTE - self.shift) * self.factor


class _Moved(torch.nn.Module):
    """Moves pixels: feature j of its output is pixel `order[j]`."""

    order: torch.Tensor

    def __init__(self, order: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [image, pixel] with their pixels moved."""
        return images[:, self.order]


class _Checked(torch.nn.Module):
    """Layers that refuse other input than grey values from 0 to 1."""

    def __init__(self, layers: torch.nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The layers' output for images [image, pixel].

        Raises AssertionError if a value is outside 0 to 1, as those of bytes are.
        """
        torch._assert(((images >= 0) & (images <= 1)).all(), INPUT)
        output: torch.Tensor = self.layers(images)
        return output


def _portable(layers: torch.nn.Sequential) -> torch.nn.Module:
    """The layers with their check, as a module that torch alone can load.

    A traced module is stored as its own source text.
    """
    return torch.fx.symbolic_trace(_Checked(layers)).eval()


def _predicted(network: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """The most probable output for each image, [image].

    `images` is [image, pixel], float32 from 0 to 1.
    """
    with torch.no_grad():
        output: torch.Tensor = network(torch.from_numpy(images))
    return np.asarray(output.argmax(dim=1))


@contextmanager
def _ended_as_before(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Restores a run's end time and status after its block.

    The end time says how long the trial took.
    """
    before = client.get_run(run_id).info
    try:
        yield
    finally:
        if before.end_time is not None:
            client.set_terminated(run_id, before.status, end_time=before.end_time)


def _described(winner: Winner, tags: Mapping[str, str]) -> str:
    return (
        f"**{winner.history.name}**, confirmed in `{winner.folder.plan.name}` on {tags['data']}: the network of seed "
        f"{tags['seed']} after the last task, `{tags['task']}`, of whose test images it classifies "
        f"{float(tags['accuracy_test']):.2%} correctly. Input: images as rows of grey values from 0 to 1, float32; others are "
        f"refused. Output: the probability of the classes {tags['classes']}."
    )


@contextmanager
def _tracking(uri: str) -> Iterator[None]:
    """Makes MLflow's global functions use this store, without messages."""
    before, log = mlflow.get_tracking_uri(), logging.getLogger("mlflow")
    mlflow.set_tracking_uri(redaction.completed(uri))
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
        log.setLevel(level)
