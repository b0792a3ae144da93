"""Races: which configuration gets which seeds, what Optuna is told, and what is selected."""

import json
import math
import random
import shutil
from statistics import fmean

import optuna
import pytest
from optuna.trial import TrialState
from sweep_fixtures import FACTS, by_lr, folder_of, plan_of, task_line

from study import schema
from study.cli import overview
from study.errors import StudyError
from study.sweep import export, optuna_storage, winners
from study.sweep.conductor import Conductor
from study.sweep.confirmation_plan import make_confirmation
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.sweep.plan import Plan
from study.sweep.race.configurations import configurations, entrants, places
from study.sweep.upkeep.predecessor import begun_after
from study.timing import estimate
from study.timing.speed import Timing

SEEDS = 5
"""With rungs of 1, 2, 4 and 5 seeds."""


def race(name="race", **choices):
    return plan_of(name, **{"methods": ["sam"], "trials": 12, "seeds": SEEDS, "scheduler": "race", **choices})


def lanes(history):
    """The objective of each seed: climbs to lr=0.1, with noise."""
    return [by_lr(history) + random.Random(f"{history.tried} {seed}").gauss(0, 0.01) for seed in history.seeds]


def train(conductor, history, value=lanes, tasks=None, diverged=lambda history: 0):
    """Plays a trial to its end, or to a number of tasks."""
    conductor.started(history.key)
    for task in range(len(history.tasks), history.task_count)[:tasks]:
        values = value(history)
        line = task_line(history, task, values, [0.5] * len(values))
        for part, name in (("metrics", schema.DIVERGED_LANES), ("summary", "summary/lanes_diverged")):
            if part in line:
                line[part][name] = float(diverged(history))
        conductor.result(history.key, line, FACTS)
    conductor.ended(history.key)


def play(folder, most=math.inf, pack=1, **how):
    """Plays all that is due, or so many packs; returns the keys in order."""
    conductor, packs = Conductor(folder), []
    while len(packs) < most and (proposed := conductor.propose_pack(pack)):
        for history in proposed:
            train(conductor, history, **how)
        packs.append([history.key[-7:] for history in proposed])
    return [key for keys in packs for key in keys] if pack == 1 else packs


def ends(folder):
    return {history.key: (history.tried, history.seeds, history.objective) for history in folder.histories()}


