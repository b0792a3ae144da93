"""From a configuration to the parts put together: the only place that does so."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from study import parts
from study.config import StudyError, TrialConfig
from study.contracts import Dataset, TaskSequence
from study.trainer import Experiment

SECTIONS = {"data": "data", "tasks": "tasks", "model": "models", "optimizer": "optimizers"}
"""Which kind of part each section of a configuration chooses."""


def complete(config: TrialConfig) -> TrialConfig:
    """The same configuration with every default of every part written out, so that it says all that decides a result.

    Raises:
        StudyError: a part or a setting is unknown, or a value is out of range.
    """
    plain: dict[str, Any] = config.plain()
    for section, kind in SECTIONS.items():
        choice = getattr(config, section)
        settings = parts.settings(kind, choice.name, choice.settings, f"{section}/")
        plain[section] = {"name": choice.name} | settings.plain()
    for name, given in config.interventions.items():
        plain["interventions"][name] = parts.settings("interventions", name, given, f"interventions/{name}/").plain()
    return TrialConfig.from_plain(plain)


def build(config: TrialConfig, data_dir: Path) -> Experiment:
    """The parts of a trial, on its device.

    Args:
        config: complete or not.
        data_dir: folder of downloaded data sets.

    Raises:
        StudyError: the configuration cannot be trained, see `complete`; the data set is not to be had; there are fewer
            tasks or images than asked for; there is no such device.
    """
    device = device_of(config)
    settings = {
        section: parts.settings(kind, getattr(config, section).name, getattr(config, section).settings, f"{section}/")
        for section, kind in SECTIONS.items()
    }
    modules = {section: parts.find(kind, getattr(config, section).name) for section, kind in SECTIONS.items()}
    interventions = [
        (parts.find("interventions", name), parts.settings("interventions", name, given, f"interventions/{name}/"))
        for name, given in config.interventions.items()
    ]
    dataset = load_dataset(config.data.name, settings["data"], data_dir, "cpu")
    tasks = modules["tasks"].build(settings["tasks"], dataset, config.seeds)
    return Experiment(
        dataset=load_dataset(config.data.name, settings["data"], data_dir, device),
        tasks=tasks,
        model=modules["model"].build(settings["model"], dataset.train_images.shape[1], tasks.output_count),
        rule=modules["optimizer"].build(settings["optimizer"], len(config.seeds), device),
        interventions=tuple(module.build(given, config.seeds, device) for module, given in interventions),
        seeds=config.seeds,
        batch_size=config.training.batch_size,
        passes=config.training.passes,
        device=device,
    )


def build_tasks(config: TrialConfig, data_dir: Path) -> TaskSequence:
    """The task sequence of a trial alone, on the CPU: enough to see whether there is such data and so much of it.

    Raises:
        StudyError: see `build`; the device is not looked at.
    """
    return build(
        config.model_copy(update={"training": config.training.model_copy(update={"device": "cpu"})}), data_dir
    ).tasks


def device_of(config: TrialConfig) -> str:
    """The device that a configuration trains on here. Raises StudyError when it asks for a GPU and there is none."""
    asked = config.training.device
    if asked == "cuda" and not torch.cuda.is_available():
        raise StudyError("training/device=cuda, but torch sees no CUDA GPU here; use training/device=cpu or auto.")
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked


@functools.cache
def load_dataset(name: str, settings: Any, data_dir: Path, device: str) -> Dataset:
    """A data set on a device, loaded once per process."""
    if device != "cpu":
        return load_dataset(name, settings, data_dir, "cpu").to(device)
    dataset: Dataset = parts.find("data", name).build(settings, data_dir)
    return dataset
