"""The search of one group in a race.

It is a function of the plan and the records, which it reads anew each time: unfinished trials come first, then the seeds of the
configuration that is promoted, then a new configuration. So a race that was interrupted continues, with one worker, as if it had
never stopped.

Optuna is told configurations, not trials. One that has all seeds is complete, with its mean over them; one with fewer is pruned,
with its means as intermediate values and the number of seeds as the step. `tpe` ranks complete ones first, then pruned ones by
step, then by value, and after all of them those whose constraint is violated: the share of seeds that diverged.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from study import schema
from study.decision import halving
from study.decision.halving import Entrant
from study.objective import Objective
from study.sweep.plan import Group, Plan
from study.sweep.race.configurations import entrants, grouped
from study.sweep.record import TrialHistory
from study.sweep.search import directions_of, draw_seed, earlier_trials, make_sampler, new_trial, with_room


def frozen_configuration(
    entrant: Entrant,
    rungs: Sequence[int],
    goal: Objective,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    user_attrs: dict[str, Any] | None = None,
) -> FrozenTrial:
    """Returns a configuration as Optuna keeps it.

    Args:
        entrant: the configuration.
        rungs: numbers of seeds after each rung.
        goal: what is optimised.
        params: the settings tried, as Optuna keeps them, by slash name.
        distributions: of these settings.
        user_attrs: notes for people.
    """
    scores = [result.score for result in entrant.results]
    course = {seeds: goal.score(score) for seeds, score in zip(rungs, scores, strict=False) if score is not None}
    if None in scores:
        state = TrialState.FAIL
    elif len(scores) == len(rungs):
        state = TrialState.COMPLETE
    elif scores:
        state = TrialState.PRUNED
    else:
        state = TrialState.FAIL if entrant.failed else TrialState.RUNNING
    diverged = [result.diverged / seeds for result, seeds in zip(entrant.results, rungs, strict=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return create_trial(
            state=state,
            values=[course[rungs[-1]]] if state is TrialState.COMPLETE else None,
            params=dict(params),
            distributions={name: distributions[name] for name in params},
            intermediate_values=course,
            user_attrs=user_attrs,
            constraints={schema.DIVERGED_LANES: diverged[-1]} if diverged else None,
        )


class RaceSearch:
    """The race of one method in one scenario.

    Attributes:
        limit: has no meaning here; the plan says how many configurations there are.
    """

    def __init__(
        self, plan: Plan, group: Group, task_count: int, histories: Callable[[], Collection[TrialHistory]]
    ) -> None:
        """Rebuilds the race from the trials so far.

        Args:
            plan, group: what is searched.
            task_count: number of tasks of the scenario.
            histories: returns the present histories of the group's trials.
        """
        self.limit = group.trials
        self._plan, self._group, self._task_count = plan, group, task_count
        self._histories = histories
        self._distributions = group.drawn()
        self._goal = plan.goals[0]
        self._again = {history.number: history for history in histories() if not history.is_done}
        self._ready: list[TrialHistory] = []
        optuna.logging.set_verbosity(optuna.logging.WARNING)

    @property
    def has_unfinished(self) -> bool:
        """Whether a trial begun or drawn earlier waits."""
        return bool(self._again or self._ready)

    @property
    def must_draw(self) -> bool:
        """Whether the next trial begins a new batch."""
        return bool(self._distributions) and not self.has_unfinished and self._promoted() is None

    @property
    def ready(self) -> tuple[TrialHistory, ...]:
        """Trials drawn with the last one, to be proposed next."""
        return tuple(self._ready)

    def propose(self) -> TrialHistory | None:
        """Returns the next trial; None if there is none now."""
        if self._again:
            return self._again.pop(min(self._again))
        if self._ready:
            return self._ready.pop(0)
        entrant = self._promoted()
        if entrant is not None:
            return self._next_seeds(entrant)
        self._draw_batch()
        return self._ready.pop(0) if self._ready else None

    def report(self, _number: int, _task: int, _values: Mapping[str, float]) -> bool:
        """Whether a trial goes on after a task: always."""
        return True

    def take_back(self, history: TrialHistory) -> None:
        """Takes back a trial whose worker died; proposes it again."""
        self._again[history.number] = history

    def tell(self, _number: int, _outcome: str, _values: Mapping[str, float]) -> None:
        """Does nothing: the records say how a trial ended."""

    @property
    def study(self) -> optuna.Study:
        """The Optuna study of the configurations so far."""
        study = optuna.create_study(
            study_name=self._group.label,
            directions=directions_of([self._goal]),
            pruner=optuna.pruners.NopPruner(),
        )
        study.add_trials(earlier_trials(self._plan, self._group, self._distributions))
        found = grouped(self._plan, [*self._histories(), *self._ready])
        for trials in sorted(found, key=lambda trials: trials[0].number):
            params = {name: trials[0].tried[name] for name in self._distributions}
            distributions = {name: with_room(self._distributions[name], value) for name, value in params.items()}
            (entrant,) = entrants(self._plan, trials)
            study.add_trial(frozen_configuration(entrant, self._plan.rungs, self._goal, params, distributions))
        return study

    def _promoted(self) -> Entrant | None:
        known = entrants(self._plan, list(self._histories()))
        return halving.promoted(known, self._group.trials, len(self._plan.rungs))

    def _next_seeds(self, entrant: Entrant) -> TrialHistory:
        """The trial with a configuration's seeds of the next rung."""
        own = [each for each in self._histories() if self._plan.configuration_of(each.number) == entrant.number]
        return self._trial(entrant.number, entrant.begun, own[0].tried)

    def _draw_batch(self) -> None:
        """Draws configurations up to the end of a batch."""
        while (number := self._next_number()) < self._group.trials:
            self._ready.append(self._drawn(number))
            if (number + 1) % self._plan.batch == 0:
                break

    def _next_number(self) -> int:
        """Number of the next configuration.

        Not always the number of those known: a crash may have left no complete line of a record.
        """
        known = {self._plan.configuration_of(each.number) for each in (*self._histories(), *self._ready)}
        return next(number for number in count() if number not in known)

    def _drawn(self, number: int) -> TrialHistory:
        point = self._group.points[number] if number < len(self._group.points) else {}
        study = self.study
        seed = draw_seed(self._plan.search_seed, self._group.label, number)
        study.sampler = make_sampler(self._plan.sampler, seed, self._group.trials)
        study.enqueue_trial({name: value for name, value in point.items() if name in self._distributions})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = study.ask(self._distributions)
        return self._trial(number, 0, {**point, **trial.params})

    def _trial(self, configuration: int, rung: int, tried: dict[str, Any]) -> TrialHistory:
        number = configuration * len(self._plan.rungs) + rung
        return new_trial(self._plan, self._group, number, tried, self._task_count)
