"""MLflow's own server over a store: started, watched, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from study.errors import StudyError
from study.tracking.client import connect

PATIENCE = 60.0
"""Seconds that a server may take to start."""


STOPPED = 130
"""Exit code after Ctrl-C, as a shell has it."""


def in_address(host: str) -> str:
    """A host as it stands in an address: an address of all interfaces is none to go to."""
    if host in ("0.0.0.0", "::"):  # noqa: S104  # nothing is bound here
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def is_taken(host: str, port: int) -> bool:
    """Whether something listens there. Raises StudyError for an address that is not this machine's."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except PermissionError as error:
        raise StudyError(
            f"Port {port} of {host} cannot be used ({error.strerror}); choose another one with --port."
        ) from None
    except OSError as error:
        if error.errno == 98 or "in use" in str(error).lower():
            return True
        raise StudyError(
            f"{host!r} is no address of this machine ({error.strerror or error}); leave --host out."
        ) from None
    return False


def serves_the_same(client: MlflowClient, root: str, name: str | None) -> bool:
    """Whether MLflow's server there serves this very store, with this sweep's experiment: the links bear its numbers.

    A sweep that has been sent to two stores has an experiment in each, which is not made at the same moment.
    """
    try:
        urllib.request.urlopen(f"{root}/health", timeout=5).read()  # noqa: S310  # an address made here
        there = _experiments(connect(root))
    except (OSError, MlflowException):
        return False
    here = _experiments(client)
    return there.get(name) == here.get(name) if name else bool(here.items() & there.items())


def _experiments(client: MlflowClient) -> dict[str, tuple[str, int | None]]:
    """Number and time of creation of each experiment, by its name; in milliseconds since 1970."""
    found: dict[str, tuple[str, int | None]] = {}
    token = None
    while True:
        page = client.search_experiments(page_token=token)
        found |= {one.name: (str(one.experiment_id), one.creation_time) for one in page}
        token = page.token
        if not token:
            return found


def reach_directly(host: str) -> None:
    """No proxy leads to a server of this machine: this process and the ones it starts ask none for it."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, [known, host.strip("[]")]))


def serve(uri: str, host: str, port: int, root: str, ready: Callable[[], None]) -> int:
    """Runs a server until it is told to stop; `ready` is called once it answers."""
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        host,
        "--port",
        str(port),
    ]
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    environment["MLFLOW_BACKEND_STORE_URI"] = uri  # a database's password is not for everybody who lists processes
    with stopped_by_signals(), subprocess.Popen(command, env=environment, start_new_session=True) as server:
        try:
            if not answers(root, server):
                raise StudyError(
                    f"MLflow's server has not started on port {port} of {host}; what it says stands above."
                )
            ready()
            server.wait()
            raise StudyError("MLflow's server has ended by itself; what it says stands above.")
        except KeyboardInterrupt:
            return STOPPED
        finally:
            end(server)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and the end of the terminal stop as Ctrl-C does, which does so even where a shell had it ignored."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup has it ignored
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def answers(root: str, server: subprocess.Popen[bytes]) -> bool:
    """Waits until the server answers; whether it does."""
    deadline = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{root}/health", timeout=2).read()  # noqa: S310  # an address made here
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return True
    return False


def end(server: subprocess.Popen[bytes]) -> None:
    """The server and the workers it started, which are a group of processes of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
