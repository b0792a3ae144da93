"""Runs the trials of a sweep with Ray Tune.

Import it only within `study.cluster.connection.connected`.

One Tuner runs all trials of a launch or resume. Ray schedules workers and moves checkpoints; the conductor decides what is
tried and records it. A resume is a new Tuner with a new conductor, built from the records; nothing that Ray pickles is ever
read. Each attempt at a trial is a separate trial for Tune: after the death of a worker, as after a resume, the conductor
proposes the same trial again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ray import tune
from ray.tune import Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study import parts, provenance
from study.cluster.shared_data import SharedDataset
from study.cluster.worker import OtherSourceError, checkpoint_within, run_pack
from study.config import TrialConfig
from study.contracts import Dataset
from study.parts import outside
from study.sweep import storage
from study.sweep.conductor import Conductor, Watcher
from study.sweep.datasets import data_key
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.sweep.record import TrialHistory

WITHOUT_END = -1
"""Tune's number of trials. The conductor knows when there is nothing left to try."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome:
    """How a launch ended.

    Attributes:
        histories: all trials of the sweep.
        interrupted: whether trials are left to do.
        fault: why the sweep had to stop, such as a full disk; "" if it did not.
    """

    histories: list[TrialHistory]
    interrupted: bool
    fault: str = ""

    @property
    def failed(self) -> list[TrialHistory]:
        """The trials that failed."""
        return [history for history in self.histories if history.outcome == "failed"]


def launch(
    folder: SweepFolder,
    session: str,
    execution: Execution,
    datasets: Mapping[str, Dataset],
    stop_requested: Callable[[], bool],
    watchers: tuple[Watcher, ...] = (),
) -> Outcome:
    """Runs all trials of the sweep that are not done.

    Args:
        folder: of the sweep.
        session: a name for Ray's files that no earlier launch has used.
        execution: with GPUs and workers chosen.
        datasets: all data sets of the trials, by `study.sweep.datasets.data_key`; Ray's object store sends each of them once.
        stop_requested: whether to stop all trials; asked again and again.
        watchers: observers of the sweep.
    """
    conductor = Conductor(folder, watchers)
    ending = _Ending(stop_requested)
    if conductor.remaining:
        _fit(conductor, folder.checkpoint_place(execution), session, execution, datasets, ending)
    done = conductor.histories
    failed = sum(1 for history in done if history.outcome == "failed")
    outcome = Outcome(done, interrupted=conductor.remaining > failed, fault=ending.fault)
    with suppress(OSError):  # nobody needs this line
        folder.log("end", interrupted=outcome.interrupted, failed=failed, fault=ending.fault)
    return outcome


def _fit(
    conductor: Conductor,
    place: str,
    session: str,
    execution: Execution,
    datasets: Mapping[str, Dataset],
    ending: _Ending,
) -> None:
    shared = {key: SharedDataset.of(dataset) for key, dataset in datasets.items()}
    resources = {"cpu": execution.cpus_per_trial, "gpu": execution.gpus_per_trial or 0}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_pack, datasets=shared), resources),
        tune_config=tune.TuneConfig(
            search_alg=Proposals(conductor, ending, execution),
            scheduler=Verdicts(conductor, ending),
            num_samples=WITHOUT_END,
            max_concurrent_trials=execution.workers,
            reuse_actors=True,
            trial_dirname_creator=_folder_of,
        ),
        run_config=tune.RunConfig(
            name=session,
            storage_path=place,
            verbose=0,
            callbacks=[Bookkeeping(conductor, ending, place)],
            stop=ending,
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
        ),
    )
    ending.guard(tuner.fit)


def _keys(trial: Trial) -> list[str]:
    """Keys of a pack's trials; Tune takes it for one."""
    return [each["key"] for each in trial.config["trials"]]


def _folder_of(trial: Trial) -> str:
    first, *others = _keys(trial)
    return f"{first}{f'+{len(others)}' if others else ''}.{trial.config['attempt']}"


class _Unpickled:
    """Base of objects whose state Ray must not pickle.

    Ray pickles them into files that nobody reads; the driver's state is excluded.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Ending(_Unpickled, Stopper):
    """Tells Tune when to end all trials.

    That is when the user asks for it, or when the driver can no longer write the records.
    """

    def __init__(self, stop_requested: Callable[[], bool]) -> None:
        self._stop_requested = stop_requested
        self.fault = ""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never ends a single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether to end all trials."""
        return self._stop_requested() or bool(self.fault)

    def guard(self, act: Callable[[], Result]) -> Result | None:
        """Calls `act`; an OSError or OtherSourceError becomes the fault.

        Does nothing after a fault: a full disk, for example. Further errors are then its consequences, such as Tune's about
        files that it could not write, and are ignored.
        """
        if not self.fault:
            try:
                return act()
            except (OSError, OtherSourceError) as error:
                self.fault = self.fault or str(error)
            except Exception:
                if not self.fault:
                    raise
        return None


