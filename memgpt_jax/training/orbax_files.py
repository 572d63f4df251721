"""Orbax's files of a checkpoint get checksums before the checkpoint gets its name; its errors come without a log."""

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

from memgpt_jax import checksums
from memgpt_jax.training.errors import one_line


@functools.cache
def summed_path() -> type:
    """Orbax's temporary folder, which records the checksums of a checkpoint before it gets its name."""
    from orbax.checkpoint.path import atomicity

    class Summed(atomicity.AtomicRenameTemporaryPath):
        async def finalize(self):
            if not self.get_final().name.isdecimal():  # an item of a checkpoint
                return await super().finalize()
            final, whole = self._final_path, self._tmp_path.with_name(f"{self._tmp_path.name}-whole")
            self._final_path = whole  # completed there; at a start, Orbax removes it by its name
            await super().finalize()
            self._tmp_path, self._final_path = whole, final
            await asyncio.to_thread(_complete, Path(whole))
            await asyncio.to_thread(os.rename, whole, final)

    return Summed


def _complete(folder: Path) -> None:
    """Record the checksums of a checkpoint. Raises `OSError` where Orbax left arrays that it could not read again."""
    for part in folder.rglob("ocdbt.process_*"):
        if not (part.parent / "manifest.ocdbt").is_file():
            raise OSError(f"the arrays of {part.parent} were not merged")
    checksums.record_all(folder)


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Keep Orbax, and asyncio for its tasks, from logging the tracebacks of errors that are raised as well."""
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
    """Drop what a failed save left; its coroutines complain when they are collected, here and not at the end."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # never awaited
            gc.collect()
    finally:
        sys.unraisablehook = hook


def root_cause(error: BaseException) -> str:
    """The reason at the root of a chain of exceptions: what the system told TensorStore, which told Orbax."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else one_line(error)
