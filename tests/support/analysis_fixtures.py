"""Sweeps and evidence made by hand for the analysis: sent to a store as the study does it, or put together as frames."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sweep_fixtures import FACTS, folder_of, plan_of

from analysis.figures import style
from analysis.load import RUN_COLUMNS, Sweep
from analysis.paper.evidence import PAIRS, PIXELS, Evidence, Setting
from search_spaces.paper_grid import LR
from study.sweep.conductor import Conductor
from study.tracking.tracker import sync

METHODS = ("sgd", "sam", "gnp")
SETTINGS = tuple(Setting(tasks, method, lr) for tasks in (PIXELS, PAIRS) for method in METHODS for lr in LR)
COST = {"sgd": 10, "sam": 20, "gnp": 20}


class NoPictures:
    """Draws in no time."""

    def colours(self, methods):
        return style.colours(methods)

    def learning_curve(self, path, history):
        path.write_bytes(b"")

    def comparison(self, path, scenario, histories):
        path.write_bytes(b"")


def tenth(tasks):
    return -(-tasks // 10)


def task_lines(test, validation=None, cost=10, diverged=0):
    """What a worker would report of accuracies [task, lane], the last line with the summary; numbers by plain numpy."""
    lines = []
    for task in range(len(test)):
        lanes = {"accuracy/test": test[task], "accuracy/online": test[task] / 2, "loss/online": 1 - test[task]}
        metrics = {
            "gradient_evaluations": float(cost * (task + 1)),
            "seconds/training": 2.0,
            "seconds/evaluation": 0.5,
            "lanes/diverged": float(diverged),
        }
        if validation is not None:
            lanes["accuracy/validation"] = validation[task]
            first, last = validation[: tenth(task + 1)], validation[task + 1 - tenth(task + 1) : task + 1]
            metrics |= {"objective": validation[: task + 1].mean(), "decline": first.mean() - last.mean()}
        metrics |= {name: values.mean() for name, values in lanes.items()}
        lines.append(
            {
                "task": task,
                "name": f"task {task}",
                "metrics": {name: float(value) for name, value in metrics.items()},
                "lanes": {name: [float(value) for value in values] for name, values in lanes.items()},
            }
        )
    lines[-1]["summary"] = summary(test, validation, cost, diverged)
    return lines


def summary(test, validation=None, cost=10, diverged=0):
    """The summary of a finished trial, without its seconds."""
    first, last = test[: tenth(len(test))].mean(), test[-tenth(len(test)) :].mean()
    found = {
        "summary/accuracy_test": test.mean(),
        "summary/accuracy_test_first_tenth": first,
        "summary/accuracy_test_last_tenth": last,
        "summary/decline_test": first - last,
        "summary/gradient_evaluations": cost * len(test),
        "summary/lanes_diverged": diverged,
    }
    if validation is not None:
        found |= {
            "summary/objective": validation.mean(),
            "summary/accuracy_validation_first_tenth": validation[: tenth(len(test))].mean(),
            "summary/accuracy_validation_last_tenth": validation[-tenth(len(test)) :].mean(),
        }
    return {name: float(value) for name, value in found.items()}


def accuracies(key, tasks, lanes, seed=0):
    """Accuracies [task, lane] of test and of validation images that depend on the trial's key alone."""
    draw = np.random.default_rng([seed, *key.encode()])
    return draw.integers(400, 990, (2, tasks, lanes)) / 1000


def play(conductor, history, tasks=None, *, validated=True, fail="", diverged=0, facts=FACTS):
    """Plays the worker of one trial, to its end or for so many tasks; then it fails if a reason is given."""
    test, validation = accuracies(history.key, history.task_count, len(history.seeds))
    lines = task_lines(test, validation if validated else None, COST.get(history.method, 10), diverged)
    conductor.started(history.key)
    for line in lines[len(history.tasks) : tasks]:
        conductor.result(history.key, line, facts)
    if fail:
        conductor.failed(history.key, fail)
    elif tasks is None:
        conductor.ended(history.key)
    return test, validation


def sent_sweep(directory, uri, name, *, tasks=3, running=False, play_all=True, **choices):
    """A sweep's folder in the store, all its trials finished unless told otherwise."""
    folder = folder_of(directory, plan_of(name, overrides={"tasks/count": tasks}, **choices), tasks)
    conductor = Conductor(folder)
    while play_all and (history := conductor.propose()) is not None:
        play(conductor, history)
    sync(folder, uri, NoPictures(), running=running)
    return folder


@dataclass(frozen=True)
class Trial:
    """A trial to be put into a frame: its test accuracies [task, lane] and what sets it apart."""

    scenario: str
    method: str
    test: np.ndarray
    settings: dict
    outcome: str = "finished"
    objective: float = math.nan
    cost: int = 10
    diverged: int = 0
    rank: int | None = None
    confirms: str | None = None
    seeds: tuple = ()


