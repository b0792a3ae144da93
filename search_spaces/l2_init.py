"""The setting of L2 Init on MNIST, SGD and Adam.

Kumar, Marklund and Van Roy 2023, "Maintaining Plasticity in Continual Learning via Regenerative Regularization", arXiv 2308.11958
(Appendix A), and the code of the authors:

- `permuted_mnist`: 500 permutations, 10,000 images each, one pass in minibatches of 16 (625 steps);
- `random_label_mnist`: 1,200 images, 50 times with new labels, 400 passes in minibatches of 16 (30,000 steps);
- pixels from -1 to 1; 784-100-100-10, initial weights as in torch; learning rates 0.01 and 0.001 of SGD, 0.001 and 0.0001 of
  Adam; strengths 1e-2 to 1e-5 of L2 and L2 Init, and 0.1 of L2 as in the code; three seeds for the selection, ten others
  afterwards, as `study confirm` has them;
- layer norm with learnt scales; ReDo every 625 or 3,125 steps with thresholds 0, 0.01 and 0.1; continual backprop with rates 1e-4
  to 1e-6, the utility of its permuted MNIST, and maturity 100.

What differs:

- They select by online accuracy over all tasks, `accuracy/online` here. Here the accuracy after each task on held-out images
  selects, and on some of the images with random labels.
- The images of a task come from the 50,000 that are not held out, and test accuracy is over all 10,000 test images, not 1,000.
- Their first task is not permuted. Their pass leaves out its last minibatch.
- In their code the penalties have a factor of 1/2, which the paper's equation has not. The values are those of the code: a
  `strength` is half of theirs, and weight decay is the gradient of their L2.
- Their ReDo gives a unit its own initial weights once more, and scores it on the minibatch before; their continual backprop draws
  by Kaiming's rule, not as at the start. Shrink and perturb and CReLU, which they have too, are left out.
- SAM and GNP, at the settings of `paper_grid`, are not in their paper.

The methods named `adam_...` have Adam, which is `adamw` without weight decay.
"""

from itertools import product

from search_spaces.space import Method, Point, SearchSpace, grid

LR = (0.01, 0.001)

STRENGTHS = (1e-2, 1e-3, 1e-4, 1e-5)

SGD: Point = {"optimizer/name": "sgd"}
ADAM: Point = {"optimizer/name": "adamw", "optimizer/weight_decay": 0.0}
ADAM_LR = (0.001, 0.0001)


def methods(lr: tuple[float, ...]) -> dict[str, Method]:
    """The methods at these learning rates."""
    pulled = crossed(grid(lr=lr), "l2_init", strength=tuple(strength / 2 for strength in STRENGTHS))
    return {
        "sgd": Method(points=grid(lr=lr)),
        "l2": Method(settings=SGD, points=grid(lr=lr, weight_decay=(0.1, *STRENGTHS))),
        "l2_init": Method(settings=SGD, points=pulled),
        "sam": Method(points=grid(lr=lr, rho=(0.05,))),
        "gnp": Method(points=grid(lr=lr, lambda_=(0.1,), r=(0.05,))),
    }


def crossed(points: tuple[Point, ...], name: str, **values: tuple[object, ...]) -> tuple[Point, ...]:
    """Points combined with all values of an intervention's settings."""
    names = [f"interventions/{name}/{word}" for word in values]
    return tuple(
        {**point, **dict(zip(names, chosen, strict=True))} for point in points for chosen in product(*values.values())
    )


def remedies(optimizer: Point, lr: tuple[float, ...]) -> dict[str, Method]:
    """Layer norm and resets of units, as the authors compare."""
    points = grid(lr=lr)
    utility: Point = {"interventions/continual_backprop/utility": "adaptable_contribution"}
    return {
        "layer_norm": Method(settings={**optimizer, "model/layer_norm": "learnt"}, points=points),
        "redo": Method(
            settings=optimizer, points=crossed(points, "redo", every=(625, 3125), threshold=(0.0, 0.01, 0.1))
        ),
        "continual_backprop": Method(
            settings={**optimizer, **utility}, points=crossed(points, "continual_backprop", rate=(1e-4, 1e-5, 1e-6))
        ),
    }


def with_adam() -> dict[str, Method]:
    """Adam, alone and with what L2 Init is compared with."""
    points = grid(lr=ADAM_LR)
    halves = tuple(strength / 2 for strength in STRENGTHS)
    return {
        "adam": Method(settings=ADAM, points=points),
        "adam_l2": Method(settings=ADAM, points=crossed(points, "l2", strength=(0.05, *halves))),
        "adam_l2_init": Method(settings=ADAM, points=crossed(points, "l2_init", strength=halves)),
        **{f"adam_{name}": method for name, method in remedies(ADAM, ADAM_LR).items()},
    }


SPACE = SearchSpace(
    name="l2_init",
    description="L2 Init and what it is compared with, on SGD and Adam, beside SAM and GNP: 500 permutations of MNIST, 50 sets "
    "of random labels.",
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
    methods=methods(LR) | remedies(SGD, LR) | with_adam(),
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
