"""The setting of L2 Init on MNIST, with SGD.

Kumar, Marklund and Van Roy 2023, "Maintaining Plasticity in Continual Learning via Regenerative Regularization", arXiv 2308.11958
(Appendix A), and the code of the authors:

- `permuted_mnist`: 500 permutations, 10,000 images each, one pass in minibatches of 16 (625 steps);
- `random_label_mnist`: 1,200 images, 50 times with new labels, 400 passes in minibatches of 16 (30,000 steps);
- pixels from -1 to 1; 784-100-100-10, initial weights as in torch; learning rates 0.01 and 0.001; strengths 1e-2 to 1e-5 of L2
  and L2 Init, and 0.1 of L2 as in the code; three seeds for the selection, ten others afterwards, as `study confirm` has them.

What differs:

- They select by online accuracy over all tasks, `accuracy/online` here. Here the accuracy after each task on held-out images
  selects, and on some of the images with random labels.
- The images of a task come from the 50,000 that are not held out, and test accuracy is over all 10,000 test images, not 1,000.
- Their first task is not permuted. Their pass leaves out its last minibatch.
- In their code the penalties have a factor of 1/2, which the paper's equation has not. The values are those of the code: a
  `strength` is half of theirs, and weight decay is the gradient of their L2.
- Of their methods there are those that the study has as parts. Their main results are with Adam, these are of the appendix.
- SAM and GNP, at the settings of `paper_grid`, are not in their paper.
"""

from search_spaces.space import Method, Point, SearchSpace, grid

LR = (0.01, 0.001)

STRENGTHS = (1e-2, 1e-3, 1e-4, 1e-5)


def methods(lr: tuple[float, ...]) -> dict[str, Method]:
    """The methods at these learning rates."""
    pulled: tuple[Point, ...] = tuple(
        {**point, "interventions/l2_init/strength": strength / 2} for point in grid(lr=lr) for strength in STRENGTHS
    )
    return {
        "sgd": Method(points=grid(lr=lr)),
        "l2": Method(settings={"optimizer/name": "sgd"}, points=grid(lr=lr, weight_decay=(0.1, *STRENGTHS))),
        "l2_init": Method(settings={"optimizer/name": "sgd"}, points=pulled),
        "sam": Method(points=grid(lr=lr, rho=(0.05,))),
        "gnp": Method(points=grid(lr=lr, lambda_=(0.1,), r=(0.05,))),
    }


SPACE = SearchSpace(
    name="l2_init",
    description="L2 Init, L2, SAM and GNP beside SGD on 500 permutations of MNIST and on 50 sets of random labels.",
    citation='Kumar, Marklund and Van Roy, "Maintaining Plasticity in Continual Learning via Regenerative Regularization", '
    "arXiv 2308.11958",
    scenarios={
        "permuted_mnist": {
            "tasks/name": "permuted_pixels",
            "tasks/count": 500,
            "tasks/images_per_task": 10_000,
            "training/passes": 1,
        },
        "random_label_mnist": {
            "tasks/name": "permuted_labels",
            "tasks/count": 50,
            "tasks/images": 1200,
            "training/passes": 400,
        },
    },
    methods=methods(LR),
    settings={
        "data/name": "mnist",
        "model/name": "mlp",
        "model/widths": [100, 100],
        "training/batch_size": 16,
        "training/pixels": "symmetric",
        "tasks/validation_fraction": 1 / 6,
    },
    seeds=(0, 1, 2),
)
