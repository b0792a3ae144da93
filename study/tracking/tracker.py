"""Keeps MLflow up to date with a sweep's records.

A thread does it while the sweep runs; `sync` does it at any time afterwards.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

from mlflow.exceptions import MlflowException

from study.errors import first_line, with_type
from study.sweep.folder import SweepFolder
from study.sweep.record import TrialHistory
from study.tracking.client import check_reachable, refusals
from study.tracking.runs import Drawings, SweepView

RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses between tries while the store is unreachable; the last one is repeated."""

LAST_SECONDS = 2.0
"""Longest pause between tries after the sweep has ended."""


class Tracker:
    """Keeps a store up to date from its own thread.

    No trial ever waits for it. While the store is unreachable it tries again and again; what it has not sent by the end is
    still in the records.

    Attributes:
        fault: why the store is unreachable; "" while it is reachable.
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
        self.fault = ""
        self.seconds = 0.0
        self._thread.start()

    def trial_changed(self, history: TrialHistory) -> None:
        """Sends what is new in a trial's record."""
        self._changed.put(history.key)

    def trial_noted(self, history: TrialHistory, text: str) -> None:  # noqa: ARG002  # the record has it
        """Sends what is new in a trial's record."""
        self._changed.put(history.key)

    def close(self, patience: float = 60.0, hurried: Callable[[], bool] = lambda: False) -> bool:
        """Waits until everything is sent; returns whether it is.

        Args:
            patience: most seconds to wait for an unreachable store.
            hurried: whether the user has asked to stop; an unreachable store is then not waited for.
        """
        self._closing.set()
        self._changed.put(None)
        waited = 0.0
        while self._thread.is_alive() and not (self.fault and (waited >= patience or hurried())):
            self._thread.join(0.2)
            waited += 0.2 if self.fault else 0.0
        self._given_up.set()
        return self._complete

    def _work(self) -> None:
        try:
            self._follow()
        except Exception as error:  # the sweep must continue, and its end says what was not sent
            self.fault = with_type(error)
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
                self._insist(lambda changed=changed: self._view.update(changed))  # type: ignore[misc]
            if is_last:
                break
        self._insist(self._view.end)

    def _insist(self, send: Callable[[], None]) -> None:
        """Calls `send` until it succeeds or `close` gives up."""
        for pause in _pauses():
            began = time.perf_counter()
            try:
                send()
            except (MlflowException, OSError) as error:
                reason = first_line(error)
                if not self.fault:
                    self._say(f"MLflow is unreachable, trying again: {reason}")
                self.fault = reason
                if not self._closing.is_set():
                    self._closing.wait(pause)
                elif self._given_up.wait(min(pause, LAST_SECONDS)):
                    raise  # what is unsent is still in the records
                continue
            self.seconds += time.perf_counter() - began
            self.fault = ""
            return


def _pauses() -> Iterator[float]:
    yield from RETRY_SECONDS
    while True:
        yield RETRY_SECONDS[-1]


def sync(folder: SweepFolder, uri: str, drawings: Drawings, *, running: bool = False) -> int:
    """Brings a store up to date and counts the trials.

    Args:
        folder: of the sweep.
        uri: of the store, which need not be the one that the sweep was launched with.
        drawings: draws the pictures.
        running: whether the sweep is running now, so that its runs must stay open.

    Returns:
        The number of trials.

    Raises:
        StudyError: the store is unreachable or refuses.
    """
    check_reachable(uri)
    view = SweepView(folder, uri, drawings)
    histories = folder.histories()
    with refusals(uri):
        view.begin()
        for history in histories:
            view.update(history.key)
        if not running:
            view.end()
    return len(histories)
