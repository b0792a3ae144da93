"""A trial in a worker process.

A dict comes in; reports (`tune.report`) and checkpoints go out. A report is one JSON text, since Tune would flatten a dict. It
has some of these entries:

    line       the result of a task, with `facts`: where and with what it was trained
    note       something that a reader of the numbers should know
    refusal    why no trial may be trained here: the source is not the driver's
    failure    the exception that ends the trial, with its traceback, and `facts`: its host and software
    unsaved    why a checkpoint could not be written
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import provenance
from study.errors import StudyError, with_type
from study.redaction import redacted
from study.sweep import storage

if TYPE_CHECKING:  # slow to import, and the driver imports this module too
    from study.cluster.shared_data import SharedDataset
    from study.training.trainer import State

CHECKPOINT_SECONDS = 5.0
"""Least time between two checkpoints of a trial. There is always one after the last task."""


def run_trial(assignment: Mapping[str, Any], datasets: Mapping[str, SharedDataset]) -> None:
    """Trains one trial and reports after each task.

    Args:
        assignment: `config`, a complete configuration with its seeds as nested plain data; `threads`, the number that this
            worker may use; `dataset`, the key of its data set; `checkpoints`, places to continue from, the newest first;
            `done`, the number of tasks recorded (later checkpoints are ignored); `source`, the `fingerprint` and `folder` of the
            driver's source, which this process must run too.
        datasets: by key.
    """
    try:
        _train(assignment, datasets)
    except OtherSourceError as error:
        _report(refusal=str(error))
    except Exception as error:
        facts = {"host": provenance.host(), "rule": {}, **provenance.software()}
        _report(failure={"reason": with_type(error), "traceback": redacted(traceback.format_exc())}, facts=facts)
        raise  # ends this process too, since the error may have left it in an undefined state


class OtherSourceError(StudyError):
    """This process runs other code than the driver."""


def _check_source(expected: Mapping[str, str], fingerprint: str) -> None:
    """Raises OtherSourceError if a fingerprint is not the driver's."""
    if fingerprint == expected["fingerprint"]:
        return
    folder = str(provenance.source_folder())
    if folder == expected["folder"]:
        raise OtherSourceError(
            f"the code in {folder} has changed since the sweep was started (fingerprint {expected['fingerprint']}, now "
            f"{fingerprint})"
        )
    raise OtherSourceError(
        f"a worker on {provenance.host()} runs the code in {folder} (fingerprint {fingerprint}), not that in "
        f"{expected['folder']} (fingerprint {expected['fingerprint']})"
    )


def _train(assignment: Mapping[str, Any], datasets: Mapping[str, SharedDataset]) -> None:
    _check_source(assignment["source"], provenance.source_fingerprint())
    before = set(sys.modules)
    import torch

    from study.cluster import shared_data
    from study.config import TrialConfig
    from study.experiment import build
    from study.training import checkpoint, task_log, trainer

    torch.set_num_threads(assignment["threads"])
    config = TrialConfig.from_plain(assignment["config"])
    experiment = build(config, shared_data.receive(datasets[assignment["dataset"]]))
    if any(name.startswith("study.") for name in set(sys.modules) - before):  # read just now: perhaps edited meanwhile
        _check_source(assignment["source"], provenance.fingerprint_of(provenance.source_folder()))
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
    """Reports to the driver.

    The files of `folder` go along as a checkpoint. If they cannot be stored, the report says why in `unsaved`.
    """
    from ray import tune

    if folder is None:
        tune.report({"report": json.dumps(content)})
        return
    try:
        tune.report({"report": json.dumps(content)}, checkpoint=tune.Checkpoint.from_directory(folder))
    except Exception as error:  # Tune raises more than OSError when its storage does not work
        tune.report({"report": json.dumps({**content, "unsaved": with_type(error)})})


def _last_sound_state(places: list[str], done: int, identity: str, device: str) -> State | None:
    """The state of the newest usable checkpoint, or None.

    Reports a note on each checkpoint that cannot be used.

    Args:
        places: of the checkpoints, the newest first.
        done: number of tasks recorded; later checkpoints are ignored.
        identity: see `study.training.checkpoint.identity`.
        device: of the state.
    """
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
        since = f"continues after its first {state.next_task} tasks" if state else "starts again at its first task"
        _report(note=f"{'; '.join(faults)}; it {since}")
    return state
