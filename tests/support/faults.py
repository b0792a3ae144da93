"""Breaks sweeps from outside.

Kills drivers and workers by process id, damages checkpoints, takes MLflow's server away. A `Site` is a folder with a sweep in
it; it knows only the command line, the files and the processes. Random choices come from a `Chance`, whose seed is printed and
can be set by STUDY_FAULT_SEED.
"""

import csv
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import unquote

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from ports import free_port
from sweep_fixtures import clean_environment, tasks_of

PATIENCE = 400.0
"""Seconds within which anything that a test waits for has to happen."""

LEFTOVER_SECONDS = 20.0
"""Seconds within which what a driver has started is gone after it, be it dead by kill -9."""

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "default_worker.py")
AGENT_SECONDS = 150.0
"""Some processes of Ray's take longer, after kill -9: two agents, and a worker that had not yet got anything to do. They wait for
the dead Ray to answer, a minute and more."""

SLOW_TRIALS = Path(__file__).with_name("slow_trials")
CHANGED = {"study.cluster.worker", "study.training.trainer"}
"""The modules that it changes a little."""


TASKS = 6
SWEEP = (
    *("quickstart", "--scenario", "class_pairs", "--trials", 2, "--seeds", 2, "--workers", 2),
    *("--set", f"tasks/count={TASKS}", "--set", "tasks/images_per_task=640", "--set", "diagnostics/images=32"),
)
"""Six explicit points: what they give does not depend on the order in which they end."""


class Chance(random.Random):
    """Random moments and choices.

    Repeatable as far as the machine's timing is.
    """

    def __init__(self, name: str) -> None:
        self.name = (
            f"{name}, STUDY_FAULT_SEED={os.environ.get('STUDY_FAULT_SEED') or random.SystemRandom().getrandbits(31)}"
        )
        super().__init__(self.name)
        print(f"faults of {self.name}")


def wait_until(
    happens: Callable[[], bool], what: str, patience: float = PATIENCE, seen: Callable[[], object] = lambda: ""
) -> None:
    """Waits until something happens, or fails.

    The failure shows the state at that time.
    """
    deadline = time.monotonic() + patience
    while not happens():
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain: {what} {seen()}"
        time.sleep(0.05)  # looking costs milliseconds, which the sweep does not have


class Process(NamedTuple):
    """A process, identified by its id and its start time."""

    pid: int
    began: int

    @property
    def is_alive(self) -> bool:
        stat = _stat(self.pid)
        return stat is not None and stat.began == self.began and stat.state not in "ZX"

    @property
    def title(self) -> str:
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
        return ""

    def kill(self) -> None:
        """Kills it (kill -9)."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class _Stat(NamedTuple):
    state: str
    parent: int
    began: int


def _stat(pid: int) -> _Stat | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return _Stat(fields[0], int(fields[1]), int(fields[19]))


def family(pid: int) -> list[Process]:
    """All descendants of a process, itself excluded."""
    stats = {int(path.name): _stat(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()}
    found, generation = [], [pid]
    while generation:
        generation = [child for child, stat in stats.items() if stat and stat.parent in generation]
        found += [Process(child, stats[child].began) for child in generation]
    return found


class Driver:
    """A running `study run` or `study resume`."""

    started: ClassVar[list["Driver"]] = []

    def __init__(self, words: tuple[object, ...], cwd: Path, wrapper: tuple[str, ...], **environment: str) -> None:
        self.words = " ".join(map(str, words))
        self._cwd = cwd
        path = os.pathsep.join(filter(None, [str(SLOW_TRIALS), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "study", *map(str, words)],
            cwd=cwd,
            env=clean_environment(PYTHONPATH=path, COLUMNS="80", **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._family: set[Process] = set()
        Driver.started.append(self)

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def workers(self) -> list[Process]:
        """Ray's processes that are training a trial of this driver."""
        self._family |= set(found := family(self.process.pid))
        return [process for process in found if process.title.startswith("ray::ImplicitFunc")]

    def signal(self, number: signal.Signals) -> None:
        self._family |= set(family(self.process.pid))
        self.process.send_signal(number)

    def end(self, patience: float = PATIENCE) -> tuple[int, str, str]:
        """Waits for the end and checks it.

        Returns exit code, standard output and standard error. There must be no traceback, and no process left that it started.
        """
        self._family |= set(family(self.process.pid))
        out, err = self.process.communicate(timeout=patience)
        story = f"{self.words}: exit code {self.process.returncode}\n{out}\n{err}"
        assert "Traceback" not in out + err, story
        left = partial(self.left_over, but=AGENTS)
        wait_until(lambda: not left(), f"{self.words} leaves no processes but", LEFTOVER_SECONDS, seen=left)
        return self.process.returncode, out, err

    def left_over(self, but: tuple[str, ...] = ()) -> list[str]:
        """Living descendants without these words in their titles."""
        alive = [process.title for process in self._family if process.is_alive]
        return [title for title in alive if not any(words in title for words in but)]

    def interrupt_twice(self) -> tuple[int, str, str]:
        """Sends Ctrl-C twice."""
        self.signal(signal.SIGINT)
        time.sleep(0.3)
        self.signal(signal.SIGINT)
        return self.end(10)

    def kill(self) -> None:
        """Kills the driver alone (kill -9).

        The processes that it started end a moment later.
        """
        self.signal(signal.SIGKILL)
        code, out, err = self.end()
        assert code == -signal.SIGKILL, f"{self.words} ended before it was killed: {code}\n{out}\n{err}"


