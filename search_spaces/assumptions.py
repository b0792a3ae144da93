"""What the paper leaves open, each setting varied alone.

These are the paper's 12 settings under every assumption. The preset is that of `paper_grid`, and every variant differs from it in
one setting. The report judges the paper's claims under each, and says which claims depend on one.

    pixels                  -1 to 1 instead of 0 to 1: published code has both, and it can turn whether SGD declines
    initialisation          Kaiming's weights and zero biases instead of those of torch.nn.Linear
    batch size              64 instead of 16
    passes                  2 instead of 1
    widths                  200-200 instead of 100-100
    depth                   three hidden layers instead of two, the other reading of "three fully connected layers"
    rho of SAM              0.1 instead of 0.05
    r of GNP                0.1 instead of 0.05: with lambda = 0.1 that is SAM with rho = 0.1
    blend of GNP            0.8, that of the recipes of Zhao et al. (2022, arXiv 2202.03599), instead of 2: r = 0.125, since
                            the paper states lambda = 0.1

Only SAM has a rho and only GNP an r, so their variants have no trials of other methods.

Permutations have 10,000 images a task instead of 60,000, and the digit pairs all of theirs, with 10 seeds: 96 trials.
`study show assumptions` estimates the time.
"""

from search_spaces.paper_grid import POINTS
from search_spaces.paper_grid import SPACE as PAPER
from search_spaces.space import Method, Point, SearchSpace

SHARED: tuple[Point, ...] = (
    {"training/pixels": "symmetric"},
    {"model/initialisation": "kaiming"},
    {"training/batch_size": 64},
    {"training/passes": 2},
    {"model/widths": [200, 200]},
    {"model/widths": [100, 100, 100]},
)
"""What differs from the preset in all methods."""

OWN: dict[str, tuple[Point, ...]] = {
    "sgd": (),
    "sam": ({"optimizer/rho": 0.1},),
    "gnp": ({"optimizer/r": 0.1}, {"optimizer/r": 0.125}),
}
"""What differs from the preset in one method."""


def varied(method: str) -> tuple[Point, ...]:
    """A method's points in the preset, then varied."""
    changes: tuple[Point, ...] = ({}, *SHARED, *OWN[method])
    return tuple({**point, **change} for change in changes for point in POINTS[method])


SPACE = SearchSpace(
    name="assumptions",
    description="The paper's 12 settings under other assumptions about what it leaves open, one at a time.",
    citation=PAPER.citation,
    scenarios={
        "permuted_pixels": {**PAPER.scenarios["permuted_pixels"], "tasks/images_per_task": 10_000},
        "class_pairs": {"tasks/name": "class_pairs", "tasks/count": 45},
    },
    methods={method: Method(points=varied(method)) for method in POINTS},
    settings={
        **PAPER.settings,
        "diagnostics/units_every": 10,
        "diagnostics/curvature_every": 0,
        "diagnostics/forgetting_every": 0,
    },
    seeds=PAPER.seeds,
)
