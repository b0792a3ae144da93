"""What was timed, as tables for people and as plain data for machines, and what it means for a sweep on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from study import experiment, provenance
from study.cli import terminal
from study.config import TrialConfig
from study.contracts import Dataset
from study.timing import diagnostics_cost, side_by_side
from study.timing.bench import LANES, LOADER, MEMORY, METHODS, Setting, Speed, measured, peak_bytes, product_rate
from study.timing.diagnostics_cost import Overhead
from study.timing.side_by_side import Division

ENOUGH = 0.9
"""Share of the best speed that is as good as the best."""

MIB = 2**20


@dataclass(frozen=True)
class Machine:
    """What everything was timed on.

    Attributes:
        device, device_name, threads: of this process.
        product_rate: floating-point operations a second, see `study.timing.bench`.
        data: name of the data set.
    """

    device: str
    device_name: str
    threads: int
    product_rate: float
    data: str


def show_machine(machine: Machine) -> None:
    """The first lines: what the numbers are."""
    say = terminal.console.print
    say(
        f"{machine.device_name}, torch {provenance.versions()['torch']}, {_threads(machine.threads)}, {machine.data}",
        markup=False,
    )
    say(
        f"Matrix products: {machine.product_rate / 1e9:,.0f} GFLOP/s (float32, 1024 x 1024; the best of some).\n"
        "Images a second over all seeds; times the DataLoader's; share of the matrix products' rate. Operations of an image:\n"
        "2 in out a layer, forward, again for its weights' gradient, and again but for the first layer for the errors; SAM and\n"
        "GNP take two gradients. Each is the best of three rounds in which all ways took turns.",
        markup=False,
        soft_wrap=True,
    )


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def title(setting: Setting, features: int, outputs: int) -> str:
    """For example "784-100-100-10, batch 16"."""
    return f"{'-'.join(map(str, (features, *setting.widths, outputs)))}, batch {setting.batch_size}"


def show_speeds(heading: str, speeds: Sequence[Speed]) -> None:
    """One setting: a row for each way, a cell for each method."""
    ways = list(dict.fromkeys((speed.way, speed.lanes) for speed in speeds))
    found = {(speed.way, speed.lanes, speed.method): speed for speed in speeds}
    rows = [[_way(way, lanes), *(_cell(found[way, lanes, method]) for method in METHODS)] for way, lanes in ways]
    terminal.show_table(heading, ["", *(method.upper() for method in METHODS)], rows, numeric=1)


def _way(way: str, lanes: int) -> str:
    if way == LANES:
        return "1 lane" if lanes == 1 else f"{lanes} lanes"
    return {LOADER: "one seed, DataLoader", MEMORY: "one seed, tensors in memory"}[way]


def _cell(speed: Speed) -> str:
    return f"{speed.images_per_second:,.0f}  x{speed.ratio:.1f}  {speed.share:4.0%}"


def show_divisions(divisions: Sequence[Division], lanes: int) -> None:
    """Trials at once."""
    alone = _alone(divisions)
    rows = [
        [
            f"{division.trials} at once, {_threads(division.threads)} each",
            f"{division.total:,.0f}",
            f"{min(division.images_per_second) / alone.images_per_second[0] - 1:+.0%}",
        ]
        for division in divisions
    ]
    columns = ["", "images a second together", "slowest trial to one alone on 1 thread"]
    terminal.show_table(f"Trials side by side: SGD, {lanes} lanes, batch 16, 784-100-100-10", columns, rows, numeric=1)


def show_overheads(looked: Sequence[Overhead]) -> None:
    """What diagnostics cost."""
    if not looked:
        return
    rows = [
        [
            one.sequence,
            f"{one.images:,}",
            f"{1000 * one.units_seconds:,.0f} ms",
            f"{1000 * one.curvature_seconds:,.0f} ms",
            f"{1000 * one.earlier_seconds:,.0f} ms",
            *(f"{one.seconds / one.training[method]:.1%}" for method in METHODS),
        ]
        for one in looked
    ]
    seconds = sum(one.seconds for one in looked)
    shares = [seconds / sum(one.training[method] for one in looked) for method in METHODS]
    rows.append(["both sequences", "", "", "", "", *(f"{share:.1%}" for share in shares)])
    columns = [
        "",
        "images",
        "units, ranks, weights",
        "curvature",
        "an earlier task",
        *(f"of {method.upper()}" for method in METHODS),
    ]
    heading = f"Diagnostics: a look into {looked[0].lanes} lanes, and all looks of the paper's sequences as shares of training"
    terminal.show_table(heading, columns, rows, numeric=1)


def _alone(divisions: Sequence[Division]) -> Division:
    return next(division for division in divisions if (division.trials, division.threads) == (1, 1))


def advice(speeds: Sequence[Speed], divisions: Sequence[Division], device: str) -> list[str]:
    """What a sweep on this machine should do, as sentences."""
    said = []
    rates = {speed.lanes: speed.images_per_second for speed in speeds if speed.way == LANES and speed.method == "sgd"}
    if len(rates) > 1:
        best = max(rates.values())
        lanes = min(count for count, rate in rates.items() if rate >= ENOUGH * best)
        said.append(f"Seeds of a trial: {lanes} or more, {rates[lanes] / best:.0%} of the best speed (--seeds).")
    if divisions:
        best_total = max(division.total for division in divisions)
        enough = min(
            (division for division in divisions if division.total >= ENOUGH * best_total),
            key=lambda division: (division.threads, division.trials),
        )
        if device == "cuda":
            said.append(f"Trials at once on a GPU: {enough.trials} (--gpus-per-trial {1 / enough.trials:g}).")
        else:
            said.append(
                f"Trials at once: {enough.trials}, {_threads(enough.threads)} each (--cpus-per-trial {enough.threads})."
            )
    return said


def plain(
    machine: Machine,
    speeds: Sequence[Speed],
    divisions: Sequence[Division],
    looked: Sequence[Overhead],
    peak_bytes: int,
    said: Sequence[str],
) -> dict[str, Any]:
    """Everything as plain data."""
    return {
        "machine": asdict(machine)
        | {"host": provenance.host(), "versions": provenance.versions(), "git_commit": provenance.git_commit()},
        "speeds": [asdict(speed) for speed in speeds],
        "side_by_side": [asdict(division) | {"total": division.total} for division in divisions],
        "diagnostics": [asdict(one) for one in looked],
        "peak_bytes": peak_bytes,
        "advice": list(said),
    }


def show_end(peak_bytes: int, device: str, said: Sequence[str]) -> None:
    """Memory, and the advice."""
    where = "on the GPU" if device == "cuda" else "of this process, its libraries and the data set included"
    terminal.console.print(f"\nPeak memory {where}: {peak_bytes / MIB:,.0f} MiB.", markup=False)
    for sentence in said:
        terminal.console.print(sentence, markup=False, soft_wrap=True)


def bench(
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
) -> int:
    """Times everything, shows it as it comes, and returns the exit code.

    Raises:
        StudyError: there is no such data set or device.
    """
    config = TrialConfig.from_plain({"data": {"name": data}, "training": {"device": device}})
    where = experiment.device_of(config)
    dataset = experiment.load_dataset(config, data_dir)
    torch.set_num_threads(threads)
    seen = provenance.training_facts(where, dataset.fingerprint)
    rate = product_rate(where, max(seconds, 0.2))
    machine = Machine(where, seen["device_name"], threads, rate, dataset.name)
    if not as_json:
        show_machine(machine)
    speeds: list[Speed] = []
    settings = [Setting(shape, size) for shape in widths for size in batch_sizes]
    for found in measured(dataset, settings, lane_counts, where, seconds, rate):
        speeds += found
        if not as_json:
            heading = title(found[0].setting, dataset.train_images.shape[1], dataset.class_count)
            show_speeds(heading, found)
    peak = peak_bytes(where)
    lanes = 10 if 10 in lane_counts else max(lane_counts)
    looked = _overheads(dataset, lanes, where, speeds)
    divisions = side_by_side.divisions(dataset, lanes, where, 10 * seconds)
    usual = Setting(side_by_side.WIDTHS, side_by_side.BATCH_SIZE)
    asked = usual if usual in settings else settings[0]
    said = advice([speed for speed in speeds if speed.setting == asked], divisions, where)
    if as_json:
        terminal.console.print_json(json.dumps(plain(machine, speeds, divisions, looked, peak, said)))
    else:
        show_overheads(looked)
        show_divisions(divisions, lanes)
        show_end(peak, where, said)
    return 0


def _overheads(dataset: Dataset, lanes: int, device: str, speeds: list[Speed]) -> list[Overhead]:
    """What diagnostics cost in the paper's task sequences; nothing when the paper's network has not been timed."""
    usual = Setting(side_by_side.WIDTHS, side_by_side.BATCH_SIZE)
    known = {
        speed.method: speed.images_per_second
        for speed in speeds
        if (speed.setting, speed.way, speed.lanes) == (usual, LANES, lanes)
    }
    return (
        [diagnostics_cost.overhead(dataset, name, lanes, device, known) for name in diagnostics_cost.PAPER]
        if known
        else []
    )
