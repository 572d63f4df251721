"""Checks of configuration values: each failure is a `ValueError` that names the field, the value and what is valid."""

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np

Kind = TypeVar("Kind")


def check(condition: bool, message: str) -> None:
    """Raise `ValueError(message)` unless the condition holds."""
    if not condition:
        raise ValueError(message)


def instance_of(value: object, kind: type[Kind], name: str) -> Kind:
    """The value of the field `name`. Raises `ValueError` unless it is an instance of the class `kind`."""
    if not isinstance(value, kind):
        got = f"the class {value.__name__}: call it" if isinstance(value, type) else type(value).__name__
        raise ValueError(f"{name} must be a {kind.__name__}, got {got}")
    return value


def at_least(least: int, default: int | None = None) -> Any:
    """A dataclass field for an integer or None, which `check_positive` requires to be at least `least`."""
    return dataclasses.field(default=default, metadata={"least": least})


def positive(default: float) -> Any:
    """A dataclass field for a number, which `check_positive` requires to be positive."""
    return dataclasses.field(default=default, metadata={"positive": True})


def check_types(config: Any) -> None:
    """Check that every field of bool, int, float or str has such a value, or None if it may be None; floats are finite.

    An int is also a float; a bool is neither. Scalars of NumPy become those of Python.
    """
    for item in dataclasses.fields(config):
        if isinstance(getattr(config, item.name), np.generic):
            object.__setattr__(config, item.name, getattr(config, item.name).item())
        value, types = getattr(config, item.name), set(get_args(item.type) or (item.type,))
        kind = next(iter(types - {NoneType})) if len(types - {NoneType}) == 1 else None
        if kind not in TYPES or (value is None and NoneType in types):
            continue
        valid, noun = TYPES[kind]
        fits = isinstance(value, valid) and (kind is bool or not isinstance(value, bool))
        check(fits, f"{item.name} must be {noun}{' or None' * (NoneType in types)}, got {value!r}")
        check(not isinstance(value, float) or math.isfinite(value), f"{item.name} must be finite, got {value!r}")


TYPES: dict[Any, tuple[Any, str]] = {
    bool: (bool, "True or False"),
    int: (int, "a whole number"),
    float: (float | int, "a number"),
    str: (str, "a text"),
}
"""The valid classes of the values of a field, and their name, by the type of the field."""


def check_positive(config: Any) -> None:
    """`check_types`, and that every integer field is None or at least 1, or the bound that `at_least` gives the field.

    Fields of `positive` are above 0.
    """
    check_types(config)
    for item in dataclasses.fields(config):
        value, least = getattr(config, item.name), item.metadata.get("least", 1)
        if value is None:
            continue
        if item.type in (int, int | None):
            check(value >= least, f"{item.name} must be at least {least}, got {value}")
        check("positive" not in item.metadata or value > 0, f"{item.name} must be positive, got {value}")


def check_literals(config: Any) -> None:
    """`check_types`, and that every field with a type of `Literal`s, or of these and None, has one of its values."""
    check_types(config)
    for item in dataclasses.fields(config):
        types = get_args(item.type) if get_origin(item.type) in (Union, UnionType) else (item.type,)
        if all(get_origin(each) is Literal or each is NoneType for each in types):
            valid = [value for each in types for value in get_args(each) or (None,)]
            value = getattr(config, item.name)
            check(value in valid, f"{item.name} must be one of {', '.join(map(repr, valid))}, got {value!r}")


def set_tuples(config: Any, *names: str) -> None:
    """Make fields tuples: a list is also accepted, and one text becomes a tuple of it."""
    for name in names:
        value = getattr(config, name)
        object.__setattr__(config, name, (value,) if isinstance(value, str) else tuple(value))


def as_list(value: Any) -> list[Any]:
    """A list of the values of an argument that accepts one value, an iterable of values, or None (no values)."""
    is_one = (
        isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__") or getattr(value, "ndim", 1) == 0
    )
    return [] if value is None else [value] if is_one else list(value)


def whole(name: str, value: Any, low: int, high: int = 2**31 - 1) -> int:
    """The value as an `int`. Raises `ValueError` unless it is a whole number from `low` to `high`."""
    number = low - 1
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if not isinstance(value, str | bytes | bool) and int(value) == value:
            number = int(value)
    check(low <= number <= high, f"{name} must be a whole number from {low} to {high}, got {value!r}")
    return number


def dtype_name(dtype: Any) -> Any:
    """The name of a dtype that NumPy or JAX defines (`jnp.bfloat16`, a `numpy.dtype`); any other value unchanged."""
    if dtype is None or isinstance(dtype, str):
        return dtype
    try:
        return np.dtype(dtype).name
    except TypeError:
        return dtype


def check_statistics(mean: float | None, std: float | None) -> None:
    """Raise `ValueError` unless `data.mean` is finite and `data.std` positive; None: taken from the data."""
    check(mean is None or math.isfinite(mean), f"data.mean must be finite, got {mean}")
    check(std is None or 0 < std < math.inf, f"data.std must be positive, got {std}")
