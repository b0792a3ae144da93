"""Asks each node for its code, versions and storage."""

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
"""Longest time for a node to start a worker and answer."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster.

    Attributes:
        identifier: Ray's.
        address: of its network interface.
        resources: its total resources by Ray's names, such as CPU and GPU.
    """

    identifier: str
    address: str
    resources: dict[str, float] = field(default_factory=dict)

    def fits(self, cpus: float, gpus: float) -> int:
        """Number of trials that it can run at once.

        Each takes so many CPUs and GPUs.
        """
        counts = [self.resources.get(name, 0.0) / each for name, each in (("CPU", cpus), ("GPU", gpus)) if each > 0]
        return int(min(counts, default=0.0) + 1e-9)


def alive() -> list[Node]:
    """The nodes of the Ray that this process has joined."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return [Node(node["NodeID"], node["NodeManagerAddress"], dict(node["Resources"])) for node in nodes]


def this_machine() -> Node:
    """This machine as the node that Ray would make it."""
    import torch  # slow to import
    from ray._private.utils import get_num_cpus  # counts as Ray does: respects a container's limits

    return Node("", "", {"CPU": float(get_num_cpus()), "GPU": float(torch.cuda.device_count())})


def look(place: str, name: str) -> dict[str, Any]:
    """Describes the node that it runs on.

    Args:
        place: where the checkpoints go. It has a file `name`, which this node copies to test that it reaches the storage.
        name: of the file.

    Returns:
        `host`, `source` (see `study.provenance.source_fingerprint`) and `folder`, where that is, `versions`, and `fault`: why the
        node does not reach the storage, or "".
    """
    node = ray.get_runtime_context().get_node_id()
    fault = ""
    try:
        storage.leave(place, f"{name}-{node}", storage.read(place, name).decode())
    except Exception as error:  # pyarrow passes on whatever its file systems raise
        fault = first_line(error)
    return {
        "host": provenance.host(),
        "source": provenance.source_fingerprint(),
        "folder": str(provenance.source_folder()),
        "versions": provenance.versions(),
        "fault": fault,
    }


@dataclass(frozen=True)
class Report:
    """The result of examining a node.

    Attributes:
        node: the node.
        host: its name; "" if it did not answer.
        problem: why no trial can run there, as a sentence, or "".
        notes: why its numbers may differ in their last digits from those of this machine.
    """

    node: Node
    host: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()


def check(nodes: Sequence[Node], place: str, advice: str) -> list[str]:
    """Returns the notes of all nodes, see `examine`.

    Raises StudyError if a node has a problem or this machine does not reach `place`.
    """
    reports = examine(nodes, place, advice)
    for report in reports:
        if report.problem:
            raise StudyError(report.problem)
    return [note for report in reports for note in report.notes]


def examine(nodes: Sequence[Node], place: str, advice: str) -> list[Report]:
    """Asks every node for its code, versions and storage.

    Leaves no files behind in the storage.

    Args:
        nodes: the nodes to ask.
        place: where the checkpoints go.
        advice: what the user should do if the storage cannot be reached.

    Raises:
        StudyError: this machine does not reach the storage.
    """
    name = f".reached-{uuid.uuid4().hex[:12]}"
    created = None if storage.is_uri(place) else _first_missing(Path(place))
    try:
        try:
            storage.leave(place, name, name)
        except Exception as error:  # pyarrow passes on whatever its file systems raise
            raise StudyError(f"The storage {place} cannot be written ({first_line(error)}); {advice}.") from None
        return [
            _judge(node, answer, place, name, advice)
            for node, answer in zip(nodes, _ask(nodes, place, name), strict=True)
        ]
    finally:
        for file in (name, *(f"{name}-{node.identifier}" for node in nodes)):
            with suppress(Exception):
                storage.remove(place, file)
        if created is not None:
            _remove_empty(created, Path(place))


def _ask(nodes: Sequence[Node], place: str, name: str) -> list[dict[str, Any] | Exception]:
    """The answer of each node to `look`, or the error."""
    task = ray.remote(num_cpus=0, max_retries=0)(look)
    futures = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.identifier, soft=False)).remote(
            place, name
        )
        for node in nodes
    ]
    answers: list[dict[str, Any] | Exception] = []
    for future in futures:
        try:
            answers.append(ray.get(future, timeout=ANSWER_SECONDS))
        except (RayError, ImportError) as error:  # a timeout is a RayError
            answers.append(error)
    return answers


def _judge(node: Node, answer: dict[str, Any] | Exception, place: str, name: str, advice: str) -> Report:
    """Turns a node's answer into a report."""
    if isinstance(answer, GetTimeoutError):
        return Report(node, problem=f"Node {node.address} does not answer within {ANSWER_SECONDS:g} s.")
    if isinstance(answer, Exception):
        missing = "No module named" in str(answer)
        reason = "cannot import the study" if missing else f"cannot be asked ({str(answer).strip().splitlines()[-1]})"
        return Report(node, problem=f"Node {node.address} {reason}; install the study there as it is here.")
    label = f"{node.address} ({answer['host']})"
    problem = ""
    if answer["source"] != provenance.source_fingerprint():
        where = f", in {answer['folder']}," if "folder" in answer else ""  # an older version does not say
        problem = (
            f"Node {label} has other code of the study{where} than this machine, in {provenance.source_folder()}; install the "
            f"same on all nodes."
        )
    elif answer["fault"]:
        problem = f"Node {label} does not reach {place} ({answer['fault']}); {advice}."
    elif _copy(node, place, name) != name:
        problem = f"What node {label} writes to {place} is not seen here; {advice}."
    notes = [
        f"node {label} has {package} {answer['versions'].get(package)}, this machine {provenance.versions().get(package)}; last "
        f"digits may differ."
        for package in provenance.NUMERIC_PACKAGES
        if answer["versions"].get(package) != provenance.versions().get(package)
    ]
    return Report(node, answer["host"], problem, tuple(notes))


def _copy(node: Node, place: str, name: str) -> str:
    """What this machine reads of a node's file, or ""."""
    try:
        return storage.read(place, f"{name}-{node.identifier}").decode()
    except Exception:  # whatever the reason, this machine does not see the file
        return ""


def _first_missing(folder: Path) -> Path | None:
    """The topmost missing one of a folder and its parents."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    return missing[-1] if missing else None


def _remove_empty(top: Path, bottom: Path) -> None:
    """Removes the empty folders from `bottom` up to `top`."""
    for folder in (bottom, *bottom.parents):
        with suppress(OSError):
            folder.rmdir()
        if folder == top:
            break
