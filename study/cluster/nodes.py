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

from study import provenance
from study.errors import StudyError, first_line
from study.sweep import storage

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


def this_machine() -> Node:
    """What a Ray that is started on this machine would have, as one node."""
    import torch  # takes seconds
    from ray._private.utils import get_num_cpus  # how Ray counts, limits of a container included

    return Node("", "", {"CPU": float(get_num_cpus()), "GPU": float(torch.cuda.device_count())})


def look(place: str, name: str) -> dict[str, Any]:
    """What a node says of itself; runs there.

    Args:
        place: of the checkpoints; a file `name` lies there, which this node copies beside it.
        name: of the file.

    Returns:
        `host`, `source` (see `study.provenance.source_fingerprint`), `versions`, and `fault`, why the storage is
        out of reach, or "".
    """
    node = ray.get_runtime_context().get_node_id()
    fault = ""
    try:
        storage.leave(place, f"{name}-{node}", storage.read(place, name).decode())
    except Exception as error:  # pyarrow raises what its file systems do
        fault = first_line(error)
    told = provenance.versions()
    return {"host": provenance.host(), "source": provenance.source_fingerprint(), "versions": told, "fault": fault}


@dataclass(frozen=True)
class Report:
    """What was found out about a node.

    Attributes:
        node: which.
        host: its name; "" when it did not answer.
        problem: why no trial can run there, as a sentence, or "".
        notes: what may make its numbers differ in their last digits from those of this machine.
    """

    node: Node
    host: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()


def check(nodes: Sequence[Node], place: str, advice: str) -> list[str]:
    """The notes of all nodes, see `examine`. Raises StudyError when one has a problem, or this machine does not reach `place`."""
    reports = examine(nodes, place, advice)
    for report in reports:
        if report.problem:
            raise StudyError(report.problem)
    return [note for report in reports for note in report.notes]


def examine(nodes: Sequence[Node], place: str, advice: str) -> list[Report]:
    """Asks every node whether it runs this code and reaches the storage; leaves nothing behind there.

    Args:
        nodes: to be asked.
        place: where the checkpoints go.
        advice: what the user should do about a storage out of reach.

    Raises:
        StudyError: this machine does not reach the storage.
    """
    name = f".reached-{uuid.uuid4().hex[:12]}"
    made = None if storage.is_uri(place) else _first_missing(Path(place))
    try:
        try:
            storage.leave(place, name, name)
        except Exception as error:  # pyarrow raises what its file systems do
            raise StudyError(f"The storage {place} cannot be written ({first_line(error)}); {advice}.") from None
        return [
            _judge(node, answer, place, name, advice)
            for node, answer in zip(nodes, _ask(nodes, place, name), strict=True)
        ]
    finally:
        for mark in (name, *(f"{name}-{node.identifier}" for node in nodes)):
            with suppress(Exception):
                storage.remove(place, mark)
        if made is not None:
            _remove_empty(made, Path(place))


def _ask(nodes: Sequence[Node], place: str, name: str) -> list[dict[str, Any] | Exception]:
    """What each node says of itself, or why it says nothing."""
    asked = ray.remote(num_cpus=0, max_retries=0)(look)
    answers = [
        asked.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.identifier, soft=False)).remote(
            place, name
        )
        for node in nodes
    ]
    told: list[dict[str, Any] | Exception] = []
    for answer in answers:
        try:
            told.append(ray.get(answer, timeout=ANSWER_SECONDS))
        except (RayError, ImportError) as error:  # a time that ran out is Ray's too
            told.append(error)
    return told


def _judge(node: Node, answer: dict[str, Any] | Exception, place: str, name: str, advice: str) -> Report:
    if isinstance(answer, GetTimeoutError):
        return Report(node, problem=f"Node {node.address} does not answer within {ANSWER_SECONDS:g} s.")
    if isinstance(answer, Exception):
        missing = "No module named" in str(answer)
        reason = "cannot import the study" if missing else f"cannot be asked ({str(answer).strip().splitlines()[-1]})"
        return Report(node, problem=f"Node {node.address} {reason}; install the study there as it is here.")
    called = f"{node.address} ({answer['host']})"
    problem = ""
    if answer["source"] != provenance.source_fingerprint():
        problem = f"Node {called} has other code of the study than this machine; install the same on all nodes."
    elif answer["fault"]:
        problem = f"Node {called} does not reach {place} ({answer['fault']}); {advice}."
    elif _copy(node, place, name) != name:
        problem = f"What node {called} writes to {place} is not seen here; {advice}."
    notes = [
        f"node {called} has {package} {answer['versions'].get(package)}, this machine {provenance.versions().get(package)}; last "
        f"digits may differ."
        for package in provenance.NUMERIC_PACKAGES
        if answer["versions"].get(package) != provenance.versions().get(package)
    ]
    return Report(node, answer["host"], problem, tuple(notes))


def _copy(node: Node, place: str, name: str) -> str:
    """What this machine finds of what a node has written; "" when nothing."""
    try:
        return storage.read(place, f"{name}-{node.identifier}").decode()
    except Exception:  # whatever it is, it is not there
        return ""


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
