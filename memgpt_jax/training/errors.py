"""The one exception of a run that cannot start or go on."""

import contextlib
from collections.abc import Iterator


class RunError(Exception):
    """A run cannot start or go on: the message says why, and what to do about it."""


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Turn the `ValueError` with which settings or data are refused (no such folder, ...) into a `RunError`."""
    try:
        yield
    except ValueError as error:
        raise RunError(str(error)) from error
