"""Sweeps made by hand, without Ray."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import search_spaces
from study import provenance
from study.sweep.conductor import Conductor
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.sweep.plan import Plan
from study.sweep.record import TrialHistory, append_line
from study.sweep.search_plan import make_plan

REPOSITORY = Path(__file__).resolve().parents[2]

FACTS = {
    "device": "cpu",
    "device_name": "made by hand",
    "threads": 1,
    "host": "nowhere",
    "data_fingerprint": "0123456789abcdef",
    **provenance.software(),
    "git_commit": None,
    "rule": {"rule/blend": 0.0, "rule/radius": 0.0},
}


def clean_environment(**changes: str) -> dict[str, str]:
    """This process's environment without the study's variables, plus changes."""
    ours = (
        "MLFLOW_TRACKING_URI",
        "STUDY_DATA",
        "RAY_ADDRESS",
        "PYTHONSAFEPATH",
    )  # the last is what a command here has set
    return {**{name: value for name, value in os.environ.items() if name not in ours}, **changes}


def study(*words: object, cwd: Path, timeout: float = 400, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line in its own process.

    One that hangs is asked where: the failure shows the stack of each of its threads.
    """
    with subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-m", "study", *map(str, words)],
        cwd=cwd,
        env=clean_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            try:
                out, err = process.communicate(timeout=30)
            finally:
                process.kill()
            raise AssertionError(f"{words} did not end within {timeout:g} s:\n{out}\n{err}") from None
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def assert_one_sentence(code: int, out: str, err: str) -> None:
    """A refusal: exit code 2 and one sentence.

    The sentence is on standard error, and there is no other output.
    """
    assert code == 2, err
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("study: ")
    assert err.rstrip().endswith((".", ")")), err
    assert "Traceback" not in err


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a record."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def records_of(sweep: Path) -> dict[str, list[dict[str, Any]]]:
    """The lines of all records of a sweep, by trial."""
    return {path.parent.name: lines_of(path) for path in sorted(sweep.glob("trials/*/record.jsonl"))}


def tasks_of(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The results in a record's lines, without clocks."""
    return [
        {
            "task": line["task"],
            "name": line["name"],
            "lanes": line["lanes"],
            "metrics": {k: v for k, v in line["metrics"].items() if not k.startswith("seconds/")},
        }
        for line in lines
        if line["kind"] == "task"
    ]


def plan_of(name: str = "made", space: str = "quickstart", **choices: Any) -> Plan:
    """A small plan, unless chosen otherwise.

    Two trials each of SGD and SAM on three class pairs, with two seeds.
    """
    choices.setdefault("overrides", {"tasks/count": 3})
    choices = {"scenarios": ["class_pairs"], "methods": ["sgd", "sam"], "trials": 2, "seeds": 2, **choices}
    return make_plan(search_spaces.load(space), name=name, **choices)


def folder_of(directory: Path, plan: Plan | None = None, tasks: int = 3) -> SweepFolder:
    """The folder of a new sweep."""
    plan = plan or plan_of()
    counts = {group.scenario: tasks for group in plan.groups}
    return SweepFolder.create(directory, plan, Execution(data_dir="data"), counts)


def task_line(
    history: TrialHistory,
    task: int,
    validation: Sequence[float] | None = None,
    test: Sequence[float] = (0.5, 0.75),
) -> dict[str, Any]:
    """A task's line as a worker would report it.

    `validation` is the objective so far in each lane; None if no images are held out.
    """
    lanes = {"accuracy/test": list(test), "accuracy/online": [0.25] * len(test), "loss/online": [1.5] * len(test)}
    metrics = {
        "accuracy/test": sum(test) / len(test),
        "accuracy/online": 0.25,
        "loss/online": 1.5,
        "gradient_evaluations": 10.0 * (task + 1),
        "seconds/training": 2.0,
        "seconds/evaluation": 0.5,
        "lanes/diverged": 0.0,
    }
    summary = {
        "summary/accuracy_test": metrics["accuracy/test"],
        "summary/accuracy_test_first_tenth": 0.5,
        "summary/accuracy_test_last_tenth": 0.75,
        "summary/decline_test": -0.25,
        "summary/gradient_evaluations": metrics["gradient_evaluations"],
        "summary/lanes_diverged": 0.0,
    }
    if validation is not None:
        objective = sum(validation) / len(validation)
        lanes["accuracy/validation"] = list(validation)
        metrics |= {"accuracy/validation": objective, "objective": objective, "decline": 0.125}
        summary |= {
            "summary/objective": objective,
            "summary/accuracy_validation_first_tenth": objective,
            "summary/accuracy_validation_last_tenth": objective,
        }
    line = {"task": task, "name": f"task {task}", "metrics": metrics, "lanes": lanes}
    return {**line, "summary": summary} if task + 1 == history.task_count else line


Score = Callable[[TrialHistory], float]


def by_lr(history: TrialHistory) -> float:
    """An objective that a search can climb, best at lr=0.1."""
    lr = float(history.config["optimizer"]["lr"])
    return 1 / (1 + abs(lr - 0.1))


def train(conductor: Conductor, history: TrialHistory, score: Score = by_lr, tasks: int | None = None) -> bool:
    """Plays Ray and the workers for one trial.

    To its end, or for so many tasks. Returns whether it ended.
    """
    conductor.started(history.key)
    last = history.task_count if tasks is None else tasks
    for task in range(len(history.tasks), last):
        if not conductor.result(history.key, task_line(history, task, [score(history)] * 2), FACTS):
            conductor.ended(history.key)
            return True
    if last < history.task_count:
        return False
    conductor.ended(history.key)
    return True


def stop_early(folder: SweepFolder, history: TrialHistory) -> None:
    """Records that the scheduler stopped a trial.

    The history is updated too.
    """
    line = {"kind": "end", "outcome": "stopped", "at": 0.0}
    append_line(folder.root / "trials" / history.key / "record.jsonl", line)
    history.apply(line)


def run_all(folder: SweepFolder, score: Score = by_lr) -> list[TrialHistory]:
    """Plays a whole sweep, one trial at a time."""
    conductor = Conductor(folder)
    while (history := conductor.propose()) is not None:
        train(conductor, history, score)
    return conductor.histories
