"""What others want to be done in the engine's thread: functions, and generators that are run in pieces."""

from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, NamedTuple


class Work(NamedTuple):
    """A generator of which each piece is run between two steps of the engine."""

    pieces: Generator[None, None, Any]
    future: Future
    """Of what the generator returns."""

    def advance(self) -> bool:
        """Run one piece; the future has the result after the last one. True: there is more."""
        if self.future.cancelled():
            return False
        try:
            next(self.pieces)
            return True
        except StopIteration as end:
            if self.future.set_running_or_notify_cancel():
                self.future.set_result(end.value)
        except Exception as error:
            self.fail(error)
        return False

    def fail(self, error: Exception) -> None:
        """End the work with an error."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


def one_piece(function: Callable[[], Any]) -> Generator[None, None, Any]:
    """A generator that calls a function and returns its result."""
    yield from ()
    return function()
