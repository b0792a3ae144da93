"""A pack of trials in a worker process.

A dict comes in; reports (`tune.report`) and checkpoints go out. A report is one JSON text, since Tune would flatten a dict. It
has some of these entries:

    trials     what there is to say of some trials, by key, each with some of these:
        line       the result of a task, with `facts`: where and with what it was trained
        note       something that a reader of the numbers should know
        failure    the exception that ends the trial, with its traceback, and `facts`: its host and software
    refusal    why no trial may be trained here: the source is not the driver's
    unsaved    why a checkpoint could not be written

A checkpoint has the states of all trials of the pack, see `checkpoint_within`.
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

from study import parts, provenance
from study.config import TrialConfig
from study.errors import StudyError, with_type
from study.fingerprint import fingerprint_of
from study.parts import outside
from study.redaction import redacted
from study.sweep import storage

if TYPE_CHECKING:  # slow to import, and the driver imports this module too
    from study.cluster.shared_data import SharedDataset
    from study.training.trainer import State

CHECKPOINT_SECONDS = 5.0
"""Least time between two checkpoints of a trial. There is always one after the last task."""


def run_pack(assignment: Mapping[str, Any], datasets: Mapping[str, SharedDataset]) -> None:
    """Trains some trials together and reports after each task.

    Args:
        assignment: `trials`, a list of dicts, see below; `threads`, the number that this worker may use; `dataset`, the key of
            their data set; `source`, the `fingerprint` and `folder` of the driver's source, which this process must run too;
            `files`, parts from outside by name, see `study.parts.outside.PartFile`; `installed`, fingerprints of packages that
            bring other parts, by the part's name; `rungs`, numbers of tasks after which there must be a checkpoint, since a
            trial may be stopped then. Each trial has its `key`; `config`, a complete configuration with its seeds as nested
            plain data; `checkpoints`, places to continue from, the newest first; `done`, the number of tasks recorded (later
            checkpoints are ignored).
        datasets: by key.
    """
    keys = [trial["key"] for trial in assignment["trials"]]
    try:
        failure = _train(assignment, datasets)
    except OtherSourceError as error:
        _report(refusal=str(error))
    except Exception as error:
        _report(trials={key: _failure(error) for key in keys})
        raise  # ends this process too, since the error may have left it in an undefined state
    else:
        if failure is not None:
            raise failure  # so here


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


def _check_installed(expected: Mapping[str, str], config: TrialConfig) -> None:
    """Raises OtherSourceError if a package that brings parts differs."""
    here = parts.installed(config) if expected else {}
    for name, fingerprint in expected.items():
        found = here.get(name, "not installed")
        if found != fingerprint:
            raise OtherSourceError(
                f"the part {name!r} on {provenance.host()} ({found}) is not the driver's ({fingerprint}); install the same "
                f"package on all machines"
            )


def checkpoint_within(place: str, key: str, trials: int) -> str:
    """The place of a trial's state in a pack's checkpoint.

    Args:
        place: of the checkpoint.
        key: of the trial.
        trials: number of trials in the pack; a trial alone has no folder of its own.
    """
    return place if trials == 1 else storage.within(place, key)


def _train(assignment: Mapping[str, Any], datasets: Mapping[str, SharedDataset]) -> Exception | None:
    """Trains the trials; returns the last error that ended one of them."""
    _check_source(assignment["source"], provenance.source_fingerprint())
    outside.register({name: outside.PartFile(**file) for name, file in assignment["files"].items()})
    before = set(sys.modules)
    import torch

    from study.cluster import shared_data
    from study.experiment import device_of
    from study.training import checkpoint, task_log
    from study.training.pack import Pack

    torch.set_num_threads(assignment["threads"])
    dataset = shared_data.receive(datasets[assignment["dataset"]])
    configs = {trial["key"]: TrialConfig.from_plain(trial["config"]) for trial in assignment["trials"]}
    first = next(iter(configs.values()))
    _check_installed(assignment["installed"], first)
    device = device_of(first)
    facts, failure = _facts(assignment, configs, provenance.training_facts(device, dataset.fingerprint))
    identities = {key: checkpoint.identity(configs[key], dataset.fingerprint) for key in facts}
    starts = {
        trial["key"]: state
        for trial in assignment["trials"]
        if trial["key"] in facts and (state := _last_sound_state(trial, identities[trial["key"]], device)) is not None
    }
    configs = {key: configs[key] for key in facts}
    pack = Pack(configs, dataset, starts)

    saved_at = time.monotonic()
    for outcomes in pack.train():
        if any(
            name.startswith("study.") for name in set(sys.modules) - before
        ):  # read just now: perhaps edited meanwhile
            _check_source(assignment["source"], fingerprint_of(provenance.source_folder()))
            before = set(sys.modules)
        told: dict[str, Any] = {}
        due = time.monotonic() - saved_at >= CHECKPOINT_SECONDS
        for key, outcome in outcomes.items():
            if isinstance(outcome, Exception):
                failure, told[key] = outcome, _failure(outcome)
                continue
            trained = outcome.task + 1
            told[key] = {"line": task_log.task_line(outcome, pack.task_count(key)), "facts": facts[key]}
            due = due or trained == pack.task_count(key) or trained in assignment["rungs"]
        if not due or len(pack.states) < len(configs):  # some wait for their first turn
            _report(trials=told)
            continue
        with tempfile.TemporaryDirectory() as draft:
            for key, state in pack.states.items():
                folder = Path(checkpoint_within(draft, key, len(assignment["trials"])))
                folder.mkdir(exist_ok=True)
                checkpoint.save(folder / checkpoint.FILE, state, identities[key])
            _report(folder=draft, trials=told)
        saved_at = time.monotonic()
    return failure


def _facts(
    assignment: Mapping[str, Any], configs: Mapping[str, TrialConfig], common: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], Exception | None]:
    """The facts of each trial that can be built; the last error.

    Reports those that cannot, because a part of their own raises.
    """
    from study.experiment import constants_of

    found: dict[str, dict[str, Any]] = {}
    failure = None
    installed = {"parts": dict(assignment["installed"])} if assignment["installed"] else {}
    for key, config in configs.items():
        try:
            found[key] = {**common, **installed, "rule": constants_of(config)}
        except Exception as error:
            failure = error
            _report(trials={key: _failure(error)})
    return found, failure


def _failure(error: Exception) -> dict[str, Any]:
    """What a report says of a trial that an error ended."""
    lines = "".join(traceback.format_exception(error))
    facts = {"host": provenance.host(), "rule": {}, **provenance.software()}
    return {"failure": {"reason": with_type(error), "traceback": redacted(lines)}, "facts": facts}


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


def _last_sound_state(trial: Mapping[str, Any], identity: str, device: str) -> State | None:
    """The state of the newest usable checkpoint, or None.

    Reports a note on each checkpoint that cannot be used.

    Args:
        trial: see `run_pack`.
        identity: see `study.training.checkpoint.identity`.
        device: of the state.
    """
    from study.training import checkpoint

    faults = []
    state = None
    for place in trial["checkpoints"]:
        source = storage.within(place, checkpoint.FILE)
        try:
            saved = checkpoint.load(storage.read(place, checkpoint.FILE), identity, device, source)
        except FileNotFoundError:
            faults.append(f"There is no checkpoint {source!r}")
            continue
        except StudyError as error:
            faults.append(str(error).rstrip("."))
            continue
        if saved.next_task <= trial["done"]:
            state = saved
            break
    if faults:
        since = f"continues after its first {state.next_task} tasks" if state else "starts again at its first task"
        _report(trials={trial["key"]: {"note": f"{'; '.join(faults)}; it {since}"}})
    return state
