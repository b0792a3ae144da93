"""A trial in a worker, with a stand-in for Tune."""

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

    @property
    def lines(self):
        """The results of the tasks without clocks."""
        lines = [report["line"] for report in self.reports if "line" in report]
        return [(line["task"], line["name"], line["lanes"]) for line in lines]

    @property
    def notes(self):
        return [report["note"] for report in self.reports if "note" in report]


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


def run(checkpoints=(), done=0, threads=1, datasets=None, **changes):
    assignment = {
        "config": CONFIG.plain(),
        "dataset": "digits",
        "checkpoints": [str(place) for place in checkpoints],
        "done": done,
        "threads": threads,
        "source": {"fingerprint": provenance.source_fingerprint(), "folder": str(provenance.source_folder())},
        **changes,
    }
    worker.run_trial(assignment, {"digits": SharedDataset.of(DATASET)} if datasets is None else datasets)


@pytest.fixture
def whole(played):
    """A whole trial with a checkpoint after each task."""
    player = played()
    run()
    assert [task for task, *_ in player.lines] == [0, 1, 2, 3]
    assert len(player.kept) == 4
    return player


def test_every_task_is_reported_with_where_it_was_trained(whole):
    for report in whole.reports:
        assert report["facts"]["data_fingerprint"] == DATASET.fingerprint
        assert report["facts"]["threads"] == 1
        assert report["facts"]["host"] == provenance.host()
        assert report["facts"]["source_fingerprint"] == provenance.source_fingerprint()
    assert "summary" in whole.reports[-1]["line"]


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
    (report,) = player.reports
    assert report["failure"]["reason"] == "KeyError: 'digits'"
    assert report["failure"]["traceback"].startswith("Traceback (most recent call last)")
    assert report["facts"] == {"host": provenance.host(), "rule": {}, **provenance.software()}


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
    assert {report["facts"]["threads"] for report in player.reports} == {threads}


def test_a_trial_that_no_machine_can_build_fails_with_a_reason(played):
    player = played()
    with pytest.raises(StudyError):
        run(config={**CONFIG.plain(), "model": {"name": "mlp", "widths": [2**31]}})
    assert "GiB of memory" in player.reports[-1]["failure"]["reason"]


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
    monkeypatch.setattr(provenance, "fingerprint_of", lambda folder: "f" * 16)
    again = played()
    run()
    assert again.lines == player.lines  # all of its code was read before
    monkeypatch.delitem(sys.modules, "study.optimizers.sam")
    late = played()
    run()
    assert "now " + "f" * 16 in refusal_of(late)
