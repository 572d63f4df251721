"""Libraries of the extras of the distribution, imported on first use."""

import importlib
from typing import Any


def library(name: str, noun: str = "the metrics of this task", extra: str = "tasks") -> Any:
    """A module of an extra. Raises `ValueError`, which names the extra, if it is not installed.

    Args:
        name: of the module.
        noun: what needs it, in the plural, for the message.
        extra: the extra.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ValueError(f"{noun} need {package}: pip install 'memgpt-jax[{extra}]' ({error})") from None
