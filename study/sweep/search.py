"""What to try next, and when to stop trying: points, then Optuna's suggestions; asynchronous successive halving.

Everything here is a function of the trials' records. A search that is built anew from the records goes on as if it had
never stopped: finished trials are told to Optuna with their values, early-stopped ones as pruned, failed ones as failed, and
unfinished ones are waiting to be asked for again. With one trial at a time, a sweep that was cut and resumed suggests what
the uncut one would have (samplers `tpe`, `random` and `gp`; `cmaes` starts its covariance anew, see Optuna). With several at
a time, what is suggested depends on which trial ends first, and that is not repeatable.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from study import schema
from study.sweep.plan import Group, Plan
from study.sweep.record import TrialHistory
from study.sweep.successive_halving import Rungs

GENERATION_KEY = "NSGAIISampler:generation"
"""What Optuna's genetic sampler notes on a trial; it must find it again in a replay."""


def make_sampler(name: str, seed: int, trials: int) -> BaseSampler:
    """Optuna's sampler of that name for a budget of `trials`."""
    makers: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, trials // 5)),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return makers[name]()


def draw_seed(*words: object) -> int:
    """A 32-bit seed that is a function of the words."""
    digest = hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


class GroupSearch:
    """The search over one method in one scenario."""

    def __init__(self, plan: Plan, group: Group, task_count: int, histories: Sequence[TrialHistory] = ()) -> None:
        """Rebuilds the search from what was tried before.

        Args:
            plan, group: what is searched.
            task_count: tasks of the scenario.
            histories: of this group's trials, in order of their numbers.
        """
        self.group = group
        self.rungs = Rungs(task_count)
        self._plan = plan
        self._task_count = task_count
        self._distributions = group.drawn()
        self._objectives = [schema.OBJECTIVE, schema.DECLINE] if plan.sampler == "nsga2" else [schema.OBJECTIVE]
        self._single = len(self._objectives) == 1
        self._open: dict[int, optuna.Trial] = {}
        self._unfinished: dict[int, TrialHistory] = {}
        self._again: dict[int, TrialHistory] = {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: len(self._objectives)]
        self._study = optuna.create_study(
            study_name=group.label, directions=directions, pruner=optuna.pruners.NopPruner()
        )
        known = {history.number: history for history in histories}
        for number in range(max([len(group.points), *(seen + 1 for seen in known)])):
            if number in known:
                self._replay(known[number])
            else:  # a point to come, or a trial whose record a crash has torn
                self._wait(group.points[number] if number < len(group.points) else {})

    @property
    def study(self) -> optuna.Study:
        """The Optuna study, for a look."""
        return self._study

    @property
    def has_unfinished(self) -> bool:
        """Whether a trial that was begun before waits to be asked for."""
        return bool(self._unfinished or self._again)

    def propose(self) -> TrialHistory | None:
        """The next trial: one that was left unfinished, as it was left, or a new one; None when there is none now."""
        if self._again:
            return self._again.pop(min(self._again))
        waiting = [trial.number for trial in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))]
        number = waiting[0] if waiting else len(self._study.get_trials(deepcopy=False))
        if number >= self.group.trials and number not in self._unfinished:
            return None
        seed = draw_seed(self._plan.search_seed, self.group.label, number)
        self._study.sampler = make_sampler(self._plan.sampler, seed, self.group.trials)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self._study.ask(self._distributions)
        self._open[trial.number] = trial
        if trial.number in self._unfinished:
            history = self._unfinished.pop(trial.number)
            for line in history.tasks:
                self._report(trial.number, line["task"], line["metrics"])
            return history
        point = self.group.points[trial.number] if trial.number < len(self.group.points) else {}
        return self._new_trial(trial, {**point, **trial.params})

    def report(self, number: int, task: int, metrics: dict[str, float]) -> bool:
        """Takes a task's measures; whether the scheduler lets the trial go on."""
        self._report(number, task, metrics)
        if self._plan.scheduler == "none" or task + 1 == self._task_count:
            return True
        return self.rungs.passes(task, metrics[schema.OBJECTIVE])

    def take_back(self, history: TrialHistory) -> None:
        """Takes a trial back whose worker has died; it is proposed again, as the same trial."""
        self._again[history.number] = history

    def tell(self, number: int, outcome: str, metrics: dict[str, float]) -> None:
        """Closes a trial: "finished" with its values, "stopped" as pruned, "failed" as failed."""
        trial = self._open.pop(number)
        if outcome == "finished" and all(name in metrics for name in self._objectives):
            self._study.tell(trial, [metrics[name] for name in self._objectives])
        else:
            self._study.tell(trial, state=TrialState.PRUNED if outcome == "stopped" else TrialState.FAIL)

    def _new_trial(self, trial: optuna.Trial, tried: dict[str, Any]) -> TrialHistory:
        config = self._plan.trial_config(self.group, tried)
        noted = self._study.get_trials(deepcopy=False)[trial.number].system_attrs
        notes = {key: value for key, value in noted.items() if key == GENERATION_KEY}
        return TrialHistory(
            key=f"{self.group.label}-{trial.number:03d}",
            number=trial.number,
            scenario=self.group.scenario,
            method=self.group.method,
            phase=self._plan.phase,
            tried=tried,
            config=config.plain(),
            task_count=self._task_count,
            sampler_notes=notes,
            labels=self._plan.labels,
        )

    def _report(self, number: int, task: int, metrics: dict[str, float]) -> None:
        if schema.OBJECTIVE not in metrics:
            return
        if self._single:
            self._open[number].report(metrics[schema.OBJECTIVE], task + 1)
        self.rungs.note(number, task, metrics[schema.OBJECTIVE])

    def _wait(self, point: dict[str, Any]) -> None:
        self._study.enqueue_trial({name: value for name, value in point.items() if name in self._distributions})

    def _replay(self, history: TrialHistory) -> None:
        if history.outcome in ("waiting", "running", "failed"):
            self._unfinished[history.number] = history
            self._wait(history.tried)
            return
        for line in history.tasks:
            if schema.OBJECTIVE in line["metrics"]:
                self.rungs.note(history.number, line["task"], line["metrics"][schema.OBJECTIVE])
        self._study.add_trial(self._frozen(history))

    def _frozen(self, history: TrialHistory) -> FrozenTrial:
        steps = {
            line["task"] + 1: line["metrics"][schema.OBJECTIVE]
            for line in history.tasks
            if self._single and schema.OBJECTIVE in line["metrics"]
        }
        told = history.outcome == "finished" and all(name in history.metrics for name in self._objectives)
        unscored = TrialState.PRUNED if history.outcome == "stopped" else TrialState.FAIL
        return create_trial(
            state=TrialState.COMPLETE if told else unscored,
            values=[history.metrics[name] for name in self._objectives] if told else None,
            params={name: history.tried[name] for name in self._distributions},
            distributions=self._distributions,
            intermediate_values=steps,
            system_attrs=history.sampler_notes,
        )
