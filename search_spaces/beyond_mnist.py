"""Beyond MNIST: a convolutional network on natural images.

The paper's first open question is whether its finding holds for other data and networks. Here SGD, SAM and GNP train the small
network of L2 Init (`study/models/cnn.py`) on 5,000 patches of photographs, without a download, minutes on two cores:

- `class_pairs`: ten pairs of photographs in a random order, the input changes;
- `permuted_labels`: 120 patches whose labels are dealt out anew ten times, the answers change and are learnt by heart.

Ranges and budget are those of `quickstart`. Its points are not tried: they are the paper's, for other data.
"""

from search_spaces.quickstart import SPACE as QUICKSTART
from search_spaces.space import Method, SearchSpace

SPACE = SearchSpace(
    name="beyond_mnist",
    description="SGD, SAM and GNP with a convolutional network on patches of photographs: pairs of classes and random labels.",
    citation="The open question 1 of Koster and Kukla, arXiv 2409.17300; network and random labels after Kumar et al., "
    "arXiv 2308.11958",
    scenarios={
        "class_pairs": {
            "tasks/name": "class_pairs",
            "tasks/count": 10,
            "tasks/order_seed": 0,
            "training/passes": 2,
        },
        "permuted_labels": {
            "tasks/name": "permuted_labels",
            "tasks/count": 10,
            "tasks/images": 120,
            "training/passes": 15,
        },
    },
    methods={name: Method(distributions=method.drawn) for name, method in QUICKSTART.methods.items()},
    settings={
        "data/name": "natural_patches",
        "model/name": "cnn",
        "training/pixels": "standardized",  # from 0 to 1 this network hardly learns
        "tasks/validation_fraction": 1 / 6,
        "diagnostics/images": 100,  # curvature of a convolutional network is slow
        "diagnostics/curvature_every": 5,
        "diagnostics/forgetting_every": 5,
    },
    seeds=(0, 1, 2),
    trials=6,
)
