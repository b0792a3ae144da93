"""Sweeps with made-up accuracies, tuned and confirmed, in stores."""

import html
import re
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from shared import lay_database, once
from sweep_fixtures import FACTS, plan_of

from analysis import report
from analysis.figures import style
from study.schema import after_warmup, tenth
from study.sweep.conductor import Conductor
from study.sweep.confirmation_plan import make_confirmation
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.sweep.record import TrialHistory
from study.tracking import store, tracker

Accuracy = Callable[[TrialHistory, int], np.ndarray]
"""Test accuracy of each task of one seed of a trial, [task]."""

TASKS = 10


def accuracy(history: TrialHistory, seed: int) -> np.ndarray:
    """The test accuracy of each task, [task].

    It depends on the settings and the seed only, and is a multiple of 1/1000.
    """
    method, lr = history.method, float(history.config["optimizer"]["lr"])
    draw = np.random.default_rng([seed, round(lr * 1e6), len(history.scenario)])
    level = 0.95 - 0.1 * abs(np.log10(lr) + 1) - {"sgd": 0.0, "sam": 0.01}.get(method, 0.02)
    trend = -0.05 * np.linspace(0, 1, history.task_count) * (method == "sam")
    return np.round(level + trend + 0.02 * draw.standard_normal() + 0.01 * draw.standard_normal(history.task_count), 3)


def task_line(history: TrialHistory, task: int, test: np.ndarray, diverged: int = 0) -> dict[str, Any]:
    """A task's line as a worker would report it.

    `test` is test accuracies, [lane, task]; validation accuracies are a little lower.
    """
    validation = test - 0.01
    means = {"accuracy/test": test[:, task], "accuracy/validation": validation[:, task]}
    lanes = {**means, "accuracy/online": test[:, task] / 2, "loss/online": 1 - test[:, task]}
    edge = tenth(task + 1)
    metrics = {
        **{name: float(values.mean()) for name, values in lanes.items()},
        "objective": float(validation[:, : task + 1].mean()),
        "decline": float(validation[:, :edge].mean() - validation[:, task + 1 - edge : task + 1].mean()),
        "decline_after_warmup": float(
            validation[:, after_warmup(task + 1)].mean() - validation[:, task + 1 - edge : task + 1].mean()
        ),
        "late_accuracy": float(validation[:, task + 1 - edge : task + 1].mean()),
        "gradient_evaluations": 100.0 * (task + 1) * (1 if history.method == "sgd" else 2),
        "seconds/training": 1.5,
        "seconds/evaluation": 0.5,
        "lanes/diverged": float(diverged),
    }
    line = {
        "task": task,
        "name": f"task {task}",
        "metrics": metrics,
        "lanes": {k: v.tolist() for k, v in lanes.items()},
        "diagnostics": looks(task, test),
    }
    if task + 1 < history.task_count:
        return line
    first, last = (values[:, part].mean() for values in (test,) for part in (slice(edge), slice(-edge, None)))
    summary = {
        "summary/accuracy_test": float(test.mean()),
        "summary/accuracy_test_first_tenth": float(first),
        "summary/accuracy_test_last_tenth": float(last),
        "summary/decline_test": float(first - last),
        "summary/gradient_evaluations": metrics["gradient_evaluations"],
        "summary/lanes_diverged": float(diverged),
        "summary/objective": metrics["objective"],
        "summary/accuracy_validation_first_tenth": float(first) - 0.01,
        "summary/accuracy_validation_last_tenth": float(last) - 0.01,
    }
    return {**line, "summary": summary}


def looks(task: int, test: np.ndarray) -> dict[str, list[float | None]]:
    """The diagnostics after a task.

    Sharpness falls as the next task's accuracy rises; norms are random; one value is missing.
    """
    after = test[:, min(task + 1, test.shape[1] - 1)]
    draw = np.random.default_rng([task, len(test)])
    found: dict[str, list[float | None]] = {
        "weights/norm/layer_0": (3 + draw.random(len(test))).tolist(),
        "weights/norm/layer_output": (4 + draw.random(len(test))).tolist(),
        "units/dead/layer_0": [0.25] * len(test),
        "units/dead/layer_1": [0.75] * len(test),
        "rank/effective": (20 + draw.random(len(test))).tolist(),
    }
    if task % 2 == 0:
        found["sharpness/sam"] = (1 - after).tolist()
        found["hessian/largest_eigenvalue"] = [None, *(5 + draw.random(len(test) - 1)).tolist()]
    return found


def without_validation(line: dict[str, Any]) -> dict[str, Any]:
    """The same line of a trial without held-out images."""
    parts = {
        part: {
            name: value for name, value in line[part].items() if "validation" not in name and "objective" not in name
        }
        for part in ("metrics", "lanes", "summary")
        if part in line
    }
    for name in ("decline", "decline_after_warmup", "late_accuracy"):
        parts["metrics"].pop(name)
    return {**line, **parts}


