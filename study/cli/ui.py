"""`study ui`: MLflow's page over the study's store, with links to what there is to see."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

from study.cli import terminal
from study.errors import StudyError
from study.sweep.folder import SweepFolder
from study.tracking import store, views
from study.tracking.client import check_reachable, is_missing, refusals, served
from study.tracking.server import in_address, is_taken, reach_directly, serve, serves_the_same
from study.tracking.views import Link


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
    uri = store.tracking_uri(directory, opened.execution if opened else None, tracking_uri)
    check_reachable(uri)
    if is_missing(uri):
        raise StudyError(f"There is no MLflow store {uri} yet; begin with `study run quickstart`.")
    root = uri.rstrip("/") if served(uri) else f"http://{in_address(host)}:{port}"
    with refusals(uri):
        client = store.Store(uri).client
        found = (
            views.sweep_links(client, opened, root, tracking_uri) if opened else [("sweeps", views.sweeps_link(root))]
        )
    if served(uri):
        _show(found, browse)
        return 0
    reach_directly(in_address(host))
    if is_taken(host, port):
        if not serves_the_same(client, root, name):
            raise StudyError(f"Port {port} of {host} is taken by something else; choose another one with --port.")
        terminal.console.print(f"A server of this store runs at {root} already.", markup=False, soft_wrap=True)
        _show(found, browse)
        return 0

    def ready() -> None:
        _show(found, browse)
        terminal.console.print("The server stops with Ctrl-C.")

    return serve(uri, host, port, root, ready)


def _show(found: list[Link], browse: bool) -> None:
    for what, link in found:
        terminal.console.print(f"{what}: {link}", markup=False, soft_wrap=True)
    if browse and _has_browser():
        webbrowser.open(found[0][1])


def _has_browser() -> bool:
    """Whether somebody sits here with a browser: in a terminal, on a machine with a screen."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
