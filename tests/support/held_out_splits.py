"""Whether it helps a search to hold other images out in each trial.

    python tests/support/held_out_splits.py simulated
    python tests/support/held_out_splits.py trained --fraction 0.02

A search is made twice: all trials hold the same images out, as the study does, or each trial holds out images of its own (Nagler,
Schneider, Bischl and Feurer 2024, arXiv 2405.15393). Both select by accuracy on what is held out. Printed is how much better the
selected configuration of the second is, in true accuracy (simulated), or in test accuracy on fresh seeds (trained), paired over
searches, with a 95 % t interval.

Simulated: N configurations of a true accuracy that falls off from the best at random places of a square, and n held-out images. A
configuration gets an image right if its latent strength is above the image's difficulty: a part shared by all configurations, a
part shared by configurations that are near each other (a smooth random function of the place), and a part of its own. Held out
anew, an image has another difficulty in each trial.

Trained: class pairs, SAM over learning rate and rho, one lane or more, with the study's own search and training.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from sweep_fixtures import FACTS

import search_spaces
from study import experiment
from study.config import TrialConfig
from study.decision.intervals import t_interval
from study.sweep import winners
from study.sweep.conductor import Conductor
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.sweep.search_plan import make_plan
from study.tasks import class_pairs
from study.training import task_log, trainer

FRESH = tuple(range(100_000, 100_010))
"""Seeds on which a selected configuration is judged."""


# --- Simulated -----------------------------------------------------------------------------------------------------------

WAVES = 60
"""Random waves of the part of a difficulty that near configurations share (Rahimi and Recht 2007)."""

SHARES = {
    "all shared": (1.0, 0.0),
    "mostly shared": (0.8, 0.1),
    "shared by neighbours": (0.2, 0.7),
    "a configuration's own": (0.0, 0.0),
}
"""Variance of a difficulty that is shared by all, and by neighbours; the rest is a configuration's own."""


def simulated(draw: np.random.Generator, shares: tuple[float, float], trials: int, images: int, slope: float) -> float:
    """True accuracy that is gained if each trial has images of its own.

    Args:
        draw: source of everything random.
        shares: see `SHARES`.
        trials, images: number of configurations and of held-out images.
        slope: true accuracy lost at distance 1 from the best place, a share.
    """
    places = draw.random((trials, 2))
    accuracy = 0.95 - slope * np.linalg.norm(places - 0.5, axis=1) ** 2 * 2
    strength = scipy.stats.norm.ppf(accuracy)[:, None]  # [trial, 1]
    common, near = shares
    waves, phases = 3 * draw.standard_normal((WAVES, 2)), 2 * np.pi * draw.random(WAVES)
    features = np.sqrt(2 / WAVES) * np.cos(places @ waves.T + phases)  # [trial, wave]
    own = np.sqrt(1 - common - near) * draw.standard_normal((trials, images))
    fixed = np.sqrt(common) * draw.standard_normal(images) + np.sqrt(near) * features @ draw.standard_normal(
        (WAVES, images)
    )
    anew = np.sqrt(common + near) * draw.standard_normal((trials, images))
    chosen = [int(np.argmax((strength > shared + own).mean(axis=1))) for shared in (fixed, anew)]
    return float(accuracy[chosen[1]] - accuracy[chosen[0]])


def simulate(searches: int) -> None:
    """Prints a row for each landscape, kind of noise and size."""
    print(f"{searches} searches each; true accuracy with images of its own minus that with the same images")
    for slope in (0.02, 0.2):
        for name, shares in SHARES.items():
            for trials, images in ((25, 20), (25, 200), (100, 20), (100, 200)):
                draw = np.random.default_rng(0)
                gained = [simulated(draw, shares, trials, images, slope) for _ in range(searches)]
                print(
                    f"slope {slope:4}  {name:22} {trials:3} trials {images:3} images  {_interval(gained)}", flush=True
                )


# --- Trained -------------------------------------------------------------------------------------------------------------


@contextmanager
def images_of_its_own(number: int | None) -> Iterator[None]:
    """Within it, what is held out depends on the number of the trial too.

    None: it does not.
    """
    split = class_pairs.split
    if number is not None:
        class_pairs.split = lambda labels, fraction, seeds: split(
            labels, fraction, [s + 1000 * (number + 1) for s in seeds]
        )
    try:
        yield
    finally:
        class_pairs.split = split


