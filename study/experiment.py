"""Builds an experiment out of a configuration: the only place."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from study import parts, provenance
from study.config import TrialConfig
from study.contracts import (
    Counted,
    Dataset,
    Experiment,
    Intervention,
    Model,
    Operation,
    Probes,
    Rule,
    TaskAware,
    TaskSequence,
)
from study.errors import StudyError
from study.lanes import stackable, stacked
from study.parts import SECTIONS
from study.pixels import scale_of

FLOAT_BYTES = 4
INDEX_BYTES = 8
ACCURACY_BYTES = 16
"""Test and validation accuracy of a lane on a task, each in 64 bits."""


def build(config: TrialConfig, dataset: Dataset) -> Experiment:
    """The experiment of a trial, on its device, see `build_stack`."""
    return build_stack([config], dataset)


def build_stack(configs: Sequence[TrialConfig], dataset: Dataset) -> Experiment:
    """The experiment of several trials, on its device.

    It has the lanes of one trial after those of the other. The settings of each part are validated here, once; nothing below
    validates them again.

    Args:
        configs: complete or not; several must go into one stack, see `stacks`.
        dataset: the one that the configurations name, on the CPU, see `load_dataset`.

    Raises:
        StudyError: a part, a setting or a value is invalid, see `study.parts.settings`; the data set has fewer tasks or images
            than the configuration asks for; this machine does not have the device or the memory.
    """
    return _built(configs, dataset, device_of(configs[0]), trained_here=True)


def stacks(configs: Mapping[str, TrialConfig]) -> list[list[str]]:
    """The keys of trials that go into one stack.

    A list for each stack. Its trials have the same `study.config.TrialConfig.stack_shape`, and their optimizers and interventions
    compute the same way: two settings of SAM, but not one with momentum and one without.

    Raises:
        StudyError: see `build`.
    """
    found: list[tuple[str, list[Any], list[str]]] = []
    for key, config in configs.items():
        shape, acting = config.stack_shape, [*_acting(config, "cpu")]
        for other_shape, others, keys in found:
            if shape == other_shape and all(stackable(pair) for pair in zip(others, acting, strict=True)):
                keys.append(key)
                break
        else:
            found.append((shape, acting, [key]))
    return [keys for _, _, keys in found]


def constants_of(config: TrialConfig) -> dict[str, float]:
    """The constants of a trial's rule, see `study.contracts.Rule`.

    Raises whatever its rule or an intervention raises when it is built.
    """
    rule: Rule
    rule, *_ = _acting(config, "cpu")
    return rule.constants


def _acting(config: TrialConfig, device: str) -> Iterator[Any]:
    """The rule of a trial, then its interventions."""
    module, settings = _chosen(config, "optimizer")
    yield module.build(settings, len(config.seeds), device)
    for name, given in config.interventions.items():
        module, settings = _part("interventions", name, given, f"interventions/{name}/")
        yield module.build(settings, config.seeds, device)


def build_tasks(config: TrialConfig, dataset: Dataset) -> TaskSequence:
    """The task sequence of a trial, without its device.

    Enough to check that the data set has as many tasks and images as the configuration asks for.

    Raises:
        StudyError: see `build`; neither the device nor the network's memory is checked.
    """
    return _built([config], dataset, "cpu", trained_here=False).tasks


def check_acting(config: TrialConfig, dataset: Dataset, tasks: int) -> None:
    """Raises StudyError if rule or interventions do not fit.

    A rule cannot train so many tasks, or an intervention lacks units to reset. A part of one's own that cannot even be built
    fails its trial, not the sweep.

    Args:
        config: complete or not.
        dataset: the one that it names.
        tasks: their number.
    """
    try:
        rule, *interventions = _acting(config, "cpu")
        module, settings = _chosen(config, "model")
        model = module.build(settings, dataset.shape, dataset.class_count)
    except StudyError:
        raise
    except Exception:  # whatever somebody's own code raises
        return
    _check_acting(config, rule, interventions, model, tasks)


def _check_acting(
    config: TrialConfig, rule: Rule, interventions: Iterable[Intervention], model: Model, tasks: int
) -> None:
    """See `check_acting`."""
    if isinstance(rule, TaskAware):
        rule.check_tasks(tasks)
    if beyond := [boundary for boundary in config.probes.boundaries if boundary >= tasks]:
        raise StudyError(
            f"probes/boundaries has {beyond[0]}, but the last of {tasks} tasks is task {tasks - 1}, counted from 0; choose "
            f"boundaries below {tasks}, or more tasks."
        )
    for name, operation in _operations(config):
        try:
            operation.check(model.hidden_layers)
        except StudyError as error:
            raise StudyError(f"operations/{name}: {error}") from None
    for name, intervention in zip(config.interventions, interventions, strict=True):
        if intervention.acts_on_units and not model.hidden_layers:
            raise StudyError(
                f"interventions/{name} resets hidden units, but this {config.model.name!r} declares no hidden layers; leave the "
                f"intervention out, or choose a network with hidden layers."
            )


def _built(configs: Sequence[TrialConfig], dataset: Dataset, device: str, *, trained_here: bool) -> Experiment:
    seeds = tuple(seed for config in configs for seed in config.seeds)
    config = configs[0].model_copy(update={"seeds": seeds})
    tasks_module, tasks_settings = _chosen(config, "tasks")
    model_module, model_settings = _chosen(config, "model")
    acting = zip(
        *(_acting(config, device) for config in configs), strict=True
    )  # the rules, then each kind of intervention
    rule, *interventions = [each[0] if len(each) == 1 else stacked(each) for each in acting]
    in_memory = trained_here and device == "cpu"
    largest = model_module.build(model_settings, dataset.shape, dataset.class_count) if in_memory else None
    _check_memory(config, dataset, tasks_settings, largest)
    tasks = tasks_module.build(tasks_settings, dataset, config.seeds)
    model = model_module.build(model_settings, dataset.shape, tasks.output_count)
    _check_acting(config, rule, interventions, model, tasks.count)
    return Experiment(
        dataset=_scaled(_on_device(dataset, device), config.training.pixels),
        tasks=tasks,
        model=model,
        rule=rule,
        interventions=tuple(interventions),
        seeds=seeds,
        batch_size=config.training.batch_size,
        passes=config.training.passes,
        diagnostics=config.diagnostics,
        device=device,
        probes=_probes(config, device),
    )


def _probes(config: TrialConfig, device: str) -> Probes | None:
    """What is done to copies of the networks; None: nothing."""
    if not config.probes.boundaries:
        return None
    lanes, sgd = len(config.seeds), parts.find("optimizers", "sgd")
    return Probes(
        boundaries=config.probes.boundaries,
        operations=tuple(_operations(config)),
        rules={lr: sgd.build(sgd.Settings(lr=lr), lanes, device) for lr in config.probes.lr},
        layerwise={lr: sgd.layerwise(lr, lanes, device) for lr in config.probes.lr},
    )


def _operations(config: TrialConfig) -> Iterator[tuple[str, Operation]]:
    """The operations of a trial, each with the name of its part."""
    for name, given in config.operations.items():
        module, settings = _part("operations", name, given, f"operations/{name}/")
        yield from ((name, operation) for operation in module.build(settings))


def check_memory(config: TrialConfig, dataset: Dataset) -> None:
    """Raises StudyError if this machine's memory cannot hold a trial.

    Only what is known from sizes counts: weights and gradients, a minibatch, which images each lane trains on, and the accuracies
    of all tasks. Weights and minibatches do not count on a GPU, which has a memory of its own. A trial that passes may still be
    too large.

    Args:
        config: complete or not.
        dataset: the one that it names.
    """
    module, settings = _chosen(config, "model")
    on_gpu = config.training.device != "cpu" and torch.cuda.is_available()
    model = None if on_gpu else module.build(settings, dataset.shape, dataset.class_count)
    _check_memory(config, dataset, _chosen(config, "tasks")[1], model)


def _check_memory(config: TrialConfig, dataset: Dataset, tasks: Any, model: Model | None) -> None:
    """See `check_memory`; `model` is None if its weights are elsewhere."""
    images, features = dataset.train_images.shape
    lane = INDEX_BYTES * images + ACCURACY_BYTES * (getattr(tasks, "count", None) or 0)
    if model is not None:
        weights = model.parameter_count if isinstance(model, Counted) else 0
        lane += FLOAT_BYTES * (2 * weights + features * min(config.training.batch_size, images))
    needed, memory = lane * len(config.seeds), provenance.memory_bytes()
    if needed > memory:
        raise StudyError(
            f"A trial of this size needs at least {needed / 2**30:,.1f} GiB of memory, and this machine has "
            f"{memory / 2**30:,.1f}; choose fewer seeds, smaller widths or fewer tasks."
        )


def load_dataset(config: TrialConfig, data_dir: Path) -> Dataset:
    """The data set of a trial, on the CPU.

    Loaded once per process.

    Raises:
        StudyError: no data set has that name, or it is not in `data_dir` and cannot be downloaded into it.
    """
    return _load(config.data.name, _chosen(config, "data")[1], data_dir)


@functools.cache
def _load(name: str, settings: Any, data_dir: Path) -> Dataset:
    dataset: Dataset = parts.find("data", name).build(settings, data_dir)
    return dataset


@functools.lru_cache(maxsize=4)
def _on_device(dataset: Dataset, device: str) -> Dataset:
    """The data set on a device, moved once per process."""
    return dataset if device == "cpu" else dataset.to(device)


@functools.lru_cache(maxsize=4)
def _scaled(dataset: Dataset, pixels: str) -> Dataset:
    """The data set with a scale, measured once per process."""
    return replace(dataset, scale=scale_of(pixels, dataset.train_images, dataset.shape[0]))


def _chosen(config: TrialConfig, section: str) -> tuple[ModuleType, Any]:
    """Module and settings of the part that a section chooses."""
    choice = getattr(config, section)
    return _part(SECTIONS[section], choice.name, choice.settings, f"{section}/")


def _part(kind: str, name: str, given: Mapping[str, Any], prefix: str) -> tuple[ModuleType, Any]:
    return parts.find(kind, name), parts.settings(kind, name, given, prefix)


def device_of(config: TrialConfig) -> str:
    """The device of a trial here, "cpu" or "cuda".

    Raises:
        StudyError: it asks for a GPU and torch sees none; or torch multiplies in TF32, which has 10 bits of mantissa.
    """
    asked = config.training.device
    if asked == "cuda" and not torch.cuda.is_available():
        raise StudyError("training/device=cuda, but torch sees no CUDA GPU here; use training/device=cpu or auto.")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked
    if device == "cuda" and torch.get_float32_matmul_precision() != "highest":
        raise StudyError(
            "torch is set to round float32 products on the GPU to TF32, so results would not be in float32; "
            "unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE and do not call torch.set_float32_matmul_precision."
        )
    return device
