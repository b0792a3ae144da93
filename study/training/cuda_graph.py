"""A function of tensors recorded once as a CUDA graph, and replayed: one launch instead of one for each of its kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]

WARM_UPS = 3
"""Calls before the recording, in which libraries choose their kernels and make their workspaces."""


@dataclass(frozen=True)
class Recording:
    """A recorded call.

    Attributes:
        arguments: the tensors it reads its arguments from.
        results: the tensors it leaves its results in.
        replay: does once more what was recorded.
    """

    arguments: tuple[Tensor, ...]
    results: tuple[Tensor, ...]
    replay: Callable[[], None]


def recorded(function: Function, arguments: tuple[Tensor, ...]) -> Recording:
    """Records a call on the current CUDA device. The call is made a few times before, and has its effects then."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_UPS):
            function(*arguments)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function(*arguments)
    return Recording(arguments, results, graph.replay)


class Captured:
    """The function, replayed from the second call with arguments of the same shapes on.

    The function may change tensors besides its arguments, if they stay where they are and `changed` lists them. It must not
    decide anything by a value, nor draw random numbers.
    """

    def __init__(
        self,
        function: Function,
        changed: Callable[[], list[Tensor]],
        record: Callable[[Function, tuple[Tensor, ...]], Recording] = recorded,
    ) -> None:
        self._function = function
        self._changed = changed
        self._record = record
        self._recordings: dict[tuple[torch.Size, ...], Recording] = {}

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The results, in tensors of their own."""
        shapes = tuple(argument.shape for argument in arguments)
        if shapes not in self._recordings:
            self._recordings[shapes] = self._recorded(arguments)
        recording = self._recordings[shapes]
        for place, argument in zip(recording.arguments, arguments, strict=True):
            place.copy_(argument)
        recording.replay()
        return tuple(result.clone() for result in recording.results)

    def _recorded(self, arguments: tuple[Tensor, ...]) -> Recording:
        """A recording, with everything as it was before the calls that it takes."""
        before = [tensor.clone() for tensor in self._changed()]
        recording = self._record(self._function, tuple(argument.clone() for argument in arguments))
        for tensor, value in zip(self._changed(), before, strict=True):
            tensor.copy_(value)
        return recording
