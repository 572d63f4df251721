"""Who may work in a folder of a run, and how a trainer there is asked to stop."""

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import jax

from memgpt_jax.training.errors import RunError


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Make the folder, and hold it: the kernel frees the lock when the process ends, however it ends.

    Raises:
        RunError: another trainer holds it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunError(
                f"{workdir} is in use by another trainer (process {file.read().strip() or 'unknown'}); "
                "wait for it to end, or choose another workdir"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class StopSignals:
    """SIGTERM and SIGINT end the process with code 0: at once, or, while `deferred`, when the loop sees `received`.

    A second signal while deferred ends it at once, and nothing is saved. Outside of the main thread, where Python
    cannot listen to signals, they keep their usual effect.
    """

    def __init__(self):
        self.deferred = False
        self.received = False

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
            return self.received
        from jax.experimental.multihost_utils import reached_preemption_sync_point

        return reached_preemption_sync_point(step)

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if self.received or not self.deferred:
            raise SystemExit(0)
        self.received = True
