"""Starts and stops MLflow's own server over a store."""

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

from study import redaction
from study.errors import StudyError
from study.tracking.client import connect

PATIENCE = 60.0
"""Seconds that a server may take to start."""


STOPPED = 130
"""Exit code after Ctrl-C, as in a shell."""


def in_address(host: str) -> str:
    """The host as part of a URL.

    An address of all interfaces becomes 127.0.0.1, which a browser can open.
    """
    if host in ("0.0.0.0", "::"):  # noqa: S104  # nothing is bound here
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def is_taken(host: str, port: int) -> bool:
    """Whether something listens on that port.

    Raises StudyError if the port may not be used or the host is not an address of this machine.
    """
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
            f"{host!r} is no address of this machine ({error.strerror or error}); leave out --host."
        ) from None
    return False


def serves_the_same(client: MlflowClient, root: str, name: str | None) -> bool:
    """Whether the MLflow server at `root` serves this store.

    The links contain numbers of experiments, so those must agree. Times of creation are compared too: a sweep that was sent to
    two stores has an experiment in each, but they were not created in the same millisecond.

    Args:
        client: of the store.
        root: address of the server.
        name: of the sweep whose experiment must agree; None: any experiment must.
    """
    try:
        urllib.request.urlopen(f"{root}/health", timeout=5).read()  # noqa: S310  # our own address
        served = _experiments(connect(root))
    except (OSError, MlflowException):
        return False
    stored = _experiments(client)
    return served.get(name) == stored.get(name) if name else bool(stored.items() & served.items())


def _experiments(client: MlflowClient) -> dict[str, tuple[str, int | None]]:
    """Number and time of creation of each experiment, by name.

    Times are in milliseconds since 1970.
    """
    experiments: dict[str, tuple[str, int | None]] = {}
    token = None
    while True:
        page = client.search_experiments(page_token=token)
        experiments |= {item.name: (str(item.experiment_id), item.creation_time) for item in page}
        token = page.token
        if not token:
            return experiments


def reach_directly(host: str) -> None:
    """Exempts a host of this machine from HTTP proxies.

    This holds for this process and those that it starts.
    """
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, [exempt, host.strip("[]")]))


def serve(uri: str, host: str, port: int, root: str, ready: Callable[[], None]) -> int:
    """Runs a server until interrupted; returns the exit code.

    Args:
        uri: of the store.
        host, port: where it listens.
        root: its address for a browser.
        ready: called when the server answers.

    Raises:
        StudyError: the server does not start, or ends by itself.
    """
    command, environment = _command(host, port), _environment(uri)
    with stopped_by_signals(), subprocess.Popen(command, env=environment, start_new_session=True) as server:
        try:
            if not answers(root, server):
                raise StudyError(f"MLflow's server has not started on port {port} of {host}; see its messages above.")
            ready()
            server.wait()
            raise StudyError("MLflow's server has ended by itself; see its messages above.")
        except KeyboardInterrupt:
            return STOPPED
        finally:
            end(server)


def _command(host: str, port: int) -> list[str]:
    """What starts MLflow's server."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    return [*command, "--workers", "1", "--uvicorn-opts", "--log-level warning"]


def _environment(uri: str) -> dict[str, str]:
    """The variables that MLflow's server over a store is started with."""
    return {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore",
        # not an argument: a list of processes would show the password in it
        "MLFLOW_BACKEND_STORE_URI": redaction.completed(uri),
    }


TIED = """
import os, signal, subprocess, sys, threading, time

def watch():
    while os.read(0, 1):
        pass
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(0, number)
        time.sleep(10)

server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
signal.signal(signal.SIGTERM, lambda *_: None)
threading.Thread(target=watch, daemon=True).start()
os._exit(server.wait())
"""
"""A program that runs a command until it ends or standard input does.

So a server ends with the process that holds the other end of the pipe, even if that is killed. A SIGTERM to the process group
does not end the program before the server.
"""


def begin_tied(uri: str, host: str, port: int) -> subprocess.Popen[bytes]:
    """Starts a quiet server that ends with this process.

    It does not wait until the server answers. `end` ends it earlier. Raises OSError if no process can be started.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-c", TIED, *_command(host, port)],
        env=_environment(uri),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def free_port(host: str, first: int) -> int:
    """A port that nothing listens at, if possible the first.

    Raises StudyError as `is_taken` does.
    """
    if not is_taken(host, first):
        return first
    with socket.create_server((host, 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raises KeyboardInterrupt in its block on SIGINT, SIGTERM and SIGHUP.

    SIGINT does so even if the shell had it ignored, as for background jobs; SIGHUP does not if `nohup` had it ignored.
    """

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


def answers(root: str, server: subprocess.Popen[bytes], is_unwanted: Callable[[], bool] = lambda: False) -> bool:
    """Waits for the server; returns whether it answers.

    It waits no longer when the server is unwanted.
    """
    deadline = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < deadline and not is_unwanted():
        try:
            urllib.request.urlopen(f"{root}/health", timeout=2).read()  # noqa: S310  # our own address
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return True
    return False


def end(server: subprocess.Popen[bytes]) -> None:
    """Ends the server's process group, its workers included."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
