"""A launch of a sweep: its time limit, its notification."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from study.cli import terminal
from study.errors import Interrupted, StudyError

UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
"""Seconds of each unit of a time limit."""

LONGEST_LIMIT = 366 * UNITS["d"]

PATIENCE = 30.0
"""Seconds that a notification may take."""

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_PLAIN_WORD = re.compile(r"[\w./+-]+")


def seconds_of(limit: str | float) -> float:
    """Seconds of a time limit.

    It is a text such as 90s, 30m, 2h or 1h30m, or a number of seconds.

    Raises StudyError if it is no time, or not above 0 and at most 366 days.
    """
    seconds = float(limit) if not isinstance(limit, str) else 0.0
    if isinstance(limit, str) and (found := _DURATION.fullmatch(limit)) and len(limit) < 40:
        seconds = sum(int(count or 0) * unit for count, unit in zip(found.groups(), UNITS.values(), strict=True))
    if not 0 < seconds <= LONGEST_LIMIT:
        raise StudyError(f"--time-limit must be a time such as 90s, 30m, 2h or 1h30m, up to 366d, not {str(limit)!r}.")
    return seconds


def target_of(text: str) -> str:
    """What `--notify` names, checked.

    Raises StudyError if it is neither an http(s) address nor a command that the shell knows. It may have secrets in it, so the
    message has only its first word.
    """
    if _names_address(text):
        if not _is_address(text):
            raise StudyError(
                "--notify must be a command, or an address that begins with http:// or https:// and a host."
            )
        return text
    try:
        first = next(iter(shlex.split(text)), "")
        known = bool(first) and _shell("-n", "-c", text) == 0
    except ValueError:  # a quote that does not end, or a null character
        first, known = "", False
    if known and _PLAIN_WORD.fullmatch(first):
        known = _shell("-c", 'command -v -- "$1"', "sh", first) == 0
    if not known:
        raise StudyError(f"--notify must be an address or a command that the shell knows, and {first!r} is none.")
    return text


def _names_address(text: str) -> bool:
    """Whether the text is meant to be an address rather than a command."""
    return any("://" in word for word in text.split(maxsplit=1)[:1])


def _is_address(text: str) -> bool:
    try:
        parsed = urlsplit(text)
        return parsed.scheme in ("http", "https") and bool(parsed.hostname) and (parsed.port is None or parsed.port > 0)
    except ValueError:
        return False


def _shell(*words: str) -> int:
    done = subprocess.run(["sh", *words], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=PATIENCE)
    return done.returncode


@dataclass(frozen=True)
class Session:
    """One launch of a sweep.

    Nothing of it is recorded: the next launch has its own.

    Attributes:
        limit: seconds that it may take, or None.
        notify: a command or address that is told of the end, or None.
        is_shown: whether MLflow's page is served on this machine meanwhile.
        began: when the command began, on the monotonic clock.
    """

    limit: float | None = None
    notify: str | None = field(default=None, repr=False)
    is_shown: bool = False
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, time_limit: str | float | None, notify: str | None, *, ui: bool = False) -> Session:
        """The session that options ask for.

        Raises StudyError if they cannot be.
        """
        limit = None if time_limit is None else seconds_of(time_limit)
        return cls(limit, None if notify is None else target_of(notify), ui)

    @property
    def is_over(self) -> bool:
        """Whether its time has passed."""
        return self.limit is not None and time.monotonic() - self.began >= self.limit

    @contextmanager
    def told(self, sweep: str) -> Iterator[Ending]:
        """Tells of the end of its block.

        That is done, or failed with a sentence.

        An interruption by the user is told to nobody.
        """
        ending = Ending(sweep)
        try:
            yield ending
        except Exception as error:
            if not isinstance(error, Interrupted):
                ending.state, ending.text = "failed", str(error) or type(error).__name__
                self._tell(ending)
            raise
        self._tell(ending)

    def _tell(self, ending: Ending) -> None:
        """Sends a notification; one that fails is said, and loses nothing."""
        if self.notify is None:
            return
        send = _posted if _names_address(self.notify) else _executed
        if fault := send(self.notify, ending):
            terminal.complain(f"note: the notification failed ({fault}); the sweep has lost nothing by it.")


@dataclass
class Ending:
    """The end of a launch, to be told.

    Attributes:
        sweep: its name.
        state: "done", "failed" or "time limit".
        text: a sentence.
    """

    sweep: str
    state: str = "done"
    text: str = ""

    @property
    def words(self) -> str:
        """A line for people."""
        return f"{self.sweep}: {self.text}"


def _posted(address: str, ending: Ending) -> str:
    """Posts the end as JSON; why that failed, or "".

    The reason has no more of the address than its host: a path may be a secret.
    """
    from http.client import HTTPException  # these take long to import
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    content = {"sweep": ending.sweep, "state": ending.state, "text": ending.words}
    request = Request(address, json.dumps(content).encode(), {"Content-Type": "application/json"})  # noqa: S310  # see `target_of`
    host = urlsplit(address).hostname
    try:
        with urlopen(request, timeout=PATIENCE):  # noqa: S310
            return ""
    except HTTPError as error:
        return f"{host} answers with error {error.code}"
    except (OSError, HTTPException, ValueError):
        return f"{host} cannot be reached"


def _executed(command: str, ending: Ending) -> str:
    """Runs the command with the end in its environment; why that failed, or "".

    What it prints is dropped, and so not mixed with the study's output.
    """
    variables = {"STUDY_SWEEP": ending.sweep, "STUDY_STATE": ending.state, "STUDY_TEXT": ending.words}
    try:
        done = subprocess.run(
            ["sh", "-c", command],
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the command took more than {PATIENCE:g} s"
    except (OSError, ValueError) as error:
        return f"the command cannot be run: {type(error).__name__}"
    return f"the command ended with exit code {done.returncode}" if done.returncode else ""
