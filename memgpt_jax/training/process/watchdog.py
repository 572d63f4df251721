"""End a process that hangs, with the stacks of all its threads."""

import faulthandler
import time


class Watchdog:
    """Ends the process if `alive()` is not followed by another `alive()` or `rest()` in time; a context manager.

    The wait is longer where steps are: at least ten times the longest between two calls of `alive`. What is written to
    standard error are the stacks of all threads; the exit code is 1. No `finally` block runs, as they could wait too.
    """

    def __init__(self, seconds: float):
        """Args: seconds: 0 means never."""
        self.seconds = seconds
        self._last = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.rest()

    def alive(self) -> None:
        """A step is done."""
        if not self.seconds:
            return
        now = time.monotonic()
        if self._last is not None:
            self.seconds = max(self.seconds, 10 * (now - self._last))
        self._last = now
        faulthandler.dump_traceback_later(self.seconds, exit=True)

    def rest(self) -> None:
        """Something that may take long begins; the next `alive` ends it."""
        self._last = None
        faulthandler.cancel_dump_traceback_later()
