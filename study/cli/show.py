"""What is told of a sweep before it runs: what it tries, how long that takes on this machine, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from study import provenance
from study.cli import launch, overview, terminal
from study.cluster import connection, nodes
from study.errors import StudyError
from study.sweep import datasets, folder, search_plan
from study.sweep.datasets import Material
from study.sweep.execution import Execution
from study.sweep.plan import Plan
from study.timing import estimate, speed
from study.timing.estimate import Estimate, Range

SECONDS = 10.0
"""Of training, for all that is measured."""

LEFT_OUT = (
    "Training and evaluation alone, measured here just now. The start of Ray, and what is done beside the trials for records and "
    "MLflow, come on top: more than half of a sweep of a minute, little of one of hours."
)


def show(space_name: str, data_dir: Path, *, measured: bool, price_per_hour: float | None) -> int:
    """Shows what a search space tries and, if wanted, how long that takes; says why where that cannot be told."""
    space = search_plan.load_space(space_name)
    made = search_plan.make_plan(space, name=space.name)
    overview.show_plan(made)
    if not measured:
        return 0
    try:
        loaded = datasets.load(made, data_dir, datasets.found_or_stand_in)
        resolved, at_once, _ = connection.foreseen(Execution(data_dir=str(data_dir)), made, "")
        _show_estimate(made, resolved, at_once, loaded, price_per_hour)
    except StudyError as error:
        terminal.complain(f"no estimate: {error}")
    return 0


def dry_run(
    space_name: str,
    directory: Path,
    execution: Execution,
    name: str | None,
    price_per_hour: float | None,
    **choices: Any,
) -> int:
    """All that `study.cli.launch.run` checks, and what it would try; starts and writes nothing. Returns the exit code."""
    space = search_plan.load_space(space_name)
    made = search_plan.make_plan(space, name=space.name if name is None else name, **choices)
    execution, loaded, uri = launch.prepared(made, directory, execution, datasets.found_or_stand_in)
    place = execution.storage or folder.own_checkpoint_place(directory, made.name)
    resolved, at_once, notes = connection.foreseen(execution, made, place)
    overview.show_plan(made)
    try:
        _show_estimate(made, resolved, at_once, loaded, price_per_hour)
    except StudyError as error:
        if resolved.is_local:
            raise
        terminal.complain(f"no estimate: {error}")  # the cluster may have what this machine lacks
    for note in notes:
        terminal.complain(f"note: {note}")
    terminal.console.print(
        f"\nA dry run: nothing was started. {made.name!r} would be kept in {directory / made.name} and in MLflow at {uri}",
        markup=False,
        soft_wrap=True,
    )
    return 0


def _show_estimate(
    made: Plan, resolved: Execution, at_once: int, loaded: Material, price_per_hour: float | None
) -> None:
    """Measures, and shows what the plan takes. Raises StudyError when it cannot be measured here."""
    if resolved.gpus_per_trial and not torch.cuda.is_available():
        raise StudyError("the trials get GPUs, and this machine has none to measure on.")
    fitting = nodes.this_machine().fits(resolved.cpus_per_trial, resolved.gpus_per_trial or 0)
    kinds = estimate.kinds(made)
    configs = list(kinds.values())
    if terminal.console.is_terminal:
        terminal.remark(f"\nmeasuring {len(configs)} kinds of trials for about {SECONDS:g} s")
    timings = speed.measured(
        configs,
        [datasets.data_key(config) for config in configs],
        loaded.datasets,
        trials_at_once=min(at_once, made.trial_count, max(1, fitting)),
        threads=max(1, int(resolved.cpus_per_trial)),
        seconds=SECONDS,
    )
    found = dict(zip(kinds, timings, strict=True))
    known = estimate.estimate(made, resolved, at_once, lambda config: found[estimate.kind(config)])
    absent = {config.data.name for config in configs if datasets.missing(config, Path(resolved.data_dir))}
    show_table(known, len(made.seeds))
    show_sum(known, price_per_hour)
    remarks = [LEFT_OUT]
    if made.scheduler == "asha":
        remarks.append("What asha stops early costs less.")
    for name in sorted(absent):
        remarks.append(f"{name} is not here yet and would be downloaded; noise of its shape stood in for it.")
    if not resolved.is_local:
        remarks.append("The cluster's nodes may be faster or slower than this machine.")
    terminal.remark(" ".join(remarks))


def show_table(known: Estimate, seeds: int) -> None:
    """A row for each method in each scenario."""
    rows = [
        (
            row.scenario,
            row.method,
            str(row.trials),
            str(row.tasks),
            _whole(row.images) + ("" if row.passes == Range(1, 1) else f" x {_whole(row.passes)}"),
            _clock(row.trial),
            _clock(row.total),
        )
        for row in known.rows
    ]
    where = torch.cuda.get_device_name() if known.gpus else provenance.processor()
    threads = "1 thread" if known.cpus < 2 else f"{known.cpus:.0f} threads"
    title = f"Estimate for {where}: {known.trials_at_once} at once, {threads} each, seeds: {seeds}"
    columns = ["scenario", "method", "trials", "tasks", "images a task", "a trial", "all trials"]
    terminal.show_table(title, columns, rows, numeric=5)


def show_sum(known: Estimate, price_per_hour: float | None) -> None:
    """How long it all takes, in hours of machines, and in money when an hour's price is known."""
    words = [f"Altogether about {_clock(known.duration)}: {_hours(known.cpu_hours)} CPU-hours"]
    if known.gpus:
        words.append(f"{_hours(known.gpu_hours)} GPU-hours")
    if price_per_hour is not None:
        price = known.price(price_per_hour)
        words.append(f"{_between(f'{price.low:.2f}', f'{price.high:.2f}')} at {price_per_hour:g} an hour")
    terminal.console.print("\n" + ", ".join(words) + ".", markup=False, soft_wrap=True)


def _whole(values: Range) -> str:
    return _between(f"{values.low:,.0f}", f"{values.high:,.0f}")


def _clock(seconds: Range) -> str:
    return _between(
        *(f"{value:.1f} s" if value < 9.95 else terminal.clock(value) for value in (seconds.low, seconds.high))
    )


def _hours(hours: Range) -> str:
    return _between(f"{hours.low:.2g}", f"{hours.high:.2g}")


def _between(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
