"""The JSON files of a saved model, and the checksums of all its files.

A file that another program rewrote after the save is read without its checksum, with a warning in the log; any other
difference from the recorded checksum raises `DamagedError`.
"""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memgpt_jax.files import checksums
from memgpt_jax.files.json_files import json_object

INDENT = 1
BEGINNING = b'{\n "'
"""The first bytes of JSON files that this library writes. Other programs indent by 2 or 4, and a flipped bit in these
bytes makes the file invalid JSON."""

logger = logging.getLogger(__name__)


def read_recorded(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a saved model.

    Raises:
        DamagedError: the file differs from its recorded checksum.
        ValueError: it cannot be read, is not UTF-8, not JSON or not an object, or one key has two different values.
    """
    content, refusal = b"", None
    try:
        content = path.read_bytes()
        values = json_object(path, content)
    except OSError as error:
        refusal = ValueError(f"{path} cannot be read: {error}")
    except ValueError as error:
        refusal = error
    check_recorded(path, written_here=refusal is not None or content.startswith(BEGINNING))
    if refusal is not None:
        raise refusal
    return values


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write an object as a JSON file that `read_recorded` recognises as written by this library."""
    path.write_text(json.dumps(values, indent=INDENT) + "\n", encoding="utf-8")


def check_recorded(path: Path, written_here: bool) -> None:
    """Compare a file with its recorded checksum, if there is one.

    Args:
        path: the file.
        written_here: whether this library wrote the file; if not, it is not compared, and a warning is logged.

    Raises `DamagedError` if it differs.
    """
    if written_here:
        checksums.verify(path.parent, [path.name])
    elif path.name in checksums.recorded(path.parent):
        logger.warning("%s was rewritten after the model was saved: read without its checksum", path)


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn an `OSError` (disk full, no permission, ...) into a `ValueError` that names the folder."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error}") from error


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn any error of damaged or unusual settings into a `ValueError` that names their file."""
    try:
        yield
    except (TypeError, KeyError, AttributeError, ArithmeticError, IndexError, MemoryError) as error:
        raise ValueError(f"{path}: the settings of the model are not valid: {type(error).__name__}: {error}") from error
