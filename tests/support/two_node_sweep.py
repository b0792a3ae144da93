"""A sweep over two nodes, and what its tests read of it."""

import os
import re
import subprocess
import sys
import time

import mlflow
import outside_parts
from mlflow import MlflowClient
from nodes import family, finished, listening
from shared import once
from sweep_fixtures import REPOSITORY, clean_environment, records_of, tasks_of

GRID = (
    *("run", "paper_grid", "--scenario", "class_pairs", "--seeds", 2, "--set", "data/name=mnist5k"),
    *("--set", "tasks/count=8", "--set", "tasks/images_per_task=800", "--set", "training/passes=8"),
    *("--set", "diagnostics/images=32"),
    *(
        "--set",
        f"model/name={REPOSITORY / 'study' / 'models' / 'mlp.py'}",
        "--set",
        "interventions/damping/shrink=0.99",
    ),
)
"""With parts from outside: a file, which travels by itself, and an intervention of an installed package."""


def results(sweep):
    """The repeatable part of each trial: configuration and task results."""
    return {key: (lines[0]["config"], tasks_of(lines)) for key, lines in records_of(sweep).items()}


def hosts(lines):
    """The hosts on which a trial was trained, in order."""
    return [line["facts"]["host"] for line in lines if line["kind"] == "facts"]


def table(text):
    """The rows of the tables that a sweep prints."""
    return re.findall(r"^(?:sgd|sam|gnp) +lr=.+$", text, re.MULTILINE)


def assert_each_step_is_logged_once(uri, name, tasks):
    """MLflow has one finished run per trial, each step once."""
    mlflow.set_tracking_uri(uri)
    runs = mlflow.search_runs(experiment_names=[name], filter_string="tags.role = 'trial'", output_format="list")
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len({run.data.tags["trial"] for run in runs}) == len(runs) > 0
    for run in runs:
        history = MlflowClient().get_metric_history(run.info.run_id, "accuracy/test")
        assert [metric.step for metric in history] == list(range(tasks))


def _train_alone(place):
    outside_parts.install(place / "site")
    environment = clean_environment(PYTHONPATH=os.pathsep.join(map(str, (REPOSITORY, place / "site"))))
    command = [sys.executable, "-m", "study", *map(str, GRID), "--workers", "2", "--name", "whole"]
    heard = set()
    with subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        while running.poll() is None and task_count(place / "study-results" / "whole") < 12:
            heard |= listening(family(running.pid))
            time.sleep(0.2)
        code, out, err = finished(running)
    assert (code, err) == (0, "")
    (place / "printed").write_text(out, encoding="utf-8")
    (place / "heard").write_text("\n".join(sorted(heard)), encoding="utf-8")


def task_count(sweep):
    """Number of recorded tasks of all trials."""
    return sum(len(tasks_of(lines)) for lines in records_of(sweep).values())


def one_machine():
    """The same points in a sweep on this machine alone, which is run once.

    Returns its folder, its output, and the addresses at which its processes listened.
    """
    place = once("one_machine", _train_alone)
    printed, heard = ((place / name).read_text(encoding="utf-8") for name in ("printed", "heard"))
    return place, printed, heard.splitlines()
