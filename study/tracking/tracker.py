"""Keeps MLflow up to date with the records of a sweep: from a thread while it runs, or all at once afterwards."""

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
"""Pauses between tries while the store is away; the last one is repeated."""

LAST_SECONDS = 2.0
"""Longest pause once all that is left is to send."""


class Tracker:
    """Keeps a store up to date from a thread of its own, so that no trial ever waits for it.

    While the store is away it tries again and again; what it has not sent by the end is still in the records.

    Attributes:
        fault: why the store is away, in words; empty while it is not.
        seconds: that the thread has spent on sending, what was refused not counted.
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
        """A trial's record has grown."""
        self._changed.put(history.key)

    def trial_noted(self, history: TrialHistory, text: str) -> None:  # noqa: ARG002  # the record has it
        """A trial's record has grown."""
        self._changed.put(history.key)

    def close(self, patience: float = 60.0, hurried: Callable[[], bool] = lambda: False) -> bool:
        """Waits until all is sent; whether it is.

        Args:
            patience: seconds to wait at most while the store is away.
            hurried: whether somebody waits for the end; then a store that is away gets no patience.
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
        except Exception as error:  # whatever it is, the sweep goes on, and its end says what was not sent
            self.fault = with_type(error)
            self._say(f"MLflow cannot be kept up to date: {self.fault}")
        else:
            self._complete = True

    def _follow(self) -> None:
        self._insist(self._view.begin)
        while (key := self._changed.get()) is not None:
            keys = {key}
            last = False
            while not self._changed.empty():
                more = self._changed.get()
                last = last or more is None
                keys |= {more} if more else set()
            for changed in sorted(keys):
                self._insist(lambda changed=changed: self._view.update(changed))  # type: ignore[misc]
            if last:
                break
        self._insist(self._view.end)

    def _insist(self, send: Callable[[], None]) -> None:
        for pause in _pauses():
            began = time.perf_counter()
            try:
                send()
            except (MlflowException, OSError) as error:
                reason = first_line(error)
                if not self.fault:
                    self._say(f"MLflow is away, trying again: {reason}")
                self.fault = reason
                if not self._closing.is_set():
                    self._closing.wait(pause)
                elif self._given_up.wait(min(pause, LAST_SECONDS)):
                    raise  # the records keep what is unsent
                continue
            self.seconds += time.perf_counter() - began
            self.fault = ""
            return


def _pauses() -> Iterator[float]:
    yield from RETRY_SECONDS
    while True:
        yield RETRY_SECONDS[-1]


def sync(folder: SweepFolder, uri: str, drawings: Drawings, *, running: bool = False) -> int:
    """Brings a store up to date with a sweep's records. Returns the number of trials.

    Args:
        folder: of the sweep.
        uri: of the store; another one than the sweep was launched with will do.
        drawings: who draws the pictures.
        running: whether the sweep is running now, so that its runs must be left open.

    Raises:
        StudyError: the store cannot be reached or refuses.
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
