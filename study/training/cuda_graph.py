"""A function recorded once as a CUDA graph and replayed.

A replay is one launch instead of one for each kernel of the function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]

WARM_UPS = 3
"""Calls before the recording, in which libraries choose kernels and allocate workspaces."""


@dataclass(frozen=True)
class Recording:
    """A recorded call.

    Attributes:
        arguments: tensors that every replay reads its arguments from.
        results: tensors that every replay writes its results to.
        replay: runs the recorded kernels again.
    """

    arguments: tuple[Tensor, ...]
    results: tuple[Tensor, ...]
    replay: Callable[[], None]


def recorded(function: Function, arguments: tuple[Tensor, ...]) -> Recording:
    """Records a call on the current CUDA device.

    The function is called a few times before the recording, and these calls change whatever it changes.
    """
    side_stream = torch.cuda.Stream()  # torch asks for warm-up calls on another stream
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        for _ in range(WARM_UPS):
            function(*arguments)
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function(*arguments)  # records the kernels without running them
    return Recording(arguments, results, graph.replay)


class Captured:
    """A function that is recorded once for each argument shape.

    Every call copies its arguments into the recording's tensors and replays it. The function may change other tensors in place,
    if their memory stays where it is and `changed` lists them. It must not branch on the value of a tensor, draw random
    numbers or copy numbers from the host, as `tensor[0] = 1` does in torch 2.11.
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
        """The results, in new tensors."""
        shapes = tuple(argument.shape for argument in arguments)
        if shapes not in self._recordings:
            self._recordings[shapes] = self._recorded(arguments)
        recording = self._recordings[shapes]
        for target, argument in zip(recording.arguments, arguments, strict=True):
            target.copy_(argument)
        recording.replay()
        return tuple(result.clone() for result in recording.results)

    def _recorded(self, arguments: tuple[Tensor, ...]) -> Recording:
        """A new recording; changed tensors get their values back."""
        before = [tensor.clone() for tensor in self._changed()]
        recording = self._record(self._function, tuple(argument.clone() for argument in arguments))
        for tensor, value in zip(self._changed(), before, strict=True):
            tensor.copy_(value)
        return recording
