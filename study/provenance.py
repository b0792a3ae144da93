"""Where a result comes from: versions, device, threads, host, git commit."""

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
"""Those that the numbers of a trial come from."""


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, of this study and of the packages that a result depends on; absent ones are left out."""
    found = {"python": platform.python_version()}
    for package in ("plasticity-study", *PACKAGES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def host() -> str:
    """Name of this machine in its network."""
    return platform.node()


@functools.cache
def source_fingerprint() -> str:
    """16 hexadecimal digits that change with any line of this package's code."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@functools.cache
def git_commit() -> str | None:
    """Commit that this package runs from: of its working tree, with "+changes" when that differs, or of its installation.

    None when it was installed from neither a working tree (`pip install -e`) nor a repository (`pip install git+...`).
    """
    folder = Path(__file__).parent
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--error-unmatch", __file__], cwd=folder, capture_output=True, check=False
        )
        if listed.returncode:  # not in a working tree, or in somebody else's
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
    """The commit that pip noted when it installed from a repository (PEP 610)."""
    try:
        noted = metadata.distribution("plasticity-study").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    commit = json.loads(noted or "{}").get("vcs_info", {}).get("commit_id")
    return str(commit) if commit else None


@functools.cache
def processor() -> str:
    """Name of this machine's processor: Linux's, where it tells, or else its kind."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def training_facts(device: str, data_fingerprint: str) -> dict[str, Any]:
    """What a process knows about how it trains; numbers may differ in their last digits when any of it does.

    Returns:
        Plain data: `device`, `device_name`, `threads`, `host`, `data_fingerprint`, `git_commit` (or None), `versions`.
    """
    import torch  # only where something is trained

    return {
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "host": host(),
        "data_fingerprint": data_fingerprint,
        "git_commit": git_commit(),
        "versions": {**versions(), "torch": torch.__version__},
    }
