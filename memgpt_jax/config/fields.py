"""Copies of a configuration with changes to fields that are named by their dotted paths."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from memgpt_jax.config.checks import check

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


def with_fields(config: Config, changes: Mapping[str, Any]) -> Config:
    """The configuration with other values in some fields.

        with_fields(config, {"model.memory.memory_size": 512, "training.steps": 1000})

    All changes are made at once, so values that must fit each other can change together.

    Args:
        config: a dataclass; its fields may be dataclasses in turn.
        changes: values by the dotted path of the field.

    Raises:
        ValueError: there is no such field, a path and a part of it are both given, or a value is not valid.
    """
    values: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    names = [field.name for field in dataclasses.fields(config)]
    for path, value in changes.items():
        name, _, rest = path.partition(".")
        check(name in names, f"{type(config).__name__} has no field {name!r}; valid: {', '.join(names)}")
        if rest:
            nested.setdefault(name, {})[rest] = value
        else:
            values[name] = value
    both = values.keys() & nested.keys()
    check(not both, f"both {min(both, default='')!r} and a field of it are given")
    for name, inner in nested.items():
        part = getattr(config, name)
        check(dataclasses.is_dataclass(part), f"{name}={part!r} has no fields, got {name}.{min(inner)}")
        values[name] = with_fields(part, inner)
    return dataclasses.replace(config, **values)
