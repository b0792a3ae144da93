"""`study doctor`: checks of machine, data, MLflow and Ray.

Each thing is tried, not assumed, and a problem comes with advice.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from study import experiment, parts, provenance
from study.cli import terminal
from study.cluster import connection
from study.config import TrialConfig
from study.data import NoImagesError
from study.errors import StudyError
from study.files import first_existing
from study.sweep import folder, storage
from study.sweep.execution import LANES_PER_GPU, Execution

GIB = 2**30
LEAST_FREE_BYTES = GIB
"""Less free disk is a problem: a sweep of the whole paper with its checkpoints takes about this much."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        topic, name: what was checked.
        text: the result.
        problem: what is wrong and what to do about it, as a sentence; "" if nothing is.
    """

    topic: str
    name: str
    text: str
    problem: str = ""


def examine(directory: Path, execution: Execution) -> Iterator[Finding]:
    """Checks everything, topic by topic.

    The topics are versions, this machine, data sets, results, MLflow's store and Ray, in this order.

    Args:
        directory: folder of all sweeps; it need not exist.
        execution: where and with what a sweep would run.
    """
    yield from _versions()
    yield from _machine()
    yield from _datasets(Path(execution.data_dir))
    yield from _results(directory)
    yield from _store(directory, execution)
    yield from _ray(directory, execution)


def _versions() -> Iterator[Finding]:
    for package, version in provenance.versions().items():
        yield Finding("versions", package, version)
    yield Finding("versions", "source", f"{provenance.source_folder()}, fingerprint {provenance.source_fingerprint()}")
    yield Finding(
        "versions", "commit", provenance.git_commit() or "unknown: this is neither a clone nor installed from one"
    )


def _machine() -> Iterator[Finding]:
    import torch

    yield Finding("machine", "host", provenance.host())
    yield Finding("machine", "CPUs", f"{os.cpu_count()}, of which this process may use {len(os.sched_getaffinity(0))}")
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    if not torch.cuda.is_available():
        yield Finding(
            "machine", "GPUs", f"none that torch can use (torch was built with {built}); trials train on the CPU"
        )
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding(
            "machine", f"GPU {index}", f"{properties.name}, {properties.total_memory / GIB:.0f} GiB ({built})"
        )
    yield Finding("machine", "packs", _packs(torch.cuda.device_count()))


def _packs(gpus: int) -> str:
    """How many trials a worker trains together by default."""
    if not gpus:
        return "each worker trains one trial at a time; --pack N trains several together"
    workers = "one worker, which trains" if gpus == 1 else f"{gpus} workers with a GPU each, which train"
    return (
        f"{workers} trials of {LANES_PER_GPU} seeds in all together: {LANES_PER_GPU // 3} of 3 seeds, or "
        f"{LANES_PER_GPU // 10} of 10 (--pack auto)"
    )


def _datasets(data_dir: Path) -> Iterator[Finding]:
    for name in parts.names("data"):
        module = parts.find("data", name)
        files = getattr(module, "files", None)  # only of data sets that are downloaded
        if files is not None and not files(data_dir).is_dir():
            yield Finding("data sets", name, f"not in {files(data_dir)}; will be downloaded there on first use")
            continue
        try:
            dataset = experiment.load_dataset(TrialConfig.from_plain({"data": {"name": name}}), data_dir)
        except NoImagesError as absence:
            yield Finding("data sets", name, f"none: {str(absence)[0].lower()}{str(absence)[1:]}")
            continue
        except StudyError as error:
            yield Finding("data sets", name, "damaged", str(error))
            continue
        sizes = (
            f"{len(dataset.train_images):,} + {len(dataset.test_images):,} images, fingerprint {dataset.fingerprint}"
        )
        yield Finding("data sets", name, f"{sizes}, {'in ' + str(files(data_dir)) if files else 'inside a package'}")


def _results(directory: Path) -> Iterator[Finding]:
    try:
        folder.check_writable(directory)
    except StudyError as error:
        yield Finding("results", "folder", str(directory), str(error))
        return
    names = folder.names(directory)
    yield Finding("results", "folder", f"{directory.resolve()}, {len(names)} sweeps")
    usage = shutil.disk_usage(first_existing(directory))
    free = f"{usage.free / GIB:.1f} GiB free of {usage.total / GIB:.0f}"
    few = usage.free < LEAST_FREE_BYTES
    yield Finding(
        "results",
        "disk",
        free,
        f"Less than {LEAST_FREE_BYTES / GIB:g} GiB of disk is free for results; make room." if few else "",
    )


def _store(directory: Path, execution: Execution) -> Iterator[Finding]:
    from study.tracking import store
    from study.tracking.client import check_reachable, is_missing, refusals, server_version

    uri = store.tracking_uri(directory, execution)
    try:
        check_reachable(uri)
        if is_missing(uri):
            yield Finding("MLflow", "store", f"{uri}, will be created by the first sweep")
            return
        with refusals(uri):
            count = len(store.Store(uri).client.search_experiments())
    except StudyError as error:
        yield Finding("MLflow", "store", uri, str(error))
        return
    yield Finding("MLflow", "store", f"{uri}, {count} experiments")
    version = server_version(uri)
    if version:
        yield Finding("MLflow", "server", f"version {version}")


def _ray(directory: Path, execution: Execution) -> Iterator[Finding]:
    where = "on this machine only" if execution.is_local else f"cluster at {execution.address}"
    try:
        place = storage.check(execution.storage) if execution.storage else str(directory.resolve())
        with connection.joined(execution) as members:
            from study.cluster import nodes

            for report in nodes.examine(members, place, connection.STORAGE_ADVICE):
                has = report.node.resources
                text = f"{has.get('CPU', 0):g} CPUs, {has.get('GPU', 0):g} GPUs, {has.get('memory', 0) / GIB:.1f} GiB memory"
                reached = "" if report.problem else f"; runs this code and can use {place}"
                name = f"node {report.node.address}" + (f" ({report.host})" if report.host else "")
                yield Finding("Ray", name, text + reached, report.problem)
                for note in report.notes:
                    yield Finding("Ray", "note", note)
    except StudyError as error:
        yield Finding("Ray", where, "cannot be used", str(error))


def run(directory: Path, execution: Execution, *, as_json: bool = False) -> int:
    """Prints all checks, then the problems; returns the exit code."""
    findings, topic = [], ""
    for finding in examine(directory, execution):
        findings.append(finding)
        if as_json:
            continue
        if finding.topic != topic:
            topic = finding.topic
            terminal.console.print(f"\n{topic}", style="bold", markup=False)
        terminal.console.print(f"  {finding.name:20}  {finding.text}", markup=False, soft_wrap=True)
    problems = [finding.problem for finding in findings if finding.problem]
    if as_json:
        terminal.show_json([asdict(finding) for finding in findings])
        return 1 if problems else 0
    terminal.console.print()
    for problem in problems:
        terminal.complain(f"problem: {problem}")
    if not problems:
        terminal.console.print("No problem found.")
    return 1 if problems else 0
