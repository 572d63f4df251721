"""Progress bars of data preparation."""

import sys
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Iterate over the items with a progress bar on stderr; without one if stderr is not a terminal."""
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track as rich_track

    return rich_track(items, description, total, console=Console(stderr=True), transient=True)
