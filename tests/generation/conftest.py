"""One tiny model for all tests of generation."""

import pytest

from tests.laws.rereading import Tiny


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return Tiny()
