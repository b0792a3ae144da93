"""`study ui`: MLflow's page on the study's store, with links."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from study import addresses, redaction
from study.cli import terminal
from study.errors import StudyError, with_type
from study.sweep.folder import SweepFolder
from study.tracking import artifacts, faults, store, views
from study.tracking.client import check_reachable, is_missing, refusals, served
from study.tracking.server import (
    answers,
    begin_tied,
    end,
    free_port,
    in_address,
    is_taken,
    reach_directly,
    serve,
    serves_the_same,
)
from study.tracking.views import Link

LOOPBACK, PORT = "127.0.0.1", 5000
"""Where the page beside a sweep is served; another port if that one is taken."""

LOOK_SECONDS = 1.0
"""Pause between two looks whether MLflow has begun with the sweep."""

END_SECONDS = 15.0
"""How long the end of a sweep waits for that of its pages."""

OPTUNA_SECONDS = 10.0
"""Least pause between two versions of the trials for optuna-dashboard."""

OPTUNA_SHARE = 0.03
"""Share of a processor that these versions may take."""


@contextmanager
def beside(sweep: SweepFolder, uri: str, say: Callable[[str], None]) -> Iterator[None]:
    """MLflow's page for the time of a sweep.

    Threads start it, say its address, and keep the trials for optuna-dashboard up to date; the sweep neither waits for them nor
    fails with them. The page ends with the block, and also if this process is killed. Of a store that a server has already, only
    the links are said.

    Args:
        sweep: that runs in the block.
        uri: of its store.
        say: prints a line beside the sweep's progress.
    """
    reach_directly(LOOPBACK)
    is_over = threading.Event()

    def work(what: str, part: Callable[[], None]) -> None:
        try:
            part()
        except Exception as error:  # a page is no reason to end a sweep
            reason = redaction.without_secrets(str(error) if isinstance(error, StudyError) else with_type(error))
            say(f"note: {what}, and the sweep goes on: {reason.rstrip('.')}.")

    parts: dict[str, Callable[[], None]] = {
        "MLflow's page is not shown": lambda: _show_beside(sweep, uri, say, is_over),
        "the trials for optuna-dashboard are not kept up to date": lambda: _keep_optuna(sweep, say, is_over),
    }
    threads = [threading.Thread(target=work, args=each, name="page", daemon=True) for each in parts.items()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join(END_SECONDS)


def _keep_optuna(sweep: SweepFolder, say: Callable[[str], None], is_over: threading.Event) -> None:
    """Writes the trials for optuna-dashboard again and again."""
    from study.sweep import optuna_storage

    own = SweepFolder.open(sweep.directory, sweep.name)  # of this thread alone
    pause, is_said = OPTUNA_SECONDS, find_spec("optuna_dashboard") is None
    while not is_over.wait(pause):
        began = time.monotonic()
        path = optuna_storage.write(own, is_running=True)
        pause = max(OPTUNA_SECONDS, (time.monotonic() - began) / OPTUNA_SHARE)
        if not is_said:
            say(f"Optuna's dashboard: optuna-dashboard {shlex.quote(addresses.database(path))}")
            is_said = True


def _show_beside(sweep: SweepFolder, uri: str, say: Callable[[str], None], is_over: threading.Event) -> None:
    """Serves the page until the sweep is over, see `beside`."""
    if served(uri):
        _say_links(sweep, uri, uri.rstrip("/"), say, is_over)
        return
    store.Store(uri)  # makes the tables: two processes that make them at once break them
    port = free_port(LOOPBACK, PORT)
    root = f"http://{in_address(LOOPBACK)}:{port}"
    server = begin_tied(uri, LOOPBACK, port)
    try:
        if answers(root, server, is_over.is_set):
            _say_links(sweep, uri, root, say, is_over)
            is_over.wait()
        elif not is_over.is_set():
            say(f"note: MLflow's server has not started, and the sweep goes on; look with: {sweep.command('ui')}")
    finally:
        end(server)


def _say_links(sweep: SweepFolder, uri: str, root: str, say: Callable[[str], None], is_over: threading.Event) -> None:
    """Says the links as soon as MLflow has begun with the sweep."""
    while not is_over.is_set():
        with suppress(StudyError):
            _, links = _linked(uri, sweep, root, None)
            for what, link in links:
                say(f"{what}: {link}")
            if not served(uri):
                say(
                    "MLflow's page is there until the sweep ends; MLflow's telemetry is off. Afterwards: "
                    + sweep.command("ui")
                )
            if _has_browser():
                webbrowser.open(links[0][1])
            return
        is_over.wait(LOOK_SECONDS)


def run(directory: Path, name: str | None, tracking_uri: str | None, host: str, port: int, browse: bool) -> int:
    """Serves MLflow's page until interrupted; returns the exit code.

    If a server of this store runs already, it only prints the links to it.

    Args:
        directory: folder of all sweeps.
        name: sweep to show; None: all.
        tracking_uri: MLflow's store; None: the sweep's, else the environment's, else the default.
        host, port: where to listen.
        browse: whether to open the first link, if there is a browser.

    Raises:
        StudyError: there is no such sweep or store, or something else listens at the port.
    """
    sweep = SweepFolder.open(directory, name) if name else None
    uri = store.tracking_uri(directory, sweep.execution if sweep else None, tracking_uri)
    check_reachable(uri)
    if is_missing(uri):
        raise store.missing(uri, directory, sweep)
    with ExitStack() as stack:

        def browsable() -> str:
            with refusals(uri):
                return stack.enter_context(artifacts.browsable(uri, directory))

        found = faults.patiently(browsable, terminal.complain)
        if found != uri:
            terminal.complain("note: these results cannot be written, so this is a copy: changes made in it are lost.")
        return _serve(found, sweep, tracking_uri, host, port, browse)


def _serve(uri: str, sweep: SweepFolder | None, tracking_uri: str | None, host: str, port: int, browse: bool) -> int:
    """Serves a store that can be written, see `run`."""
    root = uri.rstrip("/") if served(uri) else f"http://{in_address(host)}:{port}"
    asked = uri if tracking_uri else None
    opened, links = faults.patiently(lambda: _linked(uri, sweep, root, asked), terminal.complain)
    if served(uri):
        _show(links, browse)
        return 0
    reach_directly(in_address(host))
    if is_taken(host, port):
        if not serves_the_same(opened.client, root, sweep.plan.name if sweep else None):
            raise StudyError(f"Port {port} of {host} is taken by something else; choose another one with --port.")
        terminal.console.print(f"A server of this store already runs at {root}.", markup=False, soft_wrap=True)
        _show(links, browse)
        return 0

    def ready() -> None:
        _show(links, browse)
        terminal.console.print("Press Ctrl-C to stop the server.")

    return serve(uri, host, port, root, ready)


def _linked(uri: str, sweep: SweepFolder | None, root: str, asked: str | None) -> tuple[store.Store, list[Link]]:
    """The store, and links to what it has of a sweep.

    See `study.tracking.views.sweep_links`.
    """
    with refusals(uri):
        opened = store.Store(uri)
        if sweep is None:
            return opened, [("sweeps", views.sweeps_link(root))]
        opened.own_experiment(sweep)
        return opened, views.sweep_links(opened.client, sweep, root, asked)


def _show(links: list[Link], browse: bool) -> None:
    """Prints the links, and opens the first one."""
    for what, link in links:
        terminal.console.print(f"{what}: {link}", markup=False, soft_wrap=True)
    if browse and _has_browser():
        webbrowser.open(links[0][1])


def _has_browser() -> bool:
    """Whether a user sits at a terminal with a screen."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
