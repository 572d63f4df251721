"""Configurations as JSON, for checkpoints, and the differences between two configurations.

Every dataclass becomes an object with its class name under "type", so that a field whose type is a union is read back
as the same class. A class that is defined outside of this package is also stored as "import": "module:Class", and its
module is imported when the configuration is read.
"""

import dataclasses
import importlib
import json
import sys
import typing
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from memgpt_jax.config.checks import check
from memgpt_jax.config.experiment import ExperimentConfig

PACKAGE = __name__.partition(".")[0]
IMPORT = "import"
"""Key of the value `module:Class`. No field can have this name: it is a keyword of Python."""


def to_json(config: Any) -> dict[str, Any]:
    """The configuration as plain JSON values: {"type": class name, field: value, ...}, nested.

    A class of another package than this one is also stored under "import", as `module:Class`.
    """
    cls = type(config)
    values: dict[str, Any] = {"type": cls.__name__}
    if cls.__module__.partition(".")[0] != PACKAGE:
        values[IMPORT] = _import_name(cls)
    for item in dataclasses.fields(config):
        values[item.name] = _json_value(getattr(config, item.name))
    return values


def _json_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    return list(value) if isinstance(value, tuple) else value


def from_json(values: dict[str, Any], classes: tuple[type, ...] = (ExperimentConfig,)) -> Any:
    """The configuration that `to_json` wrote; fields that are absent take their defaults.

    Args:
        values: the result of `to_json`.
        classes: the valid dataclasses of the configuration.

    Raises:
        ValueError: the type or a field is unknown, a module cannot be imported, or a value is not valid.
    """
    cls = _find_class(values, classes)
    types = typing.get_type_hints(cls)
    unknown = sorted(values.keys() - types.keys() - {"type", IMPORT})
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {', '.join(map(repr, unknown))}; valid: {', '.join(types)}")
    fields = {}
    for name, value in values.items():
        if isinstance(value, dict):
            members = typing.get_args(types[name]) or (types[name],)
            fields[name] = from_json(value, members)
        elif name not in ("type", IMPORT):
            fields[name] = tuple(value) if isinstance(value, list) else value
    return cls(**fields)


def _find_class(values: dict[str, Any], classes: tuple[type, ...]) -> type:
    """The dataclass of a JSON object: one of `classes` or, if it has a parent class among them, of their subclasses."""
    kind, source = values.get("type"), values.get(IMPORT)
    valid = _dataclasses(classes)
    if source is None:
        for cls in valid:
            if cls.__name__ == kind and cls.__module__.partition(".")[0] == PACKAGE:
                return cls
        raise ValueError(f"unknown configuration type {kind!r}; valid: {', '.join(cls.__name__ for cls in valid)}")
    problem = None
    if source not in map(_import_name, valid):
        module = str(source).partition(":")[0]
        try:
            check(not _runs_code(module), "it is no module that defines configurations")
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # the module is the user's: any error may come from it
            problem = f"{type(error).__name__}: {error}"
        valid = _dataclasses(classes)
    found = [cls for cls in valid if _import_name(cls) == source]
    if not found:
        raise ValueError(
            f"the configuration {kind!r} is defined in {source}, which "
            f"{f'cannot be imported ({problem})' if problem else 'is no configuration that is valid here'}: import "
            "the module that defines and registers it before reading, or add its folder to PYTHONPATH"
        )
    return found[-1]


def _runs_code(module: str) -> bool:
    """Whether importing a module may do more than define something: those of Python, and those that are programs.

    The file that names the module may come from anybody.
    """
    parts = module.split(".")
    return parts[0] in sys.stdlib_module_names or "__main__" in parts


def _import_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _dataclasses(classes: Iterable[type]) -> list[type]:
    """The dataclasses among classes and their subclasses, in the order of their definition."""
    return list(filter(dataclasses.is_dataclass, _with_subclasses(classes)))


def _with_subclasses(classes: Iterable[type]) -> Iterator[type]:
    for cls in classes:
        yield cls
        if isinstance(cls, type):
            yield from _with_subclasses(cls.__subclasses__())


def differences(old: Any, new: Any) -> list[str]:
    """One line `path.of.field: old → new` for each field in which two configurations differ."""
    before, after = _flat(to_json(old)), _flat(to_json(new))
    return [f"{path}: {before.get(path, 'absent')} → {after.get(path, 'absent')}" for path in _changed(before, after)]


def differences_from_json(values: Any, config: Any, ignored: Collection[str] = ()) -> list[str]:
    """The `differences` between what `to_json` wrote, with defaults for absent fields, and a configuration.

    Nothing is built from the stored values, and no module is imported: anybody may have written them.

    Args:
        values: what a file holds in place of the result of `to_json`.
        config: the configuration.
        ignored: names of fields that may differ, at any depth.
    """
    if not isinstance(values, dict):
        return [f"{type(values).__name__} → {type(config).__name__}"]
    before = _flat(_with_defaults(values, config))
    after = _flat(json.loads(json.dumps(to_json(config))))
    return [
        f"{path}: {before.get(path, 'absent')} → {after.get(path, 'absent')}"
        for path in _changed(before, after)
        if path.rpartition(".")[2] not in ignored
    ]


def _with_defaults(values: dict[str, Any], like: Any) -> dict[str, Any]:
    """Stored values with the defaults of the class of `like` for absent fields, if they are of a class of its name."""
    if values.get("type") != type(like).__name__:
        return values
    values = dict(values)
    for item in dataclasses.fields(like):
        own, default = getattr(like, item.name), item.default
        if default is dataclasses.MISSING and item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        if default is not dataclasses.MISSING:
            values.setdefault(item.name, json.loads(json.dumps(_json_value(default))))
        if isinstance(values.get(item.name), dict) and dataclasses.is_dataclass(own):
            values[item.name] = _with_defaults(values[item.name], own)
    return values


def _changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [path for path in before | after if before.get(path, "absent") != after.get(path, "absent")]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat = {}
    for name, value in values.items():
        if name != IMPORT:
            flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: repr(value)}
    return flat
