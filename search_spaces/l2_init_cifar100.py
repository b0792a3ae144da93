"""The setting "5+1 CIFAR" of L2 Init, with SGD.

Kumar, Marklund and Van Roy 2023, arXiv 2308.11958 (Appendix A): 30 tasks, by turns of five classes and of one, none of which
comes twice; ten passes over the 2,500 images of five classes in minibatches of 32 (780 steps); channels standardised; a small
convolutional network with 100 outputs; learning rates 0.1, 0.01 and 0.001; strengths as in `search_spaces/l2_init.py`; three
seeds for the selection, ten others afterwards.

What differs, beside what `search_spaces/l2_init.py` lists:

- A tenth of the training images is held out to select by.
- A task of one class has ten passes too, so a fifth of the steps; in the paper it has as many as one of five. The paper shows the
  tasks of five classes only; the means here are over all tasks, and those of one class are learnt at once.
- The order of the classes is the same for all seeds, theirs is not.
- The authors' code is set to 625 steps of 16 images. These are the values of the paper.
"""

from search_spaces.l2_init import methods
from search_spaces.space import SearchSpace

LR = (0.1, 0.01, 0.001)

SPACE = SearchSpace(
    name="l2_init_cifar100",
    description="L2 Init, L2, SAM and GNP beside SGD on CIFAR-100, five classes and one class in turn, with a small CNN.",
    citation='Kumar, Marklund and Van Roy, "Maintaining Plasticity in Continual Learning via Regenerative Regularization", '
    "arXiv 2308.11958",
    scenarios={
        "five_plus_one": {
            "tasks/name": "class_splits",
            "tasks/classes": [5, 1],
            "tasks/own_outputs": True,
            "tasks/order_seed": 0,
            "tasks/count": 30,
        },
    },
    methods=methods(LR),
    settings={
        "data/name": "cifar100",
        "model/name": "cnn",
        "model/channels": [16, 16],
        "model/kernels": [5, 5],
        "model/pools": [2, 2],
        "model/widths": [100, 100],
        "training/batch_size": 32,
        "training/passes": 10,
        "training/pixels": "standardized",
        "tasks/validation_fraction": 0.1,
        "diagnostics/images": 200,  # curvature of a convolutional network is slow
    },
    seeds=(0, 1, 2),
)
