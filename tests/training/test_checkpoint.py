"""Checkpoints: written whole, refused if foreign or damaged, read without executing anything."""

import io
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from study import parts
from study.config import TrialConfig
from study.errors import StudyError
from study.training import checkpoint

IDENTITY = "0123456789abcdef"


@pytest.fixture(scope="module")
def states() -> list:
    """States after each of three tasks, with momentum and an intervention that has a state."""
    experiment = tiny.experiment(
        "sam with momentum and weight decay", interventions={"l2_init": {}, "shrink_and_perturb": {}}
    )
    return [result.state for result in tiny.results(experiment)]


def assert_same(one, other) -> None:
    assert one.next_task == other.next_task
    assert one.gradient_evaluations == other.gradient_evaluations
    ours, theirs = tiny.state_tensors(one), tiny.state_tensors(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype
        assert torch.equal(value, theirs[name]), name


# --- written ---------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded_to_the_last_bit_and_nothing_else_is_in_the_folder(states, tmp_path):
    path = tmp_path / "state.pt"
    for state in states:
        checkpoint.save(path, state, IDENTITY)
        assert_same(tiny.load_checkpoint(path, IDENTITY), state)
    assert list(tmp_path.iterdir()) == [path]


def test_a_state_without_held_out_images_is_kept(tmp_path):
    experiment = tiny.experiment(task_settings={"validation_fraction": 0.0, "count": 1})
    (result,) = tiny.results(experiment)
    checkpoint.save(tmp_path / "state.pt", result.state, IDENTITY)
    assert_same(tiny.load_checkpoint(tmp_path / "state.pt", IDENTITY), result.state)


def fail_half_way(content, file) -> None:
    file.write(b"half of a checkpoint")
    raise OSError(28, "No space left on device")


def interrupt_half_way(content, file) -> None:
    file.write(b"half of a checkpoint")
    raise KeyboardInterrupt


@pytest.mark.parametrize("failure", [fail_half_way, interrupt_half_way])
def test_a_failure_in_writing_leaves_the_old_file_and_no_debris(failure, states, tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    checkpoint.save(path, states[0], IDENTITY)
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", failure)
    with pytest.raises((OSError, KeyboardInterrupt)):
        checkpoint.save(path, states[1], IDENTITY)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert_same(tiny.load_checkpoint(path, IDENTITY), states[0])


def test_a_failure_in_the_first_writing_leaves_no_file_at_all(states, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "save", fail_half_way)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path / "state.pt", states[0], IDENTITY)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_putting_the_file_in_place_leaves_the_old_one(states, tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    checkpoint.save(path, states[0], IDENTITY)

    def refuse(self, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        checkpoint.save(path, states[1], IDENTITY)
    assert list(tmp_path.iterdir()) == [path]
    assert_same(tiny.load_checkpoint(path, IDENTITY), states[0])


def test_the_new_content_is_whole_before_it_takes_the_name(states, tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    checkpoint.save(path, states[0], IDENTITY)
    replace_path, drafts = Path.replace, []

    def look(draft, target):
        drafts.append(tiny.load_checkpoint(draft, IDENTITY))
        assert draft.parent == target.parent, "on another file system the change of name would not be atomic"
        assert_same(tiny.load_checkpoint(path, IDENTITY), states[0])
        return replace_path(draft, target)

    monkeypatch.setattr(Path, "replace", look)
    checkpoint.save(path, states[1], IDENTITY)
    assert len(drafts) == 1
    assert_same(drafts[0], states[1])


# --- refused ---------------------------------------------------------------------------------------------------------


def refusal(path: Path, identity: str = IDENTITY) -> str:
    """The message of the StudyError for a checkpoint that cannot be used."""
    with pytest.raises(StudyError) as error:
        tiny.load_checkpoint(path, identity)
    message = str(error.value)
    assert str(path) in message
    assert message.endswith(".")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_as_damaged(kept, states, tmp_path):
    path = tmp_path / "state.pt"
    checkpoint.save(path, states[2], IDENTITY)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("place", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.9999])
@pytest.mark.parametrize("bit", [0, 7])
def test_one_wrong_bit_anywhere_is_refused_as_damaged(place, bit, states, tmp_path):
    path = tmp_path / "state.pt"
    checkpoint.save(path, states[2], IDENTITY)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("seal", [lambda data: data, checkpoint.sealed], ids=["unsealed", "sealed"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80", b"PK\x03\x04 not a zip"])
def test_a_file_of_something_else_is_refused_as_damaged(content, seal, tmp_path):
    (tmp_path / "state.pt").write_bytes(seal(content))
    assert "damaged" in refusal(tmp_path / "state.pt")


@pytest.mark.parametrize("content", [{}, [1, 2], {"format": checkpoint.FORMAT}, "a word"])
def test_a_torch_file_of_something_else_is_refused_as_damaged(content, tmp_path):
    write_sealed(tmp_path / "state.pt", torch_bytes(content))
    assert "damaged" in refusal(tmp_path / "state.pt")


def torch_bytes(content) -> bytes:
    """The bytes that torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def write_sealed(path: Path, data: bytes) -> None:
    """Writes data with a valid seal, as an attacker could."""
    path.write_bytes(checkpoint.sealed(data))


class Executed:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_loading_executes_nothing(form, tmp_path):
    trap, path = tmp_path / "executed", tmp_path / "state.pt"
    content = {"format": checkpoint.FORMAT, "identity": IDENTITY, "params": Executed(trap)}
    data = torch_bytes(content) if form == "torch" else pickle.dumps(content, protocol=2)
    write_sealed(path, data)
    assert "UnpicklingError" in refusal(path)
    assert not trap.exists()
    torch.load(io.BytesIO(data), weights_only=False) if form == "torch" else pickle.loads(data)
    assert trap.exists(), "the trap works where it is allowed to"


def test_another_format_is_refused(states, tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "state.pt", states[0], IDENTITY)
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    refusal(tmp_path / "state.pt")


# --- identity --------------------------------------------------------------------------------------------------------

PLAIN = {
    "data": {"name": "mnist5k"},
    "tasks": {"name": "class_pairs", "count": 2},
    "model": {"name": "mlp", "widths": [5]},
    "optimizer": {"name": "sam", "lr": 0.1, "rho": 0.05},
    "interventions": {"l2_init": {"strength": 0.1}},
    "training": {"batch_size": 8, "passes": 1, "device": "cpu"},
    "seeds": [0, 1],
}


def identity(fingerprint: str = "f" * 16, **changed) -> str:
    return checkpoint.identity(parts.complete(TrialConfig.from_plain(PLAIN | changed)), fingerprint)


@pytest.mark.parametrize(
    "changed",
    [
        {"fingerprint": "e" * 16},
        {"seeds": [0, 2]},
        {"seeds": [1, 0]},
        {"seeds": [0]},
        {"data": {"name": "mnist"}},
        {"tasks": {"name": "permuted_pixels", "count": 2}},
        {"tasks": {"name": "class_pairs", "count": 3}},
        {"model": {"name": "mlp", "widths": [6]}},
        {"optimizer": {"name": "sam", "lr": 0.1000001, "rho": 0.05}},
        {"optimizer": {"name": "sam", "lr": 0.1, "rho": 0.05, "momentum": 0.5}},
        {"optimizer": {"name": "gnp", "lr": 0.1}},
        {"interventions": {}},
        {"interventions": {"l2_init": {"strength": 0.2}}},
        {"training": {"batch_size": 9, "passes": 1, "device": "cpu"}},
        {"training": {"batch_size": 8, "passes": 2, "device": "cpu"}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_checkpoint_of_another_configuration_seeds_or_data_is_refused(changed, states, tmp_path):
    checkpoint.save(tmp_path / "state.pt", states[0], identity())
    assert_same(tiny.load_checkpoint(tmp_path / "state.pt", identity()), states[0])
    message = refusal(tmp_path / "state.pt", identity(**changed))
    assert "another configuration, other seeds or other data" in message


def test_the_device_and_the_order_of_the_keys_are_no_part_of_the_identity():
    assert identity(training={"batch_size": 8, "passes": 1, "device": "auto"}) == identity()
    assert identity(**dict(reversed(PLAIN.items()))) == identity()
    assert identity(optimizer={"rho": 0.05, "lr": 0.1, "name": "sam"}) == identity()


def test_a_default_that_is_written_out_is_no_other_configuration():
    assert identity(optimizer={"name": "sam", "lr": 0.1, "rho": 0.05, "momentum": 0.0}) == identity()


def test_a_loaded_state_does_not_share_memory_with_the_saved_one(states, tmp_path):
    path = tmp_path / "state.pt"
    kept = {name: value.clone() for name, value in states[0].params.items()}
    checkpoint.save(path, replace(states[0], params=kept), IDENTITY)
    for value in kept.values():
        value.fill_(7)
    assert_same(tiny.load_checkpoint(path, IDENTITY), states[0])
