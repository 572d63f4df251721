"""One tiny model for all tests of generation."""

import pytest
from rereading import Tiny


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return Tiny()
