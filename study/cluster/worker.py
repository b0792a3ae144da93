"""Ray's side of a trial: a dict comes in, `tune.report` and checkpoints go out. Runs in a worker process.

A report is one JSON text, since Tune would flatten a dict, '/' in names or not. It has some of these:

    line       a task's measures, with `facts`, where and with what they were made
    note       something that a reader of the numbers should know
    failure    the exception that ends the trial, with its traceback
    unsaved    why a checkpoint could not be written
"""

from __future__ import annotations

import json
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import StudyError, with_type

if TYPE_CHECKING:  # all of them take seconds to import, and the driver imports this module too
    from study.cluster.shared_data import SharedDataset
    from study.training.trainer import State

from study.sweep import storage

CHECKPOINT_SECONDS = 5.0
"""Least time between two checkpoints of a trial; the last task always leaves one."""


def run_trial(assignment: Mapping[str, Any], datasets: Mapping[str, SharedDataset]) -> None:
    """Trains one trial and reports after each task.

    Args:
        assignment: `config`, a complete configuration with its seeds as nested plain data; `threads`, how many this
            worker may use; `dataset`, key of its data set; `checkpoints`, places to go on from, the newest first; `done`, how
            many tasks are recorded: no checkpoint beyond them is gone on from.
        datasets: by key.
    """
    try:
        _train(assignment, datasets)
    except Exception as error:
        _report(failure={"reason": with_type(error), "traceback": traceback.format_exc()})
        raise  # ends this process too: what it was in the middle of may have left it unsound


def _train(assignment: Mapping[str, Any], datasets: Mapping[str, SharedDataset]) -> None:
    import torch

    from study import provenance
    from study.cluster import shared_data
    from study.config import TrialConfig
    from study.experiment import build
    from study.training import checkpoint, task_log, trainer

    torch.set_num_threads(assignment["threads"])
    config = TrialConfig.from_plain(assignment["config"])
    experiment = build(config, shared_data.receive(datasets[assignment["dataset"]]))
    identity = checkpoint.identity(config, experiment.dataset.fingerprint)
    facts = provenance.training_facts(experiment.device, experiment.dataset.fingerprint) | {
        "rule": experiment.rule.constants
    }
    start = _last_sound_state(assignment["checkpoints"], assignment["done"], identity, experiment.device)

    saved_at = time.monotonic()
    for result in trainer.train(experiment, start):
        line = task_log.task_line(result, experiment.tasks.count)
        last = result.task + 1 == experiment.tasks.count
        if not last and time.monotonic() - saved_at < CHECKPOINT_SECONDS:
            _report(line=line, facts=facts)
            continue
        with tempfile.TemporaryDirectory() as draft:
            checkpoint.save(Path(draft) / checkpoint.FILE, result.state, identity)
            _report(folder=draft, line=line, facts=facts)
        saved_at = time.monotonic()


def _report(folder: str | None = None, **content: Any) -> None:
    """Reports to the driver, with the files of a folder as a checkpoint; without it when they cannot be stored."""
    from ray import tune

    if folder is None:
        tune.report({"report": json.dumps(content)})
        return
    try:
        tune.report({"report": json.dumps(content)}, checkpoint=tune.Checkpoint.from_directory(folder))
    except Exception as error:  # Tune raises more than OSError when its storage does not work
        tune.report({"report": json.dumps({**content, "unsaved": with_type(error)})})


def _last_sound_state(places: list[str], done: int, identity: str, device: str) -> State | None:
    """The state of the newest checkpoint that can be used, None when there is none; says which ones cannot be."""
    from study.training import checkpoint

    faults = []
    state = None
    for place in places:
        source = storage.within(place, checkpoint.FILE)
        try:
            saved = checkpoint.load(storage.read(place, checkpoint.FILE), identity, device, source)
        except FileNotFoundError:
            faults.append(f"There is no checkpoint {source!r}")
            continue
        except StudyError as error:
            faults.append(str(error).rstrip("."))
            continue
        if saved.next_task <= done:
            state = saved
            break
    if faults:
        since = f"goes on after its first {state.next_task} tasks" if state else "starts again at its first task"
        _report(note=f"{'; '.join(faults)}; it {since}")
    return state
