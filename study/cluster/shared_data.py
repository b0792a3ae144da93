"""A data set on its way to the workers.

Ray puts NumPy arrays into shared memory, where all workers of a machine read them without a copy.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from study.contracts import Dataset, Shape


@dataclass(frozen=True)
class SharedDataset:
    """The fields of a `Dataset`, with tensors as arrays."""

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_count: int
    shape: Shape
    fingerprint: str

    @classmethod
    def of(cls, dataset: Dataset) -> SharedDataset:
        """Converts a data set on the CPU without copying."""
        return cls(
            dataset.name,
            dataset.train_images.numpy(),
            dataset.train_labels.numpy(),
            dataset.test_images.numpy(),
            dataset.test_labels.numpy(),
            dataset.class_count,
            dataset.shape,
            dataset.fingerprint,
        )


_received: dict[tuple[str, Shape, str], Dataset] = {}


def receive(shared: SharedDataset) -> Dataset:
    """Returns the data set, the same object on every call.

    It must not be written to.
    """
    key = (shared.name, shared.shape, shared.fingerprint)
    if key not in _received:
        _received[key] = Dataset(
            shared.name,
            _tensor(shared.train_images),
            _tensor(shared.train_labels),
            _tensor(shared.test_images),
            _tensor(shared.test_labels),
            shared.class_count,
            shared.shape,
            shared.fingerprint,
        )
    return _received[key]


def _tensor(array: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the array is read-only, and nobody writes to the tensor
        return torch.from_numpy(array)
