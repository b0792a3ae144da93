"""The Ray that a sweep runs on: one of its own on this machine, or a cluster that it joins; and how it is divided among trials.

Ray is imported here when it is needed and not before, since it reads the environment only once.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import StudyError
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
"""Keeps Ray's own output and files away; what the user has set is left alone."""

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""A Ray that no other machine is to join listens to this machine alone; by default Ray listens to the whole network."""

TOKEN = {"RAY_AUTH_MODE": "token"}
"""Makes Ray show its token to the cluster."""

CONNECT_SECONDS = 5.0
JOIN_SECONDS = 40.0
"""How long a cluster may take to be reached, and to be joined."""

STORAGE_ADVICE = "give --storage a folder that all nodes reach, or an address like s3://BUCKET/PREFIX"


@contextmanager
def connected(execution: Execution, plan: Plan, place: str) -> Iterator[tuple[Execution, list[str]]]:
    """A Ray to run a plan on, local or the cluster at the address.

    Args:
        execution: what was asked for.
        plan: what is to be run.
        place: where the checkpoints go; looked at when the user has chosen it, or when there are several nodes.

    Yields:
        The execution with its open choices made, and notes on what may make numbers differ in their last digits.

    Raises:
        StudyError: the cluster cannot be reached, has no node with as many CPUs and GPUs as one trial asks for, or has a
            node that does not run this code or does not reach the storage.
    """
    with joined(execution) as there:
        yield _settled(there, execution, plan, place)


def foreseen(execution: Execution, plan: Plan, place: str) -> tuple[Execution, int, list[str]]:
    """What `connected` would give, and how many trials would run at once. A cluster is joined, but no Ray is started.

    Raises:
        StudyError: as `connected` does.
    """
    if not execution.is_local:
        with joined(execution) as there:
            resolved, notes = _settled(there, execution, plan, place)
            fitting = sum(node.fits(resolved.cpus_per_trial, resolved.gpus_per_trial or 0) for node in there)
            return resolved, min(resolved.workers or fitting, fitting), notes
    from study.cluster import nodes

    here = nodes.this_machine()
    resolved, notes = _settled([here], execution.model_copy(update={"storage": None}), plan, place)
    if execution.storage:
        nodes.check([], place, STORAGE_ADVICE)
    return resolved, resolved.workers or 1, notes


def _settled(there: list[Node], execution: Execution, plan: Plan, place: str) -> tuple[Execution, list[str]]:
    """See `connected`."""
    from study.cluster import nodes, resources

    resolved = resources.divided(execution, plan, there)
    notes = nodes.check(there, place, STORAGE_ADVICE) if execution.storage or len(there) > 1 else []
    return resolved, notes


@contextmanager
def joined(execution: Execution) -> Iterator[list[Node]]:
    """A Ray of this machine, or the cluster at the address; gives its nodes. Raises StudyError when there is none."""
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    if execution.is_local:
        os.environ.update(LOOPBACK)
    else:
        _check_reachable(str(execution.address))
        os.environ.update(_way_in(str(execution.address)))
    import ray

    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a failed trial is told of by its record
    import ray._private.worker as driver

    driver.print_to_stdstream = lambda *_, **__: None  # paragraphs about every dead worker, which no option turns off
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if execution.is_local:
        with _signals_held():
            ray.init(address="local", include_dashboard=False, **options)
    else:
        ray.init(address=str(execution.address), **options)
    try:
        from study.cluster import nodes

        yield nodes.alive()
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
        import ray

        ray.shutdown()
        raise KeyboardInterrupt


def _check_reachable(address: str) -> None:
    """Refuses an address that is none, or where nobody listens. Raises StudyError."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not colon or not host or "/" in host or not port.isdigit():
        raise StudyError(f"--address {address} is not the address of a Ray cluster: give HOST:PORT, auto or local.")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise StudyError(
            f"No Ray cluster answers at --address {address} ({error}); start one by `ray start --head`, or leave "
            f"--address away to run on this machine."
        ) from None


def _way_in(address: str) -> dict[str, str]:
    """What the environment must have to join the cluster, found by joining it in other processes first.

    Where no Ray answers, Ray waits for minutes and then ends the process. Where it wants a token and gets none, it says only
    that it cannot be reached; where it wants none, a process that gives one joins, but its workers never start. So both are
    tried if there is a token, and the way without one is preferred.

    Raises:
        StudyError: neither way leads in.
    """
    with ExitStack() as processes:
        plain = processes.enter_context(_joining(address, {}))
        given = _has_token() and "RAY_AUTH_MODE" not in os.environ
        by_token = processes.enter_context(_joining(address, TOKEN)) if given else None
        reason = _why_not(plain)
        if reason is None:
            return {}
        if by_token and _why_not(by_token) is None:
            return TOKEN
    raise StudyError(
        f"No Ray cluster can be joined at --address {address} ({reason.rstrip('.')}); start one by `ray start --head`; if it "
        f"asks for a token, put it into ~/.ray/auth_token; or leave --address away to run on this machine."
    )


@contextmanager
def _joining(address: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that joins the cluster and ends."""
    command = [sys.executable, "-c", "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)", address]
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


def _why_not(process: subprocess.Popen[str]) -> str | None:
    """Why the process could not join, or None when it could."""
    try:
        said = process.communicate(timeout=JOIN_SECONDS)[1]
    except subprocess.TimeoutExpired:
        return f"what listens there does not answer as Ray within {JOIN_SECONDS:g} s"
    if process.returncode == 0:
        return None
    return next((line for line in reversed(said.splitlines()) if "Error: " in line), "no reason given")


def _has_token() -> bool:
    """Whether there is a token of Ray on this machine, where Ray looks for it."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()
