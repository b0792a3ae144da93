"""The provenance of a result: versions, device, host, git commit."""

import contextlib
import functools
import hashlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "ray", "optuna", "mlflow", "numpy")
NUMERIC_PACKAGES = ("torch", "numpy")
"""Packages that compute the numbers of a trial."""


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, this study and its numerical packages.

    Packages that are not installed are left out.
    """
    installed = {"python": platform.python_version()}
    for package in ("plasticity-study", *PACKAGES):
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def host() -> str:
    """Network name of this machine."""
    return platform.node()


@functools.cache
def source_fingerprint() -> str:
    """16 hexadecimal digits that identify this package's code.

    They change with any line of it.
    """
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@functools.cache
def git_commit() -> str | None:
    """The git commit that this package runs from, or None.

    It is the commit of the working tree (`pip install -e`), with "+changes" if files differ from it, or the commit that pip
    installed (`pip install git+...`). None if the package was installed in any other way.
    """
    folder = Path(__file__).parent
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--error-unmatch", __file__], cwd=folder, capture_output=True, check=False
        )
        if listed.returncode:  # outside a working tree, or inside that of another project
            return _installed_commit()
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return _installed_commit()
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def _installed_commit() -> str | None:
    """The commit that pip recorded at installation (PEP 610)."""
    try:
        recorded = metadata.distribution("plasticity-study").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    commit = json.loads(recorded or "{}").get("vcs_info", {}).get("commit_id")
    return str(commit) if commit else None


@functools.cache
def processor() -> str:
    """Name of this machine's processor.

    Read from /proc/cpuinfo on Linux; elsewhere its architecture.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def training_facts(device: str, data_fingerprint: str) -> dict[str, Any]:
    """Hardware and software that this process trains with.

    Results may differ in their last digits if any of these facts differ.

    Returns:
        Plain data: `device`, `device_name`, `threads`, `host`, `data_fingerprint`, `git_commit` (or None), `versions`.
    """
    import torch  # slow to import, and needed only by processes that train

    return {
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "host": host(),
        "data_fingerprint": data_fingerprint,
        "git_commit": git_commit(),
        "versions": {**versions(), "torch": torch.__version__},
    }
