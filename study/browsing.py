"""`study ui`: MLflow's page over the study's store, with links to what there is to see."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from analysis.store import SWEEP_TAG, check_reachable, connect, find_runs, first_line, is_missing, served
from study import display, links, store
from study.config import StudyError
from study.folder import SweepFolder
from study.links import Link

COMPARED = 10
"""Trials side by side."""

PATIENCE = 60.0
"""Seconds that a server may take to start."""

STOPPED = 130
"""Exit code after Ctrl-C, as a shell has it."""


def ui(directory: Path, name: str | None, tracking_uri: str | None, host: str, port: int, browse: bool) -> int:
    """Serves MLflow's page until interrupted, or leads to a server that is there; the exit code.

    Args:
        directory: folder of the sweeps.
        name: sweep to lead to; None: all.
        tracking_uri: of the store, unless the sweep or the environment says.
        host, port: where to listen.
        browse: whether to open the first link, where there is a browser to open it in.

    Raises:
        StudyError: there is no such sweep or store, or the port is taken by something else.
    """
    opened = SweepFolder.open(directory, name) if name else None
    kept = opened.execution.tracking_uri if opened else None
    uri = tracking_uri or kept or os.environ.get("MLFLOW_TRACKING_URI") or store.default_uri(directory)
    check_reachable(uri)
    if is_missing(uri):
        raise StudyError(f"There is no MLflow store {uri} yet; begin with `study run quickstart`.")
    root = uri.rstrip("/") if served(uri) else f"http://{_in_address(host)}:{port}"
    try:
        client = store.Store(uri).client
        found = _links(client, opened, root, tracking_uri) if opened else [("sweeps", links.sweeps_link(root))]
    except (MlflowException, OSError) as error:
        raise StudyError(f"MLflow at {uri} refuses: {first_line(error)}.") from None
    if served(uri):
        _show(found, browse)
        return 0
    _reach_directly(_in_address(host))
    if _is_taken(host, port):
        if not _serves_the_same(client, root, name):
            raise StudyError(f"Port {port} of {host} is taken by something else; choose another one with --port.")
        display.console.print(f"A server of this store runs at {root} already.", markup=False, soft_wrap=True)
        _show(found, browse)
        return 0
    return _serve(uri, host, port, root, found, browse)


def _links(client: MlflowClient, folder: SweepFolder, root: str, tracking_uri: str | None) -> list[Link]:
    """What there is to see of a sweep. Raises StudyError when the store, perhaps one asked for by its address, has none of it."""
    experiment = client.get_experiment_by_name(folder.plan.name)
    number = "" if experiment is None else str(experiment.experiment_id)
    own = find_runs(client, number, "tags.role = 'sweep'") if number else []
    if experiment is None or not own or experiment.tags.get(SWEEP_TAG) != folder.identity:
        sync = f"study sync {folder.plan.name}{folder.option}" + (
            f" --tracking-uri {tracking_uri}" if tracking_uri else ""
        )
        raise StudyError(
            f"MLflow has nothing of the sweep {folder.plan.name!r} yet; bring it up to date with `{sync}`."
        )
    for tag, value in links.views(folder.plan).items():
        if experiment.tags.get(tag) != value:
            client.set_experiment_tag(number, tag, value)
    found = links.experiment_links(root, number, folder.plan, own[0].info.run_id)
    order = [f"metrics.`{links.ranking(folder.plan)}` DESC"]
    for scenario in dict.fromkeys(group.scenario for group in folder.plan.groups):
        query = f"tags.role = 'trial' and tags.scenario = '{scenario}' and attributes.status = 'FINISHED'"
        best = client.search_runs([number], query, max_results=COMPARED, order_by=order)
        if len(best) > 1:
            ids = [run.info.run_id for run in best]
            found.append((f"{scenario}: the best {len(ids)} compared", links.comparison_link(root, number, ids)))
    return found


def _show(found: list[Link], browse: bool) -> None:
    for what, link in found:
        display.console.print(f"{what}: {link}", markup=False, soft_wrap=True)
    if browse and _has_browser():
        webbrowser.open(found[0][1])


def _has_browser() -> bool:
    """Whether somebody sits here with a browser: in a terminal, on a machine with a screen."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _in_address(host: str) -> str:
    """A host as it stands in an address: an address of all interfaces is none to go to."""
    if host in ("0.0.0.0", "::"):  # noqa: S104  # nothing is bound here
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _is_taken(host: str, port: int) -> bool:
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


def _serves_the_same(client: MlflowClient, root: str, name: str | None) -> bool:
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


def _reach_directly(host: str) -> None:
    """No proxy leads to a server of this machine: this process and the ones it starts ask none for it."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, [known, host.strip("[]")]))


def _serve(uri: str, host: str, port: int, root: str, found: list[Link], browse: bool) -> int:
    """Runs a server until it is told to stop."""
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
    with _told_to_stop(), subprocess.Popen(command, env=environment, start_new_session=True) as server:
        try:
            if not _answers(root, server):
                raise StudyError(
                    f"MLflow's server has not started on port {port} of {host}; what it says stands above."
                )
            _show(found, browse)
            display.console.print("The server stops with Ctrl-C.")
            server.wait()
            raise StudyError("MLflow's server has ended by itself; what it says stands above.")
        except KeyboardInterrupt:
            return STOPPED
        finally:
            _end(server)


@contextmanager
def _told_to_stop() -> Iterator[None]:
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


def _answers(root: str, server: subprocess.Popen[bytes]) -> bool:
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


def _end(server: subprocess.Popen[bytes]) -> None:
    """The server and the workers it started, which are a group of processes of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
