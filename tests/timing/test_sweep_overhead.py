"""What Ray, checkpoints and MLflow cost beside training.

A sweep is compared with the same trials run by `study trial` in a loop.
"""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from sweep_fixtures import records_of, study

import search_spaces
from study.cli.options import parse_setting
from study.config import yaml_text
from study.sweep.search_plan import make_plan

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1800)]

TASKS = int(os.environ.get("STUDY_OVERHEAD_TASKS", "2"))
SETTINGS = (f"tasks/count={TASKS}", "tasks/images_per_task=800", "training/passes=40", "data/name=mnist5k")
"""Tasks of less than a second on one CPU: so short that any overhead shows."""

SEEDS, WORKERS = 2, 2
MOST = 1.05
MOST_SECONDS_OF_START_AND_END = 20
"""About 9 on two cores of 2026."""


def loop(place):
    """Wall time and output of the trials without a sweep.

    They run as processes of `study trial`, `WORKERS` at a time.
    """
    overrides = dict(parse_setting(text) for text in SETTINGS)
    plan = make_plan(search_spaces.load("paper_grid"), name="loop", seeds=SEEDS, overrides=overrides)
    files = []
    for group in plan.groups:
        for number, point in enumerate(group.points):
            files.append(place / f"{group.label}-{number:03d}.yaml")
            files[-1].write_text(yaml_text(plan.trial_config(group, point).plain()))
    began = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        done = list(pool.map(lambda file: study("trial", file, "--json", cwd=place, timeout=900), files))
    seconds = time.monotonic() - began
    assert {process.returncode for process in done} == {0}
    printed = {file.stem: process.stdout for file, process in zip(files, done, strict=True)}
    return seconds, {key: [json.loads(line)["lanes"] for line in text.splitlines()] for key, text in printed.items()}


def sweep(place):
    """Wall time and records of the sweep."""
    settings = [word for text in SETTINGS for word in ("--set", text)]
    began = time.monotonic()
    done = study(
        *("run", "paper_grid", "--name", "swept", "--seeds", SEEDS, "--workers", WORKERS, *settings),
        cwd=place,
        timeout=900,
    )
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    return seconds, records_of(place / "study-results" / "swept")


def seconds_between_tasks(records):
    """Seconds from each task's end to the next one's in its trial, and how many of them were the study's work."""
    passed = worked = 0.0
    for lines in records.values():
        tasks = [line for line in lines if line["kind"] == "task"]
        for before, after in pairwise(tasks):
            passed += after["at"] - before["at"]
            worked += sum(after["metrics"][f"seconds/{work}"] for work in ("training", "evaluation", "diagnostics"))
    return passed, worked


def seconds_of_trials(records):
    """From the proposal of the first trial to the end of the last one."""
    return max(lines[-1]["at"] for lines in records.values()) - min(lines[0]["at"] for lines in records.values())


def test_a_sweep_takes_at_most_5_percent_longer_than_the_same_trials_in_a_loop(tmp_path):
    """The start and end of Ray aside: they take the same seconds however long a sweep is."""
    looped, printed = loop(tmp_path)
    swept, records = sweep(tmp_path)
    trials = seconds_of_trials(records)
    passed, worked = seconds_between_tasks(records)
    count = sum(len(lanes) for lanes in printed.values())
    print(
        f"{len(records)} trials, {count} tasks of {worked / (count - len(records)):.2f} s, {WORKERS} at a time: loop "
        f"{looped:.1f} s; sweep {swept:.1f} s, of it start and end {swept - trials:.1f} s and trials {trials:.1f} s, ratio "
        f"{trials / looped:.3f}; {1 - worked / passed:.1%} between tasks is not work"
    )
    recorded = {key: [line["lanes"] for line in lines if line["kind"] == "task"] for key, lines in records.items()}
    assert recorded == printed  # the same work, to the last bit
    assert trials <= MOST * looped
    assert passed - worked <= (MOST - 1) * passed
    assert swept - trials <= MOST_SECONDS_OF_START_AND_END
