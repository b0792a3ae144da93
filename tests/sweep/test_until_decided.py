"""Confirmations that end when they are decided: batches of seeds, interruptions, what is shown."""

import json

import pytest
from sweep_fixtures import FACTS, folder_of, plan_of, task_line

from study.cli import launch, overview
from study.errors import StudyError
from study.sweep import winners
from study.sweep.conductor import Conductor
from study.sweep.confirmation_plan import make_confirmation
from study.sweep.folder import SweepFolder
from study.sweep.plan import Plan

METHODS = ("sgd", "sam", "gnp")
SIGNS = {"sgd": (1, -1, 1), "sam": (-1, 1, -1), "gnp": (1, -1, -1)}
"""Of the noise of three seeds that follow each other; those of the next three are the other way round."""


def accuracies(history, task, spread=0.003, gain=0.1):
    """Test accuracy of each lane: two methods are alike, the third is better."""
    noise = [SIGNS[history.method][seed % 3] * (1 if seed % 6 < 3 else -1) for seed in history.seeds]
    return [0.8 + gain * (history.method == "gnp") + spread * each for each in noise]


def train(conductor, history, tests=accuracies, tasks=None):
    """Plays a trial to its end, or to a number of tasks."""
    conductor.started(history.key)
    for task in range(len(history.tasks), history.task_count)[:tasks]:
        test = tests(history, task)
        conductor.result(history.key, task_line(history, task, [0.5] * len(test), test), FACTS)
    conductor.ended(history.key)


def play(folder, tests=accuracies):
    """Plays all that is due; returns the keys in order."""
    conductor, keys = Conductor(folder), []
    while (history := conductor.propose()) is not None:
        train(conductor, history, tests)
        keys.append(history.key)
    return keys


@pytest.fixture
def tuned(tmp_path):
    """A tuned sweep of three methods."""
    folder = folder_of(tmp_path, plan_of("tuned", methods=list(METHODS), trials=1), tasks=1)
    conductor = Conductor(folder)
    while (history := conductor.propose()) is not None:
        train(conductor, history, lambda history, task: [0.5, 0.5])
    return folder


def decided_plan(tuned, name="again", **choices):
    choices = {"until_decided": True, "seeds": 18, "overrides": {"tasks/validation_fraction": 0.2}, **choices}
    return make_confirmation(tuned, name=name, **choices)


@pytest.fixture
def folder(tmp_path, tuned):
    """A confirmation until decided, before its first trial."""
    return folder_of(tmp_path, decided_plan(tuned), tasks=1)


def numbers(keys, method):
    return [int(key[-3:]) for key in keys if f"-{method}-" in key]


def test_seeds_are_cut_into_batches_that_each_trial_of_a_winner_has(tuned):
    plan = decided_plan(tuned, batch=9)
    for group in plan.groups:
        points = plan.points_of(group)
        assert group.trials == 2 * points
        seeds = [plan.trial_config(group, point, number).seeds for number, point in enumerate(group.points)]
        assert seeds == [tuple(range(1000, 1009))] * points + [tuple(range(1009, 1018))] * points
        assert group.points[:points] == group.points[points:]
    assert Plan.from_plain(plan.plain(), "it") == plan


def test_a_plan_that_decides_nothing_is_written_as_before(tuned):
    assert "deciding" not in make_confirmation(tuned, name="all").plain()


def test_a_batch_waits_for_the_winners_of_the_batch_before_it(folder):
    conductor = Conductor(folder)
    first = []
    while (history := conductor.propose()) is not None:
        first.append(history)
    assert {history.seeds[0] for history in first} == {1000}
    of_winners = [history for history in first if folder.plan.origin(history.group, history.number).rank]
    assert len(of_winners) == len(METHODS) < len(first)
    for history in of_winners[:-1]:
        train(conductor, history)
        assert conductor.propose() is None
        assert conductor.is_waiting
    train(conductor, of_winners[-1])
    assert conductor.propose().seeds[0] == 1006


def test_what_is_decided_gets_no_more_seeds(folder):
    keys = play(folder)
    course = winners.course(folder.plan, folder.histories())
    verdicts = {(each.first, each.second): (each.verdict, each.interval.lanes) for each in course.differences}
    assert verdicts == {("sgd", "sam"): ("alike", 12), ("sgd", "gnp"): ("lower", 6), ("sam", "gnp"): ("lower", 6)}
    assert dict(course.spent) == {
        ("class_pairs", "sgd"): 12,
        ("class_pairs", "sam"): 12,
        ("class_pairs", "gnp"): 6,
    }
    points = {group.method: folder.plan.points_of(group) for group in folder.plan.groups}
    assert all(len(numbers(keys, m)) == points[m] * (1 if m == "gnp" else 2) for m in METHODS)
    assert Conductor(folder).remaining == 0
    assert winners.trial_count(folder) == len(keys) < folder.plan.trial_count


