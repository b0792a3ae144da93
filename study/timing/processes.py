"""Processes that measure at once, each with the data sets."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from typing import Any

from study.contracts import Dataset
from study.errors import StudyError
from study.parts import outside

MOST_PROCESSES = 8
"""The most processes that measure at once: each takes seconds to start."""

START_SECONDS = 120.0
"""How long the processes may take to start."""


@contextmanager
def processes(sizes: Iterable[int], datasets: Mapping[str, Dataset]) -> Iterator[Callable[..., list[Any]]]:
    """A `map` whose calls run in processes in parallel.

    There are as many processes as the largest of `sizes`; they start when they are needed, and stay. Each has the data sets
    in `shared_datasets`.

    Args:
        sizes: of the groups that `meet`.
        datasets: by key, on the CPU.

    Raises:
        StudyError: a process dies, or a call raises it.
    """
    context = multiprocessing.get_context("spawn")
    barriers = {size: context.Barrier(size) for size in sizes}
    pool = ProcessPoolExecutor(max(barriers), context, _begin, (barriers, dict(datasets), outside.known()))

    def run(function: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
        with interrupts_held():
            calls = [pool.submit(function, *each) for each in zip(*arguments, strict=False)]  # starts the processes
        return [call.result() for call in calls]  # `map` would cancel them, at which Python 3.11 prints a traceback

    try:
        yield run
    except BrokenProcessPool:
        raise StudyError("The processes that were to measure the speed of training died.") from None
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.kill()  # they would measure to the end, and this process would wait for them
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Shields processes from Ctrl-C from their very start.

    A process inherits which signals are blocked. One that is interrupted while it imports torch would print where. An
    interruption of this process waits for the end of the block.
    """
    held: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number)) if is_main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if is_main:
            signal.signal(signal.SIGINT, handler)
    if held:
        raise KeyboardInterrupt


shared_datasets: dict[str, Dataset] = {}
"""The data sets of a process that measures, by key."""

_barriers: dict[int, Barrier] = {}


def meet(size: int) -> None:
    """Waits until that many processes have called it."""
    _barriers[size].wait(START_SECONDS)


def _begin(
    barriers: Mapping[int, Barrier], datasets: Mapping[str, Dataset], files: Mapping[str, outside.PartFile]
) -> None:
    outside.register(files)
    shared_datasets.update(datasets)
    _barriers.update(barriers)
