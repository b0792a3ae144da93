"""Studies of cause with a planted answer: arrays for thousands of them, and frames as `analysis.load` has them.

In each world accuracy depends on sharpness (`cause`), on idle units that what changes sharpness changes too (`confounder`), or on
neither. Rescaling moves sharpness alone. Sizes of effects and noise are those of the archived grid: the paired standard deviation
of late accuracy is 0.003.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from analysis_fixtures import Trial, framed

from analysis.cause.blocks import Arm, Blocks
from analysis.cause.doses import IDLE_UNITS, NORMS

WORLDS = ("cause", "confounder", "neither")
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
RATES = (0.003, 0.01, 0.03)
BOUNDARIES = (10, 30, 60, 90)
RHO = (-0.05, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
NOISE = 0.003

BY_SHARPNESS = {"cause": -0.02, "confounder": 0.0, "neither": 0.0}
"""Accuracy for a doubling of sharpness."""

BY_IDLE = {"cause": 0.0, "confounder": -0.4, "neither": 0.0}
"""Accuracy for all units going idle."""

SHARPENING_OF_RHO, IDLENESS_OF_RHO = -8.0, 1.5
"""Doublings, and share of idle units, for 1 of rho."""

WAYS = {
    **{f"sam rho={rho:g}": (SHARPENING_OF_RHO * rho, IDLENESS_OF_RHO * rho) for rho in RHO if rho},
    "friendly_sam rho=0.1": (-0.6, 0.02),
    "random_sam rho=5": (-0.9, -0.05),
    "sgd, batch size 64": (0.8, 0.05),
    "sgd, lr 0.005": (1.1, -0.06),
}
"""What each way does to sharpness, in doublings, and to the share of idle units."""


def rescaled(draw, world, *, seeds=10, slope=None, trend=0.004, bend=0.0):
    """Blocks of layer rescaling: sharper in seeds and tasks where accuracy is lower, cause or not."""
    slope = BY_SHARPNESS[world] if slope is None else slope
    idle = draw.normal(size=(len(BOUNDARIES), seeds))  # of the trunk: it moves sharpness and accuracy, block by block
    reach = 1.5 + 0.3 * draw.random((len(BOUNDARIES), seeds))
    sharpness = 4 + idle + reach * np.linspace(-1, 1, len(LEVELS))[:, None, None]
    steps = np.log2(RATES) - np.mean(np.log2(RATES))
    slopes = (slope + draw.normal(0, abs(slope) / 5, seeds) + (trend if slope else 0) * steps[:, None])[:, None]
    away = (sharpness - sharpness.mean(axis=0))[:, None]
    accuracy = 0.8 - 0.02 * idle + slopes * away + bend * away**2
    accuracy = accuracy + draw.normal(0, NOISE, accuracy.shape) + draw.normal(0, NOISE, (1, 1, len(BOUNDARIES), seeds))
    untouched = np.full((1, *sharpness.shape[1:]), 4 + idle), accuracy[2:3] + draw.normal(0, NOISE, accuracy[2:3].shape)
    arms = [Arm("none", "none", np.nan, False)]
    arms += [Arm(f"layer_rescaling {level:g}", "layer_rescaling", level, False) for level in LEVELS]
    return Blocks(
        run_ids=("trunk",),
        scenario="permuted_pixels",
        method="sgd",
        arms=tuple(arms),
        rates=RATES,
        boundaries=BOUNDARIES,
        seeds=tuple(range(seeds)),
        left_out=(),
        accuracy=np.concatenate((untouched[1], accuracy)),
        sharpness=np.concatenate((untouched[0], sharpness)),
        others={},
        norm=np.full((len(arms), len(BOUNDARIES), seeds), 3.0),
        function_change=np.full((len(arms), len(BOUNDARIES), seeds), 1e-5),
    )


def doses(draw, world, held=(), *, seeds=10, slope=None):
    """Late accuracy [dose, seed]; what is held does not change with rho. `slope`: of rho, for 1."""
    by_sharpness = BY_SHARPNESS[world] * SHARPENING_OF_RHO if slope is None else slope
    by_idle = BY_IDLE[world] * IDLENESS_OF_RHO * (IDLE_UNITS not in held)
    rho = np.array(RHO)[:, None]
    return (
        0.93 + (by_sharpness + by_idle) * rho + draw.normal(0, NOISE, (len(RHO), seeds)) + draw.normal(0, 0.01, seeds)
    )


def ways(draw, world, *, seeds=10, bend=0.0):
    """Doublings of sharpness and change of accuracy [way, seed] against one baseline, which all ways share."""
    sharpening, idleness = np.array(list(WAYS.values())).T[:, :, None]
    x = sharpening + draw.normal(0, 0.1, (len(WAYS), seeds)) - draw.normal(0, 0.1, seeds)
    y = BY_SHARPNESS[world] * x + bend * x**2 + BY_IDLE[world] * idleness
    return x, y + draw.normal(0, NOISE / 2**0.5, x.shape) - draw.normal(0, NOISE / 2**0.5, seeds)


# --- frames ------------------------------------------------------------------------------------------------------------


def probes(world, *, seeds=10, seed=0, controls=0.0, **changes):
    """`Sweep.probes` of one trunk with all arms, one run for each rate; `controls`: what negative controls wrongly change."""
    draw = np.random.default_rng(seed)
    made = rescaled(draw, world, seeds=seeds, **changes)
    arms, accuracy, sharpness = list(made.arms), list(made.accuracy), list(made.sharpness)

    def add(arm, changed, sharpening):
        arms.append(arm)
        accuracy.append(changed)
        sharpness.append(made.sharpness[0] + sharpening)

    def noisy(change):
        return made.accuracy[0] + change + draw.normal(0, NOISE, made.accuracy[0].shape)

    for level in LEVELS:
        add(
            Arm(f"layer_rescaling {level:g} undone", "layer_rescaling", level, True),
            made.accuracy[0] + controls,
            3 * level - 1.5,
        )
    add(Arm("unit_permutation", "unit_permutation", np.nan, False), made.accuracy[0] + controls, 0)
    for factor in (0.75, 1.25):
        add(
            Arm(f"norm_rescaling {factor:g}", "norm_rescaling", factor, False),
            noisy(0.01 * (1 - factor)),
            4 * (factor - 1),
        )
    add(Arm("idle_units", "idle_units", np.nan, False), noisy(0.006), 0.1)
    for level in LEVELS:
        add(Arm(f"random_displacement {level:g}", "random_displacement", level, False), noisy(-0.002), 0.2)
    add(Arm("fresh_weights", "fresh_weights", np.nan, False), noisy(0.03), -2)
    rows = [
        {
            "run_id": f"run-{rate}",
            "trial": "permuted_pixels-sgd-000",
            "scenario": "permuted_pixels",
            "method": "sgd",
            "lane": lane,
            "seed": lane,
            "task": task,
            "arm": arm.name,
            "operation": arm.operation,
            "level": arm.level,
            "undone": arm.undone,
            "lr": rate,
            "probe/accuracy_online": accuracy[place][r, b, lane],
            "probe/function_change": 3.0 if arm.operation in ("fresh_weights", "random_displacement") else 4e-6,
            "onset/hessian/largest_eigenvalue": 2 ** sharpness[place][b, lane],
            "onset/hessian/trace": 2 ** (0.5 * sharpness[place][b, lane]),
            "onset/weights/norm/layer_0": 3 * (arm.level if arm.operation == "norm_rescaling" else 1),
            "onset/weights/norm/layer_output": 4 * (arm.level if arm.operation == "norm_rescaling" else 1),
        }
        for place, arm in enumerate(arms)
        for r, rate in enumerate(RATES)
        for b, task in enumerate(BOUNDARIES)
        for lane in range(seeds)
    ]
    return pd.DataFrame(rows)


def surgery_sweep(*tables):
    """A sweep of trunks, each with its probes."""
    rows = [
        {
            "run_id": run_id,
            "scenario": own["scenario"].iloc[0],
            "method": "sgd",
            "outcome": "finished",
            "probes/lr": own["lr"].unique().tolist(),
            "optimizer/name": "sgd",
            "optimizer/lr": 0.01,
            "training/batch_size": 16,
            "accuracy/test": 0.9 + own["lr"].iloc[0],
        }
        for table in tables
        for run_id, own in table.groupby("run_id")
    ]
    return replace(framed([]), runs=pd.DataFrame(rows), probes=pd.concat(tables))


HELD = {
    (): {},
    (NORMS,): {"interventions/weight_projection/every": 1},
    (IDLE_UNITS,): {"interventions/redo/threshold": 0.025, "interventions/redo/every": 125},
    (NORMS, IDLE_UNITS): {
        "interventions/weight_projection/every": 1,
        "interventions/redo/threshold": 0.025,
        "interventions/redo/every": 125,
    },
    ("layer norm",): {"model/layer_norm": "plain", "interventions/l2/strength": 1e-4},
}

PLAIN = {
    "data/name": "mnist",
    "tasks/name": "permuted_pixels",
    "model/name": "mlp",
    "model/activation": "relu",
    "model/layer_norm": "none",
    "training/batch_size": 16,
    "optimizer/lr": 0.01,
}

TASKS = 20


def dose_sweep(world, *, seeds=10, seed=0):
    """A sweep over doses of rho under all conditions, for ReLU and for GELU under two, with the other ways beside."""
    draw = np.random.default_rng(seed)
    trials, sharpness = [], []

    def add(settings, late, doublings):
        optimizer = settings["optimizer/name"]
        test = np.full((TASKS, seeds), 0.9)
        test[-2:] = late
        trials.append(Trial("permuted_pixels", optimizer, test, {**PLAIN, **settings}))
        sharpness.append(4 + doublings)

    for activation in ("relu", "gelu"):
        for held, settings in HELD.items():
            if activation == "gelu" and held not in ((), (NORMS, IDLE_UNITS)):
                continue
            late = doses(draw, world, held, seeds=seeds)
            for place, rho in enumerate(RHO):
                own = {"optimizer/name": "sam", "optimizer/rho": rho} if rho else {"optimizer/name": "sgd"}
                noise = draw.normal(0, 0.1, seeds)
                add({**settings, "model/activation": activation, **own}, late[place], SHARPENING_OF_RHO * rho + noise)
    x, y = ways(draw, world, seeds=seeds)
    baseline = trials[1].test[-1]
    others = {
        "friendly_sam rho=0.1": {"optimizer/name": "friendly_sam", "optimizer/rho": 0.1},
        "random_sam rho=5": {"optimizer/name": "random_sam", "optimizer/rho": 5.0},
        "sgd, batch size 64": {"optimizer/name": "sgd", "training/batch_size": 64},
        "sgd, lr 0.005": {"optimizer/name": "sgd", "optimizer/lr": 0.005},
    }
    for place, name in enumerate(WAYS):
        if name in others:
            add(others[name], baseline + y[place], x[place])
    sweep = framed(trials)
    runs = sweep.runs.to_dict("records")
    rows = [
        {
            **{name: run[name] for name in ("run_id", "trial", "scenario", "method")},
            "lane": lane,
            "seed": lane,
            "task": task,
            "onset/hessian/largest_eigenvalue": 2 ** (values[lane] + (1 if task < TASKS / 2 else 0)),
        }
        for run, values in zip(runs, sharpness, strict=True)
        for lane in range(seeds)
        for task in range(0, TASKS, 5)
    ]
    return replace(sweep, diagnostics=pd.DataFrame(rows))
