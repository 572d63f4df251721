"""The folder of a run: its path, its lock, its free disk space, and the signals that stop a trainer."""

import builtins
import contextlib
import errno
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from memgpt_jax import data
from memgpt_jax.errors import RunError
from memgpt_jax.files.locks import LockedError, file_lock
from memgpt_jax.files.paths import shown

ROOM_FOR_NAMES = 400
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
        raise RunError(f"workdir={os.fspath(workdir)!r} is not a path: it holds a zero byte")
    limit = 4096 if "PC_PATH_MAX" not in os.pathconf_names else os.pathconf("/", "PC_PATH_MAX")
    if length + ROOM_FOR_NAMES > limit:
        raise RunError(
            f"the path of workdir has {length} bytes and may have {limit - ROOM_FOR_NAMES}: choose a shorter one"
        )
    return folder


def load_run_tokenizer(workdir: str | Path) -> Any:
    """The tokenizer of a run. Raises `ValueError` where it is absent, damaged or cannot be read."""
    folder = run_folder(workdir) / "tokenizer"
    try:
        return data.read_tokenizer(folder)
    except OSError as error:
        raise ValueError(f"the tokenizer in {shown(folder)} cannot be read: {error}") from None


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Make the folder, and hold it: the kernel frees the lock when the process ends, however it ends.

    Raises:
        RunError: another trainer holds it.
        OSError: it cannot be made or written to.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(workdir / "lock", wait=False))
        except LockedError as error:
            raise RunError(
                f"{shown(workdir)} is in use by another trainer (process {error.holder}); wait for it to end, or "
                "choose another workdir"
            ) from None
        yield


def check_space(workdir: Path, checkpoint_bytes: int, number: int) -> None:
    """Raise `RunError` if the disk of a workdir has too little free space for checkpoints.

    Args:
        workdir: an existing folder; the checkpoints that it holds already count as free, because they are replaced.
        checkpoint_bytes: bytes of one checkpoint, uncompressed.
        number: the number of checkpoints that are on disk at once.
    """
    held = sum(_sizes(workdir / "checkpoints"))
    free, needed = shutil.disk_usage(workdir).free + held, int(0.9 * checkpoint_bytes * number)
    if free < needed:
        raise RunError(
            f"workdir={shown(workdir)!r}: the disk has {free / 1e6:,.1f} MB free, and {number} checkpoints of "
            f"{checkpoint_bytes / 1e6:,.1f} MB each have to fit; free some space, choose another workdir, or lower "
            "training.keep_checkpoints"
        )


def check_room(folder: Path, least: float) -> None:
    """Raise `OSError` if a folder cannot take one more checkpoint.

    Its disk must have space for one as large as the last, or of `least` bytes, and a folder can be made in it: Orbax
    would wait for minutes for one that cannot.
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


def interactive() -> bool:
    """Whether this process runs a Python prompt or a notebook, which must survive an interrupt."""
    return hasattr(sys, "ps1") or bool(sys.flags.interactive) or hasattr(builtins, "get_ipython")


class StopSignals:
    """SIGTERM and SIGINT end the process with code 0: at once, or, while `deferred`, when the loop sees `received`.

    In an `interactive` process SIGINT raises `KeyboardInterrupt` instead, as is usual there.
    A second signal while deferred ends it at once, and nothing is saved. Outside of the main thread, where Python
    cannot listen to signals, they keep their usual effect.
    """

    def __init__(self):
        self.deferred = False
        self.received = None  # the number of the signal

    def __enter__(self):
        self._previous = {}
        # Several processes stop after the same step: there SIGTERM is left to JAX, which tells the others.
        numbers = (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else (signal.SIGINT,)
        with contextlib.suppress(ValueError):  # not the main thread
            for number in numbers:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def received_anywhere(self, step: int) -> bool:
        """Whether to stop after this step; the same for all processes of a run, which must all ask at each step."""
        if jax.process_count() == 1:
            return self.received is not None
        from jax.experimental.multihost_utils import reached_preemption_sync_point

        return reached_preemption_sync_point(step)

    def end(self) -> None:
        """Raise what ends the run: `SystemExit(0)`, or `KeyboardInterrupt` for SIGINT in an interactive process."""
        raise KeyboardInterrupt if self.received == signal.SIGINT and interactive() else SystemExit(0)

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if self.received is not None or not self.deferred:
            self.received = number
            self.end()
        self.received = number
