"""What tests of broken sweeps and of clusters share."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from faults import SWEEP, Site, no_driver_left
from nodes import two_nodes
from shared import once
from two_node_sweep import one_machine


@pytest.fixture(scope="module")
def beside():
    """Runs sweeps side by side; tests wait for their results."""
    with ThreadPoolExecutor(2) as pool, no_driver_left():
        yield pool
        pool.shutdown(wait=False, cancel_futures=True)


@pytest.fixture(scope="module")
def undisturbed(beside):
    """The sweep without faults, while it runs: one for all tests, which only read it."""
    return beside.submit(_undisturbed)


def _undisturbed():
    """The site of that sweep and what it printed."""

    def make(place):
        said = Site(place, "undisturbed", *SWEEP).finish()
        (place / "said").write_text(said, encoding="utf-8")

    place = once("undisturbed", make)
    return Site(place, "undisturbed", *SWEEP), (place / "said").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Two nodes with Ray.

    The second has only the packages of the training core, and neither our HOME nor our data.
    """
    bare = ("mlflow", "optuna", "mlxtend", "torchvision")
    with two_nodes(tmp_path_factory.mktemp("nodes"), bare, {"RAY_AUTH_MODE": "disabled"}) as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes):
    """Both nodes up."""
    nodes.start()
    return nodes


@pytest.fixture(scope="module")
def alone():
    """What `two_node_sweep.one_machine` returns."""
    return one_machine()
