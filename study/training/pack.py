"""Trials trained together, as one stack of lanes: a pack.

A GPU takes a step of twenty lanes in the time of a step of one: it waits for launches. So trials of the same shape are stacked,
and twenty trials of three seeds take hardly longer than one. Lanes do not see each other, so each trial gets the results that it
would get alone, up to rounding.

Trials may join a pack after different numbers of tasks, as after a crash: those behind are trained first. Trials that cannot be
stacked, see `study.experiment.stacks`, take turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from study.config import TrialConfig
from study.contracts import Dataset
from study.errors import StudyError
from study.experiment import build_stack, stacks
from study.lanes import joined, taken
from study.training.trainer import State, TaskResult, train

Outcomes = dict[str, TaskResult | Exception]
"""By key of the trial: the result of its next task, or the error that ended it."""


class Pack:
    """Some trials and where they are."""

    def __init__(
        self, configs: Mapping[str, TrialConfig], dataset: Dataset, starts: Mapping[str, State] | None = None
    ) -> None:
        """Makes a pack; nothing is trained yet.

        Args:
            configs: of the trials, by key.
            dataset: that all of them name, on the CPU.
            starts: states to continue from, by key; trials without one start at their first task.
        """
        self._configs = dict(configs)
        self._dataset = dataset
        self.states: dict[str, State] = dict(starts or {})
        self._runs: dict[tuple[str, ...], Iterator[TaskResult]] = {}
        self._most = len(configs)  # trials in a stack: fewer after the GPU was too small
        self._ended: set[str] = set()
        self._counts: dict[str, int] = {}

    def task_count(self, key: str) -> int:
        """Number of tasks of a trial that has been trained."""
        return self._counts[key]

    def train(self) -> Iterator[Outcomes]:
        """Trains task after task; yields outcomes, stack by stack.

                A trial whose part raises is tried alone; if it raises again its outcome is the error, and the others go on.

        Raises:
            RuntimeError: CUDA has failed, and with it this process.
        """
        kinds = stacks(self._configs)
        while open_keys := [key for key in self._configs if key not in self._ended]:
            behind = min(map(self._next_task, open_keys))
            now = [[key for key in keys if key in open_keys and self._next_task(key) == behind] for keys in kinds]
            for keys in now:
                for some in _pieces(keys, self._most):
                    if outcomes := self._advance(some):
                        yield outcomes

    def _next_task(self, key: str) -> int:
        return self.states[key].next_task if key in self.states else 0

    def _advance(self, keys: tuple[str, ...]) -> Outcomes:
        """Trains the next task of some trials as one stack."""
        try:
            result = next(self._run(keys), None)
        except torch.OutOfMemoryError as error:
            self._runs.clear()
            torch.cuda.empty_cache()
            if len(keys) == 1:
                return self._failed(keys[0], _too_small(error))
            self._most = -(-len(keys) // 2)
            return self._each(_pieces(keys, self._most))
        except Exception as error:
            self._runs.clear()
            if "CUDA" in str(error):
                raise
            return self._failed(keys[0], error) if len(keys) == 1 else self._each([(key,) for key in keys])
        if result is None:  # all its tasks are trained
            self._ended.update(keys)
            return {}
        outcomes: Outcomes = {}
        start = 0
        for key in keys:
            stop = start + len(self._configs[key].seeds)
            outcome = of_lanes(result, slice(start, stop))
            outcomes[key], self.states[key] = outcome, outcome.state
            start = stop
        return outcomes

    def _each(self, pieces: Sequence[tuple[str, ...]]) -> Outcomes:
        return {key: outcome for keys in pieces for key, outcome in self._advance(keys).items()}

    def _failed(self, key: str, error: Exception) -> Outcomes:
        self._ended.add(key)
        return {key: error}

    def _run(self, keys: tuple[str, ...]) -> Iterator[TaskResult]:
        """The training of these trials, from where they are.

        A stack of other trials with one of these has ended.
        """
        if keys not in self._runs:
            self._runs = {other: run for other, run in self._runs.items() if not set(other) & set(keys)}
            experiment = build_stack([self._configs[key] for key in keys], self._dataset)
            self._counts.update(dict.fromkeys(keys, experiment.tasks.count))
            begun = [self.states[key] for key in keys if key in self.states]
            self._runs[keys] = train(experiment, stack_of(begun) if begun else None)
        return self._runs[keys]


def _pieces(keys: Sequence[str], most: int) -> list[tuple[str, ...]]:
    return [tuple(keys[start : start + most]) for start in range(0, len(keys), most)]


def _too_small(error: Exception) -> StudyError:
    free, all_of_it = (amount / 2**30 for amount in torch.cuda.mem_get_info())
    words = str(error).partition(".")[0]
    return StudyError(
        f"The GPU has too little free memory for this trial alone ({free:.1f} of {all_of_it:.1f} GiB are free; {words}); stop "
        f"what else runs on it, or choose fewer seeds or a smaller network."
    )


def stack_of(states: Sequence[State]) -> State:
    """The states of trials after the same task, as one."""
    first = states[0]
    return State(
        next_task=first.next_task,
        params=joined([state.params for state in states]),
        memory=joined([state.memory for state in states]),
        intervention_states=tuple(map(joined, zip(*(state.intervention_states for state in states), strict=True))),
        diverged=torch.cat([state.diverged for state in states]),
        test=torch.cat([state.test for state in states], dim=1),
        validation=torch.cat([state.validation for state in states], dim=1),
        gradient_evaluations=first.gradient_evaluations,
    )


def of_lanes(result: TaskResult, lanes: slice) -> TaskResult:
    """The result of some lanes of a stack.

    Of the seconds it has the lanes' share, so that the seconds of all trials add up to those of the stack.
    """
    share = len(range(*lanes.indices(len(result.test_accuracy)))) / len(result.test_accuracy)
    if share == 1:
        return result
    state, held_out = result.state, result.validation_accuracy
    return replace(
        result,
        test_accuracy=result.test_accuracy[lanes],
        validation_accuracy=None if held_out is None else held_out[lanes],
        online_accuracy=result.online_accuracy[lanes],
        online_loss=result.online_loss[lanes],
        diagnostics=taken(result.diagnostics, lanes),
        training_seconds=share * result.training_seconds,
        evaluation_seconds=share * result.evaluation_seconds,
        diagnostics_seconds=share * result.diagnostics_seconds,
        state=replace(
            state,
            params=taken(state.params, lanes),
            memory=taken(state.memory, lanes),
            intervention_states=tuple(taken(values, lanes) for values in state.intervention_states),
            diverged=state.diverged[lanes].clone(),
            test=state.test[:, lanes].clone(),
            validation=state.validation[:, lanes].clone(),
        ),
        probes=tuple(probed.of_lanes(lanes) for probed in result.probes),
    )
