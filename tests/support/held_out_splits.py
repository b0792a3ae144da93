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

Trained: class pairs, random search of SAM's learning rate and rho over the quickstart's ranges, with the study's own training.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import scipy.stats
import torch
from torch import Tensor

import search_spaces
from study import experiment
from study.config import TrialConfig
from study.decision.intervals import t_interval
from study.sweep.plan import Plan
from study.sweep.search_plan import make_plan
from study.tasks import class_pairs
from study.training import trainer

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
def images_of_its_own(lanes: int) -> Iterator[None]:
    """Within it, each trial of a stack, of so many lanes, holds other images out."""
    split = class_pairs.split

    def own(labels: Tensor, fraction: float, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        return split(labels, fraction, [seed + 1000 * (place // lanes + 1) for place, seed in enumerate(seeds)])

    class_pairs.split = own
    try:
        yield
    finally:
        class_pairs.split = split


def accuracies(configs: Sequence[TrialConfig], *, is_own: bool) -> tuple[np.ndarray, np.ndarray]:
    """Validation and test accuracy of trials, trained as one stack, [trial]."""
    dataset = experiment.load_dataset(configs[0], Path("data"))
    with images_of_its_own(len(configs[0].seeds)) if is_own else nullcontext():
        made = experiment.build_stack(configs, dataset)
    *_, last = trainer.train(made)
    validation, test = (
        table.mean(dim=0).reshape(len(configs), -1).mean(dim=1) for table in (last.state.validation, last.state.test)
    )
    return validation.numpy(), test.numpy()


def drawn(seed: int, plan: Plan, trials: int) -> list[dict[str, float]]:
    """The configurations of a random search."""
    draw = np.random.default_rng(seed)
    ranges = plan.groups[0].drawn()
    return [
        {name: float(np.exp(draw.uniform(np.log(one.low), np.log(one.high)))) for name, one in ranges.items()}
        for _ in range(trials)
    ]


def train(options: argparse.Namespace) -> None:
    """Prints what is selected with either way of holding out."""
    torch.set_num_threads(1)
    overrides = {
        "data/name": options.data,
        "tasks/count": options.tasks,
        "tasks/validation_fraction": options.fraction,
        "tasks/images_per_task": options.images,
        "training/device": "cpu",
        **{f"diagnostics/{name}_every": 0 for name in ("units", "curvature", "forgetting")},
    }
    space = search_spaces.load("quickstart")
    plan = make_plan(space, name="drawn", scenarios=["class_pairs"], methods=["sam"], overrides=overrides)
    rows = []
    for seed in range(options.searches):
        tried = drawn(seed, plan, options.trials)
        seeds = tuple(range(100 * seed, 100 * seed + options.lanes))

        def configs(points: Sequence[dict[str, float]], seeds: tuple[int, ...]) -> list[TrialConfig]:
            return [plan.model_copy(update={"seeds": seeds}).trial_config(plan.groups[0], point) for point in points]

        found = [accuracies(configs(tried, seeds), is_own=is_own)[0] for is_own in (False, True)]
        chosen = [int(validation.argmax()) for validation in found]
        _, test = accuracies(configs([tried[place] for place in chosen], FRESH), is_own=False)
        rows.append([*test, *(validation[place] for validation, place in zip(found, chosen, strict=True))])
    same, own, promised, promised_own = np.array(rows).T
    print(
        f"{options.data}: {options.searches} random searches of {options.trials} trials, {options.lanes} lane(s) and "
        f"{options.tasks} tasks each, fraction {options.fraction:g} held out, trained on {options.images or 'all'} images of "
        f"a task\ntest accuracy of the selected on {len(FRESH)} fresh seeds: {same.mean():.4f} with the same images, "
        f"{own.mean():.4f} with its own; difference {_interval(own - same)}; another one selected in {(own != same).sum()}\n"
        f"objective of the selected minus that: {_interval(promised - same)} and {_interval(promised_own - own)}",
        flush=True,
    )


def _interval(values: Sequence[float]) -> str:
    interval = t_interval(values)
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def main() -> None:
    """Runs one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=("simulated", "trained"))
    parser.add_argument("--searches", type=int, default=0, help="default: 1,000 simulated, 40 trained")
    parser.add_argument("--trials", type=int, default=25)
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--fraction", type=float, default=0.02, help="of the training images, held out")
    parser.add_argument("--images", type=int, help="of each task, to train on; default: all")
    options = parser.parse_args()
    options.searches = options.searches or (1000 if options.way == "simulated" else 40)
    if options.way == "simulated":
        simulate(options.searches)
    else:
        train(options)


if __name__ == "__main__":
    main()
