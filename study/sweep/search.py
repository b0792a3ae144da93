"""The search of one group: points, then Optuna's suggestions.

Everything here is a function of the plan and the trials' records, so a search rebuilt from them continues as if it had never
stopped:

    trials of a predecessor   that the plan names are added before all others, with their values
    finished trials           are added to Optuna's study with their values
    trials stopped early      are added as pruned
    failed, unfinished trials wait in the study's queue and are proposed again

Trials are drawn in batches of `Plan.batch`, usually one. With one worker, a sweep that was interrupted and resumed suggests what
an uninterrupted one would have suggested (samplers `tpe`, `random` and `gp`; `cmaes` starts with a new covariance, see Optuna).
With several, suggestions depend on which trial ends first, and that is not repeatable.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from study import objective
from study.objective import Objective
from study.sweep.plan import Group, Plan
from study.sweep.record import TrialHistory
from study.sweep.successive_halving import Rungs

GENERATION_KEY = "NSGAIISampler:generation"
"""Attribute in which Optuna's genetic sampler keeps a trial's generation; a replay must restore it."""

STATES = {
    "finished": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
    "waiting": TrialState.RUNNING,
}
"""Optuna's state for each outcome. A trial that was interrupted or lost its worker counts as running: it will be continued."""


def make_sampler(name: str, seed: int, trials: int) -> BaseSampler:
    """Returns Optuna's sampler of that name for `trials` trials."""
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


def directions_of(goals: Sequence[Objective]) -> list[StudyDirection]:
    """Optuna's direction of each objective."""
    return [StudyDirection.MAXIMIZE if goal.is_maximised else StudyDirection.MINIMIZE for goal in goals]


def draw_seed(*words: object) -> int:
    """Returns a 32-bit seed that depends on the words only."""
    digest = hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def frozen_trial(
    history: TrialHistory,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    objectives: Collection[str],
    course: Mapping[int, float],
    user_attrs: dict[str, Any] | None = None,
    system_attrs: dict[str, Any] | None = None,
) -> FrozenTrial:
    """Returns a trial as Optuna keeps it.

    Args:
        history: the trial.
        params: the settings tried, as Optuna keeps them, by slash name.
        distributions: of these settings.
        objectives: the metrics that are its values; a finished trial without one of them counts as failed.
        course: the intermediate values, by number of tasks.
        user_attrs, system_attrs: notes for people, and notes of the sampler.
    """
    measured = {**history.metrics, **history.summary, **objective.values(history.objectives, history.tasks)}
    state = STATES[history.outcome]
    if state is TrialState.COMPLETE and not all(name in measured for name in objectives):
        state = TrialState.FAIL
    return create_trial(
        state=state,
        values=[measured[name] for name in objectives] if state is TrialState.COMPLETE else None,
        params=dict(params),
        distributions={name: distributions[name] for name in params},
        intermediate_values=dict(course),
        user_attrs=user_attrs,
        system_attrs=system_attrs,
    )


def earlier_trials(plan: Plan, group: Group, distributions: Mapping[str, BaseDistribution]) -> list[FrozenTrial]:
    """The earlier trials that a group's search begins with."""
    return [
        create_trial(
            values=list(trial.values),
            params=dict(trial.drawn),
            distributions=dict(distributions),
            user_attrs={"trial": trial.trial},
        )
        for trial in (plan.after.trials.get(group.label, ()) if plan.after else ())
    ]


def with_room(distribution: BaseDistribution, value: Any) -> BaseDistribution:
    """The distribution, widened to hold a value.

    It loses its steps if the value lies between them. Plans from before such points were refused have some.
    """
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return distribution
    if distribution._contains(distribution.to_internal_repr(value)):
        return distribution
    return type(distribution)(min(distribution.low, value), max(distribution.high, value), log=distribution.log)


def new_trial(
    plan: Plan,
    group: Group,
    number: int,
    tried: dict[str, Any],
    task_count: int,
    sampler_notes: dict[str, Any] | None = None,
) -> TrialHistory:
    """A trial that has not begun, with its complete configuration."""
    return TrialHistory(
        key=f"{group.label}-{number:03d}",
        number=number,
        scenario=group.scenario,
        method=group.method,
        phase=plan.phase,
        tried=tried,
        config=plan.trial_config(group, tried, number).plain(),
        task_count=task_count,
        sampler_notes=sampler_notes or {},
        labels=plan.labels,
        objectives=plan.goals,
    )


