"""Objects of JSON files, and the fields of objects."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memgpt_jax.data.corpora.reading import read_text
from memgpt_jax.files.paths import shown


def is_json(path: Path) -> bool:
    """Whether a file is one JSON value, by its suffix."""
    return path.name.lower().removesuffix(".gz").endswith(".json")


def read_json(path: Path) -> Any:
    """The value of a .json or .json.gz file. Raises `ValueError` if it is not JSON."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{shown(path)} is not JSON: {error}") from None


def read_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The (place for messages, fields) of every object of a .json file: a list of objects, or an object of objects.

    Raises `ValueError` if the file is not JSON, or another value.
    """
    content, where = read_json(path), shown(path)
    if not isinstance(content, list | dict):
        raise ValueError(f"{where} must be a list of JSON objects or an object of objects, it is {content!r:.40}")
    items = content.items() if isinstance(content, dict) else enumerate(content, start=1)
    for name, value in items:
        at = f"{where}, object {name}"
        if not isinstance(value, dict):
            raise ValueError(f"{at} must be a JSON object, it is a {type(value).__name__}")
        yield at, value


def field_of(values: Any, name: str, kind: type, where: str) -> Any:
    """The field of a JSON object. Raises `ValueError` unless it has the type."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a JSON object with {name!r}, it is a {type(values).__name__}")
    if name not in values:
        raise ValueError(f"{where} has no field {name!r}; it has {', '.join(map(repr, values)) or 'none'}")
    value = values[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where}: field {name!r} must be a {kind.__name__}, it is a {type(value).__name__}")
    return value
