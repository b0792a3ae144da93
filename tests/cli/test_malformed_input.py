"""Malformed input ends in exit code 2 and one sentence, soon, and leaves nothing.

`STUDY_MALFORMED` is the number of inputs, 300 by default, and `STUDY_MALFORMED_SEED` the seed that they are made from, which is
printed.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import malformed_input
import pytest
import torch
from analysis_fixtures import SETTINGS, curve, framed, paper_trial
from malformed_files import SPACE, SPACE_YAML
from malformed_words import ARCHIVE, LOOP, PIPE, SWEEP, TRIAL, Case
from sweep_fixtures import folder_of, plan_of, run_all

from analysis import archive
from study.config import EARLIER_LABELS
from study.errors import LONGEST, StudyError

COUNT = int(os.environ.get("STUDY_MALFORMED", "300"))
SEED = int(os.environ.get("STUDY_MALFORMED_SEED", "0"))
SECONDS = 5.0
SPARE_BYTES = 4 * 2**30
"""What a command may allocate beside what this process has."""


class Accepted(BaseException):
    """The command was about to do its work; no `except Exception` catches it."""


class TookTooLong(BaseException):
    """The command has had its time."""


@pytest.fixture
def place(here, monkeypatch):
    """A folder with a finished sweep, an archive and a configuration; no command gets to its work."""
    run_all(folder_of(here / "study-results", plan_of(SWEEP)))
    keep(here / ARCHIVE)
    (here / "study-results" / SWEEP / ".lock").touch()  # every sweep that has run has one
    (here / TRIAL).write_text("optimizer: {name: sgd}\n")
    (here / "mine.py").write_text("SPACE = None\n")
    (here / LOOP).symlink_to(LOOP)
    os.mkfifo(here / PIPE)

    def accept(*_, **__):
        raise Accepted

    for target in (
        "ray.init",
        "study.cluster.connection._way_in",
        "study.training.trainer.train",
        "study.cli.bench.product_rate",
        "study.timing.speed.measured",
        "study.tracking.server.serve",
        "study.cli.ui.serve",
        "analysis.report.write",
    ):
        monkeypatch.setattr(target, accept)
    return here


def keep(folder: Path) -> None:
    """Writes a sound archive of one trial."""
    setting = SETTINGS[0]
    group = {
        "scenario": setting.tasks,
        "method": setting.method,
        "settings": {},
        "points": [{"optimizer/lr": setting.lr}],
        "distributions": {},
        "trials": 1,
    }
    trial = paper_trial(setting, curve(3, lanes=2).to_numpy(), **{"summary/seconds": 1.0})
    sweep = framed([trial], ARCHIVE, groups=[group])
    labels = {name: label.plain() for name, label in EARLIER_LABELS.items()}
    archive.save(replace(sweep, plan={**sweep.plan, "description": "", "labels": labels}), folder)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Ends what takes too long or allocates too much, as an exception."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    main, over = threading.main_thread().ident, threading.Event()

    def stop(*_):
        raise TookTooLong

    def late():
        if not over.is_set():
            signal.pthread_kill(main, signal.SIGUSR1)

    handler = signal.signal(signal.SIGUSR1, stop)
    timer = threading.Timer(SECONDS, late)
    timer.start()
    resource.setrlimit(resource.RLIMIT_AS, (size + SPARE_BYTES, before[1]))
    try:
        yield
    finally:
        over.set()
        timer.cancel()
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGUSR1, handler)


def fault_of(case: Case, run, capfd, place: Path) -> str:
    """How the answer to a case differs from a refusal; "" if it does not."""
    capfd.readouterr()
    for name, content in case.files.items():
        file = place / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    before = listing(place)
    threads = torch.get_num_threads()
    began = time.perf_counter()
    try:
        with bounded(), pytest.MonkeyPatch.context() as patch:
            for variable, value in case.environment.items():
                patch.setenv(variable, value)
            code, out, err = run(*case.words)
    except Accepted:
        return "was accepted"
    except TookTooLong:
        return f"took more than {SECONDS:g} s"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"raised {type(error).__name__}: {str(error)[:200]}"
    finally:
        left = sorted(listing(place).items() ^ before.items())
        torch.set_num_threads(threads)
        clear(place, case)
    sentence = err.removesuffix("\n")
    faults = {
        f"exit code {code}": code != 2,
        f"output {out[:200]!r}": out != "",
        f"{len(sentence)} characters": len(sentence) > LONGEST + len("study: "),
        "more than a printable line": not sentence.isprintable(),
        "not a sentence": not sentence.startswith("study: ") or not sentence.endswith((".", ")")),
        f"left {left}": bool(left),
        f"{time.perf_counter() - began:.1f} s": time.perf_counter() - began > SECONDS,
    }
    wrong = [fault for fault, holds in faults.items() if holds]
    return f"{', '.join(wrong)}: {sentence[:400]!r}" if wrong else ""


def listing(place: Path) -> dict[str, int]:
    """The files of a folder and their sizes, folders as -1."""
    return {
        str(path.relative_to(place)): -1 if path.is_dir() else path.lstat().st_size for path in sorted(place.rglob("*"))
    }


def clear(place: Path, case: Case) -> None:
    """Removes the files of a case, and what it should not have left beside them."""
    kept = {"study-results", ARCHIVE, TRIAL, LOOP, PIPE, "mine.py"}
    for path in sorted(place.rglob("*"), reverse=True):
        if path.relative_to(place).parts[0] not in kept:
            path.rmdir() if path.is_dir() else path.unlink()


def test_malformed_input_is_refused_in_one_sentence(place, run, capfd):
    print(f"seed {SEED}, {COUNT} inputs")
    faults = [
        f"{fault}\n    {case}"
        for case in malformed_input.cases(SEED, COUNT)
        if (fault := fault_of(case, run, capfd, place))
    ]
    assert not faults, f"{len(faults)} of {COUNT} with seed {SEED}:\n" + "\n".join(faults)


SOUND = {
    "a trial": ("trial", TRIAL),
    "a trial with a setting": ("trial", TRIAL, "--set", "optimizer/lr=.1"),
    "a space": ("run", "./case.py"),
    "a space, looked at": ("show", "./case.py"),
    "a space in YAML": ("run", "./case.yaml"),
    "a launch": ("run", "quickstart"),
    "a launch, looked at": ("run", "quickstart", "--dry-run"),
    "a resume": ("resume", SWEEP, "--trials=3"),
    "a confirmation": ("confirm", SWEEP),
    "an archive": ("report", ARCHIVE, "--to", "page"),
    "a measurement": ("bench",),
}


@pytest.mark.parametrize("what", SOUND)
def test_what_the_cases_damage_is_sound(place, run, capfd, what):
    spaces = {
        "case.py": f"{SPACE}SPACE = SearchSpace(**CHOICES)\n".encode(),
        "case.yaml": json.dumps(SPACE_YAML).encode(),
    }
    case = Case(SOUND[what], spaces)
    assert fault_of(case, run, capfd, place) == "was accepted"


def crash(*_, **__):
    raise ZeroDivisionError("planted")


def ramble(*_, **__):
    sys.stderr.write("study: " + "x" * 400 + ".\n")
    sys.exit(2)


def colour(*_, **__):
    sys.stderr.write("study: \x1b[31mred.\n")
    sys.exit(2)


def litter(*_, **__):
    Path("litter").touch()
    raise StudyError("there is no such thing.")


def hang(*_, **__):
    time.sleep(2 * SECONDS)


def swallow(*_, **__):
    raise Accepted


def devour(*_, **__):
    return bytearray(2 * SPARE_BYTES)


PLANTED = {
    "raised ZeroDivisionError": crash,
    "408 characters": ramble,
    "more than a printable line": colour,
    "left": litter,
    "took more than": hang,
    "was accepted": swallow,
    "raised MemoryError": devour,
    "exit code 0": lambda *_, **__: 0,
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(place, run, capfd, monkeypatch, fault):
    monkeypatch.setattr("study.cli.overview.show_best", PLANTED[fault])
    monkeypatch.setattr(f"{__name__}.SECONDS", 0.3)
    assert fault in fault_of(Case(("best", SWEEP)), run, capfd, place)


def test_the_cases_are_those_of_the_seed(place):
    assert [*malformed_input.cases(1, 24)] != [*malformed_input.cases(2, 24)]
    kinds = [case.kind for case in malformed_input.cases(0, len(malformed_input.KINDS))]
    assert kinds == list(malformed_input.KINDS)
