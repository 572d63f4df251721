"""A progress bar with the loss and the time left, on a terminal; a log line at each logged step elsewhere."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def progress(step: int, steps: int, shown: bool) -> Iterator[Callable[[int, dict[str, Any] | None], None]]:
    """Give a function to call after every step with its number and, where it was logged, its record."""
    if not shown:
        yield _log
        return
    from rich import progress as rich

    columns = (
        rich.TextColumn("step"),
        rich.MofNCompleteColumn(),
        rich.BarColumn(bar_width=None),
        rich.TextColumn("{task.fields[figures]}"),
        rich.TimeElapsedColumn(),
        rich.TextColumn("left"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, expand=True) as bar:
        task = bar.add_task("train", total=steps, completed=step, figures="")

        def advance(step: int, record: dict[str, Any] | None) -> None:
            bar.update(task, completed=step, **({"figures": _figures(record)} if record else {}))

        yield advance


def _log(step: int, record: dict[str, Any] | None) -> None:
    if record:
        logger.info("step %d: %s", step, _figures(record))


def _figures(record: dict[str, Any]) -> str:
    shown = ("loss", "bits_per_byte", "accuracy", "tokens_per_second")
    return "  ".join(f"{name} {record[name]:.4g}" for name in shown if record.get(name) is not None)
