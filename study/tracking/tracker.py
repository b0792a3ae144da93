"""Keeps MLflow up to date with a sweep's records.

A thread does it while the sweep runs; `sync` does it at any time afterwards.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

from mlflow.exceptions import MlflowException

from study.errors import StudyError, with_type
from study.sweep.folder import SweepFolder
from study.sweep.record import TrialHistory
from study.tracking import faults
from study.tracking.client import check_reachable, refusals
from study.tracking.runs import Drawings, SweepView

RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses between tries while the store is unreachable; the last one is repeated."""

LAST_SECONDS = 2.0
"""Longest pause between tries after the sweep has ended."""

AWAY_SECONDS = 60.0
"""How long the end of a sweep waits for a store that is away."""

TRIES = 2
"""Tries for a trial that MLflow refuses, before the others are sent; the end of the sweep tries again."""


class _GivenUp(Exception):  # noqa: N818  # not an error
    """`Tracker.close` waits no longer."""


class Tracker:
    """Keeps a store up to date from its own thread.

    No trial ever waits for it. While the store is unreachable or refuses it tries again and again; what it has not sent by
    the end is still in the records.

    Attributes:
        fault: why the store cannot be kept up to date; "" while it can.
        seconds: time that the thread has spent on successful requests.
    """

    def __init__(self, view: SweepView, say: Callable[[str], None]) -> None:
        self._view = view
        self._say = say
        self._changed: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._complete = False
        self._announced: dict[str, int] = {}
        self._sent: dict[str, int] = {}
        self._patience = AWAY_SECONDS
        self.fault = ""
        self.seconds = 0.0
        self._thread.start()

    @property
    def unsent(self) -> list[str]:
        """Keys of the trials that MLflow lacks results of."""
        return sorted(key for key, count in list(self._announced.items()) if self._sent.get(key, 0) < count)

    def trial_changed(self, history: TrialHistory) -> None:
        """Sends what is new in a trial's record."""
        self._announced[history.key] = self._announced.get(history.key, 0) + 1
        self._changed.put(history.key)

    def trial_noted(self, history: TrialHistory, text: str) -> None:  # noqa: ARG002  # the record has it
        """Sends what is new in a trial's record."""
        self.trial_changed(history)

    def close(self, patience: float | None = None, hurried: Callable[[], bool] = lambda: False) -> bool:
        """Waits until everything is sent; returns whether it is.

        Args:
            patience: most seconds to wait for a store that cannot be kept up to date; None: as long as the fault deserves.
            hurried: whether the user has asked to stop; the store is then not waited for.
        """
        self._closing.set()
        self._changed.put(None)
        waited = 0.0
        while self._thread.is_alive() and not (
            self.fault and (waited >= (self._patience if patience is None else patience) or hurried())
        ):
            self._thread.join(0.2)
            waited += 0.2 if self.fault else 0.0
        self._given_up.set()
        return self._complete

    def _work(self) -> None:
        try:
            self._follow()
        except _GivenUp:
            pass  # what is unsent is still in the records, and `fault` says why
        except Exception as error:  # the sweep must continue, and its end says what was not sent
            self.fault = str(error).rstrip(".") if isinstance(error, StudyError) else with_type(error)
            self._say(f"MLflow cannot be kept up to date: {self.fault}")
        else:
            self._complete = True

    def _follow(self) -> None:
        """Sends changes until `close`."""
        self._insist(self._view.begin)
        while (key := self._changed.get()) is not None:
            keys = {key}
            is_last = False
            while not self._changed.empty():  # many changes of a trial are sent at once
                further = self._changed.get()
                is_last = is_last or further is None
                keys |= {further} if further else set()
            for changed in sorted(keys):
                announced = self._announced[changed]  # its record may grow meanwhile
                if self._insist(partial(self._view.update, changed), TRIES):
                    self._sent[changed] = announced
            if is_last:
                break
        self._insist(self._view.end)
        self._sent = dict(self._announced)

    def _insist(self, send: Callable[[], None], tries: int | None = None) -> bool:
        """Calls `send` until it succeeds or `close` gives up.

        Args:
            send: what to do.
            tries: after so many refusals that waiting does not change it is left; None: never.

        Returns:
            Whether it has succeeded.
        """
        refused = 0
        for pause in _pauses():
            began = time.perf_counter()
            try:
                send()
            except (MlflowException, OSError, faults.DeletedError) as error:
                reason, is_final = faults.reason(error, self._view.uri), faults.is_final(error)
                busy = faults.is_busy(error)
                if not self.fault:
                    state = "refuses" if is_final else "is busy" if busy else "is unreachable"
                    self._say(f"MLflow {state}, trying again: {reason}")
                self.fault = reason
                self._patience = faults.BUSY_SECONDS if busy else AWAY_SECONDS
                if is_final:
                    self._view.forget()  # what somebody has deleted is made anew
                    refused += 1
                    if refused == tries:
                        self.fault = ""  # the others may be sent
                        return False
                    if refused > 1:
                        self._patience = LAST_SECONDS
                if not self._closing.is_set():
                    self._closing.wait(pause)
                elif self._given_up.wait(min(pause, LAST_SECONDS)):
                    raise _GivenUp from None
                continue
            self.seconds += time.perf_counter() - began
            self.fault = ""
            return True
        raise AssertionError("the pauses never end")


def _pauses() -> Iterator[float]:
    yield from RETRY_SECONDS
    while True:
        yield RETRY_SECONDS[-1]


def sync(
    folder: SweepFolder,
    uri: str,
    drawings: Drawings,
    *,
    running: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """Brings a store up to date and counts the trials.

    Args:
        folder: of the sweep.
        uri: of the store, which need not be the one that the sweep was launched with.
        drawings: draws the pictures.
        running: whether the sweep is running now, so that its runs must stay open.
        say: called with a message if the store is busy.

    Returns:
        The number of trials.

    Raises:
        StudyError: the store is unreachable, refuses, or is busy for too long.
    """
    check_reachable(uri)
    view = SweepView(folder, uri, drawings)
    histories = folder.histories()

    refused: list[MlflowException] = []

    def send(part: Callable[[], None]) -> None:
        with refusals(uri):
            part()

    def update(key: str) -> None:
        try:
            view.update(key)
        except MlflowException as error:
            if not faults.is_final(error):
                raise
            refused.append(error)  # the other trials are sent all the same

    def end() -> None:
        if not running:
            view.end()
        elif refused:
            raise refused[0]

    parts: list[Callable[[], None]] = [view.begin, *(partial(update, history.key) for history in histories), end]
    for part in parts:
        faults.patiently(partial(send, part), say)
    return len(histories)
