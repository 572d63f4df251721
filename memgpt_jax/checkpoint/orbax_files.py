"""Orbax: checksums of a checkpoint's files before the checkpoint gets its final name, and errors without log output."""

import asyncio
import contextlib
import functools
import gc
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from memgpt_jax.errors import one_line
from memgpt_jax.files import checksums


@functools.cache
def summed_path() -> type:
    """Orbax's class of temporary folders, changed to record the checksums of a checkpoint before its final rename."""
    from orbax.checkpoint.path import atomicity

    class Summed(atomicity.AtomicRenameTemporaryPath):
        async def finalize(self):
            if not self.get_final().name.isdecimal():  # an item of a checkpoint
                return await super().finalize()
            final, whole = self._final_path, self._tmp_path.with_name(f"{self._tmp_path.name}-whole")
            self._final_path = whole  # completed there; Orbax removes a leftover at the next start
            await super().finalize()
            self._tmp_path, self._final_path = whole, final
            await asyncio.to_thread(_complete, Path(whole))
            await asyncio.to_thread(os.rename, whole, final)

    return Summed


def _complete(folder: Path) -> None:
    """Record the checksums of a checkpoint. Raises `OSError` if Orbax left arrays that it could not read again."""
    for part in folder.rglob("ocdbt.process_*"):
        if not (part.parent / "manifest.ocdbt").is_file():
            raise OSError(f"the arrays of {part.parent} were not merged")
    checksums.record_all(folder)


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Suppress log messages of Orbax, and of asyncio for its tasks, about errors that are also raised."""
    from absl import logging as absl_logging

    loggers = absl_logging.get_absl_logger(), logging.getLogger("asyncio")
    for logger in loggers:
        logger.addFilter(_is_news)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    raised = "orbax" in record.pathname or "exception was never retrieved" in record.getMessage()
    return record.levelno < logging.ERROR or not raised


@contextlib.contextmanager
def quiet_remains() -> Iterator[None]:
    """Collect the coroutines of a failed save at the end of the block, without their warnings of not being awaited."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # never awaited
            gc.collect()
    finally:
        sys.unraisablehook = hook


def root_cause(error: BaseException) -> str:
    """The first error of a chain of exceptions in one line, or the system's text for the code in TensorStore's."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else one_line(error)
