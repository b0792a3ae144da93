"""Data sets on their way to the workers."""

import pickle

import numpy as np
import tiny
import torch

from study.cluster import shared_data
from study.cluster.shared_data import SharedDataset

TENSORS = ("train_images", "train_labels", "test_images", "test_labels")


def sent(shared):
    """What a worker gets: read-only arrays in shared memory."""
    buffers = []
    data = pickle.dumps(shared, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])


def test_a_shared_data_set_arrives_whole():
    dataset = tiny.dataset(seed=1)
    received = shared_data.receive(sent(SharedDataset.of(dataset)))
    assert (received.name, received.class_count, received.fingerprint) == ("tiny", 4, dataset.fingerprint)
    assert received.shape == (1, 3, 3)
    for name in TENSORS:
        there, here = getattr(received, name), getattr(dataset, name)
        assert there.dtype == here.dtype
        assert torch.equal(there, here)


def test_sharing_copies_nothing():
    dataset = tiny.dataset(seed=2)
    arrived = sent(SharedDataset.of(dataset))
    received = shared_data.receive(arrived)
    for name in TENSORS:
        assert not getattr(arrived, name).flags.writeable
        assert np.shares_memory(getattr(received, name).numpy(), getattr(arrived, name))
        assert np.shares_memory(getattr(SharedDataset.of(dataset), name), getattr(dataset, name).numpy())


def test_a_process_receives_a_data_set_once():
    shared = SharedDataset.of(tiny.dataset(seed=3))
    assert shared_data.receive(sent(shared)) is shared_data.receive(sent(shared))
    assert shared_data.receive(sent(SharedDataset.of(tiny.dataset(seed=4)))) is not shared_data.receive(shared)
