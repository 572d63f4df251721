"""Paths for libraries that do not take every path.

Orbax puts the name of a folder into a glob pattern (`[1]` or a backslash in it match nothing, and arrays are lost),
takes `/gs`, `/s3`, `/az` and `/hf` for remote storage, and refuses names that are not UTF-8. Through an open folder's
entry in `/proc/self/fd`, every folder has a plain path.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

PLAIN = re.compile(r"/(?!(gs|s3|az|hf)(/|$))[^][*?\\\x00-\x1f\x7f\ud800-\udfff]*")
LONGEST = 1000  # bytes, so that what is written below fits the system's limit


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """A path of an existing absolute folder that holds no special character; valid inside the block.

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
                f"the path {str(folder)!r} has special characters, which this system cannot hide from the checkpoint "
                "library: choose a path without [ ] * ? \\ and control characters, in UTF-8"
            )
        yield alias
    finally:
        os.close(number)
