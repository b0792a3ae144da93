"""A Ray Tune hyperparameter study of neural network plasticity.

The question: does sharpness regularisation keep a network able to learn?

These words have the same meaning everywhere: a *task* is one permutation of the pixels or one pair of classes; a
*task sequence* is all of them in order; a *lane* is one training run, that is one seed of one configuration; a
*configuration* is everything that decides a result but the seed; a *trial* is one configuration over its seeds; a
*search space* is what is tried; a *sweep* is all trials of a space under one name.
"""

import os

os.environ.setdefault(
    "MLFLOW_DISABLE_TELEMETRY", "true"
)  # of this process and those it starts; a user's own choice stays

__version__ = "0.1.0"
