"""Starts Ray on this machine or joins a cluster.

Ray is imported only when it is needed, since it reads the environment only once.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import provenance
from study.errors import StudyError, first_line
from study.files import write_fault
from study.redaction import redacted
from study.sweep.execution import Execution
from study.sweep.plan import Plan

if TYPE_CHECKING:
    from study.cluster.nodes import Node


QUIET = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
"""Suppresses Ray's own output and files. Variables that the user has set are kept."""

LEAN = {"RAY_prestart_worker_first_driver": "0", "RAY_enable_worker_prestart": "0"}
"""Keeps Ray from starting a worker for each CPU before it knows what a trial needs: none of them would ever be used."""

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Makes a Ray for this machine alone listen to this machine alone; by default Ray listens to the whole network."""

TOKEN = {"RAY_AUTH_MODE": "token"}
"""Makes Ray send its token to the cluster."""

LONGEST_FOLDER = 36
"""Bytes of the path of the folder of temporary files, below which Ray puts its sockets."""

LONGEST_PORT = 5
"""Digits of a port."""

CONNECT_SECONDS = 5.0
"""Longest time to connect to the address of a cluster."""

JOIN_SECONDS = 40.0
"""Longest time to join a cluster."""

STORAGE_ADVICE = "give --storage a folder that all nodes reach, or an address like s3://BUCKET/PREFIX"


@contextmanager
def connected(execution: Execution, plan: Plan, place: str) -> Iterator[tuple[Execution, list[str]]]:
    """Starts or joins the Ray that a plan runs on.

    Args:
        execution: what the user asked for.
        plan: what is run.
        place: where the checkpoints go; checked if the user has chosen it or the Ray is that of a cluster.

    Yields:
        The execution with GPUs and workers chosen, and notes on why numbers may differ in their last digits.

    Raises:
        StudyError: the cluster cannot be reached, no node has the CPUs and GPUs that a trial asks for, or a node does not run
            this code or does not reach the storage.
    """
    with joined(execution) as nodes:
        yield _resolved(nodes, execution, plan, place)


def foreseen(execution: Execution, plan: Plan, place: str) -> tuple[Execution, int, list[str]]:
    """What `connected` would yield, without starting Ray.

    A cluster is joined.

    Returns:
        What `connected` yields, with the number of trials at once in between.

    Raises:
        StudyError: see `connected`.
    """
    if not execution.is_local:
        with joined(execution) as cluster:
            resolved, notes = _resolved(cluster, execution, plan, place)
            fitting = sum(node.fits(resolved.cpus_per_trial, resolved.gpus_per_trial or 0) for node in cluster)
            return resolved, min(resolved.workers or fitting, fitting), notes
    from study.cluster import nodes

    machine = nodes.this_machine()
    resolved, notes = _resolved([machine], execution.model_copy(update={"storage": None}), plan, place)
    if execution.storage:
        nodes.check([], place, STORAGE_ADVICE)
    return resolved, resolved.workers or 1, notes


def _resolved(cluster: list[Node], execution: Execution, plan: Plan, place: str) -> tuple[Execution, list[str]]:
    """The execution with GPUs and workers chosen, and the notes."""
    from study.cluster import nodes, resources

    resolved = resources.divided(execution, plan, cluster)
    notes = [] if execution.is_local and not execution.storage else nodes.check(cluster, place, STORAGE_ADVICE)
    return resolved, notes


@contextmanager
def joined(execution: Execution) -> Iterator[list[Node]]:
    """Starts Ray here or joins the cluster; yields the nodes.

    Raises StudyError if there is no cluster at the address, or if Ray does not start here.
    """
    os.environ.update({name: value for name, value in (QUIET | LEAN).items() if name not in os.environ})
    if execution.is_local:
        os.environ.update(LOOPBACK)
        if not _has_token() and write_fault(Path(os.path.expanduser("~/.ray"))):  # noqa: PTH111  # see `_has_token`
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else Ray would write one into the home
    else:
        _check_reachable(str(execution.address))
        os.environ.update(_way_in(str(execution.address)))
    import ray

    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the record says why a trial failed
    import ray._private.worker as driver

    driver.print_to_stdstream = lambda *_, **__: (
        None
    )  # long messages about every dead worker, which no option turns off
    _hide_secrets_of_command()
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "job_config": _job()}
    with short_folder() if execution.is_local else nullcontext() as folder:
        if execution.is_local:
            _leave_out_helpers()
            with _signals_held():
                try:
                    ray.init(address="local", include_dashboard=False, _temp_dir=folder, **options)
                except Exception as error:  # Ray's own processes fail in many ways
                    raise StudyError(
                        f"Ray did not start here: {first_line(error)}; nothing was trained or lost. Run the command again when "
                        f"the machine is less busy; `study doctor` checks it."
                    ) from None
        else:
            ray.init(address=str(execution.address), **options)
        try:
            from study.cluster import nodes

            yield nodes.alive()
        finally:
            ray.shutdown()


@contextmanager
def short_folder() -> Iterator[str | None]:
    """A folder for Ray's files with a short path.

    Only if Ray's own choice is too long.

    Ray's sockets lie some 68 characters below its folder, and the path of a socket has at most 107.

    Yields:
        A new folder in /tmp that is removed at the end; None if Ray's own choice will do.

    Raises:
        StudyError: /tmp cannot be written either.
    """
    chosen = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  # as Ray chooses it
    if len(os.fsencode(chosen)) <= LONGEST_FOLDER:
        yield None
        return
    try:
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    except OSError as error:
        raise StudyError(
            f"Ray cannot put its files into {chosen!r}, whose path is longer than {LONGEST_FOLDER} characters, nor into /tmp "
            f"({error.strerror}); set RAY_TMPDIR to a folder with a short path."
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hide_secrets_of_command() -> None:
    """Has Ray keep this command without the passwords in it.

    Ray writes the command line of a driver into its logs and shows it on its dashboard.
    """
    from ray._private import utils

    if (command := getattr(utils, "get_entrypoint_name", None)) is not None:
        utils.get_entrypoint_name = lambda: redacted(command())


def _leave_out_helpers() -> None:
    """Has a local Ray start without its autoscaler and log monitor.

    Two processes that a Ray of one machine, whose logs nobody follows, does not need. Ray has no option for it.
    """
    from ray._private.node import Node

    for start in ("start_monitor", "start_log_monitor"):
        setattr(Node, start, lambda _: None)


def _job() -> Any:
    """Ray's description of this driver: workers import what it imports.

    By default Ray has workers search the current folder before the installed packages (ray#17518): another clone of the study,
    or a `study.py` or `torch.py` of one's own, would take the place of what the driver runs.
    """
    from ray.job_config import JobConfig

    job = JobConfig()
    job._runtime_env_has_working_dir = lambda: True  # type: ignore[method-assign]  # the one case in which Ray leaves it out
    if provenance.source_folder() != provenance.installed_folder():
        job._py_driver_sys_path = [str(provenance.source_folder())]
    return job


@contextmanager
def _signals_held() -> Iterator[None]:
    """Shields Ray's processes from signals while they start.

    Ray's processes inherit a process group of their own. Otherwise a signal to our group, such as Ctrl-C, would kill them
    before the trials can stop. Signals to this process are held until Ray has started, since Ray does not survive a signal
    during its start; then they raise KeyboardInterrupt.
    """
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda received, _: held.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    group = os.getpgrp()
    with suppress(OSError):  # the leader of a process session cannot leave its group
        os.setpgid(0, 0)
    try:
        yield
    finally:
        with suppress(OSError):
            os.setpgid(0, group)
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        import ray

        ray.shutdown()
        raise KeyboardInterrupt


def _check_reachable(address: str) -> None:
    """Raises StudyError if the address is malformed or unreachable."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and len(port) <= LONGEST_PORT
    if not colon or not host or "/" in host or not is_port:
        raise StudyError(f"--address {address} is not the address of a Ray cluster: give HOST:PORT, auto or local.")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise StudyError(
            f"No Ray cluster answers at --address {address} ({error}); start one with `ray start --head`, or leave out "
            f"--address to run on this machine."
        ) from None


def _way_in(address: str) -> dict[str, str]:
    """The environment variables needed to join a cluster.

    Other processes try to join first. If no Ray answers, Ray waits for minutes and then ends the process. If a cluster wants a
    token and gets none, Ray says only that it is unreachable. If a cluster wants no token, a process that sends one joins, but
    its workers never start. So both ways are tried if there is a token, and the way without is preferred.

    Raises:
        StudyError: the cluster cannot be joined either way.
    """
    with ExitStack() as processes:
        without_token = processes.enter_context(_joining(address, {}))
        try_token = _has_token() and "RAY_AUTH_MODE" not in os.environ
        with_token = processes.enter_context(_joining(address, TOKEN)) if try_token else None
        fault = _fault_of(without_token)
        if fault is None:
            return {}
        if with_token and _fault_of(with_token) is None:
            return TOKEN
    raise StudyError(
        f"No Ray cluster can be joined at --address {address} ({fault.rstrip('.')}); start one with `ray start --head`; if it "
        f"asks for a token, put it into ~/.ray/auth_token; or leave out --address to run on this machine."
    )


@contextmanager
def _joining(address: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Starts a process that joins the cluster and ends."""
    program = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)"
    command = [sys.executable, "-P", "-c", program, address]  # -P: without the modules of the current folder
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _fault_of(process: subprocess.Popen[str]) -> str | None:
    """Why the process could not join; None if it could."""
    try:
        messages = process.communicate(timeout=JOIN_SECONDS)[1]
    except subprocess.TimeoutExpired:
        return f"what listens there does not answer as Ray within {JOIN_SECONDS:g} s"
    if process.returncode == 0:
        return None
    return next((line for line in reversed(messages.splitlines()) if "Error: " in line), "no reason given")


def _has_token() -> bool:
    """Whether Ray finds a token on this machine."""
    variable = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(variable) or Path(os.path.expanduser("~/.ray/auth_token")).is_file()  # noqa: PTH111  # a user may have no home
