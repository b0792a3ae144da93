"""What tests of reports share."""

import pytest
from shared import lay_database


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """One folder of sweeps for all tests of a file, for a new database takes seconds. Every sweep has its own name."""
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def uri(directory):
    """Its store."""
    return lay_database(directory)
