"""The record of a trial: append-only, readable after a crash."""

import json
from itertools import takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_fixtures import FACTS, plan_of, task_line

from study.config import short_value, without_later_settings
from study.errors import StudyError
from study.sweep import winners
from study.sweep.record import LineReader, TrialHistory, TrialRecord, append_line, read_records


def history_of(number=0, **changes):
    plan = plan_of()
    group = plan.groups[0]
    fields = {
        "key": f"{group.label}-{number:03d}",
        "number": number,
        "scenario": group.scenario,
        "method": group.method,
        "phase": plan.phase,
        "tried": {"optimizer/lr": 0.01},
        "config": plan.trial_config(group, {"optimizer/lr": 0.01}).plain(),
        "task_count": 3,
        "sampler_notes": {},
    }
    return TrialHistory(**{**fields, **changes})


def full_record(folder):
    """A trial that failed once, was resumed, and finished."""
    record = TrialRecord.create(folder, history_of())
    history = record.history
    record.append("start")
    record.append("facts", facts=FACTS)
    record.append("task", **task_line(history, 0, [0.5, 0.5]))
    record.append("checkpoint", path="ray/session-000/checkpoint")
    record.append("end", outcome="failed", reason="OSError: no space left")
    record.append("start")
    for task in (1, 2):
        record.append("task", **task_line(history, task, [0.5, 0.5]))
    record.append("end", outcome="finished")
    return record


def read(path):
    return list(LineReader(path).new_lines())


def test_a_record_from_before_a_setting_has_the_value_that_it_had_then(tmp_path):
    now = history_of()
    earlier = without_later_settings(now.config)
    assert now.config["model"]["activation"] == "relu"
    assert earlier["model"] == {"name": "mlp", "widths": now.config["model"]["widths"]}
    record = TrialRecord.create(tmp_path, history_of(config=earlier))
    assert record.history.config == now.config
    assert winners.changed_settings(record.history, now) == {}
    assert json.loads(record.path.read_text().splitlines()[0])["config"] == earlier, "the record itself stays"


def test_appending_never_changes_what_is_there(tmp_path):
    path = tmp_path / "log.jsonl"
    before = b""
    for number in range(5):
        append_line(path, {"number": number})
        assert path.read_bytes().startswith(before)
        before = path.read_bytes()
    assert [line["number"] for line in read(path)] == list(range(5))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_know_are_refused_and_nothing_is_written(tmp_path, value):
    path = tmp_path / "log.jsonl"
    append_line(path, {"number": 1.0})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="Out of range float"):
        append_line(path, {"number": value})
    assert path.read_bytes() == before


