"""The folder of a run: its path, and the disk space for its checkpoints."""

import errno
import os
import shutil
from pathlib import Path

from memgpt_jax.errors import RunError
from memgpt_jax.files.paths import shown

RESERVED_BYTES = 400
"""Bytes of the system's limit on a path that are reserved for the names of files below a workdir."""


def run_folder(workdir: str | Path) -> Path:
    """The absolute path of a workdir, with `~` expanded; for a name that begins with `~`, write `./~name`.

    Raises:
        RunError: it cannot be a path.
    """
    try:
        folder = Path(workdir).expanduser().absolute()
        length = len(os.fsencode(folder))
    except (RuntimeError, ValueError) as error:  # no such user; a lone surrogate
        raise RunError(f"workdir={os.fspath(workdir)!r} is not a path: {error}") from None
    if "\0" in str(folder):
        raise RunError(f"workdir={os.fspath(workdir)!r} is not a path: it contains a zero byte")
    limit = 4096 if "PC_PATH_MAX" not in os.pathconf_names else os.pathconf("/", "PC_PATH_MAX")
    if length + RESERVED_BYTES > limit:
        raise RunError(
            f"the path of workdir has {length} bytes; the limit is {limit - RESERVED_BYTES}: choose a shorter path"
        )
    return folder


def check_space(workdir: Path, checkpoint_bytes: int, number: int) -> None:
    """Raise `RunError` if the disk of a workdir has too little free space for checkpoints.

    Args:
        workdir: an existing folder; the checkpoints in it already count as free, because they are replaced.
        checkpoint_bytes: bytes of one checkpoint, uncompressed.
        number: the number of checkpoints that are on disk at once.
    """
    held = sum(_sizes(workdir / "checkpoints"))
    free, needed = shutil.disk_usage(workdir).free + held, int(0.9 * checkpoint_bytes * number)
    if free < needed:
        raise RunError(
            f"workdir={shown(workdir)!r}: the disk has {free / 1e6:,.1f} MB free, but {number} checkpoints of "
            f"{checkpoint_bytes / 1e6:,.1f} MB each are needed; free some space, choose another workdir, or lower "
            "training.keep_checkpoints"
        )


def check_room(folder: Path, least: float) -> None:
    """Raise `OSError` if a folder cannot take one more checkpoint.

    A checkpoint needs as many bytes as the last one, or `least` bytes. The check also creates a folder, because Orbax
    would retry for minutes where none can be created.
    """
    probe = folder / ".probe"
    probe.mkdir(exist_ok=True)
    probe.rmdir()
    needed = max(least, [0, *_sizes(folder)][-1])
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed / 1e6:,.2f} MB needed, {free / 1e6:,.2f} free"
        )


def _sizes(checkpoints: Path) -> list[int]:
    """Bytes of each checkpoint in a folder, in the order of their steps; unfinished ones are left out."""
    steps = sorted((path for path in checkpoints.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
    return [sum(path.stat().st_size for path in step.rglob("*")) for step in steps]
