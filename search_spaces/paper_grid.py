"""The paper's 12 settings as explicit points, on full MNIST.

2 scenarios x 3 methods x 2 learning rates, 10 seeds. `study/docs/faq.md` lists the assumptions where the paper is silent. As in
the paper no image is held out. So the trials have no objective, and no winner is selected among them.
"""

from search_spaces.space import Method, Point, SearchSpace, grid

DATA = ("mnist", "mnist5k")
"""The paper's data set, and the part of it that the study carries."""

LR = (0.01, 0.001)

POINTS = {
    "sgd": grid(lr=LR),
    "sam": grid(lr=LR, rho=(0.05,)),
    "gnp": grid(lr=LR, lambda_=(0.1,), r=(0.05,)),
}
"""The paper's own settings of each method; other spaces try them first."""

OPEN = {"sam": "optimizer/rho", "gnp": "optimizer/r"}
"""The setting of a method's points that the paper leaves open."""

SPACE = SearchSpace(
    name="paper_grid",
    description="The settings of the paper: SGD, SAM and GNP at two learning rates on 100 permuted MNISTs and 45 digit pairs.",
    citation='Koster and Kukla, "Neural Network Plasticity and Loss Sharpness", arXiv 2409.17300',
    scenarios={
        "permuted_pixels": {"tasks/name": "permuted_pixels", "tasks/count": 100},
        "class_pairs": {"tasks/name": "class_pairs", "tasks/count": 45, "diagnostics/curvature_every": 5},
    },
    methods={name: Method(points=points) for name, points in POINTS.items()},
    settings={
        "data/name": "mnist",
        "model/name": "mlp",
        "model/widths": [100, 100],
        "training/batch_size": 16,
        "training/passes": 1,
        "training/pixels": "unit",
        "tasks/validation_fraction": 0.0,
    },
    seeds=tuple(range(10)),
)


def is_of_the_paper(settings: Point) -> bool:
    """Whether settings are about the paper's data, network and tasks.

    Args:
        settings: with the names of data set, model and task sequence.
    """
    return (
        settings["data/name"] in DATA
        and settings["model/name"] == SPACE.settings["model/name"]
        and settings["tasks/name"] in SPACE.scenarios
    )
