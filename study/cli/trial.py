"""`study trial`: one configuration in this process, without Ray."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import parts
from study.cli import terminal
from study.config import Flat, TrialConfig, nested, read_yaml, settings_words
from study.errors import StudyError
from study.parts import outside
from study.provenance import software, software_changes

if TYPE_CHECKING:  # slow to import
    from study.contracts import Experiment


def read_trial(path: Path, overrides: Flat) -> tuple[TrialConfig, Mapping[str, Any]]:
    """The complete configuration of a trial file, and its provenance.

    Raises StudyError if the file is not a configuration.
    """
    plain = read_yaml(path)
    if not isinstance(plain, Mapping):
        raise StudyError(f"{str(path)!r} is not a trial: it must be a mapping with keys like 'optimizer' and 'tasks'.")
    provenance = plain.get("provenance") or {}
    if not isinstance(provenance, Mapping):
        raise StudyError(f"{str(path)!r}: provenance must be a mapping, not {provenance!r}.")
    settings = {key: value for key, value in plain.items() if key != "provenance"}
    return complete(settings, path.parent, overrides, repr(str(path))), provenance


def complete(settings: Mapping[str, Any], folder: Path, overrides: Flat, source: str) -> TrialConfig:
    """The complete configuration that some settings make.

    Args:
        settings: nested plain data, with the seeds.
        folder: that the paths of parts start from.
        overrides: of the settings, by slash name.
        source: what errors begin with.

    Raises StudyError if it is no configuration.
    """
    given = TrialConfig.from_plain(settings, source)
    flat = {**outside.adopted(given.flat(), folder), **overrides}
    return parts.complete(TrialConfig.from_plain({**nested(flat), "seeds": list(given.seeds)}, source))


def lines(experiment: Experiment, threads: int) -> Iterator[dict[str, Any]]:
    """Trains; returns a line of a record per task.

    Uses that many threads until it ends.
    """
    import torch

    from study.training import task_log, trainer

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for result in trainer.train(experiment):
            yield task_log.task_line(result, experiment.tasks.count)
    finally:
        torch.set_num_threads(before)


def rows(line: Mapping[str, Any], seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A row for each seed of a line, diagnostics included."""
    columns = {**line["lanes"], **line.get("diagnostics", {})}
    for lane, seed in enumerate(seeds):
        yield {
            "task": line["task"],
            "name": line["name"],
            "seed": seed,
            **{name: values[lane] for name, values in columns.items()},
        }


def run(path: Path, overrides: Flat, threads: int | None, data_dir: Path, as_json: bool) -> int:
    """Runs the trial of a file and prints each task.

    Args:
        path: of the file.
        overrides: of its settings, by slash name.
        threads: to train with; None: as many as its provenance says, or 1.
        data_dir: folder of downloaded data sets.
        as_json: whether to print a line of JSON for each task.
    """
    config, provenance = read_trial(path, overrides)
    recorded = provenance.get("threads")
    if not isinstance(recorded, int) or not 1 <= recorded <= (os.cpu_count() or 1):
        recorded = 1
    threads = threads or recorded
    from study.experiment import build, load_dataset

    experiment = build(config, load_dataset(config, data_dir))
    here = {
        "data_fingerprint": experiment.dataset.fingerprint,
        "device": experiment.device,
        "threads": threads,
    }
    _warn_of_differences(provenance, here)
    flat, labels = config.flat(), parts.labels(config)
    name = f"{config.optimizer.name} {settings_words({name: flat[name] for name in labels}, labels)}"
    if not as_json:
        terminal.console.print(
            f"{name} on {config.tasks.name}, {config.data.name}: {experiment.tasks.count} tasks, seeds {list(config.seeds)}, "
            f"{experiment.device}, {threads} threads",
            markup=False,
            soft_wrap=True,
        )
    line: dict[str, Any] = {}
    for line in lines(experiment, threads):
        if as_json:
            print(json.dumps(line), flush=True)
            continue
        lanes = " ".join(f"{value:.4f}" for value in line["lanes"]["accuracy/test"])
        terminal.console.print(
            f"task {line['task']:3d}  {line['name']:15s}  test accuracy {line['metrics']['accuracy/test']:.4f}  by seed {lanes}",
            soft_wrap=True,
        )
    if not as_json:
        summary = [(quantity, f"{value:.6g}") for quantity, value in line["summary"].items()]
        terminal.show_table("Over all tasks", ["quantity", "value"], summary, numeric=1)
    return 0


def _warn_of_differences(provenance: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Prints a note on each difference that may change numbers."""
    for what, value in here.items():
        if provenance.get(what) not in (None, value):
            terminal.complain(f"note: {what} is {value} here and was {provenance[what]}; the numbers may differ.")
    if isinstance(provenance.get("versions"), Mapping):
        changes = software_changes([provenance, software()])
        if changes:
            terminal.complain(f"note: the software is not the recorded one: {changes}; the numbers may differ.")
