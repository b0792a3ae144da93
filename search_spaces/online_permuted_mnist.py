"""Online permuted MNIST, the published setting of loss-of-plasticity.

Dohare, Hernandez-Garcia, Lan, Rahman, Mahmood and Sutton 2024, "Loss of plasticity in deep continual learning", Nature 632,
arXiv 2306.13812, and the code of the authors: 800 permutations of all 60,000 images, each image seen once and alone; three hidden
layers of 2,000 units; SGD at learning rates 0.01, 0.003 and 0.001; L2 of 1e-3, 1e-4 and 1e-5 at 0.003; ten runs.

What differs:

- They measure online accuracy, `accuracy/online` here. No images are held out, so there is no objective and nothing is selected.
- Their initial weights are uniform within sqrt(6/fan_in), and biases 0. Here both are uniform within 1/sqrt(fan_in), as in torch.
- Their shrink and perturb acts in every step, the study's at the boundary between tasks, and their continual backpropagation and
  Adam are no parts of the study. These methods are left out.
- SAM and GNP, with rho, lambda and r of `paper_grid`, are not in their paper.

This is work for days on a GPU: `study show online_permuted_mnist` estimates it. The authors try a small network too, and tasks of
10,000 images; `--set "model/widths=[100,100,100]" --set tasks/images_per_task=10000 --set tasks/count=100` is done in hours.
"""

from search_spaces.space import Method, SearchSpace, grid

LR = (0.01, 0.003, 0.001)

SPACE = SearchSpace(
    name="online_permuted_mnist",
    description="SGD, L2, SAM and GNP on 800 permutations of MNIST, one image at a time, three layers of 2,000 units.",
    citation='Dohare et al., "Loss of plasticity in deep continual learning", Nature 632, 2024, arXiv 2306.13812',
    scenarios={"permuted_mnist": {"tasks/name": "permuted_pixels", "tasks/count": 800}},
    methods={
        "sgd": Method(points=grid(lr=LR)),
        "l2": Method(settings={"optimizer/name": "sgd"}, points=grid(lr=(0.003,), weight_decay=(1e-3, 1e-4, 1e-5))),
        "sam": Method(points=grid(lr=LR, rho=(0.05,))),
        "gnp": Method(points=grid(lr=LR, lambda_=(0.1,), r=(0.05,))),
    },
    settings={
        "data/name": "mnist",
        "model/name": "mlp",
        "model/widths": [2000, 2000, 2000],
        "training/batch_size": 1,
        "training/passes": 1,
        "tasks/validation_fraction": 0.0,
        "diagnostics/curvature_every": 50,
        "diagnostics/forgetting_every": 50,
    },
    seeds=tuple(range(10)),
)
