"""End a process that hangs, with the stacks of all its threads."""

import faulthandler
import time
from typing import Self


class Watchdog:
    """Ends the process if a call of `alive` is not followed by another one or by `rest` in time; a context manager.

    The time limit is `seconds`, or ten times the longest time between two calls of `alive` if that is longer. At the
    end, the stacks of all threads are written to standard error, and the exit code is 1. No `finally` block runs,
    because it could hang, too.
    """

    def __init__(self, seconds: float):
        """Args: seconds: the time limit; 0: none."""
        self.seconds = seconds
        self._last = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def alive(self) -> None:
        """Report that a step is done, and restart the time limit."""
        if not self.seconds:
            return
        now = time.monotonic()
        if self._last is not None:
            self.seconds = max(self.seconds, 10 * (now - self._last))
        self._last = now
        faulthandler.dump_traceback_later(self.seconds, exit=True)

    def rest(self) -> None:
        """Suspend the time limit until the next call of `alive`."""
        self._last = None
        faulthandler.cancel_dump_traceback_later()