@pytest.fixture
def folder(tmp_path):
    """A race before its first trial."""
    return folder_of(tmp_path, race(), tasks=2)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A race that has ended; nobody changes it."""
    folder = folder_of(tmp_path_factory.mktemp("ended"), race(), tasks=2)
    play(folder)
    return folder


@pytest.fixture
def copied(ended, tmp_path):
    """The same, for those who change it."""
    shutil.copytree(ended.root, tmp_path / ended.name)
    return SweepFolder.open(tmp_path, ended.name)


def whole(folder):
    return configurations(folder.plan, folder.histories())


def test_a_trial_has_the_further_seeds_of_its_rung_only(ended):
    plan = ended.plan
    assert plan.rungs == (1, 2, 4, 5)
    for history in ended.histories():
        assert history.seeds == [[0], [1], [2, 3], [4]][plan.rung_of(history.number)]
    assert [len(each.seeds) for each in whole(ended)].count(SEEDS) == 1
    assert [sum(len(each.seeds) >= rung for each in whole(ended)) for rung in plan.rungs] == [12, 6, 3, 1]
    assert plan.trial_count == winners.trial_count(ended) == len(ended.histories()) == 22
    assert Conductor(ended).remaining == 0


def test_a_configuration_is_promoted_before_another_is_drawn(folder):
    keys = play(folder, most=7)
    drawn = [folder.plan.configuration_of(int(key[-3:])) for key in keys]
    assert drawn == [0, 1, drawn[2], 2, 3, drawn[5], drawn[6]]
    assert {drawn[2]} <= {0, 1}
    assert [folder.plan.rung_of(int(key[-3:])) for key in keys] == [0, 0, 1, 0, 0, 1, 2]


@pytest.mark.parametrize("cut", [1, 6, 13, 21])
def test_an_interrupted_race_ends_as_one_that_was_not(tmp_path, ended, cut):
    part = folder_of(tmp_path, race("part"), tasks=2)
    conductor = Conductor(part)
    for _ in range(cut):
        train(conductor, conductor.propose())
    train(conductor, conductor.propose(), tasks=1)
    play(SweepFolder.open(tmp_path, "part"))
    assert ends(part) == ends(ended)


def test_several_workers_spend_as_much(folder):
    conductor, running, draw = Conductor(folder), [], random.Random(0)
    while True:
        while len(running) < 3 and (history := conductor.propose()) is not None:
            running.append(history)
        if not running:
            break
        train(conductor, running.pop(draw.randrange(len(running))))
    assert len(folder.histories()) == folder.plan.trial_count
    assert len([each for each in whole(folder) if each.outcome == "finished"]) == 1


def test_a_pack_has_promoted_configurations_or_a_batch_of_new_ones(tmp_path):
    folder = folder_of(tmp_path, race().model_copy(update={"batch": 4}), tasks=1)
    packs = play(folder, pack=4)
    rungs = [[folder.plan.rung_of(int(key[-3:])) for key in keys] for keys in packs]
    assert rungs[:3] == [[0] * 4, [1, 1], [2]]
    assert len(folder.histories()) == 22
    part = folder_of(tmp_path, race("part").model_copy(update={"batch": 4}), tasks=1)
    play(part, pack=4, most=3)
    play(part, pack=4)
    assert ends(part) == ends(folder)


def test_a_larger_budget_keeps_all_trials_and_adds_to_them(copied):
    before = ends(copied)
    copied.log("budget", trials=20)
    more = SweepFolder.open(copied.directory, copied.name)
    play(more)
    after = ends(more)
    assert {key: after[key] for key in before} == before
    assert len(after) == more.plan.trial_count == 20 + 10 + 5 + 2


def test_a_failed_trial_blocks_nothing_and_is_tried_again(folder):
    conductor = Conductor(folder)
    while (history := conductor.propose()) is not None:
        if history.number in (0, 4):
            conductor.started(history.key)
            conductor.failed(history.key, "OSError: no space left")
        else:
            train(conductor, history)
    assert conductor.remaining == 2  # nothing but the failed ones
    assert [each.outcome for each in whole(folder)].count("finished") == 1
    assert winners.trial_count(folder) == 12 + 5 + 2 + 1
    keys = play(folder)
    assert keys[:2] == ["sam-000", "sam-004"]
    assert winners.trial_count(folder) == len(folder.histories()) == 22


def test_the_objective_is_the_mean_over_all_seeds(ended):
    (best,) = [each for each in whole(ended) if each.outcome == "finished"]
    assert best.seeds == list(range(SEEDS))
    assert best.objective == pytest.approx(fmean(lanes(best)))
    assert best.summary["summary/seconds"] == pytest.approx(4 * 2 * 2.5)  # of four trials
    assert len(best.tasks[-1]["lanes"]["accuracy/test"]) == SEEDS
    scores = {each.number: each.results for each in entrants(ended.plan, ended.histories())}
    assert scores[best.number // 4][-1].score == best.objective
    assert [each.objective for each in whole(ended) if each.key != best.key] == [None] * 11


def test_what_is_minimised_is_raced_the_other_way(tmp_path):
    folder = folder_of(tmp_path, race(objectives=["decline"], trials=8), tasks=2)

    def line_of(conductor, history):
        conductor.started(history.key)
        for task in range(2):
            line = task_line(history, task, [0.5] * len(history.seeds), [0.5] * len(history.seeds))
            line["metrics"]["decline"] = -by_lr(history)
            conductor.result(history.key, line, FACTS)
        conductor.ended(history.key)

    conductor = Conductor(folder)
    while (history := conductor.propose()) is not None:
        line_of(conductor, history)
    declines = [-by_lr(each) for each in whole(folder)]
    (best,) = [each for each in whole(folder) if each.outcome == "finished"]
    assert best.objective == pytest.approx(-by_lr(best))
    assert best.objective <= sorted(declines)[3]


def test_a_trial_without_an_objective_is_never_promoted(tmp_path):
    folder = folder_of(tmp_path, race(objectives=["rank/effective:max"], trials=3), tasks=1)
    play(folder)
    assert len(folder.histories()) == winners.trial_count(folder) == 3
    with pytest.raises(StudyError, match="No configuration of 'race' has finished with all 5 seeds"):
        winners.check_selectable(folder)


def test_optuna_is_told_configurations_with_the_number_of_seeds_as_step(ended):
    conductor = Conductor(ended)
    study = conductor._searches["class_pairs-sam"].study
    by_seeds = {len(trial.intermediate_values): trial for trial in study.trials}
    assert [trial.state for trial in study.trials].count(TrialState.COMPLETE) == 1
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert list(by_seeds[4].intermediate_values) == [1, 2, 4, 5]
    (best,) = [each for each in whole(ended) if each.outcome == "finished"]
    assert study.best_value == by_seeds[4].value == best.objective
    assert {tuple(trial.constraints.items()) for trial in study.trials} == {((schema.DIVERGED_LANES, 0.0),)}


def test_a_diverged_seed_violates_the_constraint_and_comes_after_all_others(folder):
    def diverged(history):
        return int(history.number == 0)

    play(folder, value=lambda history: [1 - history.number / 1000] * len(history.seeds), diverged=diverged)
    study = Conductor(folder)._searches["class_pairs-sam"].study
    first = study.trials[0]
    assert first.constraints == {schema.DIVERGED_LANES: 1.0}
    assert first.state is TrialState.PRUNED  # the highest objective of all, and not promoted
    assert list(first.intermediate_values) == [1]
    assert max(study.trials, key=lambda trial: trial.intermediate_values[1]) is not study.best_trial
    below, _ = optuna.samplers._tpe.sampler._split_trials(study, study.trials, 11)
    assert [trial.number for trial in study.trials if trial not in below] == [0]


def test_the_database_for_the_dashboard_has_the_same_configurations(folder):
    play(folder, most=9)
    path = optuna_storage.write(folder, is_running=True)
    study = optuna.load_study(study_name="race/class_pairs-sam", storage=f"sqlite:///{path}")
    own = Conductor(folder)._searches["class_pairs-sam"].study
    kept = [(trial.state, trial.intermediate_values, trial.params, trial.constraints) for trial in own.trials]
    shown = [(trial.state, trial.intermediate_values, trial.params, trial.constraints) for trial in study.trials]
    assert shown[: len(kept)] == kept
    assert {state for state, *_ in shown[len(kept) :]} == {TrialState.WAITING}
    assert len(shown) == 12


def test_a_plain_search_tells_optuna_no_constraint(tmp_path):
    folder = folder_of(tmp_path, race(scheduler="none", trials=2, seeds=2), tasks=1)
    play(folder)
    assert [trial.constraints for trial in Conductor(folder)._searches["class_pairs-sam"].study.trials] == [{}, {}]


def test_only_a_configuration_with_all_seeds_is_exported_and_any_of_its_trials_names_it(ended, tmp_path):
    (best,) = [each for each in whole(ended) if each.outcome == "finished"]
    (path,) = export.export_best(ended, tmp_path / "best", {})
    assert path.stem == best.key
    assert "seeds: [0, 1, 2, 3, 4]" in path.read_text()
    last = f"class_pairs-sam-{best.number + 3:03d}"
    assert [each.stem for each in export.export_named(ended, [last, best.key], tmp_path / "named", {})] == [best.key]
    fewer = next(each for each in whole(ended) if len(each.seeds) == 2)
    with pytest.raises(StudyError, match=f"{fewer.key}' has 2 of 5 seeds"):
        export.export_named(ended, [fewer.key], tmp_path / "named", {})


def test_a_confirmation_has_fresh_seeds_and_knows_what_it_confirms(ended):
    (best,) = [each for each in whole(ended) if each.outcome == "finished"]
    plan = make_confirmation(ended, name="again", overrides={"tasks/validation_fraction": 0.2}, seeds=3)
    (group,) = plan.groups
    assert (plan.scheduler, plan.seeds) == ("none", (1000, 1001, 1002))
    assert group.points[0] == best.tried
    assert group.origins[0].trial == best.key
    with pytest.raises(StudyError, match="Seed 4 is not fresh"):
        make_confirmation(ended, name="again", seeds=3, first_seed=4)


def test_a_race_has_no_incumbents_to_confirm(ended):
    with pytest.raises(StudyError, match="'race' is a race"):
        make_confirmation(ended, name="c", incumbents=True)


def test_a_later_search_begins_with_configurations_that_have_all_seeds(ended, tmp_path):
    (best,) = [each for each in whole(ended) if each.outcome == "finished"]
    for scheduler in ("none", "race"):
        plan = begun_after(race("later", scheduler=scheduler), ended)
        (earlier,) = plan.after.trials["class_pairs-sam"]
        assert (earlier.trial, earlier.values) == (best.key, (best.objective,))
    later = folder_of(tmp_path, plan, tasks=2)
    play(later, most=1)
    first, *own = Conductor(later)._searches["class_pairs-sam"].study.trials
    assert (first.state, first.value) == (TrialState.COMPLETE, best.objective)
    assert [trial.params for trial in own] == [plan.groups[0].points[0]]


def test_the_places_of_trials_are_words_for_tables(ended):
    history = ended.histories()[-1]
    assert places(ended.plan, history)["configuration"] in {each.key for each in whole(ended)}
    assert places(plan_of(), history) == {}


def test_results_and_plan_say_what_was_and_will_be_spent(ended, capfd):
    overview.show_plan(ended.plan)
    overview.show_results(ended)
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert "class_pairs sam 12 with 1, 6 with 2, 3 with 4, 1 with 5 25 60 42%" in lines
    assert any(line.startswith("class_pairs sam 4 3 3 0 0.") for line in lines)
    assert any("25 seeds were trained, where all seeds of all configurations are 60" in line for line in lines)
    assert overview.size(ended.plan) == "22 trials of 12 configurations"


def test_an_estimate_counts_each_rung():
    plan = race()
    seconds = {1: 1.0, 2: 1.5}
    made = estimate.estimate(
        plan,
        Execution(data_dir="data", gpus_per_trial=0, pack=1),
        1,
        lambda config: Timing(1, 100, 0, setup=seconds[len(config.seeds)], step=0, evaluation=0),
    )
    assert made.rows[0].trials == 22
    assert made.work.high == pytest.approx(12 + 6 + 3 * 1.5 + 1)


def test_trials_of_one_configuration_that_do_not_fit_together_are_refused(copied):
    (best,) = [each for each in whole(copied) if each.outcome == "finished"]
    path = copied.root / "trials" / f"class_pairs-sam-{best.number + 1:03d}" / "record.jsonl"
    text = path.read_text()
    path.unlink()
    with pytest.raises(StudyError, match="trials of 'race' with fewer seeds are missing"):
        winners.check_selectable(copied)
    first, rest = text.split("\n", 1)
    line = json.loads(first)
    line["tried"]["optimizer/lr"] = line["config"]["optimizer"]["lr"] = 0.5
    path.write_text(f"{json.dumps(line)}\n{rest}")
    with pytest.raises(StudyError, match="or have other settings"):
        Conductor(copied)


REFUSED = {
    "a sampler that ignores pruned trials": ({"sampler": "gp"}, "gp learns nothing from configurations without all"),
    "cmaes": ({"sampler": "cmaes"}, "needs the sampler tpe or random"),
    "two objectives": ({"sampler": "nsga2"}, "needs the sampler tpe or random"),
    "one seed": ({"seeds": 1}, "at least 2"),
    "no validation": ({"overrides": {"tasks/validation_fraction": 0}}, "held-out images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_raced_is_refused_in_one_sentence(case):
    choices, said = REFUSED[case]
    with pytest.raises(StudyError) as refused:
        race(**choices)
    assert said in str(refused.value)
    assert str(refused.value).count(". ") == 0


@pytest.mark.parametrize("change", [{"seeds": [3]}, {"sampler": "gp"}])
def test_a_plan_that_cannot_be_a_race_is_refused(change):
    plan = race()
    assert Plan.from_plain(plan.plain(), "it") == plan
    with pytest.raises(StudyError, match="race"):
        Plan.from_plain({**plan.plain(), **change}, "it")
