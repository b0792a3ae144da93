"""What was timed, as tables for people and as plain data for machines, and what it means for a sweep on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from study import display, facts
from study.benchmark import LANES, LOADER, MEMORY, METHODS, Setting, Speed
from study.benchmark.overhead import Overhead
from study.benchmark.sharing import Division

ENOUGH = 0.9
"""Share of the best speed that is as good as the best."""

MIB = 2**20


@dataclass(frozen=True)
class Machine:
    """What everything was timed on.

    Attributes:
        device, device_name, threads: of this process.
        product_rate: floating-point operations a second, see `study.benchmark.operations`.
        data: name of the data set.
    """

    device: str
    device_name: str
    threads: int
    product_rate: float
    data: str


def show_machine(machine: Machine) -> None:
    """The first lines: what the numbers are."""
    say = display.console.print
    say(
        f"{machine.device_name}, torch {facts.versions()['torch']}, {_threads(machine.threads)}, {machine.data}",
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
    display.show_table(heading, ["", *(method.upper() for method in METHODS)], rows, numeric=1)


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
    display.show_table(f"Trials side by side: SGD, {lanes} lanes, batch 16, 784-100-100-10", columns, rows, numeric=1)


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
    display.show_table(heading, columns, rows, numeric=1)


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
        | {"host": facts.host(), "versions": facts.versions(), "git_commit": facts.git_commit()},
        "speeds": [asdict(speed) for speed in speeds],
        "side_by_side": [asdict(division) | {"total": division.total} for division in divisions],
        "diagnostics": [asdict(one) for one in looked],
        "peak_bytes": peak_bytes,
        "advice": list(said),
    }


def show_end(peak_bytes: int, device: str, said: Sequence[str]) -> None:
    """Memory, and the advice."""
    where = "on the GPU" if device == "cuda" else "of this process, its libraries and the data set included"
    display.console.print(f"\nPeak memory {where}: {peak_bytes / MIB:,.0f} MiB.", markup=False)
    for sentence in said:
        display.console.print(sentence, markup=False, soft_wrap=True)
