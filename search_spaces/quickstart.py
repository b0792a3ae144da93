"""The default: minutes on two cores, without a download.

Both scenarios and all three methods, ten tasks of each sequence on 5,000 MNIST digits. The first two points of each method are
the paper's step sizes. On so few images they learn little, as the table of results shows.
"""

from optuna.distributions import FloatDistribution

from search_spaces.paper_grid import POINTS
from search_spaces.space import Method, SearchSpace

LR = FloatDistribution(1e-3, 1.0, log=True)

SPACE = SearchSpace(
    name="quickstart",
    description="A small study of SGD, SAM and GNP on 5,000 MNIST digits: ten tasks of each scenario, minutes on a laptop.",
    citation='After Koster and Kukla, "Neural Network Plasticity and Loss Sharpness", arXiv 2409.17300',
    scenarios={
        "permuted_pixels": {"tasks/name": "permuted_pixels", "tasks/count": 10},
        "class_pairs": {"tasks/name": "class_pairs", "tasks/count": 10},
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
    settings={
        "data/name": "mnist5k",
        "tasks/validation_fraction": 1 / 6,
        "diagnostics/images": 200,  # with more, diagnostics would take longer than training
        "diagnostics/curvature_every": 3,
    },
    seeds=(0, 1, 2),
    trials=6,
)
