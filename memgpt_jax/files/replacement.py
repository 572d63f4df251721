"""Atomic replacement of files and folders: a reader finds either the old or the new content, never a mixture."""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

NEW = ".new-"
"""Prefix of the name of a temporary folder, which is written beside the folder that it will replace."""


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name of its own, `.partial` at the end, then rename it.

    Args:
        path: the file.
        content: bytes, or text, which is encoded as UTF-8; surrogates from `os.fsdecode` become bytes again.

    Raises `OSError` if the file cannot be written; the old file is then unchanged.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Context manager that yields a new, empty folder, which replaces `folder` when the block ends.

    Args:
        folder: the path; it need not exist, and its parent is created if missing.

    Raises `OSError` if the folder cannot be written. After any error `folder` is unchanged. If the process is
    killed between the two renamings, `recover_folder` restores the old folder.
    """
    recover_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=NEW, ignore_cleanup_errors=True) as name:
        new = Path(name) / "new"  # a temporary folder itself has restricted permissions
        new.mkdir()
        yield new
        old, exists = _old(folder), folder.exists()
        if exists:
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if exists:
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)


def readable_folder(folder: Path) -> Path:
    """The folder, or the old one between the two renamings of a replacement; nothing is changed."""
    return folder if folder.exists() or not _old(folder).is_dir() else _old(folder)


def recover_folder(folder: Path) -> None:
    """Complete an interrupted replacement: restore the old folder if the new one is absent, else remove the old one."""
    old = _old(folder)
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    elif old.is_dir():
        shutil.rmtree(old, ignore_errors=True)


def _old(folder: Path) -> Path:
    """The path to which a folder is moved while a new one replaces it."""
    return folder.with_name(f".{folder.name}.before")
