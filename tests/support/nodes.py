"""A Ray cluster of two nodes on one machine.

If the operating system permits it (Linux, root), each node has its own namespaces: network (a cable connects the two), mounts (a
`local` folder, `/dev/shm` and Ray's folder that the other node does not see), processes and host name. Otherwise the two nodes
are two raylets on the loopback address. Either way all processes of a node end with it, and with the tests.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import outside_parts
from ports import free_port
from sweep_fixtures import REPOSITORY, clean_environment

ADDRESSES = ("10.77.0.1", "10.77.0.2")
NAMES = ("node-one", "node-two")
HOSTS = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for address, name in zip(ADDRESSES, NAMES, strict=True))
PRIVATE_FOLDERS = ("/dev/shm", str(Path(tempfile.gettempdir(), "ray")))
READY_SECONDS = 60.0
LISTENS = "0A"
"""The state of a socket that listens, as the kernel writes it."""

UNSHARE = ("unshare", "--net", "--mount", "--uts", "--pid", "--fork")
NAMESPACES = ("net", "mount", "pid", "uts")

BARE = """
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (kept away by the test)", name=name)


sys.meta_path.insert(0, Absent())
"""
"""A `sitecustomize` for nodes on which some packages are not installed."""


@functools.cache
def why_not_isolated() -> str | None:
    """Why nodes cannot have namespaces here; None if they can."""
    if missing := [tool for tool in ("unshare", "nsenter", "setpriv", "mount", "ip") if shutil.which(tool) is None]:
        return f"there is no {missing[0]} here"
    command = [*UNSHARE, "mount", "-t", "tmpfs", "none", "/dev/shm"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"namespaces are not permitted ({tried.stderr.strip()})" if tried.returncode else None


def wait_until(claim: Callable[[], object], what: str, seconds: float = READY_SECONDS) -> None:
    """Waits until a condition holds.

    Raises TimeoutError if it does not in time.
    """
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


def parents() -> dict[int, int]:
    """The parent of each running process, zombies excluded."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found


def family(root: int) -> list[int]:
    """A running process and all its descendants."""
    of = parents()
    members = [root] if root in of else []
    for member in members:
        members += [child for child, parent in of.items() if parent == member]
    return members


def kill_family(root: int) -> None:
    """Kills a process and all its descendants (SIGKILL).

    All of them are stopped first, so that none can start another in between.
    """
    members: list[int] = []
    while (alive := family(root)) != members:  # until all of them have been stopped
        for pid in set(alive) - set(members):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        members = alive
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not set(members) & set(parents()), f"the end of processes {members}", 10)


