"""A pack of trials in a worker, with a stand-in for Tune."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import tiny
import torch
from ray import tune

from study import experiment, parts, provenance
from study.cluster import worker
from study.cluster.shared_data import SharedDataset
from study.config import TrialConfig
from study.errors import StudyError
from study.training import checkpoint

CONFIG = parts.complete(
    TrialConfig.from_flat(
        {
            "tasks/name": "class_pairs",
            "tasks/count": 4,
            "tasks/images_per_task": 32,
            "tasks/validation_fraction": 0.25,
            "model/name": "mlp",
            "model/widths": [5],
            "optimizer/name": "sam",
            "training/device": "cpu",
            "seeds": [0, 1],
        }
    )
)
DATASET = experiment.load_dataset(CONFIG, Path("nowhere"))
KEY = "class_pairs-sam-000"


class Tune:
    """Keeps reports and checkpoints, as Tune does."""

    def __init__(self, folder):
        self.folder = folder
        self.reports = []
        self.kept = []
        self.refusal = None

    def report(self, metrics, checkpoint=None):
        if checkpoint is not None:
            if self.refusal is not None:
                raise self.refusal
            self.kept.append(shutil.copytree(checkpoint.path, self.folder / f"checkpoint-{len(self.kept)}"))
        self.reports.append(json.loads(metrics["report"]))

    def of(self, what, key=KEY):
        """What the reports say of a trial: its lines, notes or failures."""
        told = [report["trials"].get(key, {}) for report in self.reports if "trials" in report]
        return [each[what] for each in told if what in each]

    def lines_of(self, key):
        """The results of a trial's tasks without clocks."""
        return [(line["task"], line["name"], line["lanes"]) for line in self.of("line", key)]

    @property
    def lines(self):
        return self.lines_of(KEY)

    @property
    def notes(self):
        return self.of("note")


@pytest.fixture
def played(tmp_path, monkeypatch):
    """Starts the next attempt at a trial: `played()`."""
    monkeypatch.setattr(worker, "CHECKPOINT_SECONDS", 0.0)
    count = 0

    def play():
        nonlocal count
        count += 1
        player = Tune(tmp_path / f"attempt-{count}")
        monkeypatch.setattr(tune, "report", player.report)
        return player

    return play


def trial(key=KEY, config=None, checkpoints=(), done=0):
    """A trial of an assignment."""
    places = [str(place) for place in checkpoints]
    return {"key": key, "config": config or CONFIG.plain(), "checkpoints": places, "done": done}


def run(checkpoints=(), done=0, threads=1, datasets=None, config=None, **changes):
    """A worker's work; by default on one trial."""
    assignment = {
        "trials": [trial(KEY, config, checkpoints, done)],
        "dataset": "digits",
        "rungs": [],
        "files": {},
        "installed": {},
        "threads": threads,
        "source": {"fingerprint": provenance.source_fingerprint(), "folder": str(provenance.source_folder())},
        **changes,
    }
    worker.run_pack(assignment, {"digits": SharedDataset.of(DATASET)} if datasets is None else datasets)


@pytest.fixture
def whole(played):
    """A whole trial with a checkpoint after each task."""
    player = played()
    run()
    assert [task for task, *_ in player.lines] == [0, 1, 2, 3]
    assert len(player.kept) == 4
    return player


def test_every_task_is_reported_with_where_it_was_trained(whole):
    assert len(whole.of("facts")) == len(whole.reports) == 4
    for facts in whole.of("facts"):
        assert facts["data_fingerprint"] == DATASET.fingerprint
        assert facts["threads"] == 1
        assert facts["host"] == provenance.host()
        assert facts["source_fingerprint"] == provenance.source_fingerprint()
    assert "summary" in whole.of("line")[-1]


@pytest.mark.parametrize("newest", [0, 1, 2])
def test_an_attempt_goes_on_from_the_newest_checkpoint_to_the_same_bits(whole, played, newest):
    player = played()
    run(checkpoints=whole.kept[newest::-1], done=newest + 1)
    assert player.lines == whole.lines[newest + 1 :]
    assert player.notes == []


