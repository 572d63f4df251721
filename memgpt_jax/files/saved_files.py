"""The files of a saved model or tokenizer: written together into a folder that may hold other files, with checksums."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from memgpt_jax.files import checksums

PARTIAL = ".saving"
"""Name of the folder inside the target folder that holds the new files until all of them are written."""


def _never(name: str) -> bool:
    return False


@contextlib.contextmanager
def replacing_files(folder: Path, is_stale: Callable[[str], bool] = _never) -> Iterator[Path]:
    """Context manager that yields a new folder, whose files replace files of the same name when the block ends.

    The checksums of the new files are recorded. Nothing in `folder` changes before all new files are written. The
    checksums are replaced first: if the process is killed before the last replacement, `verify` fails.

    Args:
        folder: the target folder, created if missing; its other files are kept.
        is_stale: True for the name of an old file that must be deleted if it is not replaced.

    Raises `OSError` if a file cannot be written; then `folder` is unchanged.
    """
    partial = folder / PARTIAL
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        new = sorted(path.name for path in partial.iterdir() if path.name != checksums.SUMS)
        stale = {path.name for path in folder.iterdir() if path.is_file() and is_stale(path.name)} - {*new}
        _record(folder, partial, without=stale)
        os.replace(partial / checksums.SUMS, folder / checksums.SUMS)
        for name in stale:
            (folder / name).unlink()
        for name in new:
            os.replace(partial / name, folder / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _record(folder: Path, partial: Path, without: set[str]) -> None:
    """Write the checksums of the new files, and of recorded files that are kept, into the new folder."""
    try:
        old = checksums.recorded(folder)
    except checksums.DamagedError:  # the old file is replaced
        old = {}
    kept = {name: digest for name, digest in old.items() if name not in without and (folder / name).is_file()}
    checksums.write(partial, kept | checksums.digests(partial))
