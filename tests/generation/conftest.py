"""One tiny model for all tests of generation."""

import pytest

from tests.laws.rereading import Tiny


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return Tiny()


@pytest.fixture(scope="module", autouse=True)
def small_heap():
    """Keep compiled programs, unlike other folders: the files of this one use the same."""