def flipped(data):
    """The data with one bit in its middle changed."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\x80\x05garbage" * 99),
    "one bit of a weight": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "gone": lambda path: path.unlink(),
    "its folder gone": lambda path: shutil.rmtree(path.parent),
    "of other seeds": lambda path: checkpoint.save(
        path, tiny.load_checkpoint(path, checkpoint.identity(CONFIG, DATASET.fingerprint)), "another"
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_it_is_said(whole, played, damage):
    newest, before = whole.kept[2], whole.kept[1]
    damage(newest / checkpoint.FILE)
    player = played()
    run(checkpoints=[newest, before], done=3)
    assert player.lines == whole.lines[2:]
    (note,) = player.notes
    assert str(newest / checkpoint.FILE) in note
    assert note.endswith("it continues after its first 2 tasks")


def test_a_missing_checkpoint_is_reported_as_missing(whole, played):
    newest, before = whole.kept[2], whole.kept[1]
    (newest / checkpoint.FILE).unlink()
    player = played()
    run(checkpoints=[newest, before], done=3)
    (note,) = player.notes
    assert "no checkpoint" in note
    assert str(newest / checkpoint.FILE) in note


def test_without_any_sound_checkpoint_a_trial_starts_again_and_it_is_said(whole, played):
    for folder in whole.kept[:2]:
        DAMAGES["cut short"](folder / checkpoint.FILE)
    player = played()
    run(checkpoints=whole.kept[1::-1], done=2)
    assert player.lines == whole.lines
    assert player.notes[0].endswith("it starts again at its first task")


def test_a_checkpoint_beyond_what_is_recorded_is_not_gone_on_from(whole, played):
    player = played()
    run(checkpoints=[whole.kept[2], whole.kept[0]], done=1)
    assert player.lines == whole.lines[1:]


class Trap:
    """Pickles to code that creates a file on loading."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_checkpoint_is_read_without_executing_what_is_in_it(whole, played, tmp_path):
    sprung = tmp_path / "sprung"
    data = io.BytesIO()
    torch.save({"format": checkpoint.FORMAT, "params": Trap(sprung)}, data)
    (whole.kept[2] / checkpoint.FILE).write_bytes(checkpoint.sealed(data.getvalue()))
    player = played()
    run(checkpoints=whole.kept[2:0:-1], done=3)
    assert not sprung.exists()
    assert player.lines == whole.lines[2:]
    assert len(player.notes) == 1


def test_an_exception_is_reported_with_its_traceback_and_ends_the_process(played):
    player = played()
    with pytest.raises(KeyError, match="digits"):
        run(datasets={})
    (failure,), (facts,) = player.of("failure"), player.of("facts")
    assert failure["reason"] == "KeyError: 'digits'"
    assert failure["traceback"].startswith("Traceback (most recent call last)")
    assert facts == {"host": provenance.host(), "rule": {}, **provenance.software()}


def test_a_checkpoint_that_cannot_be_stored_is_told_with_the_task_that_stands(whole, played):
    player = played()
    player.refusal = OSError(28, "No space left on device")
    run()
    assert player.lines == whole.lines
    assert {report["unsaved"] for report in player.reports} == {"OSError: [Errno 28] No space left on device"}


def test_checkpoints_are_rarer_than_tasks_that_are_short(played, monkeypatch):
    monkeypatch.setattr(worker, "CHECKPOINT_SECONDS", 1000.0)
    player = played()
    run()
    assert len(player.lines) == 4
    assert len(player.kept) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_a_trial_uses_the_threads_that_it_was_given(played, threads):
    player = played()
    before = torch.get_num_threads()
    try:
        run(threads=threads)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert {facts["threads"] for facts in player.of("facts")} == {threads}


def test_a_trial_that_no_machine_can_build_fails_with_a_reason(played):
    player = played()
    with pytest.raises(StudyError):
        run(config={**CONFIG.plain(), "model": {"name": "mlp", "widths": [2**31]}})
    assert "GiB of memory" in player.of("failure")[-1]["reason"]


def refusal_of(player):
    """What a worker reports that refuses to train: one sentence, and nothing else."""
    (report,) = player.reports
    assert list(report) == ["refusal"]
    return report["refusal"]


def test_a_worker_with_other_code_trains_nothing_and_names_both_places(played):
    player = played()
    run(source={"fingerprint": "0" * 16, "folder": "/somewhere/else"})
    refusal = refusal_of(player)
    assert len(refusal) < 300
    for words in ("/somewhere/else", "0" * 16, str(provenance.source_folder()), provenance.source_fingerprint()):
        assert words in refusal


def test_a_worker_that_starts_after_its_code_was_edited_trains_nothing(played):
    player = played()
    run(source={"fingerprint": "0" * 16, "folder": str(provenance.source_folder())})
    assert f"{provenance.source_folder()} has changed since the sweep was started" in refusal_of(player)


def test_a_part_that_was_edited_before_a_worker_first_needs_it_is_not_trained_with(played, monkeypatch):
    player = played()
    run()
    monkeypatch.setattr(worker, "fingerprint_of", lambda folder: "f" * 16)
    again = played()
    run()
    assert again.lines == player.lines  # all of its code was read before
    monkeypatch.delitem(sys.modules, "study.optimizers.sam")
    late = played()
    run()
    assert "now " + "f" * 16 in refusal_of(late)


