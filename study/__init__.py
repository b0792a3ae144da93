"""A Ray Tune hyperparameter study of neural network plasticity.

The question: does sharpness regularisation keep a network able to learn?

These words have the same meaning everywhere: a *task* is one permutation of the pixels or one pair of classes; a
*task sequence* is all of them in order; a *lane* is one training run, that is one seed of one configuration; a
*configuration* is everything that decides a result but the seed; a *trial* is one configuration over its seeds; a
*search space* is what is tried; a *sweep* is all trials of a space under one name.

The names in `__all__` are the study from Python, see `study.cli.api`.
"""

import importlib
import os
from typing import Any

os.environ.setdefault(
    "MLFLOW_DISABLE_TELEMETRY", "true"
)  # of this process and those it starts; a user's own choice stays

__version__ = "0.1.0"

_PLACES = {
    "study.cli.api": ("Sweep", "compare", "confirm", "load", "report", "resume", "run", "trial"),
    "search_spaces": ("Method", "SearchSpace"),
    "study.errors": ("Halted", "Interrupted", "StudyError"),
}
"""Where the public names are; a module is imported when one of its names is first used. `__init__.pyi` has their types."""

__all__ = [name for names in _PLACES.values() for name in names]


def __getattr__(name: str) -> Any:
    """A public name, from the module that has it."""
    for place, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(place), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