class Proposals(_Unpickled, Searcher):
    """Hands the conductor's proposals to Tune."""

    def __init__(self, conductor: Conductor, ending: _Ending, execution: Execution) -> None:
        super().__init__()
        self._conductor = conductor
        self._ending = ending
        self._threads = max(1, int(execution.cpus_per_trial))
        self._pack = execution.pack or 1
        self._attempts = 0
        self._source = {"fingerprint": provenance.source_fingerprint(), "folder": str(provenance.source_folder())}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Tune's own hint lacks FINISHED
        """Returns the assignment of the next worker.

        None if there is none now, FINISHED if there is nothing left to try.
        """
        pack = self._ending.guard(lambda: self._conductor.propose_pack(self._pack))
        if not pack:
            return None if self._conductor.is_waiting and not self._ending.fault else Searcher.FINISHED
        self._attempts += 1
        trials = [
            {
                "key": history.key,
                "config": history.config,
                "checkpoints": self._conductor.checkpoints_of(history.key),
                "done": len(history.tasks),
            }
            for history in pack
        ]
        config = TrialConfig.from_plain(pack[0].config)  # the others have the same parts
        return {
            "trials": trials,
            "attempt": self._attempts,
            "dataset": data_key(config),
            "files": {
                name: file.plain() for name, file in outside.sources(outside.named_in(str(pack[0].config))).items()
            },
            "installed": parts.installed(config),
            "rungs": self._conductor.rungs_of(pack[0].key),
            "threads": self._threads,
            "source": self._source,
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Does nothing: `Bookkeeping` tells the conductor."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Does nothing: the records have the state of the search."""


class Verdicts(_Unpickled, FIFOScheduler):
    """Passes reports to the conductor and its verdicts to Tune.

    A verdict is to continue or to stop the trial.
    """

    def __init__(self, conductor: Conductor, ending: _Ending) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._conductor = conductor
        self._ending = ending

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        """The verdict after a report, see `study.cluster.worker`."""
        continues = self._ending.guard(lambda: self._take(_keys(trial)[0], json.loads(result["report"])))
        return str(TrialScheduler.CONTINUE if continues else TrialScheduler.STOP)

    def _take(self, first: str, report: Mapping[str, Any]) -> bool:
        """Passes a report to the conductor; whether the pack continues.

        It ends as soon as one of its trials is stopped. The others are proposed again, with their last checkpoints.
        """
        if "refusal" in report:
            raise OtherSourceError(report["refusal"])
        continues = True
        for key, told in report.get("trials", {}).items():
            if "note" in told:
                self._conductor.note(key, told["note"])
            if "failure" in told:
                self._conductor.failed(key, **told["failure"], facts=told["facts"])
            if "line" in told and not self._conductor.result(key, told["line"], told["facts"]):
                continues = False
        if "unsaved" in report:
            raise OSError(f"a checkpoint of {first} cannot be stored: {report['unsaved']}")
        return continues


class Bookkeeping(_Unpickled, tune.Callback):
    """Tells the conductor of starts, checkpoints and ends."""

    def __init__(self, conductor: Conductor, ending: _Ending, place: str) -> None:
        self._conductor = conductor
        self._ending = ending
        self._place = place

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Records that a worker starts or continues its trials."""
        for key in _keys(trial):
            self._ending.guard(partial(self._conductor.started, key))

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        """Records the place of a checkpoint."""
        place, keys = storage.address_of(self._place, checkpoint.path), _keys(trial)
        for key in keys:
            own = checkpoint_within(place, key, len(keys))
            self._ending.guard(partial(self._conductor.checkpointed, key, own))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Records which trials of a pack ended or were stopped.

        The others are proposed again, unless the sweep ends.
        """
        for key in _keys(trial):
            self._ending.guard(partial(self._conductor.ended, key))
            if not self._ending.stop_all():
                self._ending.guard(partial(self._conductor.released, key))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Records the death of a worker.

        Nothing is recorded if the worker reported a failure before.
        """
        for key in _keys(trial):
            self._ending.guard(partial(self._conductor.lost, key, death_reason(trial)))


def death_reason(trial: Trial) -> str:
    """Ray's reason for the end of a worker.

    The first sentence of the last line of the trial's error file.
    """
    path = trial.error_file
    if not path or not Path(path).is_file():
        return "no reason given"
    lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1].strip().partition(". ")[0] if lines else "no reason given"