def play(
    folder: SweepFolder, lanes: Accuracy = accuracy, fate: Callable[[TrialHistory], str] = lambda _: "finished"
) -> None:
    """Plays Ray and the workers.

    The fate of a trial is finished, failed (after 4 tasks) or running (left after 4 tasks).
    """
    conductor = Conductor(folder)
    held_out = bool(folder.plan.trial_config(folder.plan.groups[0], {}).tasks.settings.get("validation_fraction"))
    while (history := conductor.propose()) is not None:
        end = fate(history)
        if end == "waiting":
            continue
        conductor.started(history.key)
        test = np.array([lanes(history, seed) for seed in history.seeds])
        for task in range(history.task_count if end == "finished" else 4):
            line = task_line(history, task, test, diverged=1 if history.key.endswith("sam-002") else 0)
            conductor.result(history.key, line if held_out else without_validation(line), FACTS)
        if end == "failed":
            conductor.failed(history.key, "RuntimeError: out of luck")
        elif end == "finished":
            conductor.ended(history.key)


class Blank:
    """Draws empty files, fast."""

    def colours(self, methods: Iterable[str]) -> dict[str, str]:
        return style.colours(methods)

    def learning_curve(self, path: Path, history: TrialHistory) -> None:
        path.write_bytes(b"")

    def comparison(self, path: Path, scenario: str, histories: list[TrialHistory]) -> None:
        path.write_bytes(b"")


def draw_blank(path: Path, size: object) -> None:
    """A picture of nothing."""
    Figure(figsize=(0.1, 0.1)).savefig(path, format="png")


def sent(folder: SweepFolder) -> SweepFolder:
    """The folder, after its records were sent to the store."""
    tracker.sync(folder, lay_database(folder.directory), Blank())
    return folder


def whole_directory() -> Path:
    """A folder of sweeps that nobody writes to: `whole`, with a failed trial, and its confirmation, both in the store."""
    return once("whole", _whole)


def _whole(directory: Path) -> None:
    folder = tuned(directory, "whole")
    play(folder, fate=lambda history: "failed" if history.key.endswith("sgd-003") else "finished")
    sent(folder)
    confirmation = confirmed(folder)
    play(confirmation)
    sent(confirmation)


def whole_report() -> Path:
    """The report of `whole`, with all its figures."""
    return once("whole-report", _whole_report) / "report"


def _whole_report(place: Path) -> None:
    made = report.make(*report.load_all("whole", store.default_uri(whole_directory())))
    _, new = report.write(made, place / "report")
    assert new


def tuned(directory: Path, name: str, *, tasks: int = TASKS, **choices: Any) -> SweepFolder:
    """The folder of a new sweep.

    Over both scenarios and all methods, with the paper's points and two further trials of each.
    """
    choices = {"scenarios": [], "methods": [], "trials": 4, "seeds": 3, "overrides": {"tasks/count": tasks}, **choices}
    plan = plan_of(name, **choices)
    counts = dict.fromkeys((group.scenario for group in plan.groups), tasks)
    return SweepFolder.create(directory, plan, Execution(data_dir="data"), counts)


def confirmed(folder: SweepFolder, name: str = "", **choices: Any) -> SweepFolder:
    """The folder of a new confirmation, by default with seven seeds."""
    plan = make_confirmation(folder, name=name or f"{folder.plan.name}-confirm", **{"seeds": 7, **choices})
    counts = {group.scenario: folder.task_counts[group.scenario] for group in plan.groups}
    return SweepFolder.create(folder.directory, plan, folder.execution, counts)


def page_of(directory: Path, uri: str, name: str) -> tuple[str, "Tables"]:
    """The text of a sweep's report, and its tables."""
    place, _ = report.write(report.make(*report.load_all(name, uri)), directory / name / "report")
    text = (place / "report.html").read_text(encoding="utf-8")
    words = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text.split("</style>")[1])))
    return words, Tables(text)


class Tables(HTMLParser):
    """The tables of a page.

    Each is a list of rows of cells. A cell has values in full, runs and text.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[dict[str, dict[str, Any]]]] = {}
        self.addresses: list[str] = []
        self._rows: list[dict[str, dict[str, Any]]] = []
        self._cell: dict[str, Any] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag == "table":
            self._rows = self.tables.setdefault((given["id"] or "").removeprefix("table-"), [])
        elif tag == "tr":
            self._rows.append({})
        elif tag == "td":
            self._cell = {"values": [], "runs": [], "text": ""}
            self._rows[-1][given["data-heading"] or ""] = self._cell
        elif self._cell is not None and "data-value" in given:
            self._cell["values"].append(float(given["data-value"] or "nan"))
        elif self._cell is not None and "data-run" in given:
            self._cell["runs"].append(given["data-run"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._cell = None
        elif tag == "thead":
            self._rows.clear()

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell["text"] += data.strip()

    def rows(self, table: str) -> Iterator[dict[str, dict[str, Any]]]:
        """The rows of a table. Raises KeyError if missing."""
        return iter(self.tables[table])
