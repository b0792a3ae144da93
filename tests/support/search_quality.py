"""What it costs a search to draw its trials in batches: `python tests/support/search_quality.py`.

Samplers search a made-up landscape of learning rate and rho, with a ridge, a cliff and noise, with as many trials in batches of
several sizes. Nothing is trained. Printed is the regret of the best trial: how much its true objective lies below the highest.
"""

import argparse
import math
import statistics
import tempfile
from pathlib import Path

from sweep_fixtures import FACTS, plan_of, task_line

from study.sweep.conductor import Conductor
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder

SAMPLERS = ("random", "tpe", "gp", "cmaes")
BATCHES = (1, 5, 10, 20)


def objective(tried: dict[str, float]) -> float:
    """A share of images like those of a study, at most 0.95.

    It falls off on both sides of a ridge between learning rate and rho, and to chance where training would diverge.
    """
    lr, rho = math.log10(tried["optimizer/lr"]), math.log10(tried["optimizer/rho"])
    if lr > 0.3 - 0.3 * rho:
        return 0.5
    return 0.95 - 0.06 * (lr + 1 + 0.4 * (rho + 1)) ** 2 - 0.02 * (rho + 1.3) ** 2


HIGHEST = 0.95 - min(
    0.06 * (lr / 100 + 1 + 0.4 * (rho / 100 + 1)) ** 2 + 0.02 * (rho / 100 + 1.3) ** 2
    for lr in range(-300, 1)
    for rho in range(-300, 31)
)


def regret(sampler: str, batch: int, trials: int, seed: int) -> float:
    """How far below the highest objective the best trial of a search is."""
    plan = plan_of(methods=["sam"], trials=trials, sampler=sampler, search_seed=seed)
    group = plan.groups[0].model_copy(update={"points": ()})
    plan = plan.model_copy(update={"batch": batch, "groups": (group,)})
    best = 0.0
    with tempfile.TemporaryDirectory() as directory:
        folder = SweepFolder.create(Path(directory), plan, Execution(data_dir="data"), {group.scenario: 1})
        conductor = Conductor(folder)
        while pack := conductor.propose_pack(batch):
            for history in pack:
                value = objective(history.tried)
                best = max(best, value)
                conductor.started(history.key)
                conductor.result(history.key, task_line(history, 0, [value] * 2), FACTS)
                conductor.ended(history.key)
    return HIGHEST - best


def main() -> None:
    """Prints a row for each sampler and size of batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--sampler", nargs="*", default=SAMPLERS)
    options = parser.parse_args()
    print(
        f"{options.trials} trials, {options.searches} searches each; regret of the best trial: mean, standard error, median"
    )
    for sampler in options.sampler:
        for batch in BATCHES:
            found = [regret(sampler, batch, options.trials, seed) for seed in range(options.searches)]
            error = statistics.stdev(found) / math.sqrt(len(found))
            middle = statistics.median(found)
            print(f"{sampler:8} batch {batch:3}  {statistics.mean(found):.4f} +- {error:.4f}, {middle:.4f}", flush=True)


if __name__ == "__main__":
    main()
