"""Libraries of the extra `tasks` of the distribution, imported on first use."""

import importlib
from typing import Any


def library(name: str, noun: str = "the metrics of this task") -> Any:
    """A module of the extra `tasks`. Raises `ValueError`, which names the extra, if it is not installed.

    Args:
        name: of the module.
        noun: what needs it, in the plural, for the message.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{noun} need {name.partition('.')[0]}: pip install 'memgpt-jax[tasks]' ({error})") from None