class GroupSearch:
    """The search over one method in one scenario.

    Attributes:
        limit: only trials with numbers below it are proposed.
    """

    def __init__(self, plan: Plan, group: Group, task_count: int, histories: Sequence[TrialHistory] = ()) -> None:
        """Rebuilds the search from the trials so far.

        Args:
            plan, group: what is searched.
            task_count: number of tasks of the scenario.
            histories: the group's trials, in the order of their numbers.
        """
        self.group = group
        self.rungs = Rungs(task_count)
        self.limit = group.trials
        self._plan = plan
        self._task_count = task_count
        self._distributions = group.drawn()
        self._goals = plan.goals
        self._names = [goal.quantity for goal in self._goals]
        self._open: dict[int, optuna.Trial] = {}
        self._unfinished: dict[int, TrialHistory] = {}
        self._again: dict[int, TrialHistory] = {}
        self._ready: list[TrialHistory] = []
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = directions_of(self._goals)
        self._study = optuna.create_study(
            study_name=group.label, directions=directions, pruner=optuna.pruners.NopPruner()
        )
        self._before = self._begin_after()
        tried = {history.number: history for history in histories}
        for number in range(max([len(group.points), *(number + 1 for number in tried)])):
            if number in tried:
                self._replay(tried[number])
            else:  # a point not tried yet, or a trial of whose record a crash left no complete line
                self._wait(group.points[number] if number < len(group.points) else {})

    def _begin_after(self) -> int:
        """Replays the trials of an earlier sweep; returns their number.

        They come first in Optuna's study, so its numbers are larger by that than those of the sweep's own trials.
        """
        earlier = earlier_trials(self._plan, self.group, self._distributions)
        self._study.add_trials(earlier)
        return len(earlier)

    @property
    def study(self) -> optuna.Study:
        """The Optuna study, for inspection."""
        return self._study

    @property
    def has_unfinished(self) -> bool:
        """Whether a trial begun or drawn earlier waits."""
        return bool(self._unfinished or self._again or self._ready)

    @property
    def must_draw(self) -> bool:
        """Whether the next trial begins a new batch."""
        return bool(self._distributions) and not self._ready and not self._again

    @property
    def ready(self) -> tuple[TrialHistory, ...]:
        """Trials drawn with the last one, to be proposed next."""
        return tuple(self._ready)

    def propose(self) -> TrialHistory | None:
        """Returns the next trial; None if there is none now.

        Unfinished trials come first, with the tasks that they have. All trials of a batch are drawn at once, before any of them
        has a result: so it makes no difference which of them are trained together.
        """
        if self._again:
            return self._again.pop(min(self._again))
        if not self._ready:
            self._draw_batch()
        return self._ready.pop(0) if self._ready else None

    def _draw_batch(self) -> None:
        """Draws trials up to the end of a batch."""
        while (history := self._draw()) is not None:
            self._ready.append(history)
            if (history.number + 1) % self._plan.batch == 0:
                break

    def _draw(self) -> TrialHistory | None:
        """Draws the next trial; None if there is none now."""
        waiting = [trial.number for trial in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))]
        number = (waiting[0] if waiting else len(self._study.get_trials(deepcopy=False))) - self._before
        if number >= min(self.group.trials, self.limit) and number not in self._unfinished:
            return None
        seed = draw_seed(self._plan.search_seed, self.group.label, number)
        self._study.sampler = make_sampler(self._plan.sampler, seed, self.group.trials)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self._study.ask(self._distributions)
        self._open[number] = trial
        if number in self._unfinished:
            history = self._unfinished.pop(number)
            for count, value in self._goals[0].course(history.tasks).items():
                self._note(number, count - 1, value)
            return history
        point = self.group.points[number] if number < len(self.group.points) else {}
        return self._new_trial(trial, {**point, **trial.params})

    def report(self, number: int, task: int, values: Mapping[str, float]) -> bool:
        """Takes the values after a task; returns whether to continue.

        Args:
            number: of the trial.
            task: index of the task.
            values: of the objectives, by quantity; others are ignored.
        """
        goal = self._goals[0]
        value = values.get(goal.quantity)
        if value is not None and goal.has_course:
            self._note(number, task, value)
        if self._plan.scheduler != "asha" or task + 1 == self._task_count:
            return True
        return self.rungs.passes(task, goal.score(values[goal.quantity]))

    def take_back(self, history: TrialHistory) -> None:
        """Takes back a trial whose worker died; proposes it again."""
        self._again[history.number] = history

    def tell(self, number: int, outcome: str, values: Mapping[str, float]) -> None:
        """Tells Optuna how a trial ended.

        Args:
            number: of the trial.
            outcome: "finished" (complete, with its values), "stopped" (pruned) or "failed".
            values: of the objectives after its last task, by quantity; others are ignored.
        """
        trial = self._open.pop(number)
        if outcome == "finished" and all(name in values for name in self._names):
            self._study.tell(trial, [values[name] for name in self._names])
        else:
            self._study.tell(trial, state=TrialState.PRUNED if outcome == "stopped" else TrialState.FAIL)

    def _new_trial(self, trial: optuna.Trial, tried: dict[str, Any]) -> TrialHistory:
        number = trial.number - self._before
        attributes = self._study.get_trials(deepcopy=False)[trial.number].system_attrs
        notes = {key: value for key, value in attributes.items() if key == GENERATION_KEY}
        return new_trial(self._plan, self.group, number, tried, self._task_count, notes)

    def _note(self, number: int, task: int, value: float) -> None:
        """Notes the value of the first objective after a task."""
        if len(self._goals) == 1:
            self._open[number].report(value, task + 1)
        self.rungs.note(number, task, self._goals[0].score(value))

    def _wait(self, point: dict[str, Any]) -> None:
        self._study.enqueue_trial({name: value for name, value in point.items() if name in self._distributions})

    def _replay(self, history: TrialHistory) -> None:
        if history.outcome in ("waiting", "running", "failed"):
            self._unfinished[history.number] = history
            self._wait(history.tried)
            return
        course = self._goals[0].course(history.tasks)
        for count, value in course.items():
            self.rungs.note(history.number, count - 1, self._goals[0].score(value))
        params = {name: history.tried[name] for name in self._distributions}
        distributions = {name: with_room(self._distributions[name], value) for name, value in params.items()}
        shown = course if len(self._goals) == 1 else {}
        self._study.add_trial(
            frozen_trial(history, params, distributions, self._names, shown, system_attrs=history.sampler_notes)
        )
