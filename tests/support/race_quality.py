"""What a race wins or loses against the plain search: `python tests/support/race_quality.py`.

Both search the landscape of `search_quality.py` with as many gradient evaluations: the race has as many configurations as it can
pay for with the seeds of the plain search. Each seed of each configuration has noise of its own. Nothing is trained. Printed is
the regret of the configuration that is selected: how much its true objective lies below the highest.
"""

import argparse
import math
import random
import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

from search_quality import HIGHEST, objective
from sweep_fixtures import FACTS, plan_of, task_line

from study.decision import halving
from study.decision.halving import Entrant
from study.sweep.conductor import Conductor
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.sweep.plan import Plan
from study.sweep.winners import best_keys, check_selectable

NOISE = (0.001, 0.0025, 0.01, 0.03)
"""Standard deviations between seeds.

Of the mean validation accuracy of the archived `beyond_pairs` it is 0.001 in the best quarter of the trials and 0.0024 in half
of them, both medians; one trial in ten has more than 0.05.
"""

SEEDS = (3, 10)


def rungs_from(first: int, seeds: int) -> tuple[int, ...]:
    """The rungs of a race that starts with more seeds than one."""
    return (*(rung for power in range(10) if (rung := first * 2**power) < seeds), seeds)


def plan(scheduler: str, sampler: str, trials: int, seeds: int, search: int) -> Plan:
    """The plan of one search, without points."""
    made = plan_of(
        methods=["sam"], trials=trials, seeds=seeds, sampler=sampler, scheduler=scheduler, search_seed=search
    )
    return made.model_copy(update={"groups": (made.groups[0].model_copy(update={"points": ()}),)})


def seeds_trained(configurations: int, rungs: tuple[int, ...]) -> int:
    """Seeds that a race trains."""
    sizes = halving.sizes(configurations, len(rungs))
    return sum(count * (seeds - before) for count, before, seeds in zip(sizes, (0, *rungs), rungs, strict=False))


def affordable(budget: int, rungs: tuple[int, ...]) -> int:
    """Configurations that a race can have."""
    return max(count for count in range(1, budget + 1) if seeds_trained(count, rungs) <= budget)


def regret(plan: Plan, noise: float) -> tuple[float, int]:
    """How far below the highest the selected configuration is, and seeds trained."""
    trained = 0
    with tempfile.TemporaryDirectory() as directory:
        counts = {group.scenario: 1 for group in plan.groups}
        folder = SweepFolder.create(Path(directory), plan, Execution(data_dir="data"), counts)
        conductor = Conductor(folder)
        while (history := conductor.propose()) is not None:
            true = objective(history.tried)
            draws = [random.Random(f"{plan.search_seed} {history.tried} {seed}") for seed in history.seeds]
            values = [true + draw.gauss(0, noise) for draw in draws]
            trained += len(values)
            conductor.started(history.key)
            conductor.result(history.key, task_line(history, 0, values, [0.5] * len(values)), FACTS)
            conductor.ended(history.key)
        histories = {each.key: each for each in check_selectable(folder)}
        (best,) = best_keys(list(histories.values()))
    return HIGHEST - objective(histories[best].tried), trained


def without_limit(entrants: Sequence[Entrant], configurations: int, rungs: int) -> Entrant | None:
    """`halving.promoted` as in the paper: whoever is in the upper half now."""
    last = halving._last_places(entrants, configurations, rungs)
    for rung in reversed(range(rungs - 1)):
        judged = halving.ranked(entrants, rung)
        upper = judged[: max(last[rung], len(judged) // halving.REDUCTION)]
        if waiting := [each for each in upper if each.begun == rung + 1]:
            return waiting[0]
    return None


def main() -> None:
    """Prints a row for each way to search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20, help="of the plain search")
    parser.add_argument("--searches", type=int, default=100)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--noise", type=float, nargs="*", default=NOISE)
    parser.add_argument("--first", type=int, nargs="*", default=(1,), help="seeds of a race's first rung")
    parser.add_argument("--one", action="store_true", help="also a plain search with one seed of each configuration")
    parser.add_argument("--unlimited", action="store_true", help="also a race whose promotions have no limit")
    options = parser.parse_args()
    print(f"{options.sampler}, {options.searches} searches each; regret: mean, standard error, median")
    for seeds in options.seeds:
        budget = options.trials * seeds
        for noise in options.noise:
            print(f"{seeds} seeds, noise {noise}: {budget} seeds trained", flush=True)
            show(
                "plain",
                [plan("none", options.sampler, options.trials, seeds, each) for each in range(options.searches)],
                noise,
            )
            if options.one:
                plans = [plan("none", options.sampler, budget, 1, each) for each in range(options.searches)]
                show("plain, 1 seed", plans, noise)
            for first in options.first:
                rungs_of = partial(rungs_from, first)
                count = affordable(budget, rungs_of(seeds))
                with patch.object(halving, "rungs_of", rungs_of):
                    plans = [plan("race", options.sampler, count, seeds, each) for each in range(options.searches)]
                    show(f"race from {first}", plans, noise)
                    if options.unlimited:
                        with patch.object(halving, "promoted", without_limit):
                            show("without limit", plans, noise)


def show(title: str, plans: list[Plan], noise: float) -> None:
    """Prints the regret of some searches."""
    found, trained = zip(*(regret(each, noise) for each in plans), strict=True)
    error = statistics.stdev(found) / math.sqrt(len(found))
    count, spent = plans[0].groups[0].trials, statistics.mean(trained)
    print(
        f"  {title:14} {count:3} configurations, {spent:3.0f} seeds  {statistics.mean(found):.5f} +- {error:.5f}, "
        f"{statistics.median(found):.5f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