def finished(running: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    """Exit code, output and errors of a process that ends.

    It is killed if it does not end in time.
    """
    try:
        out, err = running.communicate(timeout=seconds)
    except BaseException:
        kill_family(running.pid)
        raise
    return running.returncode, out, err


def listening(pids: Sequence[int]) -> set[str]:
    """The addresses at which processes of this machine listen.

    For TCP, as "127.0.0.1:6379", IPv6 in brackets.
    """
    inodes = set()
    for pid in pids:
        for file in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                inodes.add(str(file.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == LISTENS and f"socket:[{fields[9]}]" in inodes:
                host, _, port = fields[1].partition(":")
                found.add(f"{_address(host)}:{int(port, 16)}")
    return found


def _address(digits: str) -> str:
    """An address from the kernel's four-byte words.

    Each word has the machine's byte order.
    """
    words = [int(digits[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(digits), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address) if address.version == 4 or mapped else f"[{address}]"


@dataclass
class Node:
    """A machine for a raylet, or a stand-in for one.

    Attributes:
        name: its host name, if it is isolated.
        address: at which the other node reaches it.
        local: a folder that only this node sees, if it is isolated; it contains HOME.
        log: file for the output of its Ray.
        bare: packages that cannot be imported on it.
        site: folder of packages that are installed on it beside the study.
    """

    name: str
    address: str
    local: Path
    log: Path
    bare: tuple[str, ...] = ()
    site: Path = Path()
    environment: dict[str, str] = field(default_factory=dict)
    _anchor: subprocess.Popen[bytes] | None = None
    _ray: subprocess.Popen[str] | None = None

    def isolate(self) -> None:
        """Creates the node's namespaces.

        They exist as long as a process that holds them.
        """
        mounts = "; ".join(f"mkdir -p {path} && mount -t tmpfs node {path}" for path in (*PRIVATE_FOLDERS, self.local))
        for name, content in (("hosts", HOSTS), ("resolv.conf", "")):  # no waiting for a name server
            (self.log.parent / name).write_text(content)
            mounts += f"; mount --bind {self.log.parent / name} /etc/{name}"
        script = f"set -e; hostname {self.name}; ip link set lo up; {mounts}; echo ready; exec sleep infinity"
        command = ["setpriv", "--pdeathsig", "KILL", *UNSHARE, "--kill-child", "--mount-proc"]  # dies with the tests
        self._anchor = subprocess.Popen([*command, "sh", "-c", script], stdout=subprocess.PIPE)
        assert self._anchor.stdout is not None
        assert self._anchor.stdout.readline() == b"ready\n"

    @property
    def holder(self) -> int:
        """The process that holds the namespaces, the first in them."""
        assert self._anchor is not None
        return next(child for child, parent in parents().items() if parent == self._anchor.pid)

    def within(
        self, words: Sequence[object], namespaces: Sequence[str] = NAMESPACES, cwd: Path = REPOSITORY
    ) -> list[str]:
        """A command that runs other words on this node."""
        if self._anchor is None:
            return list(map(str, words))
        chosen = [f"--{namespace}" for namespace in namespaces]
        return ["nsenter", "--target", str(self.holder), *chosen, f"--wdns={cwd}", *map(str, words)]

    def settings(self, **changes: str) -> dict[str, str]:
        """The environment of this node's processes.

        It has its own HOME, and the study can be imported.
        """
        kept = {k: v for k, v in clean_environment().items() if not k.startswith(("RAY_", "AWS_"))}
        path = os.pathsep.join(map(str, (REPOSITORY, self.site)))
        return {**kept, "HOME": str(self.local), "PYTHONPATH": path, **self.environment, **changes}

    def popen(
        self, *words: object, cwd: Path, log: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Starts a Python module with arguments on this node.

        Its output goes to the log, or to the caller.
        """
        with contextlib.ExitStack() as opened:
            said = opened.enter_context(log.open("ab")) if log else subprocess.PIPE
            return self._popen(("-m", *words), cwd, said, self.settings(**(environment or {})))

    def _popen(
        self, words: Sequence[object], cwd: Path, said: int | BinaryIO, environment: dict[str, str]
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.within([sys.executable, *words], cwd=cwd),
            cwd=cwd if self._anchor is None else None,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.PIPE if said == subprocess.PIPE else subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def study(
        self, *words: object, cwd: Path, environment: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Runs the command line on this node, with a timeout."""
        with self.popen("study", *words, cwd=cwd, environment=environment) as running:
            return subprocess.CompletedProcess(list(map(str, words)), *finished(running, timeout))

    def can(self, code: str) -> bool:
        """Whether a line of Python succeeds on this node.

        It runs in the environment of the node's Ray.
        """
        command = self.within([sys.executable, "-c", code])
        return subprocess.run(command, env=self._ray_settings(), capture_output=True, check=False).returncode == 0

    def seen(self, path: Path) -> Path:
        """The path at which the tests see a node's file."""
        return path if self._anchor is None else Path(f"/proc/{self.holder}/root{path}")

    def _ray_settings(self, **changes: str) -> dict[str, str]:
        place = self.log.with_suffix(".site")
        place.mkdir(exist_ok=True)
        (place / "sitecustomize.py").write_text(BARE.format(absent=set(self.bare)))
        path = os.pathsep.join(map(str, (place, REPOSITORY, self.site)))
        return self.settings(RAY_USAGE_STATS_ENABLED="0", PYTHONPATH=path, **changes)

    @property
    def is_up(self) -> bool:
        """Whether a raylet runs on it."""
        return self._ray is not None and self._ray.poll() is None

    def start_ray(self, *words: object, **environment: str) -> None:
        """Starts Ray on the node and waits for it."""
        assert not self.is_up
        start = "from ray.scripts.scripts import main; main()"
        options = ("--block", "--object-store-memory", 10**8, "--node-ip-address", self.address)
        words = ("-c", start, "start", *words, *options)
        with self.log.open("ab") as log:
            self._ray = self._popen(words, REPOSITORY, log, self._ray_settings(**environment))
        started = self.log.read_bytes().count(b"Ray runtime started")
        try:
            wait_until(lambda: self._has_started(started), f"Ray's start on {self.name}")
        except BaseException:
            self.kill()
            raise

    def _has_started(self, before: int) -> bool:
        said = self.log.read_bytes()
        assert self.is_up, said.decode()
        return said.count(b"Ray runtime started") > before

    def workers(self) -> list[int]:
        """The processes that are training on this node."""
        members = family(self._ray.pid) if self._ray is not None else []
        return [pid for pid in members if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ImplicitFunc")]

    def kill(self) -> None:
        """Kills the node's Ray (SIGKILL): raylet, workers and all.

        Other processes of the node continue.
        """
        if self._ray is not None:
            kill_family(self._ray.pid)
            self._ray.wait()
            self._ray = None

    def processes(self) -> list[int]:
        """All other processes of the node.

        Except the one that holds its namespaces.
        """
        found = family(self._ray.pid) if self._ray is not None else []
        if self._anchor is None:
            return found
        holder = self.holder
        space = Path(f"/proc/{holder}/ns/pid").readlink()
        for pid in parents():
            with contextlib.suppress(OSError):
                if pid != holder and Path(f"/proc/{pid}/ns/pid").readlink() == space:
                    found.append(pid)
        return sorted(set(found))

    def end(self) -> None:
        """Ends the node and all its processes."""
        self.kill()
        if self._anchor is not None:
            kill_family(self._anchor.pid)
            self._anchor.communicate()
            self._anchor = None


@dataclass(frozen=True)
class Cluster:
    """Two nodes and their folders.

    Attributes:
        head, second: the nodes; the second has no MLflow, no Optuna and no data.
        shared: a folder that both see.
        port: at which the head answers.
    """

    head: Node
    second: Node
    shared: Path
    port: int

    @property
    def isolated(self) -> bool:
        """Whether the nodes have namespaces of their own."""
        return self.head.name != self.second.name

    @property
    def address(self) -> str:
        """The address for drivers."""
        return f"{self.head.address}:{self.port}"

    def start_head(self, cpus: int = 1, **environment: str) -> None:
        """Starts the head's Ray."""
        self.head.start_ray(
            "--head", "--port", self.port, "--num-cpus", cpus, "--include-dashboard", "false", **environment
        )

    def start_second(self, cpus: int = 1, **environment: str) -> None:
        """Joins the second node to the head."""
        self.second.start_ray("--address", self.address, "--num-cpus", cpus, **environment)

    def start(self) -> None:
        """Starts the nodes that are down."""
        if not self.head.is_up:
            self.second.kill()
            self.start_head()
        if not self.second.is_up:
            self.start_second()


@contextlib.contextmanager
def two_nodes(place: Path, bare: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """Two nodes without Ray, with folders in `place`.

    Everything is removed afterwards.
    """
    before = set(parents())
    isolated = why_not_isolated() is None
    shared, local = place / "shared", place / "local"
    shared.mkdir(parents=True)
    nodes = []
    for name, address in zip(NAMES, ADDRESSES, strict=True):
        home = local if isolated else place / name
        home.mkdir(exist_ok=True)
        outside_parts.install(place / f"{name}-site")
        changes = dict(environment or {})
        host, at = (name, address) if isolated else (socket.gethostname(), "127.0.0.1")
        nodes.append(Node(host, at, home, place / f"{name}.log", site=place / f"{name}-site", environment=changes))
    head, second = nodes
    second.bare = tuple(bare)
    cluster = Cluster(head, second, shared, 6379 if isolated else free_port())
    try:
        if isolated:
            for node in nodes:
                node.isolate()
            _connect(head, second)
        yield cluster
    finally:
        for node in (second, head):
            node.end()
        left = {pid for pid in set(parents()) - before if _is_of(pid, place)}
        assert not left, f"processes were left behind: {left}"
        assert str(place) not in Path("/proc/mounts").read_text()


def _is_of(pid: int, place: Path) -> bool:
    with contextlib.suppress(OSError):
        return str(place).encode() in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def _connect(head: Node, second: Node) -> None:
    """Connects two nodes by a virtual cable.

    Each is the other's default gateway, as on a machine with one network card.
    """

    def ip(node: Node, *words: object) -> None:
        subprocess.run(node.within(["ip", *words], ["net"]), check=True)

    ip(head, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second.holder)
    for node in (head, second):
        ip(node, "address", "add", f"{node.address}/24", "dev", "cable")
        ip(node, "link", "set", "cable", "up")
    for node, other in ((head, second), (second, head)):
        ip(node, "route", "add", "default", "via", other.address)
