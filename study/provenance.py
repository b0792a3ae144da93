"""The provenance of a result: source, versions, device, host, commit."""

import contextlib
import functools
import importlib.util
import json
import os
import platform
import site
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from study.fingerprint import SOURCE_PACKAGES, fingerprint_of

DISTRIBUTION = "plasticity-study"
ALL_PACKAGES = (*SOURCE_PACKAGES, "analysis")

PACKAGES = ("torch", "ray", "optuna", "mlflow", "numpy")
NUMERIC_PACKAGES = ("torch", "numpy")
"""Packages that compute the numbers of a trial."""

TRACED = ("python", "torch", "numpy", "ray", "optuna")
"""Versions that may change a number; a change within a sweep is noted."""


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, this study and its numerical packages.

    Packages that are not installed are left out.
    """
    installed = {"python": platform.python_version()}
    for package in (DISTRIBUTION, *PACKAGES):
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def host() -> str:
    """Network name of this machine."""
    return platform.node()


def source_folder() -> Path:
    """The folder that the study is imported from."""
    return Path(__file__).resolve().parent.parent


@functools.cache
def source_fingerprint() -> str:
    """The fingerprint of this process's source, see `fingerprint_of`."""
    return fingerprint_of(source_folder())


def installed_folder() -> Path | None:
    """The folder of the installed study, or None.

    It is where Python finds the study whatever the current folder and PYTHONPATH are: the clone of `pip install -e`, or the
    folder of all installed packages.
    """
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    for distribution in metadata.distributions(name=DISTRIBUTION, path=folders):
        recorded = json.loads(distribution.read_text("direct_url.json") or "{}")
        editable = recorded.get("dir_info", {}).get("editable", False)
        folder = Path(url2pathname(urlsplit(recorded["url"]).path) if editable else str(distribution.locate_file("")))
        return folder.resolve() if (folder / "study").is_dir() else None
    return None


def hidden_installation() -> Path | None:
    """The folder of an installed study with other code.

    None if this is the installed study, its code is the same, or none is installed.
    """
    installed = installed_folder()
    if installed is None or installed == source_folder():
        return None
    own, other = (fingerprint_of(folder, ALL_PACKAGES) for folder in (source_folder(), installed))
    return installed if own != other else None


def strange_package() -> tuple[str, Path] | None:
    """A package of the study that is imported from elsewhere.

    A folder `analysis` of one's own, for example, where Python looks first.

    Returns:
        Its name and place, or None if all are beside this one.
    """
    for name in ALL_PACKAGES[1:]:
        spec = importlib.util.find_spec(name)
        places = [Path(place).resolve() for place in (spec and spec.submodule_search_locations) or ()]
        if places and source_folder() / name not in places:
            return name, places[0]
    return None


@functools.cache
def git_commit() -> str | None:
    """The git commit that this package runs from, or None.

    It is the commit of the working tree (`pip install -e`), with "+changes" if tracked files differ from it or Python files of
    the study are not in it, or the commit that pip installed (`pip install git+...`). None if the package was installed in any
    other way.
    """
    try:
        if _git("ls-files", "--error-unmatch", __file__) is None:
            return _installed_commit()  # outside a working tree, or inside that of another project
        head = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no")
        untracked = _git("ls-files", "--others", "--", *(f"{package}/*.py" for package in SOURCE_PACKAGES))
    except OSError:  # no git
        return _installed_commit()
    if head is None:
        return _installed_commit()
    return head + ("+changes" if changes or untracked else "")


def _git(*words: str) -> str | None:
    """What git says in the source's folder; None if it refuses."""
    done = subprocess.run(["git", *words], cwd=source_folder(), capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout.strip()


def _installed_commit() -> str | None:
    """The commit that pip recorded at installation (PEP 610).

    None if this is not the installed code, such as the copy of a clone that Ray makes for a job.
    """
    if source_folder() != installed_folder():
        return None
    try:
        recorded = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    commit = json.loads(recorded or "{}").get("vcs_info", {}).get("commit_id")
    return str(commit) if commit else None


def memory_bytes() -> int:
    """Memory of this machine, or what its container may use."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such file, or the word "max"
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return whole


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
        Plain data: `device`, `device_name`, `threads`, `host`, `data_fingerprint`, and those of `software`.
    """
    import torch  # slow to import, and needed only by processes that train

    return {
        "device": device,
        "device_name": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "host": host(),
        "data_fingerprint": data_fingerprint,
        **software(),
    }


def software() -> dict[str, Any]:
    """The software of this process.

    Returns:
        Plain data: `source_fingerprint`, `git_commit` (or None), `versions`. The version of torch names its build.
    """
    packages = dict(versions())
    with contextlib.suppress(ImportError, OSError):  # a trial that fails for the lack of torch has provenance too
        import torch  # slow to import

        packages["torch"] = torch.__version__
    return {"source_fingerprint": source_fingerprint(), "git_commit": git_commit(), "versions": packages}


def spans(facts: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """All software that a sequence of facts names.

    Args:
        facts: see `software`, in the order of time. Older ones have no `source_fingerprint`.

    Returns:
        The different values of source_fingerprint, git_commit, each version/PACKAGE and each part/NAME, in the order of their
        first occurrence.
    """
    values: dict[str, list[str]] = {}
    for one in facts:
        named = {name: one.get(name) for name in ("source_fingerprint", "git_commit")}
        named |= {f"version/{package}": version for package, version in one.get("versions", {}).items()}
        named |= {f"part/{name}": fingerprint for name, fingerprint in one.get("parts", {}).items()}
        for name, value in named.items():
            if value and value not in values.setdefault(name, []):
                values[name].append(str(value))
    return {name: found for name, found in values.items() if found}


def software_changes(facts: Iterable[Mapping[str, Any]]) -> str:
    """What changed in the software of a sequence of facts.

    Args:
        facts: as of `spans`.

    Returns:
        Words such as "torch 2.10.0, then 2.11.0; source 0123456789abcdef, then fedcba9876543210", or "".
    """
    facts = list(facts)
    values = spans(facts)
    named = {package: values.get(f"version/{package}", []) for package in TRACED}
    named["source"] = values.get("source_fingerprint", [])
    named |= {name.replace("/", " ", 1): found for name, found in values.items() if name.startswith("part/")}
    if len(named["source"]) < 2 and not all("source_fingerprint" in one for one in facts):
        named["commit"] = values.get("git_commit", [])  # older facts have nothing else
    return "; ".join(f"{name} {', then '.join(found)}" for name, found in named.items() if len(found) > 1)
