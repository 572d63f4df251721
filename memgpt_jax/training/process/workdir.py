"""The folder of a run: its lock, and the signals that stop a trainer."""

import builtins
import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Self

import jax

from memgpt_jax.errors import RunError
from memgpt_jax.files.locks import LockedError, file_lock
from memgpt_jax.files.paths import shown


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Create the folder of a run and lock it; the kernel releases the lock when the process ends, even if it is killed.

    Raises:
        RunError: another trainer has locked it.
        OSError: it cannot be created or written to.
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


def interactive() -> bool:
    """Whether this process runs a Python prompt or a notebook, which must survive an interrupt."""
    return hasattr(sys, "ps1") or bool(sys.flags.interactive) or hasattr(builtins, "get_ipython")


class StopSignals:
    """SIGTERM and SIGINT end the process with exit code 0; a context manager.

    The process ends immediately or, while `deferred`, when the training loop calls `end` after it has saved. A second
    signal while deferred ends it immediately, without saving. In an `interactive` process, SIGINT raises
    `KeyboardInterrupt` instead. Outside of the main thread, Python cannot handle signals: they keep their effect.
    """

    def __init__(self):
        self.deferred = False
        self.received = None  # the number of the signal

    def __enter__(self) -> Self:
        self._previous = {}
        # Several processes must stop after the same step: JAX handles SIGTERM and notifies the other processes.
        numbers = (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else (signal.SIGINT,)
        with contextlib.suppress(ValueError):  # not the main thread
            for number in numbers:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def received_anywhere(self, step: int) -> bool:
        """Whether to stop after this step. Every process must call it at each step; all get the same answer."""
        if jax.process_count() == 1:
            return self.received is not None
        from jax.experimental.multihost_utils import reached_preemption_sync_point

        return reached_preemption_sync_point(step)

    def end(self) -> None:
        """End the run: raise `SystemExit(0)`, or `KeyboardInterrupt` for SIGINT in an interactive process."""
        raise KeyboardInterrupt if self.received == signal.SIGINT and interactive() else SystemExit(0)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None):
        if self.received is not None or not self.deferred:
            self.received = number
            self.end()
        self.received = number
