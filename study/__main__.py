"""`python -m study` is the command `study`."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn

from study.cli.app import main


def command() -> NoReturn:
    """Runs the command line and ends the process.

    Python's own end would take every module apart first: more than a second once torch, Ray and MLflow are there.
    """
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None if it was closed before the start
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    command()
