"""A trial's state between two tasks, as one sealed file.

It has the index of the next task, parameters, memories and the accuracies so far. The file is written whole or not at all, is
read without executing anything, and names the configuration it belongs to. It is sealed: its last 32 bytes are the SHA-256 of
the bytes before, because a wrong bit in a tensor would otherwise go unnoticed.
"""

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import torch

from study.config import TrialConfig, without_later_settings
from study.errors import StudyError
from study.files import draft_of
from study.training.trainer import State

FILE = "state.pt"
"""Name of the file in a checkpoint's folder."""

FORMAT = 3
SEAL_BYTES = 32


def identity(config: TrialConfig, data_fingerprint: str) -> str:
    """16 hexadecimal digits that identify configuration, seeds and data.

    The configuration must be complete. Its device does not count, nor does what earlier versions of the study did anyway, so that
    their checkpoints stay valid.
    """
    plain = without_later_settings(config.plain())
    del plain["training"]["device"]
    text = json.dumps([plain, data_fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sealed(data: bytes) -> bytes:
    """The data followed by its seal."""
    return data + hashlib.sha256(data).digest()


def save(path: Path, state: State, identity: str) -> None:
    """Writes `state` to `path`, whole or not at all.

    Readers see the old file or all of the new one, never a part.
    """
    content = {
        "format": FORMAT,
        "identity": identity,
        "next_task": state.next_task,
        "params": state.params,
        "memory": state.memory,
        "intervention_states": list(state.intervention_states),
        "diverged": state.diverged,
        "test": state.test,
        "validation": state.validation,
        "gradient_evaluations": state.gradient_evaluations,
    }
    with draft_of(path) as draft:
        with draft.open("wb") as file:
            data = io.BytesIO()
            torch.save(content, data)
            file.write(sealed(data.getvalue()))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)


def load(data: bytes, identity: str, device: str, source: str) -> State:
    """The state in a checkpoint's content, on a device.

    Args:
        data: content of the file.
        identity: of the trial, see `identity`.
        device: of the tensors.
        source: path or address of the file, for messages.

    Raises:
        StudyError: the content is damaged, or belongs to another configuration, other seeds or other data.
    """
    try:
        if sealed(data[:-SEAL_BYTES]) != data:
            raise ValueError("its seal is broken")
        content: dict[str, Any] = torch.load(io.BytesIO(data[:-SEAL_BYTES]), map_location="cpu", weights_only=True)
        state = _state(content, device)
        written_as = (content["format"], content["identity"])
    except Exception as error:  # torch.load raises any exception, depending on the damage
        raise StudyError(f"The checkpoint {source!r} is damaged ({type(error).__name__}).") from None
    if written_as != (FORMAT, identity):
        raise StudyError(f"The checkpoint {source!r} belongs to another configuration, other seeds or other data.")
    return state


def _state(content: dict[str, Any], device: str) -> State:
    def moved(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value.to(device) for name, value in tensors.items()}

    return State(
        next_task=content["next_task"],
        params=moved(content["params"]),
        memory=moved(content["memory"]),
        intervention_states=tuple(moved(state) for state in content["intervention_states"]),
        diverged=content["diverged"],
        test=content["test"],
        validation=content["validation"],
        gradient_evaluations=content["gradient_evaluations"],
    )
