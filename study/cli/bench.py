"""`study bench`: speeds of training and advice."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from study import experiment, provenance
from study.cli import terminal
from study.config import TrialConfig
from study.contracts import Dataset
from study.errors import StudyError
from study.parts import outside
from study.sweep.execution import LANES_PER_GPU
from study.timing import diagnostics_cost, interventions, packs, side_by_side, stacked_jax
from study.timing.bench import (
    COMPILED,
    JAX,
    LANES,
    LOADER,
    MEMORY,
    METHODS,
    MODELS,
    VMAP,
    Setting,
    Speed,
    measured,
    peak_bytes,
    product_rate,
)
from study.timing.diagnostics_cost import Overhead
from study.timing.plain_torch import CONVOLUTIONS
from study.timing.side_by_side import Division

ENOUGH = 0.9
"""Share of the best speed from which on a choice counts as good as the best."""

BRIEF_SECONDS = 0.1
"""Below this time for each cell, diagnostics are computed once only, without a first time to warm up."""

MIB = 2**20

STACKED = {VMAP: "vmap", COMPILED: "vmap, torch.compile", JAX: "JAX vmap, jit, scan"}
"""The usual ways with several seeds, in words."""


@dataclass(frozen=True)
class Machine:
    """The machine that everything was timed on.

    Attributes:
        device, device_name, threads: of this process.
        product_rate: floating-point operations a second, see `study.timing.bench.product_rate`.
        data: name of the data set.
    """

    device: str
    device_name: str
    threads: int
    product_rate: float
    data: str


def show_first_line(machine: Machine) -> None:
    """The machine."""
    terminal.console.print(
        f"{machine.device_name}, torch {provenance.versions()['torch']}, {_threads(machine.threads)}, {machine.data}",
        markup=False,
    )


def show_machine(machine: Machine) -> None:
    """The first lines: the machine and what the numbers mean."""
    show_first_line(machine)
    terminal.console.print(
        f"Matrix products: {machine.product_rate / 1e9:,.0f} GFLOP/s (float32, 1024 x 1024; best of several).\n"
        "Each cell: images a second over all seeds; ratio to the DataLoader; share of the matrix products' rate.\n"
        "Operations per image: 2 x inputs x outputs of each layer (at each position of a convolution), once forward, once for\n"
        "the gradient of the weights, and once for the errors (not in the first layer). SAM and GNP take two gradients a step.\n"
        "Each number is the best of three rounds in which all ways took turns.",
        markup=False,
        soft_wrap=True,
    )


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def title(setting: Setting, dataset: Dataset, model: str) -> str:
    """A setting in words, such as "784-100-100-10, batch 16"."""
    inputs: tuple[object, ...] = (math.prod(dataset.shape),)
    if model == "cnn":
        inputs = (" x ".join(map(str, dataset.shape)), *(maps for maps, _, _ in CONVOLUTIONS))
    return f"{'-'.join(map(str, (*inputs, *setting.widths, dataset.class_count)))}, batch {setting.batch_size}"


def show_speeds(heading: str, speeds: Sequence[Speed]) -> None:
    """The table of one setting, with ways by methods."""
    ways = list(dict.fromkeys((speed.way, speed.lanes) for speed in speeds))
    cells = {(speed.way, speed.lanes, speed.method): _cell(speed) for speed in speeds}
    rows = [[_way(way, lanes), *(cells[way, lanes, method] for method in METHODS)] for way, lanes in ways]
    terminal.show_table(heading, ["", *(method.upper() for method in METHODS)], rows, numeric=1)


def _way(way: str, lanes: int) -> str:
    if way in STACKED:
        return f"{'1 seed' if lanes == 1 else f'{lanes} seeds'}, {STACKED[way]}"
    if way == LANES:
        return "1 lane" if lanes == 1 else f"{lanes} lanes"
    return {LOADER: "one seed, DataLoader", MEMORY: "one seed, tensors in memory"}[way]


def _cell(speed: Speed) -> str:
    return f"{speed.images_per_second:,.0f}  x{speed.ratio:.1f}  {speed.share:4.0%}"


def show_divisions(divisions: Sequence[Division], lanes: int) -> None:
    """The table of trials side by side."""
    alone = next(division for division in divisions if (division.trials, division.threads) == (1, 1))
    rows = [
        [
            f"{division.trials} at once, {_threads(division.threads)} each",
            f"{division.total:,.0f}",
            f"{min(division.images_per_second) / alone.images_per_second[0] - 1:+.0%}",
        ]
        for division in divisions
    ]
    columns = ["", "images a second in total", "slowest trial, against one alone on 1 thread"]
    terminal.show_table(f"Trials side by side: SGD, {lanes} lanes, batch 16, 784-100-100-10", columns, rows, numeric=1)


def show_overheads(overheads: Sequence[Overhead]) -> None:
    """The table of what diagnostics cost, if they were timed."""
    if not overheads:
        return
    rows = [
        [
            overhead.sequence,
            f"{overhead.images:,}",
            f"{1000 * overhead.units_seconds:,.0f} ms",
            f"{1000 * overhead.curvature_seconds:,.0f} ms",
            f"{1000 * overhead.earlier_seconds:,.0f} ms",
            f"{1000 * overhead.onset_seconds:,.0f} ms",
            *(f"{overhead.seconds / overhead.training[method]:.1%}" for method in METHODS),
        ]
        for overhead in overheads
    ]
    seconds = sum(overhead.seconds for overhead in overheads)
    shares = [seconds / sum(overhead.training[method] for overhead in overheads) for method in METHODS]
    rows.append(["both sequences", "", "", "", "", "", *(f"{share:.1%}" for share in shares)])
    columns = [
        "",
        "images",
        "units, ranks, weights",
        "curvature",
        "an earlier task",
        "an onset",
        *(f"of {method.upper()}" for method in METHODS),
    ]
    title = f"Diagnostics of {overheads[0].lanes} lanes: time of each kind, and all of them as a share of the paper's training"
    terminal.show_table(title, columns, rows, numeric=1)


def advice(speeds: Sequence[Speed], divisions: Sequence[Division], device: str) -> list[str]:
    """Sentences on how to run a sweep on this machine."""
    sentences = []
    rates = {speed.lanes: speed.images_per_second for speed in speeds if speed.way == LANES and speed.method == "sgd"}
    if len(rates) > 1:
        best = max(rates.values())
        lanes = min(count for count, rate in rates.items() if rate >= ENOUGH * best)
        sentences.append(
            f"Seeds per trial: {lanes} or more, {rates[lanes] / best:.0%} of the best speed (--seeds {lanes})."
        )
    if divisions:
        best_total = max(division.total for division in divisions)
        enough = min(
            (division for division in divisions if division.total >= ENOUGH * best_total),
            key=lambda division: (division.threads, division.trials),
        )
        if device == "cuda":
            sentences.append(f"Trials at once on a GPU: {enough.trials} (--gpus-per-trial {1 / enough.trials:g}).")
        else:
            sentences.append(
                f"Trials at once: {enough.trials}, {_threads(enough.threads)} each (--cpus-per-trial {enough.threads})."
            )
    return sentences


def show_packs(costs: Sequence[packs.Cost]) -> None:
    """The table of what packs cost."""
    cells = {(cost.trials, cost.method): cost for cost in costs}
    rows = []
    for trials in dict.fromkeys(cost.trials for cost in costs):
        row = [cells[trials, method] for method in METHODS]
        told = [f"{1e6 * cost.seconds:,.0f} us  x{cost.ratio:.2f}  {cost.gain:.1f} times as fast" for cost in row]
        rows.append([f"{trials} ({row[0].lanes} lanes)", *told])
    title = f"Packs of trials of {packs.SEEDS} seeds, batch {packs.BATCH_SIZE}, 784-100-100-10"
    terminal.show_table(title, ["trials in a pack", *(method.upper() for method in METHODS)], rows, numeric=1)
    terminal.console.print(
        "Each cell: microseconds of a step of all lanes; ratio to a step of one trial; speed against the trials one by one.",
        markup=False,
        soft_wrap=True,
    )


def advice_on_packs(costs: Sequence[packs.Cost], device: str) -> str:
    """A sentence on the size of packs on this machine."""
    size = packs.worthwhile(list(costs))
    if device == "cuda":
        return (
            f"Trials of {packs.SEEDS} seeds in a pack: {size}; larger ones take more than {packs.HARDLY_MORE:g} times as long as "
            f"one trial (--pack {size}; --pack auto takes {LANES_PER_GPU} lanes, {LANES_PER_GPU // packs.SEEDS} such trials)."
        )
    least = {trials: min(cost.gain for cost in costs if cost.trials == trials) for trials in {c.trials for c in costs}}
    best = min(trials for trials, gain in least.items() if gain >= ENOUGH * max(least.values()))
    return (
        f"On this CPU packs of {best} trials of {packs.SEEDS} seeds train at least {least[best]:.1f} times as fast as the trials "
        f"one by one (--pack {best}; --pack auto takes 1)."
    )


def run_packs(*, data: str, data_dir: Path, seconds: float, threads: int, device: str, as_json: bool) -> int:
    """Times packs and shows it; returns the exit code.

    Raises StudyError if there is no such data set or device.
    """
    device, dataset = _loaded(data, data_dir, device)
    machine = _machine(dataset, device, threads, seconds)
    costs = packs.measured(dataset, device, seconds)
    sentence = advice_on_packs(costs, device)
    if as_json:
        listed = [asdict(cost) | {"lanes": cost.lanes, "gain": cost.gain} for cost in costs]
        terminal.console.print_json(json.dumps({**_plain_machine(machine), "packs": listed, "advice": [sentence]}))
        return 0
    show_first_line(machine)
    show_packs(costs)
    terminal.console.print(f"\n{sentence}", markup=False, soft_wrap=True)
    return 0


def run_interventions(*, data: str, data_dir: Path, seconds: float, threads: int, device: str, as_json: bool) -> int:
    """Times steps with each intervention; returns the exit code.

    Raises StudyError if there is no such data set or device.
    """
    device, dataset = _loaded(data, data_dir, device)
    machine = _machine(dataset, device, threads, seconds)
    costs = interventions.measured(dataset, device, seconds)
    if as_json:
        terminal.console.print_json(json.dumps({**_plain_machine(machine), "interventions": list(map(asdict, costs))}))
        return 0
    show_first_line(machine)
    cells = {(cost.intervention, cost.method): cost for cost in costs}
    rows = []
    for name in dict.fromkeys(cost.intervention for cost in costs):
        row = [cells[name, method] for method in interventions.METHODS]
        told = [f"{1e6 * cost.seconds:,.0f} us  x{cost.ratio:.2f}" for cost in row]
        rows.append([name or "none", "" if name is None else "steps" if row[0].in_steps else "boundaries", *told])
    title = (
        f"Steps with each intervention: {interventions.LANES} lanes, batch {interventions.BATCH_SIZE}, 784-100-100-10"
    )
    columns = ["intervention", "acts in", *(method.upper() for method in interventions.METHODS)]
    terminal.show_table(title, columns, rows, numeric=2)
    terminal.console.print(
        "Each cell: microseconds of a step of all lanes; ratio to a step without intervention. What an intervention "
        "does between tasks is left out. Default settings.",
        markup=False,
        soft_wrap=True,
    )
    return 0


def _loaded(data: str, data_dir: Path, device: str) -> tuple[str, Dataset]:
    """The device, "cpu" or "cuda", and the data set."""
    flat = outside.adopted({"data/name": data, "training/device": device}, Path())
    config = TrialConfig.from_flat(flat)
    return experiment.device_of(config), experiment.load_dataset(config, data_dir)


def _machine(dataset: Dataset, device: str, threads: int, seconds: float) -> Machine:
    """This machine, measured with so many threads, which it has from now on."""
    torch.set_num_threads(threads)
    device_name = provenance.training_facts(device, dataset.fingerprint)["device_name"]
    return Machine(device, device_name, threads, product_rate(device, max(seconds, 0.2)), dataset.name)


def _plain_machine(machine: Machine) -> dict[str, Any]:
    return {"machine": asdict(machine) | {"host": provenance.host(), **provenance.software()}}


def plain(
    machine: Machine,
    speeds: Sequence[Speed],
    divisions: Sequence[Division],
    overheads: Sequence[Overhead],
    peak_bytes: int,
    sentences: Sequence[str],
) -> dict[str, Any]:
    """Everything as plain data."""
    return {
        **_plain_machine(machine),
        "speeds": [asdict(speed) for speed in speeds],
        "side_by_side": [asdict(division) | {"total": division.total} for division in divisions],
        "diagnostics": [asdict(overhead) for overhead in overheads],
        "peak_bytes": peak_bytes,
        "advice": list(sentences),
    }


def show_end(peak_bytes: int, device: str, sentences: Sequence[str]) -> None:
    """The last lines: peak memory and advice."""
    where = "on the GPU" if device == "cuda" else "of this process, with its libraries and the data set"
    terminal.console.print(f"\nPeak memory {where}: {peak_bytes / MIB:,.0f} MiB.", markup=False)
    for sentence in sentences:
        terminal.console.print(sentence, markup=False, soft_wrap=True)


def run(
    *,
    data: str,
    data_dir: Path,
    widths: list[tuple[int, ...]],
    batch_sizes: list[int],
    lane_counts: list[int],
    seconds: float,
    threads: int,
    device: str,
    as_json: bool,
    model: str = "mlp",
    compiled: bool = False,
) -> int:
    """Times everything and shows it; returns the exit code.

    Tables are shown as soon as they are measured. Diagnostics and trials side by side are measured with the MLP only.

    Raises:
        StudyError: there is no such model, data set or device, a network is too large for this machine, the pictures are too
            small for it, or torch.compile has no compiler.
    """
    if model not in MODELS:
        raise StudyError(f"--model {model} cannot be timed; choose {' or '.join(MODELS)}.")
    device, dataset = _loaded(data, data_dir, device)
    for shape in widths:
        sizes = {"model": {"name": model, "widths": list(shape)}, "seeds": list(range(max(lane_counts)))}
        training = {"batch_size": max(batch_sizes), "device": device}
        experiment.check_memory(TrialConfig.from_plain({**sizes, "training": training}), dataset)
    machine = _machine(dataset, device, threads, seconds)
    if not as_json:
        show_machine(machine)
        if model == "mlp" and device == "cpu" and not stacked_jax.is_installed():
            terminal.console.print("JAX is not installed, so it is not compared with (pip install jax).", markup=False)
    speeds: list[Speed] = []
    settings = [Setting(shape, size) for shape in widths for size in batch_sizes]
    for of_setting in measured(
        dataset, settings, lane_counts, device, seconds, machine.product_rate, model, compiled=compiled
    ):
        speeds += of_setting
        if not as_json:
            show_speeds(title(of_setting[0].setting, dataset, model), of_setting)
    peak = peak_bytes(device)
    if model != "mlp":
        return _end(machine, speeds, peak, as_json)
    lanes = 10 if 10 in lane_counts else max(lane_counts)
    overheads = _overheads(dataset, lanes, device, speeds, 2 if seconds >= BRIEF_SECONDS else 1)
    divisions = side_by_side.divisions(dataset, lanes, device, 10 * seconds)
    paper = Setting(side_by_side.WIDTHS, side_by_side.BATCH_SIZE)
    advised = paper if paper in settings else settings[0]
    sentences = advice([speed for speed in speeds if speed.setting == advised], divisions, device)
    if as_json:
        terminal.console.print_json(json.dumps(plain(machine, speeds, divisions, overheads, peak, sentences)))
    else:
        show_overheads(overheads)
        show_divisions(divisions, lanes)
        show_end(peak, device, sentences)
    return 0


def _end(machine: Machine, speeds: Sequence[Speed], peak: int, as_json: bool) -> int:
    """Shows what is left to show where only speeds are measured."""
    sentences = advice([speed for speed in speeds if speed.setting == speeds[0].setting], (), machine.device)
    if as_json:
        terminal.console.print_json(json.dumps(plain(machine, speeds, (), (), peak, sentences)))
    else:
        show_end(peak, machine.device, sentences)
    return 0


def _overheads(dataset: Dataset, lanes: int, device: str, speeds: list[Speed], repeats: int) -> list[Overhead]:
    """What diagnostics cost in the paper's task sequences.

    Empty when the paper's network has not been timed.
    """
    paper = Setting(side_by_side.WIDTHS, side_by_side.BATCH_SIZE)
    rates = {
        speed.method: speed.images_per_second
        for speed in speeds
        if (speed.setting, speed.way, speed.lanes) == (paper, LANES, lanes)
    }
    if not rates:
        return []
    return [diagnostics_cost.overhead(dataset, name, lanes, device, rates, repeats) for name in diagnostics_cost.PAPER]
