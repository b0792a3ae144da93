"""`study list` tells how each sweep stands, and since when."""

import json
from datetime import UTC, datetime

import pytest
from sweep_fixtures import folder_of, lines_of, plan_of, run_all, train

from study.errors import StudyError
from study.sweep.conductor import Conductor
from study.sweep.upkeep.state import state_of


def last_moment(folder):
    """When the last line of a record was written."""
    return max(lines_of(path)[-1]["at"] for path in folder.root.glob("trials/*/record.jsonl"))


def test_a_sweep_whose_trials_have_all_ended_is_finished_since_the_last_of_them(tmp_path):
    folder = folder_of(tmp_path)
    run_all(folder)
    folder.log("end", interrupted=False, failed=0, fault="")  # a resume that found nothing to do
    state = state_of(folder)
    assert (state.word, state.since, state.done) == ("finished", last_moment(folder), 4)


def test_a_sweep_with_failed_trials_and_no_others_left_is_finished(tmp_path):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    while (history := conductor.propose()) is not None:
        conductor.started(history.key)
        conductor.failed(history.key, "as asked")
    state = state_of(folder)
    assert (state.word, state.done, state.outcomes) == ("finished", 0, {"failed": 4})


def test_a_killed_sweep_is_interrupted_since_its_last_result(tmp_path):
    folder = folder_of(tmp_path)
    assert state_of(folder).word == "interrupted"  # killed before its first trial
    conductor = Conductor(folder)
    train(conductor, conductor.propose(), tasks=2)
    state = state_of(folder)
    assert (state.word, state.since, state.outcomes) == ("interrupted", last_moment(folder), {"running": 1})


def test_a_sweep_is_running_while_its_lock_is_held_and_looking_does_not_hinder_it(tmp_path):
    folder = folder_of(tmp_path)
    run_all(folder)
    began = folder.begin_session(folder.execution, folder.execution)
    assert began == "session-000"
    with folder.locked():
        state = state_of(folder)
        assert state.word == "running"
        assert state.since == lines_of(folder.root / "sweep.jsonl")[-1]["at"]
        with pytest.raises(StudyError, match="already running"), folder.locked():
            pass
    assert state_of(folder).word == "finished"


def test_the_list_as_json_is_the_list(here, run):
    folder = folder_of(here / "study-results", plan_of("first"))
    run_all(folder)
    code, out, err = run("list", "--json")
    assert (code, err) == (0, "")
    listed = json.loads(out)
    assert listed["sweeps"] == [
        {
            "name": "first",
            "space": "quickstart",
            "confirms": None,
            "state": "finished",
            "since": datetime.fromtimestamp(last_moment(folder), UTC).isoformat(timespec="seconds"),
            "trials": 4,
            "outcomes": {"finished": 4},
        }
    ]
    assert "quickstart" in [space["name"] for space in listed["spaces"]]


def test_a_sweep_that_cannot_be_read_is_left_out_of_the_json_and_told(here, run):
    run_all(folder_of(here / "study-results", plan_of("first")))
    damaged = folder_of(here / "study-results", plan_of("second"))
    (damaged.root / "sweep.jsonl").write_text("{}\n")
    code, out, err = run("list", "--json")
    assert code == 2
    assert "does not begin with the plan" in err
    assert [sweep["name"] for sweep in json.loads(out)["sweeps"]] == ["first"]


def test_the_best_as_json_has_all_digits_and_settings(here, run):
    folder = folder_of(here / "study-results", plan_of("first"))
    histories = {history.key: history for history in run_all(folder)}
    code, out, _ = run("best", "first", "--top", 2, "--json")
    assert code == 0
    shown = json.loads(out)
    assert (shown["sweep"], shown["objectives"]) == ("first", ["accuracy"])
    assert {trial["trial"] for trial in shown["trials"]} == histories.keys()
    for trial in shown["trials"]:
        history = histories[trial["trial"]]
        assert (trial["settings"], trial["objective"]) == (history.tried, history.objective)
        assert (trial["summary"], trial["seeds"]) == (history.summary, history.seeds)
