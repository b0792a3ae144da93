"""The search: points first, then suggestions that can be replayed."""

import copy

import optuna
import pytest
from optuna.trial import TrialState
from sweep_fixtures import by_lr, folder_of, plan_of, run_all, task_line

from study.sweep.conductor import Conductor
from study.sweep.search import GroupSearch, draw_seed, make_sampler
from study.sweep.successive_halving import Rungs

TASKS = 3


def plan_for(sampler="tpe", scheduler="none", trials=8, method="sam"):
    return plan_of(methods=[method], sampler=sampler, scheduler=scheduler, trials=trials)


def run_trial(search, history, score=by_lr, decline=None):
    """Trains one trial by hand to its end.

    The search is told, and the history gets its lines and outcome.
    """
    for task in range(len(history.tasks), history.task_count):
        line = task_line(history, task, [score(history)] * 2)
        if decline is not None:
            line["metrics"]["decline"] = decline(history)
        history.tasks.append(line)
        if not search.report(history.number, task, line["metrics"]):
            history.outcome = "stopped"
            break
    else:
        history.outcome = "finished"
    search.tell(history.number, history.outcome, history.metrics)


def run_to_end(plan, histories=(), score=by_lr, decline=None, most=None):
    """Continues a search from these histories to its end.

    Returns the search and all histories with their outcomes.
    """
    search = GroupSearch(plan, plan.groups[0], TASKS, list(histories))
    found = list(histories)
    while (most is None or len(found) < most) and (history := search.propose()) is not None:
        run_trial(search, history, score, decline)
        found = [h for h in found if h.number != history.number] + [history]
    return search, sorted(found, key=lambda history: history.number)


def told(histories):
    return [(history.key, history.number, history.tried, history.config, history.outcome) for history in histories]


def test_points_come_first_and_in_order():
    plan = plan_for()
    _, histories = run_to_end(plan)
    points = plan.groups[0].points
    assert [history.tried for history in histories[: len(points)]] == [dict(point) for point in points]
    drawn = plan.groups[0].drawn()
    for history in histories[len(points) :]:
        assert set(history.tried) == set(drawn)
        assert all(drawn[name].low <= value <= drawn[name].high for name, value in history.tried.items())
    assert len({tuple(history.tried.items()) for history in histories}) == 8


def test_the_budget_is_exact_and_numbers_are_consecutive():
    _, histories = run_to_end(plan_for(trials=5))
    assert [history.number for history in histories] == [0, 1, 2, 3, 4]


def test_a_budget_below_the_points_tries_the_first_of_them():
    plan = plan_for(trials=1)
    _, histories = run_to_end(plan)
    assert [history.tried for history in histories] == [dict(plan.groups[0].points[0])]


def test_what_a_point_says_stands_in_the_configuration():
    plan = plan_for()
    _, histories = run_to_end(plan, most=1)
    assert histories[0].config["optimizer"]["rho"] == 0.05
    assert histories[0].config["seeds"] == [0, 1]


def test_a_point_may_set_more_than_what_is_drawn():
    plan = plan_for()
    group = plan.groups[0].model_copy(update={"points": ({"optimizer/lr": 0.5, "training/batch_size": 7},)})
    search = GroupSearch(plan, group, TASKS)
    history = search.propose()
    assert history.config["training"]["batch_size"] == 7
    assert history.config["optimizer"]["lr"] == 0.5
    assert history.tried["training/batch_size"] == 7


@pytest.fixture(scope="module")
def uncut():
    """Uninterrupted searches, by sampler."""
    made = {}

    def get(sampler):
        if sampler not in made:
            made[sampler] = run_to_end(plan_for(sampler, trials=14))[1]
        return made[sampler]

    return get


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 11, 12, 13])  # before, among and after the points; with TPE's model
@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_a_search_cut_after_any_trial_suggests_what_the_uncut_one_would_have(uncut, sampler, cut):
    whole = uncut(sampler)
    plan = plan_for(sampler, trials=len(whole))
    _, again = run_to_end(plan, copy.deepcopy(whole[:cut]))
    assert told(again) == told(whole)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_suggestions_depend_on_what_was_found(uncut, sampler):
    whole = uncut(sampler)
    _, other = run_to_end(plan_for(sampler, trials=len(whole)), score=lambda history: 1 - by_lr(history))
    assert [history.tried for history in other[:10]] == [history.tried for history in whole[:10]]
    assert [history.tried for history in other] != [history.tried for history in whole]


