"""The full grid of learning rate and sharpness.

The paper names it as the next step: SAM's rho and GNP's lambda from 0.005 to 2, at five learning rates. GNP is tried with r = 0,
the exact penalty g + lambda H g/|g|, and with r = 0.05, the finite difference in the recipes of its paper. One sixth of the
training images is held out, so that the best of each method can be selected and confirmed. The report shows accuracy and decline
as heat maps over (lr, rho) and (lr, lambda).
"""

from search_spaces.space import Method, SearchSpace, grid

LR = (0.001, 0.003, 0.01, 0.03, 0.1)
SHARPNESS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

SPACE = SearchSpace(
    name="sharpness_grid",
    description="The full grid of learning rate and sharpness: SAM's rho, GNP's lambda at r = 0 (exact) and 0.05, SGD beside.",
    citation="The grid search that Koster and Kukla, arXiv 2409.17300, ask for next",
    scenarios={
        "permuted_pixels": {"tasks/name": "permuted_pixels", "tasks/count": 100},
        "class_pairs": {"tasks/name": "class_pairs", "tasks/count": 45},
    },
    methods={
        "sgd": Method(points=grid(lr=LR)),
        "sam": Method(points=grid(lr=LR, rho=SHARPNESS)),
        "gnp": Method(points=grid(r=(0.0, 0.05), lr=LR, lambda_=SHARPNESS)),
    },
    settings={"data/name": "mnist", "tasks/validation_fraction": 1 / 6},
    seeds=(0, 1, 2),
)