# --- several trials in one worker -----------------------------------------------------------------------------------


def with_rho(rho):
    """The configuration with another radius of SAM."""
    return {**CONFIG.plain(), "optimizer": {**CONFIG.plain()["optimizer"], "rho": rho}}


RADII = {"class_pairs-sam-000": 0.05, "class_pairs-sam-001": 0.2, "class_pairs-sam-002": 1.0}


def pack(**changes):
    """Three trials; `changes` by the last digit of their keys."""
    return [trial(key, with_rho(rho), **changes.get(f"t{key[-1]}", {})) for key, rho in RADII.items()]


def assert_equal_but_for_rounding(ours, theirs):
    """The lines of a trial alone and in a pack: the accuracies are counts, the loss is rounded."""
    assert [(task, name) for task, name, _ in ours] == [(task, name) for task, name, _ in theirs]
    for (*_, values), (*_, others) in zip(ours, theirs, strict=True):
        assert values.keys() == others.keys()
        for name in values:
            assert values[name] == pytest.approx(others[name], abs=1e-5), name


@pytest.fixture
def alone(played):
    """The lines of each of the three trials, trained alone."""
    lines = {}
    for key, rho in RADII.items():
        player = played()
        run(trials=[trial(key, with_rho(rho))])
        lines[key] = player.lines_of(key)
    assert len({str(each) for each in lines.values()}) == 3
    return lines


def places(player, number, key):
    """The places of a trial's checkpoints, the newest first."""
    return [worker.checkpoint_within(str(kept), key, 3) for kept in player.kept[number::-1]]


def test_each_trial_of_a_pack_gets_the_results_that_it_gets_alone(alone, played):
    player = played()
    run(trials=pack())
    assert len(player.reports) == 4  # one for all three
    for key, lines in alone.items():
        assert_equal_but_for_rounding(player.lines_of(key), lines)
        assert [facts["rule"]["rule/radius"] for facts in player.of("facts", key)] == pytest.approx([RADII[key]] * 4)


def test_trials_of_a_pack_go_on_from_checkpoints_after_different_tasks(alone, played):
    whole = played()
    run(trials=pack())
    late, early, never = RADII
    player = played()
    run(
        trials=pack(
            t0={"checkpoints": places(whole, 2, late), "done": 3},
            t1={"checkpoints": places(whole, 0, early), "done": 1},
        )
    )
    assert [[task for task, *_ in player.lines_of(key)] for key in (late, early, never)] == [
        [3],
        [1, 2, 3],
        [0, 1, 2, 3],
    ]
    assert [sorted(report["trials"]) for report in player.reports] == [
        [never],
        [early, never],
        [early, never],
        sorted(RADII),
    ]
    for key, lines in alone.items():
        assert_equal_but_for_rounding(player.lines_of(key), lines[-len(player.lines_of(key)) :])


def test_a_trial_of_a_pack_goes_on_alone_and_one_alone_in_a_pack(alone, played):
    whole = played()
    run(trials=pack())
    key = "class_pairs-sam-001"
    player = played()
    run(trials=[trial(key, with_rho(RADII[key]), places(whole, 1, key), 2)])
    assert_equal_but_for_rounding(player.lines_of(key), alone[key][2:])
    joined = played()
    run(trials=pack(t1={"checkpoints": player.kept[:1], "done": 3}))
    assert [task for task, *_ in joined.lines_of(key)] == [3]
    for other, lines in alone.items():
        assert_equal_but_for_rounding(joined.lines_of(other), lines[-len(joined.lines_of(other)) :])


class Broken(Exception):
    """What a part of a trial's own raises."""


def test_a_trial_that_raises_fails_alone_and_the_others_of_its_pack_go_on(alone, played, monkeypatch):
    from study.training import pack as packs

    build_stack, bad = packs.build_stack, "class_pairs-sam-001"

    def breaking(configs, dataset):
        made = build_stack(configs, dataset)
        if RADII[bad] in [config.optimizer.settings["rho"] for config in configs]:
            task = made.tasks.task

            def broken(index):
                if index == 2:
                    raise Broken("no third task")
                return task(index)

            object.__setattr__(made.tasks, "task", broken)
        return made

    monkeypatch.setattr(packs, "build_stack", breaking)
    player = played()
    with pytest.raises(Broken):  # at the end, to end the process too
        run(trials=pack())
    (failure,) = player.of("failure", bad)
    assert failure["reason"] == "Broken: no third task"
    assert "in broken" in failure["traceback"]
    assert_equal_but_for_rounding(player.lines_of(bad), alone[bad][:2])
    for key in RADII.keys() - {bad}:
        assert player.of("failure", key) == []
        assert_equal_but_for_rounding(player.lines_of(key), alone[key])


