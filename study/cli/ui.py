"""`study ui`: MLflow's page on the study's store, with links."""

from __future__ import annotations

import os
import sys
import webbrowser
from contextlib import ExitStack
from pathlib import Path

from study.cli import terminal
from study.errors import StudyError
from study.sweep.folder import SweepFolder
from study.tracking import artifacts, faults, store, views
from study.tracking.client import check_reachable, is_missing, refusals, served
from study.tracking.server import in_address, is_taken, reach_directly, serve, serves_the_same
from study.tracking.views import Link


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
