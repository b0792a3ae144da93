"""From a plan to Ray Tune: one Tuner for all trials of a sweep, launched or resumed.

Imported within `study.cluster.connection.connected`.

Ray schedules workers and moves checkpoints; what is tried, kept and told is the conductor's. A resume is a new Tuner over a
conductor made anew from the records, and nothing that Ray pickles is ever read back. For Tune, each attempt at a trial is a
trial of its own: after the death of a worker the conductor proposes the same one again, as after a resume.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ray import tune
from ray.tune import Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study.cluster.shared_data import SharedDataset
from study.cluster.worker import run_trial
from study.config import TrialConfig
from study.contracts import Dataset
from study.sweep import storage
from study.sweep.conductor import Conductor, Watcher
from study.sweep.datasets import data_key
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.sweep.record import TrialHistory

WITHOUT_END = -1
"""Tune's number of trials: the conductor knows when there is nothing left to try."""


Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome:
    """How a launch ended.

    Attributes:
        histories: all trials of the sweep.
        interrupted: whether trials are left to do.
        fault: why the sweep could not go on, such as a full disk; "" when it could.
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
    """Runs all trials of the sweep that are not done, on the Ray of `connected`.

    Args:
        folder: of the sweep.
        session: a name for what Ray stores that no earlier launch has used.
        execution: with all choices made.
        datasets: all that the trials name, by `study.sweep.datasets.data_key`; they go out once, through Ray's object store.
        stop_requested: once it is true the trials are stopped, and what there is is returned.
        watchers: are told how it goes.
    """
    conductor = Conductor(folder, watchers)
    ending = _Ending(stop_requested)
    if conductor.remaining:
        _fit(conductor, folder.checkpoint_place(execution), session, execution, datasets, ending)
    done = conductor.histories
    failed = sum(1 for history in done if history.outcome == "failed")
    outcome = Outcome(done, interrupted=conductor.remaining > failed, fault=ending.fault)
    with suppress(OSError):  # nothing depends on this line
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
        tune.with_resources(tune.with_parameters(run_trial, datasets=shared), resources),
        tune_config=tune.TuneConfig(
            search_alg=Proposals(conductor, ending, execution),
            scheduler=Verdicts(conductor, ending),
            num_samples=WITHOUT_END,
            max_concurrent_trials=execution.workers,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"{trial.config['key']}.{trial.config['attempt']}",
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


class _Unpickled:
    """Ray pickles what it is given into files that nobody reads; what the sweep lives on is left out of them."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Ending(_Unpickled, Stopper):
    """Whether Tune is to end all trials now: somebody has asked for it, or what happens cannot be kept any more."""

    def __init__(self, stop_requested: Callable[[], bool]) -> None:
        self._stop_requested = stop_requested
        self.fault = ""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial is ended here."""
        return False

    def stop_all(self) -> bool:
        """Whether all are."""
        return self._stop_requested() or bool(self.fault)

    def guard(self, act: Callable[[], Result]) -> Result | None:
        """Acts, unless there is a fault already; a refusal of the operating system, such as a full disk, becomes the fault.

        After a fault other errors are its consequences, such as Tune's about files that it could not write.
        """
        if not self.fault:
            try:
                return act()
            except OSError as error:
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
        self._attempts = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Tune's own hint lacks FINISHED
        """The assignment of the next worker; None when there is none now, FINISHED when there is nothing left."""
        history = self._ending.guard(self._conductor.propose)
        if history is None:
            return None if self._conductor.is_waiting and not self._ending.fault else Searcher.FINISHED
        self._attempts += 1
        return {
            "key": history.key,
            "attempt": self._attempts,
            "config": history.config,
            "dataset": data_key(TrialConfig.from_plain(history.config)),
            "checkpoints": self._conductor.checkpoints_of(history.key),
            "done": len(history.tasks),
            "threads": self._threads,
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: `Bookkeeping` tells the conductor, with the trial in hand."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the records are the memory."""


class Verdicts(_Unpickled, FIFOScheduler):
    """Passes each report to the conductor and its verdict, to go on or to stop, back to Tune."""

    def __init__(self, conductor: Conductor, ending: _Ending) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._conductor = conductor
        self._ending = ending

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        """The verdict on a trial after a report, see `study.cluster.worker`."""
        goes_on = self._ending.guard(lambda: self._take(trial.config["key"], json.loads(result["report"])))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def _take(self, key: str, report: Mapping[str, Any]) -> bool:
        if "note" in report:
            self._conductor.note(key, report["note"])
        if "failure" in report:
            self._conductor.failed(key, **report["failure"])
        goes_on = self._conductor.result(key, report["line"], report["facts"]) if "line" in report else True
        if "unsaved" in report:
            raise OSError(f"a checkpoint of {key} cannot be stored: {report['unsaved']}")
        return goes_on


class Bookkeeping(_Unpickled, tune.Callback):
    """Tells the conductor of starts, checkpoints and ends."""

    def __init__(self, conductor: Conductor, ending: _Ending, place: str) -> None:
        self._conductor = conductor
        self._ending = ending
        self._place = place

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A worker begins or goes on with a trial."""
        self._ending.guard(lambda: self._conductor.started(trial.config["key"]))

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        """A checkpoint is in its place."""
        place = storage.address_of(self._place, checkpoint.path)
        self._ending.guard(lambda: self._conductor.checkpointed(trial.config["key"], place))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has run to its end or was stopped."""
        self._ending.guard(lambda: self._conductor.ended(trial.config["key"]))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The worker of a trial has died, or has ended after it reported a failure."""
        self._ending.guard(lambda: self._conductor.lost(trial.config["key"], death_reason(trial)))


def death_reason(trial: Trial) -> str:
    """The first sentence of what Ray says at last about the end of a worker."""
    path = trial.error_file
    if not path or not Path(path).is_file():
        return "no reason given"
    lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1].strip().partition(". ")[0] if lines else "no reason given"
