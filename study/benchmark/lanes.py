"""The study's own training, timed: lanes on permuted pixels, as in a trial."""

from __future__ import annotations

import math
from typing import Any

from study import experiment
from study.config import TrialConfig
from study.contracts import Dataset
from study.trainer import train

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd"},
    "sam": {"name": "sam", "rho": 0.05},
    "gnp": {"name": "gnp", "lambda": 0.1, "r": 0.05},
}
"""The paper's methods."""


def seconds(
    dataset: Dataset, method: str, lanes: int, widths: tuple[int, ...], batch_size: int, steps: int, device: str
) -> float:
    """Time of so many steps of that many lanes, on the second of two tasks: the first warms up."""
    size = min(steps * batch_size, len(dataset.train_labels))
    config = TrialConfig.from_plain(
        {
            "data": {"name": dataset.name},
            "tasks": {"name": "permuted_pixels", "count": 2, "images_per_task": size},
            "model": {"name": "mlp", "widths": list(widths)},
            "optimizer": OPTIMIZERS[method] | {"lr": 0.01},
            "training": {
                "batch_size": batch_size,
                "passes": math.ceil(steps * batch_size / size),
                "device": device,
            },
            "seeds": list(range(lanes)),
        }
    )
    plan = experiment.build(config, dataset)
    *_, last = train(plan)
    done = math.ceil(size / batch_size) * plan.passes
    return last.training_seconds * steps / done
