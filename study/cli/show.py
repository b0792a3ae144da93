"""`study show` and dry runs: plan, time and price."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from study import provenance
from study.cli import launch, overview, terminal
from study.cluster import connection, nodes
from study.config import Flat
from study.errors import StudyError
from study.sweep import datasets
from study.sweep.datasets import Material
from study.sweep.execution import Execution
from study.sweep.plan import Plan
from study.timing import estimate, speed
from study.timing.estimate import Estimate, Range

SECONDS = 10.0
"""How long all measurements train together."""

LEFT_OUT = (
    "Measured on this machine just now, for training and evaluation only. Starting Ray, writing records and logging to MLflow "
    "take additional time: more than half of a sweep of one minute, little of a sweep of hours."
)


def run(space_name: str, data_dir: Path, *, measured: bool, price_per_hour: float | None, as_json: bool = False) -> int:
    """Shows what a search space tries; returns the exit code.

    With `measured` it also shows how long that takes here, or why that cannot be estimated.
    """
    plan = launch.planned(space_name)
    shown: dict[str, Any] = {"plan": _plain_plan(plan)}
    if not as_json:
        overview.show_plan(plan)
    try:
        if measured:
            material = datasets.load(plan, data_dir, datasets.found_or_stand_in)
            resolved, at_once, _ = connection.foreseen(Execution(data_dir=str(data_dir)), plan, "")
            if as_json:
                estimated = _estimated(plan, resolved, at_once, material)
                shown["estimate"] = _plain_estimate(estimated, price_per_hour)
            else:
                _show_estimate(plan, resolved, at_once, material, price_per_hour)
    except StudyError as error:
        terminal.complain(f"no estimate: {error}")
    if as_json:
        terminal.show_json(shown)
    return 0


def _plain_plan(plan: Plan) -> dict[str, Any]:
    """A plan as plain data, with distributions that need no parsing."""
    plain: dict[str, Any] = plan.plain()
    for group in plain["groups"]:
        group["distributions"] = {name: json.loads(text) for name, text in group["distributions"].items()}
    return plain


def _plain_estimate(estimated: Estimate, price_per_hour: float | None) -> dict[str, Any]:
    """An estimate as plain data; durations are in seconds."""
    sums = {"work": estimated.work, "duration": estimated.duration}
    sums |= {"cpu_hours": estimated.cpu_hours, "gpu_hours": estimated.gpu_hours}
    if price_per_hour is not None:
        sums["price"] = estimated.price(price_per_hour)
    return asdict(estimated) | {name: asdict(value) for name, value in sums.items()}


def dry_run(
    space_name: str,
    directory: Path,
    execution: Execution,
    name: str | None,
    price_per_hour: float | None,
    after: str | None = None,
    **choices: Any,
) -> int:
    """Shows a sweep without starting it; returns the exit code.

    It checks all that `study.cli.launch.run` checks. Nothing is started or written.
    """
    plan = launch.planned(space_name, name, **choices)
    if after is not None:
        plan = launch.planned_after(plan, directory, after)
    return _not_started(plan, directory, execution, price_per_hour)


def dry_confirmation(
    tuned_name: str,
    directory: Path,
    changes: Mapping[str, Any],
    name: str | None,
    price_per_hour: float | None,
    overrides: Flat,
    **choices: Any,
) -> int:
    """Shows a confirmation without starting it; returns the exit code.

    The arguments are those of `study.cli.launch.planned_confirmation`.
    """
    plan, execution, noted = launch.planned_confirmation(directory, tuned_name, changes, name, overrides, **choices)
    return _not_started(plan, directory, execution, price_per_hour, noted)


def _not_started(
    plan: Plan, directory: Path, execution: Execution, price_per_hour: float | None, noted: Sequence[str] = ()
) -> int:
    """Shows a plan and how long it takes, with its notes."""
    prepared = launch.prepare(plan, directory, execution, datasets.found_or_stand_in)
    resolved, at_once, notes = connection.foreseen(prepared.execution, plan, prepared.checkpoint_place)
    overview.show_plan(plan)
    try:
        _show_estimate(plan, resolved, at_once, prepared.material, price_per_hour)
    except StudyError as error:
        if resolved.is_local:
            raise
        terminal.complain(f"no estimate: {error}")  # the cluster may have what this machine lacks
    for note in (*noted, *notes):
        terminal.complain(f"note: {note}")
    trials = f"{plan.trial_count} {'trial' if plan.trial_count == 1 else 'trials'}"
    terminal.console.print(
        f"\nDry run: nothing was started. The sweep {plan.name!r} would go to {directory / plan.name} "
        f"and to MLflow at {prepared.uri}, with {'at most ' if plan.deciding else ''}{trials}.",
        markup=False,
        soft_wrap=True,
    )
    return 0


def _show_estimate(
    plan: Plan, resolved: Execution, at_once: int, material: Material, price_per_hour: float | None
) -> None:
    """Measures and shows how long the plan takes.

    Raises StudyError if that cannot be measured here.
    """
    if terminal.console.is_terminal:
        terminal.remark(f"\nmeasuring {len(estimate.kinds(plan))} kinds of trials for about {SECONDS:g} s")
    estimated = _estimated(plan, resolved, at_once, material)
    absent = {
        config.data.name
        for config in estimate.kinds(plan).values()
        if datasets.missing(config, Path(resolved.data_dir))
    }
    show_table(estimated, " to ".join(map(str, sorted({1, plan.lanes}))) if plan.is_race else len(plan.seeds))
    show_sum(estimated, price_per_hour)
    remarks = [LEFT_OUT]
    if plan.scheduler == "asha":
        remarks.append("Trials that asha stops early take less.")
    if plan.is_race:
        remarks.append("At the end of a race fewer trials are left than may run at once, so it takes somewhat longer.")
    for name in sorted(absent):
        remarks.append(f"{name} has not been downloaded yet; the estimate used random images of the same shape.")
    if not resolved.is_local:
        remarks.append("The cluster's nodes may be faster or slower than this machine.")
    terminal.remark(" ".join(remarks))


def _estimated(plan: Plan, resolved: Execution, at_once: int, material: Material) -> Estimate:
    """Measures how long the plan takes.

    Raises StudyError if that cannot be measured here.
    """
    if resolved.gpus_per_trial and not torch.cuda.is_available():
        raise StudyError("the trials use GPUs, and this machine has none to measure on.")
    fitting = nodes.this_machine().fits(resolved.cpus_per_trial, resolved.gpus_per_trial or 0)
    kinds = estimate.kinds(plan)
    pack = resolved.pack or 1
    configs = [estimate.in_a_pack(plan, config, pack) if pack > 1 else config for config in kinds.values()]
    timings = speed.measured(
        configs,
        [datasets.data_key(config) for config in configs],
        material.datasets,
        trials_at_once=min(at_once, plan.trial_count, max(1, fitting)),
        threads=max(1, int(resolved.cpus_per_trial)),
        seconds=SECONDS,
    )
    timing_of_kind = dict(zip(kinds, timings, strict=True))
    return estimate.estimate(plan, resolved, at_once, lambda config: timing_of_kind[estimate.kind(config)])


def show_table(estimated: Estimate, seeds: int | str) -> None:
    """Shows the table of an estimate, by scenario and method.

    `seeds` is their number in a trial.
    """
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
        for row in estimated.rows
    ]
    device = torch.cuda.get_device_name() if estimated.gpus else provenance.processor()
    threads = "1 thread" if estimated.cpus < 2 else f"{estimated.cpus:.0f} threads"
    packs = (
        f"{estimated.workers} at once"
        if estimated.pack == 1
        else f"{estimated.workers} packs of up to {estimated.pack} at once"
    )
    title = f"Estimate for {device}: {packs}, {threads} each, seeds: {seeds}"
    columns = ["scenario", "method", "trials", "tasks", "images per task", "one trial", "all trials"]
    terminal.show_table(title, columns, rows, numeric=5)


def show_sum(estimated: Estimate, price_per_hour: float | None) -> None:
    """Shows the total: time, hours of machines, and price."""
    if estimated.workers > 1:
        terminal.console.print(
            f"\nAll trials add up to {_clock(estimated.work)}, and {estimated.workers} run at once.",
            markup=False,
            soft_wrap=True,
        )
    words = [f"About {_clock(estimated.duration)} in total: {_hours(estimated.cpu_hours)} CPU-hours"]
    if estimated.gpus:
        words.append(f"{_hours(estimated.gpu_hours)} GPU-hours")
    if price_per_hour is not None:
        price = estimated.price(price_per_hour)
        words.append(f"{_between(f'{price.low:.2f}', f'{price.high:.2f}')} at {price_per_hour:g} per hour")
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
