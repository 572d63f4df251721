"""The one exception of a run that cannot start or go on."""

import contextlib
from collections.abc import Iterator


class RunError(Exception):
    """A run cannot start or go on: the message says why, and what to do about it."""


@contextlib.contextmanager
def refused_data() -> Iterator[None]:
    """Turn the `ValueError` with which data is refused (no such folder, a damaged file) into a `RunError`."""
    try:
        yield
    except ValueError as error:
        raise RunError(str(error)) from error
