"""Remedies against loss of plasticity, SAM and GNP, tuned alike.

Every method has the same number of trials, the learning rate and its own settings drawn over decades, and its source's settings
first. Two methods are references: SGD without any remedy, and the full reset, which trains a new network on each task. So the
second question of `study/docs/statistics.md`, whether SAM and GNP beat the remedies, is answered by the winners, confirmed:

    study run remedies && study confirm remedies

All of them train by SGD. `study/docs/remedies.md` has their equations and sources. Those in the network are layer norm (Lyle et
al. 2024, arXiv 2402.18762, with L2), CReLU (Abbas et al. 2023, arXiv 2303.07507) and deep Fourier features (Lewandowski et al.
2024, arXiv 2410.20634); `nap` is layer norm with weight projection.

Two scenarios: 100 permutations of 10,000 images, and the 45 pairs of digits. `study show remedies` estimates the time.
"""

from collections.abc import Mapping
from typing import Any

from search_spaces.paper_grid import POINTS
from search_spaces.space import Method, Point, SearchSpace

LR = {"optimizer/lr": {"low": 1e-3, "high": 1.0, "log": True}}


def decades(low: float, high: float) -> dict[str, Any]:
    """Real numbers, each decade as likely as another."""
    return {"low": low, "high": high, "log": True}


def remedy(first: Point, ranges: Mapping[str, Any], **fixed: Any) -> Method:
    """A method with SGD.

    Args:
        first: settings of its source, tried first at the paper's learning rate of 0.01.
        ranges: distributions besides that of the learning rate.
        fixed: settings, with two underscores for a slash.
    """
    settings = {name.replace("__", "/"): value for name, value in fixed.items()}
    return Method(
        settings={"optimizer/name": "sgd", **settings},
        points=({"optimizer/lr": 0.01, **first},),
        distributions={**LR, **ranges},
    )


def of(name: str, first: Point, ranges: Mapping[str, Any], **fixed: Any) -> Method:
    """A method with SGD and an intervention, given its settings."""
    prefix = f"interventions/{name}/"
    return remedy(
        {prefix + word: value for word, value in first.items()},
        {prefix + word: value for word, value in ranges.items()},
        **({} if first else {f"interventions__{name}": {}}),
        **fixed,
    )


SPACE = SearchSpace(
    name="remedies",
    description="Eleven interventions, layer norm, CReLU and deep Fourier features beside SAM, GNP, SGD and the full reset.",
    citation="The sources of each remedy, see `study/docs/remedies.md`",
    scenarios={
        "permuted_pixels": {"tasks/name": "permuted_pixels", "tasks/count": 100, "tasks/images_per_task": 10_000},
        "class_pairs": {"tasks/name": "class_pairs", "tasks/count": 45},
    },
    methods={
        "sgd": remedy({}, {}),
        "full_reset": of("full_reset", {}, {}),
        "sam": Method(points=POINTS["sam"][:1], distributions={**LR, "optimizer/rho": decades(1e-3, 2.0)}),
        "gnp": Method(
            points=POINTS["gnp"][:1],
            distributions={**LR, "optimizer/lambda": decades(1e-3, 2.0), "optimizer/r": decades(1e-3, 1.0)},
        ),
        "l2": of("l2", {"strength": 1e-4}, {"strength": decades(1e-6, 1e-2)}),
        "l2_init": of("l2_init", {"strength": 1e-3}, {"strength": decades(1e-6, 1e-2)}),
        "shrink_and_perturb": of(
            "shrink_and_perturb",
            {"shrink": 0.9, "noise": 0.01},
            {"shrink": {"low": 0.1, "high": 1.0}, "noise": decades(1e-4, 0.1)},
        ),
        "shrink_and_perturb_per_step": of(
            "shrink_and_perturb_per_step",
            {"decay": 1e-4, "noise": 1e-4},
            {"decay": decades(1e-7, 1e-2), "noise": decades(1e-6, 1e-2)},
        ),
        "redo": of(
            "redo",
            {"threshold": 0.025, "every": 1000},
            {"threshold": decades(1e-3, 1.0), "every": {"low": 30, "high": 3000, "log": True}},
        ),
        "continual_backprop": of(
            "continual_backprop",
            {"rate": 1e-4, "maturity": 100},
            {"rate": decades(1e-6, 1e-2), "maturity": {"low": 20, "high": 2000, "log": True}},
        ),
        "snr": of("snr", {"percentile": 0.98}, {"percentile": {"low": 0.9, "high": 0.999}}),
        "weight_clipping": of("weight_clipping", {"kappa": 1.0}, {"kappa": decades(0.5, 8.0)}),
        "spectral_regularization": of("spectral_regularization", {"strength": 1e-3}, {"strength": decades(1e-6, 1e-1)}),
        "fire": of("fire", {}, {}),
        "layer_norm": remedy({}, {}, model__layer_norm="plain"),
        "layer_norm_l2": of("l2", {"strength": 1e-4}, {"strength": decades(1e-6, 1e-2)}, model__layer_norm="plain"),
        "nap": of(
            "weight_projection",
            {"every": 1},
            {"every": {"low": 1, "high": 1000, "log": True}},
            model__layer_norm="plain",
        ),
        "crelu": remedy({}, {}, model__activation="crelu"),
        "deep_fourier": remedy({}, {}, model__activation="deep_fourier"),
    },
    settings={
        "data/name": "mnist",
        "tasks/validation_fraction": 1 / 6,
        "diagnostics/curvature_every": 20,
        "diagnostics/forgetting_every": 20,
    },
    seeds=(0, 1, 2),
    trials=12,
)