def test_suggestions_depend_on_the_search_seed():
    plan = plan_for("random", trials=4)
    other = plan.model_copy(update={"search_seed": 1})
    _, first = run_to_end(plan)
    _, second = run_to_end(other)
    assert [h.tried for h in first[:2]] == [h.tried for h in second[:2]]
    assert [h.tried for h in first[2:]] != [h.tried for h in second[2:]]


def test_groups_draw_numbers_of_their_own():
    assert draw_seed(0, "class_pairs-sam", 3) == draw_seed(0, "class_pairs-sam", 3)
    assert len({draw_seed(0, label, number) for label in "ab" for number in range(50)}) == 100


@pytest.mark.parametrize("tasks_done", [0, 2])
@pytest.mark.parametrize("outcome", ["waiting", "running", "failed"])
def test_an_unfinished_trial_is_proposed_first_with_its_number_and_settings(outcome, tasks_done):
    plan = plan_for("random", trials=5)
    _, whole = run_to_end(plan)
    before = copy.deepcopy(whole[:4])
    left = before[2]
    left.outcome, left.tasks = outcome, left.tasks[:tasks_done]
    search = GroupSearch(plan, plan.groups[0], TASKS, before)
    assert search.has_unfinished
    first = search.propose()
    assert first is left
    assert not search.has_unfinished
    run_trial(search, first)
    second = search.propose()
    assert (second.number, second.tried) == (whole[4].number, whole[4].tried)
    run_trial(search, second)
    assert search.propose() is None
    assert [trial.params for trial in search.study.trials] == [history.tried for history in whole]


def test_several_unfinished_trials_come_in_the_order_of_their_numbers():
    plan = plan_for("random", trials=5)
    _, whole = run_to_end(plan)
    before = copy.deepcopy(whole[:4])
    for number in (1, 3):
        before[number].outcome = "running"
        before[number].tasks = []
    search = GroupSearch(plan, plan.groups[0], TASKS, before)
    assert [search.propose().number for _ in range(3)] == [1, 3, 4]
    assert search.propose() is None


def test_a_trial_left_unfinished_beyond_the_budget_is_still_finished():
    plan = plan_for("random", trials=4)
    _, whole = run_to_end(plan)
    whole[3].outcome, whole[3].tasks = "running", []
    small = plan.with_trials(2)
    search = GroupSearch(small, small.groups[0], TASKS, whole)
    assert search.propose() is whole[3]
    assert search.propose() is None


def states(search):
    return [trial.state for trial in search.study.trials]


def outcomes_by_number(score_by_number):
    return lambda history: score_by_number[history.number]


def test_optuna_is_told_how_each_trial_ended():
    plan = plan_for("random", "asha", trials=4)
    search, histories = run_to_end(plan, score=outcomes_by_number([0.5, 0.6, 0.4, 0.9]))
    assert [history.outcome for history in histories] == ["finished", "finished", "stopped", "finished"]
    expected = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE]
    assert states(search) == expected
    assert [trial.value for trial in search.study.trials][0::3] == [0.5, 0.9]
    assert search.study.best_trial.number == 3
    replayed = GroupSearch(plan, plan.groups[0], TASKS, histories)
    assert states(replayed) == expected
    assert [t.intermediate_values for t in replayed.study.trials] == [
        t.intermediate_values for t in search.study.trials
    ]
    assert replayed.study.trials[2].intermediate_values == {1: 0.4}


def test_optuna_is_told_of_failures_and_a_replay_tries_them_again():
    plan = plan_for("random", trials=3)
    search = GroupSearch(plan, plan.groups[0], TASKS)
    history = search.propose()
    search.tell(history.number, "failed", {})
    assert states(search)[0] == TrialState.FAIL
    history.outcome = "failed"
    replayed = GroupSearch(plan, plan.groups[0], TASKS, [history])
    assert replayed.propose() is history


def test_a_trial_without_an_objective_is_never_complete():
    plan = plan_for("random", trials=2)
    search = GroupSearch(plan, plan.groups[0], TASKS)
    history = search.propose()
    line = task_line(history, 0)
    assert search.report(history.number, 0, line["metrics"])
    search.tell(history.number, "finished", line["metrics"])
    assert states(search)[0] == TrialState.FAIL