def test_with_no_difference_decided_all_seeds_are_spent_and_no_more(folder):
    play(folder, lambda history, task: accuracies(history, task, spread=0.1, gain=0.0))
    course = winners.course(folder.plan, folder.histories())
    assert {each.verdict for each in course.differences} == {"open"}
    assert set(course.spent.values()) == {18}
    assert Conductor(folder).remaining == 0


@pytest.mark.parametrize("stop", [1, 7])
def test_an_interrupted_confirmation_ends_as_one_that_was_not(tmp_path, tuned, stop):
    whole = folder_of(tmp_path, decided_plan(tuned, name="whole"), tasks=2)
    straight = play(whole)
    part = folder_of(tmp_path, decided_plan(tuned, name="part"), tasks=2)
    conductor = Conductor(part)
    for _ in range(stop):
        train(conductor, conductor.propose())
    train(conductor, conductor.propose(), tasks=1)
    play(SweepFolder.open(tmp_path, "part"))
    ends = [{history.key: history.tasks[-1]["lanes"] for history in folder.histories()} for folder in (whole, part)]
    assert ends[0] == ends[1]
    assert sorted(straight) == sorted(ends[1])


def test_a_failed_winner_holds_up_its_scenario_and_not_for_ever(folder):
    conductor = Conductor(folder)
    while (history := conductor.propose()) is not None:
        if history.method == "gnp" and conductor.remaining and history.number == 0:
            conductor.started(history.key)
            conductor.failed(history.key, "OSError: no space left")
        else:
            train(conductor, history)
    assert {history.seeds[0] for history in conductor.histories} == {1000}
    assert conductor.remaining == 1  # the failed one, which a resume tries again
    play(folder)
    assert winners.course(folder.plan, folder.histories()).spent["class_pairs", "sgd"] == 12


def test_a_record_with_the_seeds_of_another_batch_is_refused(folder):
    conductor = Conductor(folder)
    key = conductor.propose().key
    path = folder.root / "trials" / key / "record.jsonl"
    line = json.loads(path.read_text())
    line["config"]["seeds"] = list(range(1006, 1012))
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(StudyError, match="its seeds are"):
        SweepFolder.open(folder.directory, folder.name).records()


def test_the_last_table_says_what_was_decided_after_how_many_and_what_was_saved(folder, capfd):
    play(folder)
    overview.show_results(folder)
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert "Seeds spent: 30 of 54, 24 saved" in lines
    assert "class_pairs gnp 6 18 12 all its differences are decided" in lines
    (alike,) = [line for line in lines if line.startswith("class_pairs sgd minus sam")]
    assert "alike within 0.01" in alike
    assert alike.endswith(" 12")
    (confirmed,) = [line for line in lines if line.startswith("sgd") and "best, place 1" in line]
    assert confirmed.endswith("0 of 12")


def test_the_command_line_refuses_and_warns_before_anything_starts(tuned, refused, monkeypatch):
    monkeypatch.chdir(tuned.directory)
    assert "use --seeds 18 or 24" in refused("confirm", "tuned", "--dir", ".", "--until-decided", "--seeds", 20)
    assert "needs --until-decided" in refused("confirm", "tuned", "--dir", ".", "--batch", 6)


@pytest.mark.parametrize(("batch", "warned"), [(3, True), (6, False)])
def test_batches_of_fewer_than_six_seeds_get_a_warning(tuned, batch, warned):
    notes = launch._too_few_seeds(decided_plan(tuned, batch=batch))
    assert len(notes) == warned
    assert all("nothing is decided before 6" in note for note in notes)


@pytest.mark.parametrize(
    "change", [{"seeds": []}, {"seeds": [1, 2]}, {"deciding": {"batch": 5, "level": 0.95, "margin": 0.01}}]
)
def test_a_plan_without_whole_batches_is_refused(tuned, change):
    with pytest.raises(StudyError, match="batches"):
        Plan.from_plain({**decided_plan(tuned).plain(), **change}, "it")


BAD = {
    "several of the best": ({"top": 2}, "needs --top 1, not 2"),
    "seeds that do not fill batches": ({"seeds": 20}, "use --seeds 18 or 24"),
    "one batch": ({"seeds": 6}, "needs at least 12 seeds"),
    "too few seeds": ({"seeds": 4, "batch": 2}, "no fewer than 6, not 4"),
    "one seed at a time": ({"batch": 1}, "--batch must be at least 2"),
    "too many seeds": ({"seeds": 10_002}, "at most 10,000"),
    "a batch without a decision": ({"batch": 6, "until_decided": False}, "needs --until-decided"),
    "nothing to compare": ({"methods": ["sgd"]}, "but class_pairs has 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_decided_is_refused_in_one_sentence(tuned, case):
    choices, said = BAD[case]
    with pytest.raises(StudyError) as refused:
        decided_plan(tuned, **choices)
    assert said in str(refused.value)
    assert len(str(refused.value)) <= 300
