"""From a plan to Ray Tune: one Tuner for all trials of a sweep, launched or resumed.

Ray schedules workers and moves checkpoints; what is tried, kept and told is the conductor's. A resume is a new Tuner over a
conductor made anew from the records, and nothing that Ray pickles is ever read back.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
"""Keeps Ray's own output and files away; must be set before Ray is imported; what the user has set is left alone."""

for variable, value in QUIET.items():
    os.environ.setdefault(variable, value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.experiment import Trial  # noqa: E402
from ray.tune.schedulers import FIFOScheduler, TrialScheduler  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

from study.conductor import Conductor, Watcher  # noqa: E402
from study.config import StudyError  # noqa: E402
from study.folder import Execution, SweepFolder  # noqa: E402
from study.plan import Plan  # noqa: E402
from study.record import TrialHistory  # noqa: E402
from study.trainable import run_trial  # noqa: E402

WORKER_FAILURES = 2
"""How often a trial goes on from its checkpoint after its worker failed, before it counts as failed."""

GPU_SHARE = 0.25
"""A trial's share of a GPU by default, where there is one: these networks are small, four trials fit on a card."""

CONNECT_SECONDS = 5.0
JOIN_SECONDS = 40.0
"""How long a cluster may take to be reached, and to be joined."""


@dataclass(frozen=True)
class Outcome:
    """How a launch ended: all trials of the sweep, and whether trials are left to do."""

    histories: list[TrialHistory]
    interrupted: bool

    @property
    def failed(self) -> list[TrialHistory]:
        """The trials that failed."""
        return [history for history in self.histories if history.outcome == "failed"]


@contextmanager
def connected(execution: Execution, plan: Plan) -> Iterator[Execution]:
    """A Ray to run a plan on, local or the cluster at the address; gives the execution with its open choices made.

    Raises:
        StudyError: the cluster cannot be reached, or has fewer CPUs or GPUs than one trial asks for.
    """
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a failed trial is told of by its record
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if execution.address is None:
        with _signals_held():
            ray.init(address="local", include_dashboard=False, **options)
    else:
        _join(execution.address, options)
    try:
        resolved = _resolved(execution, ray.cluster_resources())
        if plan.needs_gpu and not resolved.gpus_per_trial:
            raise StudyError(
                "training/device=cuda, but no GPU is given to the trials; use training/device=auto or cpu."
            )
        yield resolved
    finally:
        ray.shutdown()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Starts Ray's processes out of reach of signals to our process group, which would kill them before the trials can stop.

    Signals to this process wait until they are up: Ray does not survive one in the middle. Raises KeyboardInterrupt then.
    """
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda received, _: held.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    group = os.getpgrp()
    with suppress(OSError):  # a session's leader cannot leave its group
        os.setpgid(0, 0)
    try:
        yield
    finally:
        with suppress(OSError):
            os.setpgid(0, group)
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        ray.shutdown()
        raise KeyboardInterrupt


def _join(address: str, options: dict[str, Any]) -> None:
    host, colon, port = address.rpartition(":")
    if address != "auto":
        if not colon or not host or "/" in host or not port.isdigit():
            raise StudyError(f"--address {address} is not the address of a Ray cluster: give HOST:PORT, or auto.")
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise StudyError(
                f"No Ray cluster answers at --address {address} ({error}); start one by `ray start --head`, or leave "
                f"--address away to run on this machine."
            ) from None
    _try_to_join(address)
    ray.init(address=address, **options)


def _try_to_join(address: str) -> None:
    """Joins the cluster in another process first: where no Ray answers, Ray waits for minutes and then ends the process."""
    command = [sys.executable, "-c", "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)", address]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=JOIN_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        reason = f"what listens there does not answer as Ray within {JOIN_SECONDS:g} s"
    else:
        if tried.returncode == 0:
            return
        reason = next((line for line in reversed(tried.stderr.splitlines()) if "Error: " in line), "no reason given")
    raise StudyError(
        f"No Ray cluster can be joined at --address {address} ({reason.rstrip('.')}); start one by `ray start --head`, set "
        f"RAY_AUTH_MODE=token if it asks for a token, or leave --address away to run on this machine."
    )


def _resolved(execution: Execution, resources: dict[str, float]) -> Execution:
    """The execution with GPUs and workers chosen, once it is known what there is."""
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    share = execution.gpus_per_trial
    if share is None:
        share = GPU_SHARE if gpus else 0.0
    for what, asked, there in (("CPUs", execution.cpus_per_trial, cpus), ("GPUs", share, gpus)):
        if asked > there:
            raise StudyError(
                f"Each trial asks for {asked:g} {what}, but this Ray has {there:g}; lower --{what.lower()}-per-trial."
            )
    fitting = int(min(cpus / execution.cpus_per_trial, gpus / share if share else float("inf")))
    workers = min(execution.workers or fitting, fitting)
    return execution.model_copy(update={"gpus_per_trial": share, "workers": workers})


def launch(folder: SweepFolder, execution: Execution, watchers: tuple[Watcher, ...] = ()) -> Outcome:
    """Runs all trials of the sweep that are not done, on the Ray of `connected`.

    The first interrupt (Ctrl-C, SIGTERM) stops the trials and returns what there is; the second one ends at once.
    """
    conductor = Conductor(folder, watchers)
    session = folder.next_session()
    folder.log("start", execution=execution.plain())
    if conductor.remaining:
        _fit(conductor, execution, session)
    done = conductor.histories
    failed = sum(1 for history in done if history.outcome == "failed")
    outcome = Outcome(done, interrupted=conductor.remaining > failed)
    folder.log("end", interrupted=outcome.interrupted, failed=failed)
    return outcome


def _fit(conductor: Conductor, execution: Execution, session: Path) -> None:
    resources = {"cpu": execution.cpus_per_trial, "gpu": execution.gpus_per_trial or 0}
    tuner = tune.Tuner(
        tune.with_resources(run_trial, resources),
        tune_config=tune.TuneConfig(
            search_alg=Proposals(conductor, execution),
            scheduler=Verdicts(conductor),
            num_samples=conductor.remaining,
            max_concurrent_trials=execution.workers,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.config["key"]),
        ),
        run_config=tune.RunConfig(
            name=session.name,
            storage_path=str(session.parent.resolve()),
            verbose=0,
            callbacks=[Bookkeeping(conductor)],
            failure_config=tune.FailureConfig(max_failures=WORKER_FAILURES),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
        ),
    )
    with _terminated_like_interrupted():
        tuner.fit()


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM stops the sweep as gracefully as Ctrl-C does; Tune listens to SIGUSR1 for that."""
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Adapter:
    """Ray pickles what it is given into files that nobody reads; the conductor is left out of them."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Proposals(_Adapter, Searcher):
    """Hands the conductor's proposals to Tune."""

    def __init__(self, conductor: Conductor, execution: Execution) -> None:
        super().__init__()
        self._conductor = conductor
        self._threads = max(1, int(execution.cpus_per_trial))
        self._data_dir = execution.data_dir

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]  # Tune's own hint lacks FINISHED
        """The assignment of the next worker, or that there is nothing left."""
        history = self._conductor.propose()
        if history is None:
            return Searcher.FINISHED
        return {
            "key": history.key,
            "config": history.config,
            "checkpoint": self._conductor.checkpoint_of(history.key),
            "threads": self._threads,
            "data_dir": self._data_dir,
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: `Bookkeeping` tells the conductor, with the trial in hand."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the records are the memory."""


class Verdicts(_Adapter, FIFOScheduler):
    """Passes each report to the conductor and its verdict, to go on or to stop, back to Tune."""

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._conductor = conductor

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        """The verdict on a trial after a task."""
        report = json.loads(result["report"])
        goes_on = self._conductor.result(trial.config["key"], report["line"], report["facts"])
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)


class Bookkeeping(_Adapter, tune.Callback):
    """Tells the conductor of starts, checkpoints and ends."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A worker begins or goes on with a trial."""
        self._conductor.started(trial.config["key"])

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        """A checkpoint is in its place."""
        self._conductor.checkpointed(trial.config["key"], checkpoint.path)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has run to its end or was stopped."""
        self._conductor.ended(trial.config["key"])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial has failed more often than it may."""
        self._conductor.failed(trial.config["key"], failure_reason(trial))


def failure_reason(trial: Trial) -> str:
    """The last line of the error that a worker left."""
    path = trial.error_file
    if not path or not Path(path).is_file():
        return "the worker died without a word"
    lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "the worker died without a word"