def test_a_reader_gives_each_line_once(tmp_path):
    path = tmp_path / "log.jsonl"
    append_line(path, {"number": 0})
    reader = LineReader(path)
    assert [line["number"] for line in reader.new_lines()] == [0]
    assert list(reader.new_lines()) == []
    append_line(path, {"number": 1})
    assert [line["number"] for line in reader.new_lines()] == [1]


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"number": 0}\n{"numb')
    reader = LineReader(path)
    assert [line["number"] for line in reader.new_lines()] == [0]
    with path.open("ab") as file:
        file.write(b'er": 1}\n')
    assert [line["number"] for line in reader.new_lines()] == [1]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A record, and its bytes."""
    record = full_record(tmp_path_factory.mktemp("kept"))
    return record.path, record.path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10_000))
def test_a_record_cut_anywhere_tells_a_prefix_and_takes_new_lines(kept, place):
    path, whole = kept
    path.write_bytes(whole)
    lines = read(path)
    cut = place % (len(whole) + 1)
    path.write_bytes(whole[:cut])

    survived = [json.loads(text) for text in whole[:cut].split(b"\n")[: whole[:cut].count(b"\n")]]
    assert read(path) == survived == lines[: len(survived)]
    found = read_records(path.parents[1])
    assert len(found) == (1 if survived else 0)
    if not survived:
        return
    ended = sum(1 for line in survived if line["kind"] == "task")
    assert [line["task"] for line in found[0].history.tasks] == list(range(ended))

    found[0].append("start")
    again = read(path)
    whole_though_unclosed = cut < len(whole) and whole[cut : cut + 1] == b"\n"
    assert again[: len(survived)] == survived
    assert again[-1]["kind"] == "start"
    assert len(again) == len(survived) + 1 + whole_though_unclosed
    assert TrialRecord(path).history.outcome == "running"
    assert vars(TrialRecord(path).history) == vars(found[0].history)


@pytest.mark.parametrize("survived", [0, 1, 40])
def test_a_trial_whose_first_line_was_cut_can_be_begun_again(tmp_path, survived):
    record = full_record(tmp_path)
    record.path.write_bytes(record.path.read_bytes()[:survived])
    assert read_records(tmp_path) == []
    again = TrialRecord.create(tmp_path, history_of())
    again.append("start")
    assert [found.history.outcome for found in read_records(tmp_path)] == ["running"]


def test_a_trial_is_begun_once(tmp_path):
    full_record(tmp_path)
    with pytest.raises(FileExistsError):
        TrialRecord.create(tmp_path, history_of())


def test_what_is_not_the_record_of_a_trial_is_refused(tmp_path):
    path = tmp_path / "record.jsonl"
    append_line(path, {"kind": "plan"})
    with pytest.raises(ValueError, match="is not the record of a trial"):
        TrialRecord(path)


@pytest.mark.parametrize("key", ["../../elsewhere", "class_pairs-sgd-001", None])
def test_a_record_whose_key_is_not_the_name_of_its_folder_is_refused(tmp_path, key):
    record = full_record(tmp_path)
    lines = record.path.read_text().splitlines()
    header = json.loads(lines[0]) | {"key": key}
    record.path.write_text("\n".join([json.dumps(header), *lines[1:]]) + "\n")
    with pytest.raises(ValueError, match="not of the trial that its folder is named after"):
        TrialRecord(record.path)


def test_a_failed_and_resumed_trial_tells_all_its_tasks_and_its_last_outcome(tmp_path):
    record = full_record(tmp_path)
    history = TrialRecord(record.path).history
    assert history == record.history or vars(history) == vars(record.history)
    assert [line["task"] for line in history.tasks] == [0, 1, 2]
    assert (history.outcome, history.reason) == ("finished", "")
    assert history.checkpoints == ["ray/session-000/checkpoint"]
    assert history.facts == FACTS
    starts = [line["at"] for line in read(record.path) if line["kind"] == "start"]
    assert history.started == starts[0]
    assert history.ended == read(record.path)[-1]["at"]


def test_a_failed_trial_tells_why_and_has_no_summary(tmp_path):
    record = TrialRecord.create(tmp_path, history_of())
    record.append("start")
    for task in range(3):
        record.append("task", **task_line(record.history, task, [0.5, 0.5]))
    assert record.history.summary == {}
    record.append("end", outcome="failed", reason="why")
    assert (record.history.outcome, record.history.reason) == ("failed", "why")
    assert record.history.summary == {}
    record.append("end", outcome="finished")
    assert record.history.summary["summary/seconds"] == 3 * 2.5


def test_a_task_told_twice_or_out_of_turn_counts_once(tmp_path):
    record = TrialRecord.create(tmp_path, history_of())
    first = task_line(record.history, 0, [0.5, 0.5])
    record.append("task", **first)
    before = record.path.read_bytes()
    for task in (0, 2):
        with pytest.raises(StudyError, match=f"task {task} stands where task 1 is due"):
            record.append("task", **task_line(record.history, task, [0.9, 0.9]))
    assert record.path.read_bytes() == before
    assert len(record.history.tasks) == 1
    assert record.history.metrics == first["metrics"]


def test_trials_are_named_for_people():
    def name(method, tried):
        return history_of(method=method, tried=tried).name

    assert name("sam", {"optimizer/lr": 0.01, "optimizer/rho": 0.0512345}) == "sam lr=0.01 rho=0.0512"
    assert name("sgd", {"training/batch_size": 32}) == "sgd batch_size=32"
    assert short_value(1.0) == "1"
    assert list(takewhile(str.isalpha, name("gnp", {}))) == list("gnp")
