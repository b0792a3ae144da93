"""What activation functions and layer norm cost: microseconds of processor time for an image.

    python tests/support/nonlinearity_speed.py mlp mnist5k
    python tests/support/nonlinearity_speed.py cnn natural_patches

Each nonlinearity is trained by the network's own gradient and by autograd on whole images, in turn, so that other work on the
machine slows all of them. 10 lanes, batch 16, one thread, the default network; the median of the rounds.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import get_args

import tiny
import torch

from study.config import TrialConfig
from study.experiment import load_dataset
from study.models._nonlinearities import ActivationName
from study.timing.speed import Lanes, entered, lanes_of

LANES, BATCH, ROUNDS = 10, 16, 5
METHODS = ("sgd", "sam")
KINDS = [*((name, "none") for name in get_args(ActivationName)), ("relu", "plain"), ("relu", "learnt")]


def microseconds(lanes: Lanes, steps: int) -> float:
    """Of one image in one lane."""
    began = time.process_time()
    lanes.seconds(steps)
    return (time.process_time() - began) / (steps * LANES * BATCH) * 1e6


def main(model: str, data: str) -> None:
    """Prints a table of Markdown."""
    torch.set_num_threads(1)
    dataset = load_dataset(TrialConfig.from_plain({"data": {"name": data}}), Path("nowhere"))
    steps = {"mlp": 60, "cnn": 4}[model]
    timed: dict[tuple[str, str, str, bool], Lanes] = {}
    for name, norm in KINDS:
        for method in METHODS:
            chosen = {"name": model, "activation": name, "layer_norm": norm}
            own = lanes_of(dataset, method, LANES, (), BATCH, "cpu", model=chosen)
            timed[name, norm, method, True] = own
            timed[name, norm, method, False] = entered(tiny.plainly(own.experiment))
    found: dict[tuple[str, str, str, bool], list[float]] = {key: [] for key in timed}
    for turn in range(ROUNDS + 1):
        for key, lanes in timed.items():
            cost = microseconds(lanes, steps)
            if turn:  # the first warms up
                found[key].append(cost)
    print(f"| `{model}`, {data} | " + " | ".join(f"{method}, own | {method}, autograd" for method in METHODS) + " |")
    print("| --- " * (1 + 2 * len(METHODS)) + "|")
    for name, norm in KINDS:
        cells = [
            f"{statistics.median(found[name, norm, method, own]):.1f}" for method in METHODS for own in (True, False)
        ]
        print(f"| {name}{'' if norm == 'none' else f', {norm} layer norm'} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