def test_a_trial_whose_part_cannot_be_built_fails_alone(alone, played):
    bad = trial("class_pairs-sam-009", with_rho(0.0))
    player = played()
    with pytest.raises(StudyError, match="rho"):
        run(trials=[bad, *pack()[:2]])
    (failure,) = player.of("failure", bad["key"])
    assert "optimizer/rho" in failure["reason"]
    for key in list(RADII)[:2]:
        assert_equal_but_for_rounding(player.lines_of(key), alone[key])
        config = TrialConfig.from_plain(with_rho(RADII[key]))
        path = Path(worker.checkpoint_within(str(player.kept[-1]), key, 3)) / checkpoint.FILE
        assert tiny.load_checkpoint(path, checkpoint.identity(config, DATASET.fingerprint)).next_task == 4


def test_a_gpu_that_is_too_small_for_a_pack_trains_smaller_ones(alone, played, monkeypatch):
    from study.training import pack as packs

    build_stack, sizes = packs.build_stack, []

    def small(configs, dataset):
        sizes.append(len(configs))
        if len(configs) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return build_stack(configs, dataset)

    monkeypatch.setattr(packs, "build_stack", small)
    player = played()
    run(trials=pack())
    assert sizes == [3, 2, 1, 1, 1]  # and each goes on with what it has
    for key, lines in alone.items():
        assert player.lines_of(key) == lines  # to the last bit


def test_a_gpu_that_is_too_small_for_one_trial_is_told_in_a_sentence(played, monkeypatch):
    from study.training import pack as packs

    def full(configs, dataset):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    monkeypatch.setattr(packs, "build_stack", full)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**30, 80 * 2**30))
    player = played()
    with pytest.raises(StudyError):
        run()
    reason = player.of("failure")[0]["reason"]
    assert "too little free memory for this trial alone (1.0 of 80.0 GiB are free" in reason


def test_a_pack_has_a_checkpoint_wherever_one_of_its_trials_may_be_stopped(played, monkeypatch):
    monkeypatch.setattr(worker, "CHECKPOINT_SECONDS", 1000.0)
    player = played()
    run(trials=pack(), rungs=[1, 3])
    assert len(player.kept) == 3
    for key, rho in RADII.items():
        config = TrialConfig.from_plain(with_rho(rho))
        for kept, after in zip(player.kept, (1, 3, 4), strict=True):
            path = Path(worker.checkpoint_within(str(kept), key, 3)) / checkpoint.FILE
            assert tiny.load_checkpoint(path, checkpoint.identity(config, DATASET.fingerprint)).next_task == after


def test_trials_that_cannot_be_stacked_take_turns_in_one_pack(alone, played):
    plain, momentous = RADII["class_pairs-sam-000"], with_rho(0.2)
    momentous["optimizer"]["momentum"] = 0.9
    player = played()
    run(trials=[trial("class_pairs-sam-000", with_rho(plain)), trial("class_pairs-sam-001", momentous)])
    assert [sorted(report["trials"]) for report in player.reports] == [
        ["class_pairs-sam-000"],
        ["class_pairs-sam-001"],
    ] * 4
    assert player.lines_of("class_pairs-sam-000") == alone["class_pairs-sam-000"]
    by_itself = played()
    run(trials=[trial("class_pairs-sam-001", momentous)])
    assert player.lines_of("class_pairs-sam-001") == by_itself.lines_of("class_pairs-sam-001")


@pytest.mark.parametrize(
    ("here", "said"), [({}, "(not installed)"), ({"damping": "fedcba9876543210"}, "(fedcba9876543210)")]
)
def test_a_worker_whose_package_of_a_part_is_not_the_drivers_refuses_to_train(played, monkeypatch, here, said):
    monkeypatch.setattr(parts, "installed", lambda config: here)
    player = played()
    run(installed={"damping": "0123456789abcdef"})
    (report,) = player.reports
    assert report["refusal"].startswith("the part 'damping' on ")
    assert f"{said} is not the driver's (0123456789abcdef); install the same package" in report["refusal"]


def test_an_installed_part_is_among_the_facts_of_a_trial(played, monkeypatch):
    monkeypatch.setattr(parts, "installed", lambda config: {"damping": "0123456789abcdef"})
    player = played()
    run(installed={"damping": "0123456789abcdef"})
    assert player.of("facts")[0]["parts"] == {"damping": "0123456789abcdef"}
