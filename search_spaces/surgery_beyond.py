"""Surgery beyond permuted MNIST: random labels and natural images.

The first experiment on cause (`surgery`, `study/docs/cause.md`) once more, where it is cheap. The operations, the learning rates
of the copies and the criteria are the same.

- `random_labels`: 1,200 images of MNIST whose labels are dealt out anew for each task, 20 passes over them, pixels from -1 to 1,
  as in L2 Init (Kumar et al. 2023, arXiv 2308.11958) but for its 400 passes. Here SGD does lose its plasticity: the networks are
  copied while accuracy still rises, at its peak, and twice while it falls.
- `natural_images`: pairs of photographs, told apart by the small convolutional network of L2 Init, two passes. Sharpness is
  measured on 100 images, since curvature of a convolutional network is slow.

    study run surgery_beyond && study report surgery_beyond
"""

from search_spaces.space import Method, SearchSpace
from search_spaces.surgery import LRS
from search_spaces.surgery import SPACE as SURGERY

SPACE = SearchSpace(
    name="surgery_beyond",
    description="Surgery on networks that learn random labels, and on convolutional ones that learn natural images.",
    scenarios={
        "random_labels": {
            "data/name": "mnist",
            "tasks/name": "permuted_labels",
            "tasks/count": 20,
            "tasks/images": 1200,
            "training/passes": 20,
            "training/pixels": "symmetric",
            "probes/boundaries": [4, 8, 12, 16],
        },
        "natural_images": {
            "data/name": "natural_patches",
            "tasks/name": "class_pairs",
            "tasks/count": 41,
            "model/name": "cnn",
            "training/passes": 2,
            "training/pixels": "standardized",
            "diagnostics/images": 100,
            "probes/boundaries": [10, 20, 30, 40],
        },
    },
    methods={"sgd": Method(settings={"optimizer/lr": 0.01}, points=({"probes/lr": list(LRS)},))},
    settings={
        name: value for name, value in SURGERY.settings.items() if name not in ("data/name", "probes/boundaries")
    },
    seeds=SURGERY.seeds,
)
