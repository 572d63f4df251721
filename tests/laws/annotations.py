"""The check of shapes and types that the tests put around every function of some packages."""

from collections.abc import Callable

from beartype import beartype


def checked(function: Callable) -> Callable:
    """The function with its annotations checked at each call.

    Constructors are not: a config raises an error of its own for a value that is not valid.
    """
    return function if function.__name__ == "__init__" else beartype(function)
