"""The folder of a saved model: its JSON files, its checksums, and a save that succeeds as a whole or changes nothing.

A file that another program rewrote after the save is read like a foreign file, with a warning in the log; any other
difference from the recorded checksum raises `DamagedError`.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from memgpt_jax.files import checksums

PARTIAL = ".saving"
"""The folder inside the target folder that holds the new files until all of them are written."""
INDENT = 1
BEGINNING = '{\n "'
"""The beginning of our JSON files. Other programs indent by 2 or 4, and no single flipped bit of it is valid JSON."""

logger = logging.getLogger(__name__)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. A byte order mark is skipped.

    Raises:
        DamagedError: the file differs from its recorded checksum.
        ValueError: it cannot be read, is not UTF-8, not JSON or not an object, or one key has two different values.
    """
    text, values, reason = "", None, None
    try:
        text = path.read_bytes().decode("utf-8-sig")
        values = json.loads(text, object_pairs_hook=_without_contradictions)
    except RecursionError:
        reason = "it is nested too deeply"
    except (OSError, ValueError) as error:  # not UTF-8 and not JSON are kinds of ValueError
        reason = f"{error}"
    if reason is None and not isinstance(values, dict):
        reason = f"it must hold an object {{...}}, got {type(values).__name__}"
    check_recorded(path, written_here=reason is not None or text.startswith(BEGINNING))
    if reason is not None:
        raise ValueError(f"{path} cannot be read: {reason}")
    return values


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write an object as a JSON file that `read_json` recognises as ours."""
    path.write_text(json.dumps(values, indent=INDENT) + "\n", encoding="utf-8")


def check_recorded(path: Path, written_here: bool) -> None:
    """Compare a file with its recorded checksum, if there is one and the file is in the form in which we write it.

    Raises `DamagedError` if it differs.
    """
    if written_here:
        checksums.verify(path.parent, [path.name])
    elif path.name in checksums.recorded(path.parent):
        logger.warning("%s was rewritten after the model was saved: read without its checksum", path)


@contextlib.contextmanager
def replacing(folder: Path, is_stale: Callable[[str], bool] = lambda name: False) -> Iterator[Path]:
    """A new folder to write files into, which then replace those of the same names in `folder`, with checksums.

    Nothing in `folder` changes before all new files are written. If the process is killed between the replacements,
    the old checksums show it.

    Args: folder: made if missing; is_stale: whether to delete an old file of this name that is not replaced.

    Raises `ValueError` if a file cannot be written (disk full, no permission, ...); then `folder` is as it was.
    """
    partial = folder / PARTIAL
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            new = sorted(path.name for path in partial.iterdir() if path.name != checksums.SUMS)
            stale = {path.name for path in folder.iterdir() if path.is_file() and is_stale(path.name)} - {*new}
            _record(folder, partial, without=stale)
            for name in new:
                os.replace(partial / name, folder / name)
            for name in stale:
                (folder / name).unlink()
            os.replace(partial / checksums.SUMS, folder / checksums.SUMS)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error}") from error


def _record(folder: Path, partial: Path, without: set[str]) -> None:
    """Write the checksums of the new files, and of the recorded ones that stay, into the new folder."""
    try:
        old = checksums.recorded(folder)
    except checksums.DamagedError:  # the old file is replaced
        old = {}
    kept = {name: digest for name, digest in old.items() if name not in without and (folder / name).is_file()}
    checksums.write(partial, kept | checksums.digests(partial))


def _without_contradictions(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = {}
    for name, value in pairs:
        if name in values and values[name] != value:
            raise ValueError(f"the key {name!r} has two values, {values[name]!r} and {value!r}")
        values[name] = value
    return values
