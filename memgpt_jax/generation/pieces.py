"""Work in pieces: generators that yield between two pieces, so that other work can be done in between."""

from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")


def result_of(pieces: Generator[None, None, Result]) -> Result:
    """What a generator returns after its last piece."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value
