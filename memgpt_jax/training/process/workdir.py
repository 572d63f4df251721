"""The folder of a run: its lock, and the signals that stop a trainer."""

import builtins
import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from memgpt_jax.errors import RunError
from memgpt_jax.files.locks import LockedError, file_lock
from memgpt_jax.files.paths import shown


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
