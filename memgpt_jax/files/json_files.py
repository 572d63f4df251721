"""Reading of JSON files in UTF-8, with or without a byte order mark."""

import json
from pathlib import Path
from typing import Any


def decode_utf8(name: str | Path, content: bytes) -> str:
    """The text of a file in UTF-8, without its byte order mark. An error (`ValueError`) names the file."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8: {error}") from None


def json_object(name: str | Path, content: bytes) -> dict[str, Any]:
    """The object in the content of a JSON file.

    Args:
        name: name of the file, for messages.
        content: its bytes.

    Raises `ValueError`, which names the file, if the content is not UTF-8, not JSON or not an object, or if an object
    has a key twice with different values.
    """
    text = decode_utf8(name, content)
    try:
        values = json.loads(text, object_pairs_hook=_without_contradictions)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply") from None
    except _ContradictionError as error:
        raise ValueError(f"{name}: {error}") from None
    except ValueError as error:  # also a number of more than 4,300 digits
        raise ValueError(f"{name} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{name} must contain a JSON object, got {type(values).__name__}")
    return values


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `ValueError` as `json_object`, and `OSError` if it cannot be read."""
    return json_object(path, path.read_bytes())


class _ContradictionError(Exception):
    """A key has two values."""


def _without_contradictions(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = {}
    for name, value in pairs:
        if name in values and values[name] != value:
            raise _ContradictionError(f"the key {name!r} has two values, {values[name]!r} and {value!r}")
        values[name] = value
    return values
