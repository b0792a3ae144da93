"""Beyond the paper's grid: settings over several decades.

These are learning rate, SAM's rho, GNP's lambda and r; equal budget for each method. The paper's own points come first. One
sixth of the training images is held out, and the search maximises the accuracy on them.
"""

from optuna.distributions import FloatDistribution

from search_spaces.paper_grid import POINTS
from search_spaces.space import Method, SearchSpace

LR = FloatDistribution(1e-4, 1.0, log=True)

SPACE = SearchSpace(
    name="beyond_grid",
    description="Learning rate and sharpness settings over several decades, the paper's own points first.",
    citation='Beyond the grid of Koster and Kukla, "Neural Network Plasticity and Loss Sharpness", arXiv 2409.17300',
    scenarios={
        "permuted_pixels": {"tasks/name": "permuted_pixels", "tasks/count": 100},
        "class_pairs": {"tasks/name": "class_pairs", "tasks/count": 45},
    },
    methods={
        "sgd": Method(points=POINTS["sgd"], distributions={"optimizer/lr": LR}),
        "sam": Method(
            points=POINTS["sam"],
            distributions={"optimizer/lr": LR, "optimizer/rho": FloatDistribution(1e-3, 2.0, log=True)},
        ),
        "gnp": Method(
            points=POINTS["gnp"],
            distributions={
                "optimizer/lr": LR,
                "optimizer/lambda": FloatDistribution(1e-3, 2.0, log=True),
                "optimizer/r": FloatDistribution(1e-3, 1.0, log=True),
            },
        ),
    },
    settings={"data/name": "mnist", "tasks/validation_fraction": 1 / 6},
    seeds=(0, 1, 2),
    trials=40,
)