def test_nsga2_is_told_accuracy_and_decline():
    plan = plan_for("nsga2", trials=9)
    search, histories = run_to_end(plan, decline=lambda history: history.number / 100)
    assert [trial.values for trial in search.study.trials] == [[by_lr(h), h.number / 100] for h in histories]
    assert [direction.name for direction in search.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    replayed = GroupSearch(plan, plan.groups[0], TASKS, histories)
    assert [trial.values for trial in replayed.study.trials] == [trial.values for trial in search.study.trials]


@pytest.mark.parametrize("cut", [3, 6, 9])
def test_nsga2_finds_its_generations_again(cut):
    plan = plan_for("nsga2", trials=13)
    _, whole = run_to_end(plan, decline=lambda history: history.number / 100)
    _, again = run_to_end(plan, copy.deepcopy(whole[:cut]), decline=lambda history: history.number / 100)
    assert [h.sampler_notes for h in again] == [h.sampler_notes for h in whole]
    assert told(again) == told(whole)


def test_cmaes_stays_in_range_and_in_budget():
    plan = plan_for("cmaes", trials=6)
    _, histories = run_to_end(plan)
    drawn = plan.groups[0].drawn()
    assert len(histories) == 6
    assert all(drawn[n].low <= value <= drawn[n].high for h in histories for n, value in h.tried.items())


@pytest.mark.parametrize("name", ["tpe", "random", "gp", "cmaes", "nsga2"])
def test_every_sampler_can_be_made(name):
    assert isinstance(make_sampler(name, 0, 10), optuna.samplers.BaseSampler)


@pytest.mark.parametrize(
    ("tasks", "steps"), [(1, []), (2, [1]), (3, [1]), (9, [1, 3]), (10, [2, 6]), (45, [5, 15]), (100, [12, 36])]
)
def test_rungs_lie_after_a_ninth_and_then_at_powers_of_three(tasks, steps):
    assert Rungs(tasks).steps == steps


def verdicts(rungs, task, objectives):
    found = []
    for number, objective in enumerate(objectives):
        rungs.note(number, task, objective)
        found.append(rungs.passes(task, objective))
    return found


def test_successive_halving_keeps_the_best_third_so_far():
    # of 1 to 5 trials the best one continues, of 6 the best two
    assert verdicts(Rungs(9), 0, [0.5, 0.4, 0.6, 0.3, 0.55, 0.58]) == [True, False, True, False, False, True]


def test_equals_go_on():
    assert verdicts(Rungs(9), 0, [0.5, 0.5, 0.5]) == [True, True, True]


def test_between_rungs_everybody_goes_on():
    assert verdicts(Rungs(9), 1, [0.5, 0.4, 0.3]) == [True, True, True]


def test_rungs_are_judged_apart():
    rungs = Rungs(9)
    assert verdicts(rungs, 0, [0.9, 0.8]) == [True, False]
    assert verdicts(rungs, 2, [0.1]) == [True]


def test_the_last_task_stops_nobody():
    plan = plan_for("random", "asha", trials=4)
    search = GroupSearch(plan, plan.groups[0], 1)
    for _ in range(4):
        history = search.propose()
        assert search.report(history.number, 0, task_line(history, 0, [1 - history.number / 10] * 2)["metrics"])


def test_a_replay_knows_who_reached_which_rung():
    plan = plan_for("random", "asha", trials=6)
    scores = outcomes_by_number([0.5, 0.6, 0.4, 0.9, 0.7, 0.85])
    _, whole = run_to_end(plan, score=scores)
    assert [h.outcome for h in whole] == ["finished", "finished", "stopped", "finished", "stopped", "finished"]
    for cut in range(6):
        _, again = run_to_end(plan, copy.deepcopy(whole[:cut]), score=scores)
        assert told(again) == told(whole)


def test_a_whole_sweep_resumes_from_its_records_as_if_uncut(tmp_path):
    plan = plan_of(trials=5)
    whole = run_all(folder_of(tmp_path / "whole", plan))
    cut = folder_of(tmp_path / "cut", plan)
    for most in (1, 4, 7):  # three launches, each with its own conductor
        conductor = Conductor(cut)
        while len(conductor.histories) < most:
            history = conductor.propose()
            conductor.started(history.key)
            for task in range(3):
                conductor.result(history.key, task_line(history, task, [by_lr(history)] * 2), {})
            conductor.ended(history.key)
    assert told(sorted(run_all(cut), key=lambda h: h.key)) == told(sorted(whole, key=lambda h: h.key))
