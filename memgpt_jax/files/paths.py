"""Paths with special characters, for messages and for Orbax."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PLAIN = re.compile(r"/(?!(gs|s3|az|hf)(/|$))[^][*?\\\x00-\x1f\x7f\ud800-\udfff]*")
LONGEST = 1000  # bytes, so that paths below the folder stay within the system's limit


def shown(path: str | bytes | os.PathLike[Any]) -> str:
    """A path for a message: one line of valid UTF-8; other bytes and control characters are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """A path without special characters to an existing absolute folder; valid inside the block.

    Orbax puts the name of a folder into a glob pattern (`[1]` or a backslash in it match nothing, and arrays are lost),
    treats `/gs`, `/s3`, `/az` and `/hf` as remote storage, and refuses names that are not UTF-8. The entry of an open
    folder in `/proc/self/fd` is a plain path to it.

    Raises:
        ValueError: this system has no `/proc/self/fd`, and the folder's own path is not plain.
        OSError: the folder cannot be opened.
    """
    if PLAIN.fullmatch(str(folder)) and len(os.fsencode(folder)) <= LONGEST:
        yield folder
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        alias = Path(f"/proc/self/fd/{number}")
        if not alias.is_dir():
            raise ValueError(
                f"the path {str(folder)!r} has special characters, which the checkpoint library does not support on "
                "this system: choose a path without [ ] * ? \\ and control characters, in UTF-8"
            )
        yield alias
    finally:
        os.close(number)
