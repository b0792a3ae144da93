"""What tests of broken sweeps share."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from faults import SWEEP, Site, no_driver_left
from shared import once


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