PAPER_SETTINGS = {
    "data/name": "mnist",
    "tasks/count": None,
    "tasks/images_per_task": None,
    "tasks/validation_fraction": 0.0,
    "model/name": "mlp",
    "model/widths": [100, 100],
    "training/batch_size": 16,
    "training/passes": 1,
    "training/pixels": "unit",
    "training/device": "auto",
    "optimizer/momentum": 0.0,
    "optimizer/weight_decay": 0.0,
    "optimizer/rho": 0,
    "optimizer/lambda": 0,
}


def paper_trial(setting, test, scenario=None, **changes):
    """A trial of one of the paper's settings; changes by slash name."""
    own = {"sgd": {}, "sam": {"optimizer/rho": 0.05}, "gnp": {"optimizer/lambda": 0.1, "optimizer/r": 0.05}}
    fields = {name: changes.pop(name) for name in list(changes) if name in Trial.__dataclass_fields__}
    return Trial(
        scenario or setting.tasks,
        setting.method,
        test,
        {
            **PAPER_SETTINGS,
            "tasks/name": setting.tasks,
            "optimizer/name": setting.method,
            "optimizer/lr": setting.lr,
            **own[setting.method],
            **changes,
        },
        cost=COST[setting.method],
        **fields,
    )


def framed(trials, name="made", phase="grid", groups=None):
    """A Sweep of trials as `analysis.load` would give it, without a store."""
    rows, lanes, numbers = [], [], {}
    for trial in trials:
        label = f"{trial.scenario}-{trial.method}"
        number = numbers[label] = numbers.get(label, -1) + 1
        key, run_id = f"{label}-{number:03d}", f"run-{name}-{label}-{number}"
        seeds = trial.seeds or tuple(range(trial.test.shape[1]))
        done = summary(trial.test, None, trial.cost, trial.diverged) if trial.outcome == "finished" else {}
        if done and not math.isnan(trial.objective):
            done["summary/objective"] = trial.objective
        rows.append(
            {
                "run_id": run_id,
                "trial": key,
                "number": number,
                "scenario": trial.scenario,
                "method": trial.method,
                "phase": phase,
                "name": f"{trial.method} {number}",
                "outcome": trial.outcome,
                "reason": "",
                "seeds": seeds,
                "tasks": len(trial.test),
                "confirms_trial": trial.confirms,
                "selected_rank": trial.rank,
                "device": "cpu",
                "started": pd.Timestamp("2025-01-01", tz="UTC"),
                "ended": pd.Timestamp("2025-01-01 00:30", tz="UTC"),
                **trial.settings,
                "gradient_evaluations": float(trial.cost * len(trial.test)),
                "lanes/diverged": float(trial.diverged),
                **done,
            }
        )
        lanes += [
            {
                "run_id": run_id,
                "trial": key,
                "scenario": trial.scenario,
                "method": trial.method,
                "lane": lane,
                "seed": seed,
                "task": task,
                "accuracy/test": trial.test[task, lane],
                "gradient_evaluations": float(trial.cost * (task + 1)),
            }
            for lane, seed in enumerate(seeds)
            for task in range(len(trial.test))
        ]
    names = dict.fromkeys([*RUN_COLUMNS, *(name for row in rows for name in row)])
    runs = pd.DataFrame(rows, columns=list(names)).astype({"selected_rank": "Int64"})
    labels = dict.fromkeys((trial.scenario, trial.method) for trial in trials)
    made = [
        {"scenario": scenario, "method": method, "trials": numbers[f"{scenario}-{method}"] + 1, "points": []}
        for scenario, method in labels
    ]
    seeds = list(trials[0].seeds or range(trials[0].test.shape[1])) if trials else [0]
    columns = ["run_id", "trial", "scenario", "method", "lane", "seed", "task", "accuracy/test", "gradient_evaluations"]
    return Sweep(
        name=name,
        identity=name,
        uri="",
        experiment_id="1",
        run_id=f"run-{name}",
        status="FINISHED",
        plan={"phase": phase, "seeds": seeds, "groups": groups or made},
        tags={},
        runs=runs,
        lanes=pd.DataFrame(lanes, columns=columns),
        notes=(),
    )


def curve(tasks=20, start=0.9, end=0.9, lanes=10, noise=0.0, draw=None, seeds=None):
    """Accuracy [task, seed] of lanes that go straight from start to end, each shifted by a noise of its own at both ends."""
    draw = draw or np.random.default_rng(0)
    ends = np.array([[start], [end]]) + noise * draw.normal(size=(2, lanes))
    share = np.clip((np.arange(tasks) - tenth(tasks) + 1) / max(1, tasks - 2 * tenth(tasks) + 1), 0, 1)
    table = ends[0] * (1 - share[:, None]) + ends[1] * share[:, None]
    return pd.DataFrame(table, columns=list(range(lanes) if seeds is None else seeds)).rename_axis("task")


def evidence_of(accuracy, **named):
    """Evidence of accuracies by setting."""
    return Evidence("made", accuracy, {setting: f"run of {setting}" for setting in accuracy}, **named)


def same_everywhere(noise=0.0, lanes=10, draw=None, **ends):
    """The paper's twelve settings, all alike but for noise."""
    draw = draw or np.random.default_rng(0)
    return {setting: curve(lanes=lanes, noise=noise, draw=draw, **ends) for setting in SETTINGS}
