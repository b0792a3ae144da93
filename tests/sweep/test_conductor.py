"""The conductor: order of proposals, records, ends of trials."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from sweep_fixtures import FACTS, folder_of, lines_of, plan_of, run_all, task_line, train

from study.errors import StudyError
from study.sweep.conductor import DEATHS_IN_COMPANY, MOST_DEATHS, Conductor
from study.sweep.execution import Execution
from study.sweep.folder import RunningError, SweepFolder, names


class Told:
    """A watcher that keeps what it is told."""

    def __init__(self):
        self.events = []

    def trial_changed(self, history):
        self.events.append((history.key, history.outcome, len(history.tasks)))

    def trial_noted(self, history, text):
        self.events.append((history.key, text))


def record_of(folder, key):
    return lines_of(folder.root / "trials" / key / "record.jsonl")


def kinds(folder, key):
    return [line["kind"] for line in record_of(folder, key)]


def test_groups_take_turns(tmp_path):
    conductor = Conductor(folder_of(tmp_path, plan_of(scenarios=[], trials=2)))
    keys = []
    while (history := conductor.propose()) is not None:
        keys.append(history.key)
    first = ["permuted_pixels-sgd", "permuted_pixels-sam", "class_pairs-sgd", "class_pairs-sam"]
    assert keys == [f"{label}-{number:03d}" for number in range(2) for label in first]


def test_the_budget_is_exact(tmp_path):
    folder = folder_of(tmp_path, plan_of(trials=5))
    assert Conductor(folder).remaining == 10
    histories = run_all(folder)
    assert sorted(h.key for h in histories) == [f"class_pairs-{m}-{n:03d}" for m in ("sam", "sgd") for n in range(5)]
    assert {history.outcome for history in histories} == {"finished"}
    again = Conductor(folder)
    assert again.remaining == 0
    assert again.propose() is None


def test_a_proposal_is_on_disk_before_it_is_handed_out(tmp_path):
    folder = folder_of(tmp_path)
    history = Conductor(folder).propose()
    (line,) = record_of(folder, history.key)
    assert (line["kind"], line["key"], line["number"]) == ("trial", history.key, 0)
    assert line["config"] == history.config
    assert line["tried"] == history.tried


def test_the_record_tells_a_trial_from_start_to_end(tmp_path):
    folder = folder_of(tmp_path)
    watcher = Told()
    conductor = Conductor(folder, (watcher,))
    history = conductor.propose()
    assert train(conductor, history)
    assert kinds(folder, history.key) == ["trial", "start", "facts", "task", "task", "task", "end"]
    key = history.key
    assert watcher.events == [
        (key, "running", 0),
        (key, "running", 1),
        (key, "running", 2),
        (key, "running", 3),
        (key, "finished", 3),
    ]


def test_facts_are_kept_once_and_again_when_they_change(tmp_path):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    history = conductor.propose()
    conductor.started(history.key)
    for task, facts in enumerate((FACTS, FACTS, FACTS | {"host": "elsewhere"})):
        conductor.result(history.key, task_line(history, task, [0.5, 0.5]), facts)
    assert kinds(folder, history.key) == ["trial", "start", "facts", "task", "task", "facts", "task"]


NEWER = {
    "torch": FACTS | {"versions": {**FACTS["versions"], "torch": "99.0"}},
    "python": FACTS | {"versions": {**FACTS["versions"], "python": "9.9"}},
    "ray": FACTS | {"versions": {**FACTS["versions"], "ray": "99.0"}},
    "source": FACTS | {"source_fingerprint": "f" * 16},
}


@pytest.mark.parametrize("what", NEWER)
def test_a_trial_that_continues_with_other_software_is_noted_with_the_old_and_the_new(tmp_path, what):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    history = conductor.propose()
    assert not train(conductor, history, tasks=2)
    watcher = Told()
    resumed = Conductor(folder, (watcher,))
    assert resumed.propose().key == history.key
    resumed.started(history.key)
    resumed.result(history.key, task_line(history, 2, [0.5, 0.5]), NEWER[what])
    (note,) = [line["text"] for line in record_of(folder, history.key) if line["kind"] == "note"]
    old, new = ({"source": facts["source_fingerprint"], **facts["versions"]}[what] for facts in (FACTS, NEWER[what]))
    assert note == f"after 2 tasks it continued with other software: {what} {old}, then {new}"
    assert (history.key, note) in watcher.events
    (again,) = folder.histories()
    assert (again.notes, [line["facts"] for line in again.past_facts]) == ([note], [FACTS, NEWER[what]])


def test_a_trial_that_starts_with_other_software_than_an_earlier_one_has_it_in_its_facts_alone(tmp_path):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    train(conductor, conductor.propose())
    history = conductor.propose()
    conductor.started(history.key)
    conductor.result(history.key, task_line(history, 0, [0.5, 0.5]), NEWER["torch"])
    assert (history.notes, history.facts) == ([], NEWER["torch"])


def test_a_task_done_again_after_the_death_of_a_worker_is_passed_over(tmp_path):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    history = conductor.propose()
    assert not train(conductor, history, tasks=2)
    conductor.started(history.key)  # the worker starts from an earlier checkpoint
    before = record_of(folder, history.key)
    for line in list(history.tasks):
        assert conductor.result(history.key, line, FACTS)
    assert record_of(folder, history.key) == before
    assert conductor.result(history.key, task_line(history, 2, [0.5, 0.5]), FACTS)
    conductor.ended(history.key)
    assert [line["task"] for line in record_of(folder, history.key) if line["kind"] == "task"] == [0, 1, 2]
    assert conductor.histories[0].outcome == "finished"


def test_a_task_done_again_with_other_numbers_is_noted_once_and_the_first_ones_stand(tmp_path):
    folder = folder_of(tmp_path)
    watcher = Told()
    conductor = Conductor(folder, (watcher,))
    history = conductor.propose()
    assert not train(conductor, history, tasks=2)
    kept = list(history.tasks)
    for _ in range(2):
        conductor.started(history.key)
        assert conductor.result(history.key, task_line(history, 1, [0.9, 0.9], (0.1, 0.1)), FACTS)
    assert history.tasks == kept
    (text,) = history.notes
    assert text.startswith("task 1, trained again, gave other numbers")
    assert [event for event in watcher.events if event == (history.key, text)] == [(history.key, text)]


def test_a_trial_whose_worker_dies_is_proposed_again_from_its_checkpoints(tmp_path):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    first, other = conductor.propose(), conductor.propose()
    train(conductor, first, tasks=2)
    for place in ("ray/one", "ray/two"):
        conductor.checkpointed(first.key, str(folder.root.resolve() / place))
    conductor.lost(first.key, "killed")
    again = conductor.propose()
    assert again is first
    assert len(again.tasks) == 2
    assert conductor.checkpoints_of(again.key) == [
        str(folder.root.resolve() / place) for place in ("ray/two", "ray/one")
    ]
    assert kinds(folder, first.key)[-1] == "lost"
    for history in (again, other):
        assert train(conductor, history)
    while (history := conductor.propose()) is not None:
        train(conductor, history)
    assert {h.outcome for h in folder.histories()} == {"finished"}
    assert len(folder.histories()) == 4


def test_a_trial_whose_workers_die_again_and_again_without_a_new_task_fails(tmp_path):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    history = conductor.propose()
    for death in range(MOST_DEATHS):
        conductor.started(history.key)
        if death == 1:  # a new task: counting starts again
            train(conductor, history, tasks=1)
        conductor.lost(history.key, "out of memory")
        assert conductor.propose() is history
    conductor.lost(history.key, "out of memory")
    assert history.outcome == "failed"
    assert history.reason == f"its worker died {MOST_DEATHS} times on task 1: out of memory"
    assert conductor.propose() is not history


def test_there_is_something_to_wait_for_while_trials_are_in_the_hands_of_ray(tmp_path):
    conductor = Conductor(folder_of(tmp_path))
    histories = [conductor.propose() for _ in range(4)]
    assert conductor.propose() is None
    for history in histories:
        assert conductor.is_waiting
        train(conductor, history)
    assert not conductor.is_waiting


def test_a_failure_keeps_its_traceback_and_is_not_counted_as_a_death(tmp_path):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    history = conductor.propose()
    conductor.started(history.key)
    conductor.failed(history.key, "ValueError: no", "Traceback\nValueError: no\n")
    conductor.lost(history.key, "the worker has ended")
    assert kinds(folder, history.key) == ["trial", "start", "end"]
    assert folder.traceback_file(history.key).read_text() == "Traceback\nValueError: no\n\n"


def test_a_trial_that_fails_before_its_first_task_has_facts_too(tmp_path):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    history = conductor.propose()
    conductor.started(history.key)
    early = {"host": "nowhere", "rule": {}, "source_fingerprint": "f" * 16, "versions": {}}
    conductor.failed(history.key, "ValueError: no", facts=early)
    assert kinds(folder, history.key) == ["trial", "start", "facts", "end"]
    resumed = Conductor(folder)
    history = resumed.propose()
    assert history.facts == early
    train(resumed, history)
    assert (history.notes, history.facts) == ([], FACTS)


def test_a_stop_that_the_driver_did_not_live_to_write_down_stands(tmp_path):
    folder = folder_of(tmp_path, plan_of(methods=["sgd"], trials=2, scheduler="asha", sampler="random"))
    conductor = Conductor(folder)
    train(conductor, conductor.propose(), lambda _: 0.9)
    hopeless = conductor.propose()
    conductor.started(hopeless.key)
    assert not conductor.result(hopeless.key, task_line(hopeless, 0, [0.1, 0.1]), FACTS)
    again = Conductor(folder)
    assert {h.number: h.outcome for h in again.histories} == {0: "finished", 1: "stopped"}
    assert again.propose() is None


def test_an_end_in_the_middle_is_no_end(tmp_path):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    history = conductor.propose()
    train(conductor, history, tasks=1)
    conductor.ended(history.key)  # Ray stops everything
    assert history.outcome == "running"


def test_a_trial_that_the_scheduler_stops_is_told_as_stopped(tmp_path):
    folder = folder_of(tmp_path, plan_of(methods=["sgd"], trials=3, scheduler="asha", sampler="random"))
    conductor = Conductor(folder)
    for score in (0.9, 0.1, 0.95):
        train(conductor, conductor.propose(), lambda _, score=score: score)
    outcomes = {h.number: (h.outcome, len(h.tasks), h.summary != {}) for h in folder.histories()}
    assert outcomes == {0: ("finished", 3, True), 1: ("stopped", 1, False), 2: ("finished", 3, True)}
    assert Conductor(folder).remaining == 0


def test_a_failed_trial_is_told_with_its_reason_and_is_tried_again_by_a_new_conductor(tmp_path):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    history = conductor.propose()
    train(conductor, history, tasks=1)
    conductor.failed(history.key, "OSError: no space left")
    assert record_of(folder, history.key)[-1]["reason"] == "OSError: no space left"
    rest = [conductor.propose() for _ in range(4)]
    assert [h.number for h in rest[:3]] == [0, 1, 1]
    assert rest[3] is None
    again = Conductor(folder).propose()
    assert again.key == history.key
    assert len(again.tasks) == 1


@pytest.mark.parametrize("tasks", [0, 1, 2])
def test_a_conductor_made_anew_goes_on_where_the_one_before_it_stopped(tmp_path, tasks):
    folder = folder_of(tmp_path, plan_of(trials=3))
    first = Conductor(folder)
    train(first, first.propose())
    cut = first.propose()
    train(first, cut, tasks=tasks)
    first.checkpointed(cut.key, str(folder.root.resolve() / "ray" / "somewhere"))

    second = Conductor(SweepFolder.open(tmp_path, "made"))
    assert second.remaining == 5
    taken = second.propose()
    assert (taken.key, taken.config, len(taken.tasks)) == (cut.key, cut.config, tasks)
    assert second.checkpoints_of(taken.key) == [str(folder.root.resolve() / "ray" / "somewhere")]
    assert train(second, taken)
    while (history := second.propose()) is not None:
        train(second, history)
    assert len(second.histories) == 6
    assert {h.outcome for h in second.histories} == {"finished"}
    assert all([line["task"] for line in h.tasks] == [0, 1, 2] for h in second.histories)


def test_a_trial_whose_end_was_not_written_down_is_finished(tmp_path):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    history = conductor.propose()
    conductor.started(history.key)
    for task in range(3):
        conductor.result(history.key, task_line(history, task, [0.5, 0.5]), FACTS)
    assert Conductor(folder).remaining == 3
    assert folder.histories()[0].outcome == "finished"


def test_a_trial_whose_first_line_was_torn_is_proposed_again(tmp_path):
    folder = folder_of(tmp_path)
    history = Conductor(folder).propose()
    path = folder.root / "trials" / history.key / "record.jsonl"
    path.write_bytes(path.read_bytes()[:20])
    again = Conductor(folder).propose()
    assert (again.key, again.config) == (history.key, history.config)


def test_a_larger_budget_adds_exactly_the_missing_trials(tmp_path):
    folder = folder_of(tmp_path, plan_of(trials=2))
    run_all(folder)
    before = {path: path.read_bytes() for path in folder.root.glob("trials/*/record.jsonl")}
    folder.log("budget", trials=4)
    grown = SweepFolder.open(tmp_path, "made")
    assert Conductor(grown).remaining == 4
    run_all(grown)
    assert len(list(folder.root.glob("trials/*/record.jsonl"))) == 8
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_sweep_can_be_moved(tmp_path):
    folder = folder_of(tmp_path / "old")
    conductor = Conductor(folder)
    history = conductor.propose()
    conductor.checkpointed(history.key, str(folder.root.resolve() / "ray" / "x"))
    (tmp_path / "old").rename(tmp_path / "new")
    moved = Conductor(SweepFolder.open(tmp_path / "new", "made"))
    assert moved.checkpoints_of(history.key) == [str((tmp_path / "new" / "made" / "ray" / "x").resolve())]


def test_a_sweep_opened_again_is_the_one_that_was_made(tmp_path):
    folder = folder_of(tmp_path)
    opened = SweepFolder.open(tmp_path, "made")
    assert (opened.plan, opened.execution, opened.task_counts) == (folder.plan, folder.execution, folder.task_counts)
    folder.log("start", execution=Execution(data_dir="elsewhere", workers=3).plain())
    assert SweepFolder.open(tmp_path, "made").execution == Execution(data_dir="elsewhere", workers=3)


def test_every_session_has_a_folder_of_its_own(tmp_path):
    folder = folder_of(tmp_path)
    sessions = []
    for _ in range(3):
        sessions.append(folder.begin_session(folder.execution, folder.execution))
    assert len(set(sessions)) == 3


def test_a_resume_begins_from_what_was_asked_for_and_not_from_what_the_machine_had(tmp_path):
    folder = folder_of(tmp_path)
    resolved = folder.execution.model_copy(update={"workers": 2, "gpus_per_trial": 0.5})
    folder.begin_session(folder.execution, resolved)
    assert SweepFolder.open(tmp_path, "made").execution == folder.execution


def test_the_draft_of_a_launch_that_was_killed_is_no_sweep(tmp_path):
    folder = folder_of(tmp_path)
    shutil.copytree(folder.root, tmp_path / ".made-2.123.tmp")
    assert names(tmp_path) == ["made"]


def test_what_is_no_record_of_the_sweep_is_refused_in_a_sentence(tmp_path):
    folder = folder_of(tmp_path)
    history = Conductor(folder).propose()
    trials = folder.root / "trials"
    shutil.copytree(trials / history.key, trials / "a copy of it")
    with pytest.raises(StudyError, match=r"has a file that is not a record of this sweep: .*a copy of it"):
        folder.histories()


def test_a_sweep_has_one_driver(tmp_path):
    folder = folder_of(tmp_path)
    other = SweepFolder.open(tmp_path, "made")
    with folder.locked(), pytest.raises(RunningError, match="already running"), other.locked():
        pass
    with other.locked():
        assert names(tmp_path) == ["made"]


def test_a_default_folder_needs_no_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder_of(Path("study-results")).command("resume") == "study resume made"
    elsewhere = folder_of(Path("elsewhere"))
    assert elsewhere.command("resume", "--trials", 3) == "study resume made --dir elsewhere --trials 3"


@pytest.mark.parametrize("name", ["two words", "it's", "$HOME", "a&b;c", "~", "-x", "#1", "*"])
def test_a_shell_gives_the_words_of_a_shown_command_back(tmp_path, name):
    shown = folder_of(tmp_path / name).command("best", "--top", 2)
    told = subprocess.run(["sh", "-c", f"printf '%s\\n' {shown}"], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["study", "best", "made", "--dir", str(tmp_path / name), "--top", "2"]


def test_the_log_of_a_sweep_is_lines_of_json(tmp_path):
    folder = folder_of(tmp_path)
    folder.log("budget", trials=3)
    lines = [json.loads(line) for line in (folder.root / "sweep.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["plan", "budget"]
    assert SweepFolder.open(tmp_path, "made").plan.groups[0].trials == 3


# --- packs ----------------------------------------------------------------------------------------------------------


def keys_of(pack):
    return [history.key for history in pack]


def test_a_pack_has_trials_of_one_group(tmp_path):
    conductor = Conductor(folder_of(tmp_path, plan_of(trials=5)))
    packs = []
    while pack := conductor.propose_pack(3):
        packs.append(keys_of(pack))
        for history in pack:
            train(conductor, history)
    assert [[key[-7:-4] for key in pack] for pack in packs] == [["sgd"] * 3, ["sam"] * 3, ["sgd"] * 2, ["sam"] * 2]
    assert len({key for pack in packs for key in pack}) == 10


def test_trials_of_other_shapes_wait_for_their_own_pack(tmp_path):
    plan = plan_of(methods=["sgd"], trials=4)
    group = plan.groups[0]
    sizes = (16, 16, 32, 16)
    points = tuple({**group.points[0], "training/batch_size": size} for size in sizes)
    group = group.model_copy(update={"points": points, "distributions": {}})
    conductor = Conductor(folder_of(tmp_path, plan.model_copy(update={"groups": (group,)})))
    packs = []
    while pack := conductor.propose_pack(9):
        packs.append([history.number for history in pack])
        for history in pack:
            train(conductor, history)
    assert packs == [[0, 1], [2], [3]]


def test_when_a_trial_of_a_pack_is_stopped_the_others_are_proposed_again(tmp_path):
    folder = folder_of(tmp_path, plan_of(methods=["sgd"], trials=4, scheduler="asha", sampler="random"))
    conductor = Conductor(folder)
    first, second, third = conductor.propose_pack(3)
    assert conductor.rungs_of(first.key) == [1]
    verdicts = []
    for history, score in ((first, 0.5), (second, 0.4), (third, 0.6)):
        conductor.started(history.key)
        verdicts.append(conductor.result(history.key, task_line(history, 0, [score, score]), FACTS))
    assert verdicts == [True, False, True]
    for history in (first, second, third):
        conductor.ended(history.key)
        conductor.released(history.key)
    assert second.outcome == "stopped"
    again = conductor.propose_pack(3)
    assert again[:2] == [first, third]
    assert [len(history.tasks) for history in again] == [1, 1, 0]
    assert [line["kind"] for line in record_of(folder, first.key)].count("lost") == 0


def test_a_trial_whose_packs_die_is_trained_alone(tmp_path):
    conductor = Conductor(folder_of(tmp_path, plan_of(methods=["sgd"], trials=4)))
    pack = conductor.propose_pack(4)
    assert len(pack) == 4
    for _ in range(DEATHS_IN_COMPANY):
        for history in pack:
            conductor.lost(history.key, "out of memory")
        again = conductor.propose_pack(4)
        if len(again) == 4:
            continue
    assert keys_of(again) == keys_of(pack[:1])


def test_a_worker_that_dies_after_the_last_task_of_a_trial_has_finished_it(tmp_path):
    folder = folder_of(tmp_path)
    conductor = Conductor(folder)
    history = conductor.propose()
    conductor.started(history.key)
    for task in range(3):
        conductor.result(history.key, task_line(history, task, [0.5, 0.5]), FACTS)
    conductor.lost(history.key, "killed")
    assert history.outcome == "finished"
    assert kinds(folder, history.key)[-1] == "end"


def run_in_packs(folder, sizes):
    """Plays a sweep in packs of these sizes, each by a conductor made anew; the last size is that of all further ones."""
    for size in sizes[:-1]:
        conductor = Conductor(folder)
        for history in conductor.propose_pack(size):
            train(conductor, history)
    conductor = Conductor(folder)
    while pack := conductor.propose_pack(sizes[-1]):
        for history in pack:
            train(conductor, history)
    return {history.key: history.tried for history in folder.histories()}


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_a_search_in_batches_tries_the_same_whatever_packs_it_is_cut_into(tmp_path, sampler):
    plan = plan_of(methods=["sam"], trials=14, sampler=sampler).model_copy(update={"batch": 4})
    whole = run_in_packs(folder_of(tmp_path / "whole", plan), [4])
    assert len(whole) == 14
    for number, sizes in enumerate(([1], [3], [2, 1, 4], [4, 3, 2], [1, 1, 1, 1, 1, 3])):
        assert run_in_packs(folder_of(tmp_path / str(number), plan), sizes) == whole
    alone = run_in_packs(folder_of(tmp_path / "alone", plan.model_copy(update={"batch": 1})), [1])
    assert (alone == whole) == (sampler == "random")


def test_the_whole_batch_is_on_disk_before_any_of_it_is_handed_out(tmp_path):
    plan = plan_of(methods=["sam"], trials=9).model_copy(update={"batch": 4})
    folder = folder_of(tmp_path, plan)
    Conductor(folder).propose()
    assert len(folder.histories()) == 4
    shutil.rmtree(folder.root / "trials" / "class_pairs-sam-003")  # a crash before its record was there
    whole = run_in_packs(folder_of(tmp_path / "whole", plan), [4])
    assert run_in_packs(folder, [1]) == whole
