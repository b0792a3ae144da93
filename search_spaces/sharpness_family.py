"""SAM, its relatives and schedules of it, tuned alike.

Every method has the same number of trials, and its learning rate and sharpness settings are drawn over decades. Points are those
of its source. So the third question of `study/docs/statistics.md`, whether the family beats SAM, is answered by the winners:

    study run sharpness_family && study confirm sharpness_family

- `sam`, `asam`, `friendly_sam`, `random_sam` and `gnp` are optimizers, see `study/optimizers/`. One of GNP's points has the blend
  lambda / r = 0.8 that its authors' recipes have; the paper's, at lambda = 0.1 and r = 0.05, has 2.
- `sam_over_tasks` and `sam_within_task` multiply rho by a factor that changes linearly, over the tasks of the sequence or over
  the steps of each task, between two numbers; below 0 the step goes downhill. `sam_first_tasks` and `sam_last_tasks` have SAM in
  some tasks and SGD in the others. These ask whether an adaptive rho helps, which Koster and Kukla leave open.
- `adamw` and `sam_adamw` have AdamW as the base.

Two scenarios: 100 permutations of 10,000 images, and the 45 pairs of digits. `study show sharpness_family` estimates the time.
"""

from typing import Any

from search_spaces.paper_grid import POINTS
from search_spaces.remedies import LR, decades
from search_spaces.remedies import SPACE as REMEDIES
from search_spaces.space import Method, Point, SearchSpace

ADAM_LR = {"optimizer/lr": decades(1e-5, 1e-1)}
RHO = {"optimizer/rho": decades(1e-3, 2.0)}
FACTOR = {"low": -1.0, "high": 2.0}

RECIPE: Point = {"optimizer/lr": 0.01, "optimizer/lambda": 0.08, "optimizer/r": 0.1}
"""The blend of GNP's recipes, 0.8."""


def scheduled(schedule: str, first: Point, ranges: dict[str, Any], **fixed: Any) -> Method:
    """SAM with a schedule of rho, given its settings."""
    return Method(
        settings={
            "optimizer/name": "sam",
            "optimizer/schedule": schedule,
            **{f"optimizer/{name}": value for name, value in fixed.items()},
        },
        points=({**POINTS["sam"][0], **{f"optimizer/{name}": value for name, value in first.items()}},),
        distributions={**LR, **RHO, **{f"optimizer/{name}": value for name, value in ranges.items()}},
    )


COURSE = {"schedule_from": FACTOR, "schedule_to": FACTOR}
TASKS = {"schedule_length": {"low": 1, "high": 45}}

SPACE = SearchSpace(
    name="sharpness_family",
    description="SAM, ASAM, Friendly SAM, random SAM, GNP, schedules of SAM, and AdamW with and without it, beside SGD.",
    citation="The open question 3 of Koster and Kukla, arXiv 2409.17300, and the sources of each method",
    scenarios=REMEDIES.scenarios,
    methods={
        "sgd": REMEDIES.methods["sgd"],
        "sam": REMEDIES.methods["sam"],
        "asam": Method(
            points=({"optimizer/lr": 0.01, "optimizer/rho": 0.5},),
            distributions={**LR, "optimizer/rho": decades(1e-2, 10.0)},
        ),
        "friendly_sam": Method(
            points=({"optimizer/lr": 0.01, "optimizer/rho": 0.05, "optimizer/ema": 0.9},),
            distributions={**LR, **RHO, "optimizer/ema": {"low": 0.5, "high": 0.99}},
        ),
        "random_sam": Method(
            points=({"optimizer/lr": 0.01, "optimizer/rho": 0.05},),
            distributions={**LR, "optimizer/rho": decades(1e-3, 10.0)},
        ),
        "gnp": Method(
            points=(*POINTS["gnp"][:1], RECIPE),
            distributions=REMEDIES.methods["gnp"].drawn,
        ),
        "sam_over_tasks": scheduled("linear", {"schedule_from": 1.0, "schedule_to": 0.0}, COURSE),
        "sam_within_task": scheduled(
            "linear", {"schedule_from": 0.0, "schedule_to": 1.0}, COURSE, schedule_over="steps"
        ),
        "sam_first_tasks": scheduled("first", {"schedule_length": 10}, TASKS),
        "sam_last_tasks": scheduled("last", {"schedule_length": 10}, TASKS),
        "adamw": Method(points=({"optimizer/lr": 1e-3},), distributions=ADAM_LR),
        "sam_adamw": Method(
            settings={"optimizer/name": "sam", "optimizer/base": "adamw"},
            points=({"optimizer/lr": 1e-3, "optimizer/rho": 0.05},),
            distributions={**ADAM_LR, **RHO},
        ),
    },
    settings=REMEDIES.settings,
    seeds=REMEDIES.seeds,
    trials=REMEDIES.trials,
)
