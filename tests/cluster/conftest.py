"""What tests of broken sweeps share."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from faults import SWEEP, Site, no_driver_left


@pytest.fixture(scope="module")
def beside():
    """Runs sweeps side by side; tests wait for their results."""
    with ThreadPoolExecutor(2) as pool, no_driver_left():
        yield pool
        pool.shutdown(wait=False, cancel_futures=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, beside):
    """The sweep without faults, while it runs."""
    site = Site(tmp_path_factory.mktemp("undisturbed"), "undisturbed", *SWEEP)
    return beside.submit(lambda: (site, site.finish()))
