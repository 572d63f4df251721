"""Files and folders that are replaced as a whole: a reader finds the old content or the new, never a part of either."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

NEW = ".new-"
"""Beginning of the name of a folder that is being written beside the folder that it will replace."""


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, then rename it.

    Args: content: bytes, or text that is encoded as UTF-8, in which surrogates of `os.fsdecode` become bytes again.

    Raises `OSError` if it cannot be written; then the old file is unchanged.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new, empty folder that takes the place of `folder` when the block ends.

    Args: folder: the path; it need not exist, and its parent is made if missing.

    Raises `OSError` if it cannot be written. After any error `folder` is unchanged. If the process is killed between
    the two renamings, `recover_folder` restores the old folder.
    """
    recover_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=NEW, ignore_cleanup_errors=True) as name:
        new = Path(name) / "new"  # which, unlike the temporary folder, has the usual permissions
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


def recover_folder(folder: Path) -> None:
    """Restore a folder whose replacement was killed between its two renamings, or remove the rest of a finished one."""
    old = _old(folder)
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    elif old.is_dir():
        shutil.rmtree(old, ignore_errors=True)


def _old(folder: Path) -> Path:
    """The path to which a folder is moved while a new one replaces it."""
    return folder.with_name(f".{folder.name}.before")