@contextmanager
def no_driver_left() -> Iterator[None]:
    """Ends the drivers that a failed test left running."""
    try:
        yield
    finally:
        for driver in Driver.started:
            if driver.is_running:
                driver.process.kill()
                driver.process.communicate()


class Server:
    """An MLflow server that can be down for a while."""

    def __init__(self, folder: Path, backend: str = "") -> None:
        """Prepares a server.

        `backend` is the address of its database; default: SQLite in the folder.
        """
        folder.mkdir()
        self.database = folder / "served.db"
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        self._backend = backend
        self._stopped = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, perhaps again, and waits until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", self._backend or f"sqlite:///{self.database}"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        self._process = subprocess.Popen(
            command,
            cwd=self._folder,
            env=clean_environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", PYTHONWARNINGS="ignore"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: self._answers() or not self._is_running, "MLflow's server answers")
        assert self._is_running, f"MLflow's server at {self.uri} has ended by itself"

    @property
    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
            return answer.status == 200
        return False

    @property
    def is_away(self) -> bool:
        return self._process is None or self._stopped

    def kill(self) -> None:
        """Kills it (kill -9)."""
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process, self._stopped = None, False

    def stop(self) -> None:
        """Freezes it: it accepts connections and answers nothing."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGSTOP)
        self._stopped = True

    def back(self) -> None:
        """Unfreezes it."""
        if self._stopped and self._process:
            os.killpg(self._process.pid, signal.SIGCONT)
            self._stopped = False
            wait_until(self._answers, "MLflow's server answers again")
        elif self._process is None:
            self.start()


@contextmanager
def mlflow_server(folder: Path, backend: str = "") -> Iterator[Server]:
    """A running server, ended afterwards."""
    server = Server(folder, backend)
    try:
        server.start()
        yield server
    finally:
        server.kill()


class Site:
    """A folder with one sweep and its successive drivers."""

    def __init__(
        self,
        cwd: Path,
        name: str,
        *words: object,
        wrapper: tuple[str, ...] = (),
        seen_at: Path | None = None,
        **env: str,
    ) -> None:
        """Prepares a sweep of that name.

        `study run` with these words will launch it. `wrapper` precedes each command; `seen_at` is where this process sees
        the folder `cwd`, if elsewhere.
        """
        self.name = name
        self._words = words
        self._cwd = cwd
        self._wrapper = wrapper
        self._changes = cwd.parent / f"{cwd.name}-{name}-changes"
        self._changes.mkdir(exist_ok=True)
        self._environment = {"STUDY_TEST_CHANGES": str(self._changes), **env}
        self._seen_at = seen_at or cwd
        self.sweep = self._seen_at / "study-results" / name
        self.database = self._seen_at / "study-results" / "mlflow.db"
        self.driver: Driver | None = None
        self.drivers: list[Driver] = []
        self._starts_before = 0

    def go(self, *more: object) -> Driver:
        """Launches the sweep, or resumes it if it exists."""
        self._starts_before = self._starts()
        there = (self.sweep / "sweep.jsonl").is_file()
        command = ("resume", self.name, *more) if there else ("run", *self._words, "--name", self.name)
        self.driver = self.other(*command)
        self.drivers.append(self.driver)
        return self.driver

    def other(self, *command: object) -> Driver:
        """Runs another command in the same folder."""
        return Driver(command, self._cwd, self._wrapper, **self._environment)

    def finish(self, *more: object) -> str:
        """Runs the sweep to its end without a fault.

        Returns its output.
        """
        code, out, err = self.go(*more).end()
        assert code == 0, f"{out}\n{err}"
        return out

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """The complete lines of each record, while others are written."""
        return {path.parent.name: _whole_lines(path) for path in sorted(self.sweep.glob("trials/*/record.jsonl"))}

    def changed(self) -> set[str]:
        """The modules that were changed in a process of the sweep, so that its trials are slow and leave checkpoints."""
        return {path.name for path in self._changes.iterdir()}

    def results(self) -> dict[str, Any]:
        """The repeatable part of each trial: configuration and task results."""
        return {key: (lines[0]["config"], tasks_of(lines)) for key, lines in self.records().items()}

    def log(self) -> list[dict[str, Any]]:
        """The lines of the sweep's own log."""
        return _whole_lines(self.sweep / "sweep.jsonl")

    def kinds(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one kind of all trials."""
        return [line for lines in self.records().values() for line in lines if line["kind"] == kind]

    def unfinished(self) -> dict[str, list[dict[str, Any]]]:
        """The records of the trials now unfinished."""
        return {
            key: lines
            for key, lines in self.records().items()
            if lines and not {"end"} & {line["kind"] for line in lines}
        }

    def _starts(self) -> int:
        """Number of starts of the sweep."""
        return sum(line["kind"] == "start" for line in self.log()) if (self.sweep / "sweep.jsonl").is_file() else 0

    def wait_until_begun(self) -> None:
        """Waits until the driver has finished its checks and begun."""
        assert self.driver
        wait_until(lambda: self._starts() > self._starts_before or not self.driver.is_running, "the driver begins")

    def wait_for_tasks(self, more: int) -> bool:
        """Waits until so many more tasks are recorded.

        Returns whether the driver is alive then.
        """
        assert self.driver
        wanted = len(self.kinds("task")) + more
        wait_until(lambda: len(self.kinds("task")) >= wanted or not self.driver.is_running, f"{wanted} tasks")
        return self.driver.is_running

    def wait_for_a_worker(self) -> Process:
        """A worker that is training now."""
        assert self.driver
        wait_until(lambda: bool(self.driver.workers()) or not self.driver.is_running, "a worker is at work")
        return self.driver.workers()[0]

    def kill_at_checkpoints(self, count: int, most_tasks: int) -> str:
        """Kills the driver when a trial has so many checkpoints.

        A trial with all its tasks done needs no checkpoint any more, so it has at most `most_tasks` behind it. Returns the trial.
        """
        assert self.driver

        def having() -> list[str]:
            done = Counter(key for key, lines in self.unfinished().items() for line in lines if line["kind"] == "task")
            there = self.checkpoints()
            return [key for key, tasks in done.items() if tasks <= most_tasks and len(there.get(key, ())) >= count]

        wait_until(lambda: bool(having()) or not self.driver.is_running, f"{count} checkpoints of a trial")
        (key, *_) = having()
        self.driver.kill()
        return key

    def checkpoints(self) -> dict[str, list[Path]]:
        """Existing checkpoints of each unfinished trial, oldest first."""
        found = {
            key: [
                path
                for line in lines
                if line["kind"] == "checkpoint" and (path := self.sweep / line["path"] / "state.pt").is_file()
            ]
            for key, lines in self.unfinished().items()
        }
        return {key: paths for key, paths in found.items() if paths}

    def copied_to(self, folder: Path) -> "Site":
        """The same sweep in a copy.

        SQLite cannot open files in another mount namespace.
        """
        shutil.copytree(self.sweep.parent, folder / "study-results")
        site = copy(self)
        site._seen_at = folder
        site.sweep = folder / "study-results" / self.name
        site.database = folder / "study-results" / self.database.name
        return site

    def moved_to(self, folder: Path) -> "Site":
        """The same sweep after its results were moved to another folder."""
        folder.mkdir()
        self.sweep.parent.rename(folder / "study-results")
        site = copy(self)
        site._cwd = site._seen_at = folder
        site.sweep = folder / "study-results" / self.name
        site.database = folder / "study-results" / self.database.name
        return site

    def artifact(self, run: Run, name: str) -> Path:
        """The file of an artifact.

        A server has it beside its database, a local store in the sweep's folder.
        """
        location = str(run.info.artifact_uri)
        if location.startswith("mlflow-artifacts:"):
            return self.database.parent / "artifacts" / location.removeprefix("mlflow-artifacts:/") / name
        path = Path(unquote(location.removeprefix("file://")))
        return self._seen_at / path.relative_to(self._cwd.resolve()) / name

    def damage(self, chance: random.Random, key: str | None = None) -> str:
        """Damages the newest checkpoint of an unfinished trial.

        Returns what was done; "" if there is no checkpoint.
        """
        there = self.checkpoints()
        if not there:
            return ""
        path = there[key or chance.choice(sorted(there))][-1]
        how = chance.choice(("cut short", "corrupted", "deleted"))
        with suppress(FileNotFoundError):  # a newer one may just have taken its place
            content = bytearray(path.read_bytes())
            if how == "cut short":
                path.write_bytes(content[: chance.randrange(len(content))])
            elif how == "corrupted":
                start = chance.randrange(len(content) // 2)
                path.write_bytes(
                    content[:start] + chance.randbytes(len(content) // 4) + content[start + len(content) // 4 :]
                )
            else:
                path.unlink()
        return f"{path.relative_to(self.sweep)} {how}"


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for text in path.read_bytes().split(b"\n")[:-1]:
        with suppress(ValueError):
            lines.append(json.loads(text))
    return lines


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[tuple[tuple[str, ...], Path]]:
    """A disk in a private mount namespace.

    Returns the command that enters the namespace, and the folder's path from outside. Skips the test if the system does not
    permit it.
    """
    folder.mkdir()
    script = 'mount -t tmpfs -o size="$1"m small "$2" && echo mounted && exec sleep infinity'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(megabytes), str(folder)]
    try:
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare on this machine, so no small disk")
    try:
        assert holder.stdout
        if (answer := holder.stdout.readline().strip()) != "mounted":
            pytest.skip(f"a small disk cannot be mounted here: {answer}")
        enter = ("nsenter", "--target", str(holder.pid), "--mount", "sh", "-c", 'cd "$0" && exec "$@"', str(folder))
        yield enter, Path(f"/proc/{holder.pid}/root{folder}")
    finally:
        holder.kill()
        holder.communicate()


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Fills a disk completely, and frees it again."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def frozen(driver: Driver) -> Iterator[None]:
    """Keeps all files of the driver from growing.

    Its pipes are not affected.
    """
    resource.prlimit(driver.process.pid, resource.RLIMIT_FSIZE, (0, 0))
    yield


@contextmanager
def barred(folder: Path) -> Iterator[None]:
    """Puts a file in the place of a folder."""
    away = folder.with_name(f"{folder.name}.away")
    folder.rename(away)
    folder.touch()
    try:
        yield
    finally:
        folder.unlink()
        away.rename(folder)


def tables(out: str) -> list[str]:
    """The tables of results that a sweep prints last."""
    (found,) = re.findall(r"\n(\w+: (?:best of each|all settings).+?)\nexported ", out, re.DOTALL)
    return found.splitlines()


def runs(site: Site) -> list[Run]:
    """The runs of a sweep in MLflow."""
    client = MlflowClient(f"sqlite:///{site.database}")
    found = client.get_experiment_by_name(site.name)
    assert found, f"MLflow has no experiment {site.name}"
    return list(client.search_runs([found.experiment_id], max_results=1000))


def logged(site: Site) -> dict[str, Any]:
    """What MLflow has of a sweep, without clocks and ids.

    Status, parameters and metrics of each run, by role and trial. Metrics are listed with every row of the database, so that
    a step that was sent twice appears twice.
    """
    found = {}
    with closing(sqlite3.connect(f"file:{site.database}?mode=ro", uri=True)) as connection:
        for run in runs(site):
            query = "select key, step, value from metrics where run_uuid = ? order by key, step"
            rows = connection.execute(query, [run.info.run_id]).fetchall()
            label = f"{run.data.tags['role']} {run.data.tags.get('trial', '')}"
            assert label not in found, f"two runs of {label}"
            metrics = [row for row in rows if "seconds" not in row[0]]
            found[label] = (run.info.status, run.data.params, metrics)
    return found


def artifacts(site: Site) -> dict[tuple[str, Path], list[bytes]]:
    """The lines of every artifact of a sweep in MLflow, by run and path.

    Without clocks and ids.
    """
    found = {}
    for run in runs(site):
        root = site.artifact(run, "")
        for path in (path for path in root.rglob("*") if path.is_file()):
            label = f"{run.data.tags['role']} {run.data.tags.get('trial', '')}"
            lines = path.read_bytes().splitlines()
            if path.suffix == ".csv":
                (names, *rows) = ([*line.split(b",")] for line in lines)
                kept = [place for place, name in enumerate(names) if b"seconds" not in name]
                lines = sorted(b",".join(row[place] for place in kept) for row in (names, *rows))
            found[label, path.relative_to(root)] = [line for line in lines if b"mlflow_run_id" not in line]
    return found


def trials_table(site: Site) -> list[dict[str, str]]:
    """The table of trials of the sweep's run.

    Without clocks, by trial.
    """
    (run,) = [run for run in runs(site) if run.data.tags["role"] == "sweep"]
    text = site.artifact(run, "tables/trials.csv").read_text()
    rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(io.StringIO(text))]
    return sorted(rows, key=lambda row: row["trial"])


def assert_same_results(faulty: Site, undisturbed: Site, task_count: int) -> None:
    """A sweep with faults equals one without, bit by bit.

    Records, tables and MLflow are compared.
    """
    assert faulty.changed() == undisturbed.changed() == CHANGED
    expected = undisturbed.results()
    assert faulty.results() == expected
    assert Counter((line["kind"], line.get("outcome")) for line in faulty.kinds("end")) == {
        ("end", "finished"): len(expected)
    }
    assert trials_table(faulty) == trials_table(undisturbed)
    here, there = logged(faulty), logged(undisturbed)
    assert {status for status, _, _ in here.values()} == {"FINISHED"}
    assert sorted(here) == sorted(there) == ["sweep ", *(f"trial {key}" for key in sorted(expected))]
    for label, (_, params, metrics) in here.items():
        assert params == there[label][1], label
        if label == "sweep ":
            assert {(key, value) for key, _, value in metrics} >= {("trials/finished", float(len(expected)))}
            continue
        twice = [row for row, times in Counter((key, step) for key, step, _ in metrics).items() if times > 1]
        assert not twice, f"{label}: sent twice: {twice[:5]}"
        assert metrics == there[label][2], label
        assert [step for key, step, _ in metrics if key == "accuracy/test"] == list(range(task_count))
