"""Configurations as JSON, for checkpoints, and the differences between two configurations.

Every dataclass becomes an object with its class name under "type", so that a field whose type is a union is read back
as the same class.
"""

import dataclasses
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from memgpt_jax.config.experiment import ExperimentConfig


def to_json(config: Any) -> dict[str, Any]:
    """The configuration as plain JSON values: {"type": class name, field: value, ...}, nested."""
    values = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    return {"type": type(config).__name__} | {
        name: to_json(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
    }


def from_json(values: dict[str, Any], classes: tuple[type, ...] = (ExperimentConfig,)) -> Any:
    """The configuration that `to_json` wrote; fields that are absent take their defaults.

    Args:
        values: the result of `to_json`.
        classes: the valid dataclasses of the configuration.

    Raises:
        ValueError: the type or a field is unknown, or a value is not valid.
    """
    by_name = {cls.__name__: cls for cls in classes}
    kind = values.get("type")
    if kind not in by_name:
        raise ValueError(f"unknown configuration type {kind!r}; valid: {', '.join(by_name)}")
    types = typing.get_type_hints(by_name[kind])
    unknown = sorted(values.keys() - types.keys() - {"type"})
    if unknown:
        raise ValueError(f"{kind} has no field {', '.join(map(repr, unknown))}; valid: {', '.join(types)}")
    fields = {}
    for name, value in values.items():
        if isinstance(value, dict):
            members = typing.get_args(types[name]) or (types[name],)
            fields[name] = from_json(value, tuple(filter(dataclasses.is_dataclass, _with_subclasses(members))))
        elif name != "type":
            fields[name] = tuple(value) if isinstance(value, list) else value
    return by_name[kind](**fields)


def _with_subclasses(classes: Iterable[type]) -> Iterator[type]:
    for cls in classes:
        yield cls
        if isinstance(cls, type):
            yield from _with_subclasses(cls.__subclasses__())


def differences(old: Any, new: Any) -> list[str]:
    """One line `path.of.field: old → new` for each field in which two configurations differ."""
    before, after = _flat(to_json(old)), _flat(to_json(new))
    return [
        f"{path}: {before.get(path, 'absent')} → {after.get(path, 'absent')}"
        for path in before | after
        if before.get(path, "absent") != after.get(path, "absent")
    ]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: repr(value)}
    return flat
