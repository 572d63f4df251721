"""A progress bar with the loss and the time left, on a terminal; a log line at each logged step elsewhere."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def progress(step: int, steps: int, shown: bool) -> Iterator[Callable[[int, dict[str, Any] | None], None]]:
    """Yield `advance(step, record)`, to be called after every step; `record` is None if the step is not logged.

    Args:
        step: steps taken before.
        steps: all steps of the run.
        shown: whether to draw a progress bar; False: log a line at each logged step.
    """
    if not shown:
        yield _log
        return
    from rich import progress as rich

    columns = (
        rich.MofNCompleteColumn(),
        rich.BarColumn(bar_width=16),
        rich.TextColumn("{task.fields[figures]}"),
        rich.TimeRemainingColumn(),
        rich.TextColumn("left"),
    )
    with rich.Progress(*columns) as bar:
        task = bar.add_task("train", total=steps, completed=step, figures="")

        def advance(step: int, record: dict[str, Any] | None) -> None:
            figures: dict[str, Any] = {"figures": _figures(record)} if record else {}
            bar.update(task, completed=step, **figures)

        yield advance


def _log(step: int, record: dict[str, Any] | None) -> None:
    if record:
        logger.info("step %d: %s", step, _figures(record))


def _figures(record: dict[str, Any]) -> str:
    texts = {"loss": "loss {:.3f}", "bits_per_byte": "bits/byte {:.3f}", "tokens_per_second": "{:,.0f} tokens/s"}
    return "  ".join(text.format(record[name]) for name, text in texts.items() if record[name] is not None)
