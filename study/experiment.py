"""From a configuration to the parts put together: the only place that does so."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from study import parts
from study.config import TrialConfig
from study.contracts import Dataset, Experiment, TaskSequence
from study.errors import StudyError
from study.parts import SECTIONS


def build(config: TrialConfig, dataset: Dataset) -> Experiment:
    """The parts of a trial, on its device.

    Args:
        config: complete or not.
        dataset: the one that it names, on the CPU, see `load_dataset`.

    Raises:
        StudyError: the configuration cannot be trained, see `complete`; there are fewer tasks or images than asked for; there
            is no such device.
    """
    device = device_of(config)
    tasks_module, tasks_settings = _chosen(config, "tasks")
    model_module, model_settings = _chosen(config, "model")
    rule_module, rule_settings = _chosen(config, "optimizer")
    interventions = [
        _part("interventions", name, given, f"interventions/{name}/") for name, given in config.interventions.items()
    ]
    tasks = tasks_module.build(tasks_settings, dataset, config.seeds)
    return Experiment(
        dataset=_on_device(dataset, device),
        tasks=tasks,
        model=model_module.build(model_settings, dataset.train_images.shape[1], tasks.output_count),
        rule=rule_module.build(rule_settings, len(config.seeds), device),
        interventions=tuple(module.build(given, config.seeds, device) for module, given in interventions),
        seeds=config.seeds,
        batch_size=config.training.batch_size,
        passes=config.training.passes,
        diagnostics=config.diagnostics,
        device=device,
    )


def build_tasks(config: TrialConfig, dataset: Dataset) -> TaskSequence:
    """The task sequence of a trial alone: enough to see whether there is so much data.

    Raises:
        StudyError: see `build`; the device is not looked at.
    """
    on_cpu = config.model_copy(update={"training": config.training.model_copy(update={"device": "cpu"})})
    return build(on_cpu, dataset).tasks


def load_dataset(config: TrialConfig, data_dir: Path) -> Dataset:
    """The data set of a trial, on the CPU, loaded once per process.

    Raises:
        StudyError: there is none of that name, or it is not in `data_dir` and cannot be downloaded into it.
    """
    return _load(config.data.name, _chosen(config, "data")[1], data_dir)


@functools.cache
def _load(name: str, settings: Any, data_dir: Path) -> Dataset:
    dataset: Dataset = parts.find("data", name).build(settings, data_dir)
    return dataset


@functools.lru_cache(maxsize=4)
def _on_device(dataset: Dataset, device: str) -> Dataset:
    """The data set on the device, moved once per process."""
    return dataset if device == "cpu" else dataset.to(device)


def _chosen(config: TrialConfig, section: str) -> tuple[ModuleType, Any]:
    """The part that a section of the configuration chooses, and its settings."""
    choice = getattr(config, section)
    return _part(SECTIONS[section], choice.name, choice.settings, f"{section}/")


def _part(kind: str, name: str, given: Mapping[str, Any], prefix: str) -> tuple[ModuleType, Any]:
    return parts.find(kind, name), parts.settings(kind, name, given, prefix)


def device_of(config: TrialConfig) -> str:
    """The device that a configuration trains on here.

    Raises:
        StudyError: it asks for a GPU and there is none, or torch is told to multiply in TF32, with 10 bits of mantissa.
    """
    asked = config.training.device
    if asked == "cuda" and not torch.cuda.is_available():
        raise StudyError("training/device=cuda, but torch sees no CUDA GPU here; use training/device=cpu or auto.")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked
    if device == "cuda" and torch.get_float32_matmul_precision() != "highest":
        raise StudyError(
            "torch is told to round float32 products to TF32 on the GPU, and numbers would say float32 that are not; "
            "unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE and call no torch.set_float32_matmul_precision."
        )
    return device
