"""A search begins with the trials of an earlier sweep, and says so in its record."""

import json

import pytest
from report_fixtures import confirmed
from sweep_fixtures import folder_of, lines_of, plan_of, run_all, train

from study.cli import overview
from study.errors import StudyError
from study.sweep.conductor import Conductor
from study.sweep.folder import SweepFolder
from study.sweep.plan import Plan
from study.sweep.search import GroupSearch
from study.sweep.upkeep.predecessor import begun_after


def later(**choices):
    """The plan of a second sweep with the settings of the first."""
    return plan_of("second", **{"methods": ["sgd"], "trials": 4, **choices})


@pytest.fixture
def first(tmp_path):
    """A sweep of twelve trials that have finished."""
    folder = folder_of(tmp_path, plan_of("first", methods=["sgd"], trials=12))
    run_all(folder)
    return folder


def test_the_sampler_knows_the_earlier_trials_before_its_own(first, tmp_path):
    plan = begun_after(later(), first)
    search = GroupSearch(plan, plan.groups[0], 3)
    earlier = first.histories()
    found = search.study.get_trials()[: len(earlier)]
    assert [trial.params for trial in found] == [history.tried for history in earlier]
    assert [trial.value for trial in found] == [history.objective for history in earlier]
    assert [trial.user_attrs for trial in found] == [{"trial": history.key} for history in earlier]


def test_own_trials_are_numbered_from_zero_and_begin_with_the_points(first, tmp_path):
    plan = begun_after(later(), first)
    histories = run_all(folder_of(tmp_path, plan))
    assert [history.key for history in histories] == [f"class_pairs-sgd-{number:03d}" for number in range(4)]
    assert [history.tried for history in histories[:2]] == [dict(point) for point in plan.groups[0].points]


def test_what_is_drawn_follows_from_the_earlier_trials(first, tmp_path):
    cold = run_all(folder_of(tmp_path / "cold", later()))
    warm = run_all(folder_of(tmp_path / "warm", begun_after(later(), first)))
    again = run_all(folder_of(tmp_path / "again", begun_after(later(), first)))
    assert [history.tried for history in warm] == [history.tried for history in again]
    assert [history.tried for history in warm[:2]] == [history.tried for history in cold[:2]]
    assert [history.tried for history in warm[2:]] != [history.tried for history in cold[2:]]


def test_the_record_has_the_earlier_trials_and_a_resume_needs_no_earlier_sweep(first, tmp_path):
    whole = run_all(folder_of(tmp_path / "whole", begun_after(later(trials=6), first)))
    folder = folder_of(tmp_path, begun_after(later(trials=6), first))
    written = lines_of(folder.root / "sweep.jsonl")[0]["plan"]["after"]
    assert (written["sweep"], written["identity"]) == ("first", first.identity)
    assert len(written["trials"]["class_pairs-sgd"]) == 12
    first.root.rename(tmp_path / ".gone")
    conductor = Conductor(folder)
    for tasks in (None, None, None, 1):
        train(conductor, conductor.propose(), tasks=tasks)
    resumed = run_all(SweepFolder.open(tmp_path, "second"))
    assert [history.tried for history in resumed] == [history.tried for history in whole]


REFUSED = {
    "another objective": ({"objectives": ["late_accuracy"]}, "has the objective accuracy, not late_accuracy"),
    "another setting": (
        {"overrides": {"tasks/count": 4}},
        "tasks/count is 3 in its trial class_pairs-sgd-000, but 4 here",
    ),
    "another data set": ({"overrides": {"tasks/count": 3, "data/name": "mnist"}}, "data/name is 'mnist5k'"),
    "a method that it lacks": ({"methods": ["sam"]}, "no finished trial of 'sam' in 'class_pairs'"),
    "a scenario that it lacks": ({"scenarios": ["permuted_pixels"]}, "no finished trial of 'sgd' in 'permuted_pixels'"),
    "a sampler that does not learn": ({"sampler": "cmaes"}, "cmaes does not learn from trials that it has not drawn"),
    "nothing to draw": ({"overrides": {"tasks/count": 3, "optimizer/lr": 0.1}, "trials": 1}, "draws nothing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_earlier_sweep_that_does_not_fit_is_refused(first, case):
    choices, said = REFUSED[case]
    with pytest.raises(StudyError) as refusal:
        begun_after(later(**choices), first)
    assert said in str(refusal.value)
    assert str(refusal.value).startswith("--after first")
    assert len(str(refusal.value)) <= 300


def narrowed(plan, low, high):
    """The plan with another range of the learning rate."""
    (group,) = plan.groups
    text = json.loads(group.distributions["optimizer/lr"])
    text["attributes"] |= {"low": low, "high": high}
    narrow = group.model_copy(update={"distributions": {"optimizer/lr": json.dumps(text)}, "points": ()})
    return plan.model_copy(update={"groups": (narrow,)})


def test_earlier_trials_outside_the_range_are_refused_and_a_wider_range_is_not(first):
    with pytest.raises(
        StudyError, match=r"optimizer/lr is 0[.]001 in its trial class_pairs-sgd-001, which is outside the range"
    ):
        begun_after(narrowed(later(), 0.005, 1.0), first)
    assert begun_after(narrowed(later(), 1e-4, 10.0), first).after


def test_a_confirmation_tunes_nothing(first):
    confirmation = confirmed(first, seeds=2)
    with pytest.raises(StudyError, match="its fresh seeds must tune nothing"):
        begun_after(later(), confirmation)


def test_a_plan_with_earlier_trials_that_do_not_fit_is_not_read(first):
    plain = begun_after(later(), first).plain()
    assert Plan.from_plain(plain, "it") == begun_after(later(), first)
    for change in ({"drawn": {"optimizer/lr": 5.0}}, {"drawn": {}}, {"values": [1.0, 2.0]}):
        damaged = json.loads(json.dumps(plain))
        damaged["after"]["trials"]["class_pairs-sgd"][3] |= change
        with pytest.raises(
            StudyError, match="the earlier trial 'class_pairs-sgd-003' does not fit into 'class_pairs-sgd'"
        ):
            Plan.from_plain(damaged, "it")


def test_the_command_line_refuses_what_does_not_fit_before_any_work(here, refused):
    run_all(folder_of(here / "study-results", plan_of("first", methods=["sgd"])))
    words = (
        "run",
        "quickstart",
        "--scenario",
        "class_pairs",
        "--method",
        "sgd",
        "--set",
        "tasks/count=3",
        "--name",
        "second",
    )
    assert "There is no sweep 'frist'" in refused(*words, "--after", "frist")
    assert "tasks/count is 3" in refused(*words, "--set", "tasks/count=5", "--after", "first")


def test_what_a_search_begins_with_is_shown_with_its_plan(first, capsys):
    overview.show_plan(begun_after(later(), first))
    assert "begins with what trials of 'first' have found: 12 of class_pairs-sgd; they" in capsys.readouterr().out
