"""Makes sweeps of thousands of trials by script, and times what grows with them.

    python tests/support/growth.py make FOLDER TRIALS     records of that many finished trials, 100 tasks of 10 lanes each
    python tests/support/growth.py archive FOLDER         an archive of these records, made past MLflow
    python tests/support/growth.py time FOLDER WHAT...    seconds and memory of list, best, proposal, sync, report, archive

Numbers are made up and have the shape of real ones: 4 quantities per lane, 13 diagnostics after each task. FOLDER is that of
all sweeps (`--dir`); the sweep is `grown`.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

NAME = "grown"
TASKS = 100
LANES = 10
LAYERS = ("layer_0", "layer_1", "layer_output")
DIAGNOSTICS = (
    *(f"units/{kind}/{layer}" for kind in ("dead", "dormant") for layer in LAYERS[:2]),
    *(f"rank/{kind}" for kind in ("effective", "stable", "srank")),
    *(f"weights/{kind}/{layer}" for kind in ("norm", "distance") for layer in LAYERS),
)


def make(directory, trials, *, tasks=TASKS, lanes=LANES):
    """Writes a sweep of that many finished trials; two more are planned. Returns its folder."""
    from sweep_fixtures import plan_of

    from study.sweep.execution import Execution
    from study.sweep.folder import SweepFolder

    plan = plan_of(NAME, trials=trials // 2 + 1, seeds=lanes, overrides={"tasks/count": tasks})
    folder = SweepFolder.create(directory, plan, Execution(data_dir="data"), {"class_pairs": tasks})
    draw = np.random.default_rng(0)
    looks = [json.dumps(diagnostics(draw, lanes)) for _ in range(tasks)]
    for group in plan.groups:
        for number in range(trials // 2):
            write_trial(folder, group, number, draw, looks, lanes)
    return folder


def diagnostics(draw, lanes):
    """Made-up diagnostics of one task."""
    return {name: draw.random(lanes).tolist() for name in DIAGNOSTICS}


def write_trial(folder, group, number, draw, looks, lanes):
    """Writes the record of one finished trial."""
    from sweep_fixtures import FACTS

    tried = dict(group.points[number]) if number < len(group.points) else {}
    tried |= {name: 10 ** draw.uniform(-2.5, -0.5) for name in group.distributions.keys() - tried.keys()}
    key, now = f"{group.label}-{number:03d}", 1.79e9 + number
    head = {
        "kind": "trial",
        "key": key,
        "number": number,
        "scenario": group.scenario,
        "method": group.method,
        "phase": folder.plan.phase,
        "tried": tried,
        "config": folder.plan.trial_config(group, tried).plain(),
        "task_count": len(looks),
        "sampler_notes": {},
    }
    test = np.round(0.8 + 0.1 * draw.random() + 0.02 * draw.standard_normal((len(looks), lanes)), 3)
    lines = [head, {"kind": "start"}, {"kind": "facts", "facts": FACTS}]
    texts = [json.dumps({**line, "at": now}) for line in lines]
    texts += [task_text(task, test, looks[task], now) for task in range(len(looks))]
    texts.append(json.dumps({"kind": "end", "outcome": "finished", "at": now + len(looks)}))
    path = folder.root / "trials" / key / "record.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join(texts) + "\n")


def task_text(task, test, looks, now):
    """The line of one task; `test` is test accuracy, [task, lane]."""
    validation, last = test - 0.01, len(test) - 1
    means = {"accuracy/test": test[task], "accuracy/validation": validation[task]}
    lanes = {**means, "accuracy/online": test[task] / 2, "loss/online": 1 - test[task]}
    objective = float(validation[: task + 1].mean())
    metrics = {
        **{name: float(values.mean()) for name, values in lanes.items()},
        "objective": objective,
        "decline": 0.001,
        "gradient_evaluations": 100.0 * (task + 1),
        "seconds/training": 1.5,
        "seconds/evaluation": 0.5,
        "seconds/diagnostics": 0.25,
        "lanes/diverged": 0.0,
    }
    line = {
        "kind": "task",
        "task": task,
        "name": f"task {task}",
        "metrics": metrics,
        "lanes": {name: values.tolist() for name, values in lanes.items()},
    }
    if task == last:
        line["summary"] = {
            "summary/accuracy_test": float(test.mean()),
            "summary/accuracy_test_first_tenth": float(test[:10].mean()),
            "summary/accuracy_test_last_tenth": float(test[-10:].mean()),
            "summary/decline_test": float(test[:10].mean() - test[-10:].mean()),
            "summary/gradient_evaluations": 100.0 * len(test),
            "summary/lanes_diverged": 0.0,
            "summary/objective": objective,
            "summary/accuracy_validation_first_tenth": float(validation[:10].mean()),
            "summary/accuracy_validation_last_tenth": float(validation[-10:].mean()),
        }
    return json.dumps({**line, "at": now + task})[:-1] + f', "diagnostics": {looks}}}'


COMMANDS = {
    "list": ("list",),
    "best": ("best", NAME),
    "sync": ("sync", NAME),
    "report": ("report", NAME, "--to", "page"),
    "archive": ("archive", NAME, "--to", "archived"),
    "page": ("report", f"{NAME}/made-archive", "--to", "page-of-archive"),
}


def timed(directory, what):
    """Seconds, seconds of the processor, and megabytes of one command in a process of its own."""
    words = [sys.executable, "-m", "study", *COMMANDS[what], "--dir", str(directory)] if what in COMMANDS else []
    if what == "proposal":
        words = [sys.executable, __file__, "propose", str(directory)]
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=directory)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{what} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def propose(directory):
    """What a resume does before its first trial: reads the records and asks the search for one."""
    from study.sweep.conductor import Conductor
    from study.sweep.folder import SweepFolder

    folder = SweepFolder.open(directory, NAME)
    if hasattr(folder, "outcomes"):
        folder.outcomes()
    began = time.perf_counter()
    conductor = Conductor(folder)
    history = conductor.propose()
    record = folder.root / "trials" / history.key
    (record / "record.jsonl").unlink()
    record.rmdir()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{history.key} after {time.perf_counter() - began:.1f} s, {memory:.0f} MB", file=sys.stderr)


def archive(directory):
    """Writes an archive of the records without MLflow, as `study archive` would."""
    import pandas as pd

    from analysis import archive, diagnostics, load
    from study.sweep.folder import SweepFolder

    folder = SweepFolder.open(directory, NAME)
    rows, lanes, looks = [], [], []
    for history in folder.histories():
        place = {"run_id": history.key, "trial": history.key, "scenario": history.scenario, "method": history.method}
        times = {"started": history.started * 1000, "ended": history.ended * 1000}
        flat = {
            f"{part}/{name}": value
            for part in ("optimizer", "tasks", "data", "model", "training")
            for name, value in history.config[part].items()
        }
        rows.append(
            {
                **place,
                **flat,
                **history.metrics,
                **history.summary,
                **times,
                "number": history.number,
                "phase": history.phase,
                "name": history.name,
                "outcome": history.outcome,
                "reason": "",
                "seeds": tuple(history.seeds),
                "tasks": len(history.tasks),
                "device": "cpu",
                "confirms_trial": None,
                "confirms_run_id": None,
                "selected_rank": None,
            }
        )
        lines = [dict(line) for line in history.tasks]
        for lane, seed in enumerate(history.seeds):
            own = {**place, "lane": lane, "seed": seed}
            values = {name: [line["lanes"][name][lane] for line in lines] for name in lines[0]["lanes"]}
            shared = {
                name: [line["metrics"][name] for line in lines] for name in lines[0]["metrics"] if name not in values
            }
            table = pd.DataFrame({**shared, **values}).reindex(columns=list(archive.QUANTITIES))
            lanes.append(table.assign(**own, task=range(len(lines))))
            found = pd.DataFrame({name: [line["diagnostics"][name][lane] for line in lines] for name in DIAGNOSTICS})
            looks.append(found.assign(**own, task=range(len(lines))))
    sweep = load.Sweep(
        NAME,
        "0" * 16,
        "sqlite:///none.db",
        "1",
        "0",
        "FINISHED",
        folder.plan.plain(),
        {},
        load.frame(rows),
        pd.concat(lanes, ignore_index=True),
        (),
        diagnostics.in_order(looks),
    )
    archive.save(sweep, folder.root / "made-archive")


def main(act, directory, *words):
    """The command line of this script."""
    folder = Path(directory).resolve()
    if act == "make":
        make(folder, int(words[0]))
    elif act == "archive":
        archive(folder)
    elif act == "propose":
        propose(folder)
    elif act == "time":
        for what in words:
            seconds, busy, memory = timed(folder, what)
            print(f"{what}: {seconds:.1f} s, {busy:.1f} s of the processor, {memory:.0f} MB", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
