"""Locks between processes."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class LockedError(Exception):
    """Another process holds a lock."""

    def __init__(self, path: Path, holder: str):
        super().__init__(f"{path} is locked by process {holder}")
        self.holder = holder
        """Its process id, or "unknown"."""


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold an exclusive lock. The kernel frees it when the process ends, however it ends.

    Args:
        path: the lock file, created if missing; it contains the id of the process that holds the lock.
        wait: whether to wait for the process that holds the lock.

    Raises:
        LockedError: another process holds the lock, and `wait` is False.
        OSError: the file cannot be made or written.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise LockedError(path, file.read().strip() or "unknown") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
