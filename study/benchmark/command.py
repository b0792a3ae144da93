"""`study bench`, from words to tables."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from study import benchmark, display, experiment, facts
from study.benchmark import LANES, Setting, Speed, operations, overhead, page, sharing
from study.benchmark.overhead import Overhead
from study.config import TrialConfig
from study.contracts import Dataset


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
    seen = facts.training_facts(where, dataset.fingerprint)
    rate = operations.product_rate(where, max(seconds, 0.2))
    machine = page.Machine(where, seen["device_name"], threads, rate, dataset.name)
    if not as_json:
        page.show_machine(machine)
    speeds: list[Speed] = []
    settings = [Setting(shape, size) for shape in widths for size in batch_sizes]
    for found in benchmark.measured(dataset, settings, lane_counts, where, seconds, rate):
        speeds += found
        if not as_json:
            heading = page.title(found[0].setting, dataset.train_images.shape[1], dataset.class_count)
            page.show_speeds(heading, found)
    peak = benchmark.peak_bytes(where)
    lanes = 10 if 10 in lane_counts else max(lane_counts)
    looked = _overheads(dataset, lanes, where, speeds)
    divisions = sharing.divisions(dataset, lanes, where, 10 * seconds)
    usual = Setting(sharing.WIDTHS, sharing.BATCH_SIZE)
    asked = usual if usual in settings else settings[0]
    said = page.advice([speed for speed in speeds if speed.setting == asked], divisions, where)
    if as_json:
        display.console.print_json(json.dumps(page.plain(machine, speeds, divisions, looked, peak, said)))
    else:
        page.show_overheads(looked)
        page.show_divisions(divisions, lanes)
        page.show_end(peak, where, said)
    return 0


def _overheads(dataset: Dataset, lanes: int, device: str, speeds: list[Speed]) -> list[Overhead]:
    """What diagnostics cost in the paper's task sequences; nothing when the paper's network has not been timed."""
    usual = Setting(sharing.WIDTHS, sharing.BATCH_SIZE)
    known = {
        speed.method: speed.images_per_second
        for speed in speeds
        if (speed.setting, speed.way, speed.lanes) == (usual, LANES, lanes)
    }
    return [overhead.overhead(dataset, name, lanes, device, known) for name in overhead.PAPER] if known else []
