"""Standard output and error of a command.

No secret gets there, and a full disk or a closed pipe behind them stops no work: what cannot be written is dropped, and the end
of the command says so.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from study.redaction import redacted


class Output:
    """A stream that drops what cannot be written.

    Attributes:
        fault: the first error; None while all has been written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.fault: OSError | None = None

    def write(self, text: str) -> int:
        """Writes text without the secrets in it."""
        if self.fault is None:
            try:
                self._stream.write(redacted(text))
            except OSError as error:
                self._give_up(error)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Writes each line."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hands on what has been written."""
        if self.fault is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, fault: OSError) -> None:
        """Sends the rest, also what Python flushes at its end, nowhere."""
        self.fault = fault
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    @property
    def is_closed_pipe(self) -> bool:
        """Whether a reader such as `head` has read enough."""
        return self.fault is not None and self.fault.errno == errno.EPIPE

    def __getattr__(self, name: str) -> Any:
        """Anything else is the stream's."""
        return getattr(self._stream, name)


@contextmanager
def guarded() -> Iterator[Output]:
    """Guards both streams within its block; yields standard output."""
    before = sys.stdout, sys.stderr
    output, errors = Output(sys.stdout), Output(sys.stderr)
    sys.stdout, sys.stderr = output, errors
    try:
        yield output
    finally:
        output.flush()
        errors.flush()
        sys.stdout, sys.stderr = before
