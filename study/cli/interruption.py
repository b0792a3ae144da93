"""Ctrl-C and SIGTERM while a sweep runs.

The first one asks the sweep to stop, the second one ends the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM: by convention 128 + SIGINT."""

SHOW_CURSOR = "\x1b[?25h"


class Interruption:
    """Handles SIGINT and SIGTERM within a `with` block.

    Attributes:
        requested: whether a signal has come.
    """

    def __init__(self, parting: str) -> None:
        """`parting`: printed when the process ends at once."""
        self.requested = False
        self._parting = parting
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        """Installs the handlers."""
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        """Restores the earlier handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            cursor = SHOW_CURSOR if sys.stdout.isatty() else ""
            _tell(f"{cursor}study: {self._parting}\n")
            os._exit(INTERRUPTED)  # Ray's processes end with this one
        self.requested = True
        _tell("study: stopping; press Ctrl-C once more to end at once\n")


def _tell(text: str) -> None:
    """Writes at once to standard error, if that can be written."""
    with suppress(OSError):
        os.write(2, text.encode())
