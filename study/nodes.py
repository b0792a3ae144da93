"""What each node of a Ray cluster is and can reach, asked of the node itself: code, versions, storage."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study import facts, storage
from study.config import StudyError

ANSWER_SECONDS = 120.0
"""How long a node may take to start a worker and answer."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster.

    Attributes:
        identifier: Ray's.
        address: of its network interface.
        resources: what it has in all, by Ray's names.
    """

    identifier: str
    address: str
    resources: dict[str, float] = field(default_factory=dict)

    def fits(self, cpus: float, gpus: float) -> int:
        """How many trials of so many CPUs and GPUs it can run at once."""
        counts = [self.resources.get(name, 0.0) / each for name, each in (("CPU", cpus), ("GPU", gpus)) if each > 0]
        return int(min(counts, default=0.0) + 1e-9)


def alive() -> list[Node]:
    """The nodes of the Ray that this process has joined."""
    found = [node for node in ray.nodes() if node["Alive"]]
    return [Node(node["NodeID"], node["NodeManagerAddress"], dict(node["Resources"])) for node in found]


def look(place: str, name: str) -> dict[str, Any]:
    """What a node says of itself; runs there.

    Args:
        place: of the checkpoints; a file `name` lies there, which this node copies beside it.
        name: of the file.

    Returns:
        `host`, `source` (see `study.facts.source_fingerprint`), `versions`, and `fault`, why the storage is out of reach, or "".
    """
    node = ray.get_runtime_context().get_node_id()
    fault = ""
    try:
        storage.leave(place, f"{name}-{node}", storage.find(place, name))
    except Exception as error:  # pyarrow raises what its file systems do
        fault = str(error).strip().splitlines()[0].rstrip(".") or type(error).__name__
    told = facts.versions()
    return {"host": facts.host(), "source": facts.source_fingerprint(), "versions": told, "fault": fault}


def check(nodes: Sequence[Node], place: str, shown: str) -> list[str]:
    """Asks every node whether it runs this code and reaches the storage.

    Args:
        nodes: to be asked.
        place: where the checkpoints go.
        shown: what the user should do about a storage out of reach.

    Returns:
        Notes on what may make numbers differ in their last digits: other versions than here.

    Raises:
        StudyError: a node does not answer, lacks the study or has other code of it, or does not reach the storage; this
            machine does not reach it either.
    """
    name = f".reached-{uuid.uuid4().hex[:12]}"
    made = None if storage.is_uri(place) else _first_missing(Path(place))
    try:
        try:
            storage.leave(place, name, name)
        except Exception as error:  # pyarrow raises what its file systems do
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise StudyError(f"The storage {place} cannot be written ({reason}); {shown}.") from None
        notes = _compare(nodes, _ask(nodes, place, name), place, shown)
        for node in nodes:
            try:
                copied = storage.find(place, f"{name}-{node.identifier}")
            except Exception:  # whatever it is, it is not there
                copied = ""
            if copied != name:
                raise StudyError(f"What node {node.address} writes to {place} is not seen here; {shown}.")
        return notes
    finally:
        for mark in (name, *(f"{name}-{node.identifier}" for node in nodes)):
            with suppress(Exception):
                storage.remove(place, mark)
        if made is not None:
            _remove_empty(made, Path(place))


def _ask(nodes: Sequence[Node], place: str, name: str) -> list[dict[str, Any]]:
    asked = ray.remote(num_cpus=0, max_retries=0)(look)
    answers = [
        asked.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.identifier, soft=False)).remote(
            place, name
        )
        for node in nodes
    ]
    told = []
    for node, answer in zip(nodes, answers, strict=True):
        try:
            told.append(ray.get(answer, timeout=ANSWER_SECONDS))
        except GetTimeoutError:
            raise StudyError(f"Node {node.address} does not answer within {ANSWER_SECONDS:g} s.") from None
        except (RayError, ImportError) as error:
            missing = "No module named" in str(error)
            reason = (
                "cannot import the study" if missing else f"cannot be asked ({str(error).strip().splitlines()[-1]})"
            )
            raise StudyError(f"Node {node.address} {reason}; install the study there as it is here.") from None
    return told


def _compare(nodes: Sequence[Node], told: Sequence[dict[str, Any]], place: str, shown: str) -> list[str]:
    notes = []
    for node, answer in zip(nodes, told, strict=True):
        called = f"{node.address} ({answer['host']})"
        if answer["source"] != facts.source_fingerprint():
            raise StudyError(
                f"Node {called} has other code of the study than this machine; install the same on all nodes."
            )
        if answer["fault"]:
            raise StudyError(f"Node {called} does not reach {place} ({answer['fault']}); {shown}.")
        for package in facts.NUMERIC_PACKAGES:
            there, here = (versions.get(package) for versions in (answer["versions"], facts.versions()))
            if there != here:
                notes.append(f"node {called} has {package} {there}, this machine {here}; last digits may differ.")
    return notes


def _first_missing(folder: Path) -> Path | None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    return missing[-1] if missing else None


def _remove_empty(top: Path, bottom: Path) -> None:
    """Removes the folders from `bottom` up to `top`, as long as nothing is in them."""
    for folder in (bottom, *bottom.parents):
        with suppress(OSError):
            folder.rmdir()
        if folder == top:
            break