def trained(config: TrialConfig, number: int | None) -> Iterator[trainer.TaskResult]:
    """The tasks of one trial."""
    dataset = experiment.load_dataset(config, Path("data"))
    with images_of_its_own(number):
        made = experiment.build(config, dataset)
    yield from trainer.train(made)


def searched(sampler: str, seed: int, options: argparse.Namespace, *, is_own: bool) -> tuple[dict[str, Any], float]:
    """What a search selects: the settings, and their objective."""
    plan = make_plan(
        search_spaces.load("quickstart"),
        name="searched",
        scenarios=["class_pairs"],
        methods=["sam"],
        trials=options.trials,
        sampler=sampler,
        search_seed=seed,
        overrides={**_settings(options)},
    )
    group = plan.groups[0].model_copy(update={"points": ()})
    seeds = tuple(range(100 * seed, 100 * seed + options.lanes))
    plan = plan.model_copy(update={"groups": (group,), "seeds": seeds})
    with tempfile.TemporaryDirectory() as directory:
        folder = SweepFolder.create(Path(directory), plan, Execution(data_dir="data"), {group.scenario: options.tasks})
        conductor = Conductor(folder)
        while (history := conductor.propose()) is not None:
            conductor.started(history.key)
            config = TrialConfig.from_plain(history.config)
            for result in trained(config, history.number if is_own else None):
                conductor.result(history.key, task_log.task_line(result, options.tasks), FACTS)
            conductor.ended(history.key)
        histories = {history.key: history for history in folder.histories()}
        best = histories[winners.best_keys(list(histories.values()))[0]]
        assert best.objective is not None
        return best.tried, best.objective


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of all trials."""
    return {
        "data/name": options.data,
        "tasks/count": options.tasks,
        "tasks/validation_fraction": options.fraction,
        "tasks/images_per_task": options.images,
        "training/device": "cpu",
        **{f"diagnostics/{name}_every": 0 for name in ("units", "curvature", "forgetting")},
    }


def judged(tried: dict[str, Any], options: argparse.Namespace) -> float:
    """Mean test accuracy of settings on fresh seeds."""
    plan = make_plan(search_spaces.load("quickstart"), name="judged", scenarios=["class_pairs"], methods=["sam"])
    config = plan.trial_config(plan.groups[0], tried).flat() | _settings(options) | {"seeds": list(FRESH)}
    results = list(trained(TrialConfig.from_flat(config, "it"), None))
    return float(torch.stack([result.test_accuracy for result in results]).mean())


def train(options: argparse.Namespace) -> None:
    """Prints a row for each sampler."""
    torch.set_num_threads(1)
    print(
        f"{options.data}: {options.searches} searches of {options.trials} trials, {options.lanes} lane(s) and "
        f"{options.tasks} tasks each, fraction {options.fraction:g} held out, trained on "
        f"{options.images or 'all'} images of a task"
    )
    for sampler in options.sampler:
        rows = []
        for seed in range(options.first, options.first + options.searches):
            row = []
            for is_own in (False, True):
                tried, objective = searched(sampler, seed, options, is_own=is_own)
                row += [judged(tried, options), objective]
            rows.append(row)
        same, promised, own, promised_own = np.array(rows).T
        print(
            f"{sampler:7} test accuracy {same.mean():.4f} with the same images, {own.mean():.4f} with its own; "
            f"difference {_interval(own - same)}; objective minus that {np.mean(promised - same):+.4f}, "
            f"{np.mean(promised_own - own):+.4f}",
            flush=True,
        )


def _interval(values: Sequence[float]) -> str:
    interval = t_interval(values)
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def main() -> None:
    """Runs one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=("simulated", "trained"))
    parser.add_argument("--searches", type=int, default=0, help="default: 2,000 simulated, 20 trained")
    parser.add_argument("--sampler", nargs="*", default=("random", "tpe"))
    parser.add_argument("--trials", type=int, default=25)
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--fraction", type=float, default=0.02, help="of the training images, held out")
    parser.add_argument("--images", type=int, help="of each task, to train on; default: all")
    parser.add_argument("--first", type=int, default=0, help="the first search seed")
    options = parser.parse_args()
    options.searches = options.searches or (2000 if options.way == "simulated" else 20)
    if options.way == "simulated":
        simulate(options.searches)
    else:
        train(options)


if __name__ == "__main__":
    main()
