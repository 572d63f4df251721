"""The cache of tokenizers and tokenized corpora: one process makes each entry once; every load verifies it."""

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from memgpt_jax.data.corpora.sources import expand
from memgpt_jax.files import checksums
from memgpt_jax.files.locks import file_lock
from memgpt_jax.files.paths import shown
from memgpt_jax.files.replacement import NEW, replacing_folder

T = TypeVar("T")
FORMAT = 2  # version of the format; entries of other versions are ignored

logger = logging.getLogger(__name__)


def cached(
    cache_dir: str, kind: str, key: tuple[Any, ...], make: Callable[[Path], None], load: Callable[[Path], T]
) -> T:
    """Load the folder of a key; if it is absent or damaged, make it first.

    The checksums of all files are verified before `load`; this takes about 0.8 s per GB. Entries of a read-only cache
    can be loaded.

    Args:
        cache_dir: root of the cache.
        kind: the sub-folder for entries of this kind.
        key: values that determine the content.
        make: writes the content into a temporary folder, which is then renamed; an incomplete folder is removed.
        load: reads the folder.

    Raises `ValueError` if the cache cannot be used, or `make` raises it.
    """
    with _os_errors_named(cache_dir):
        root = expand(cache_dir) / kind
        folder = root / hashlib.blake2b(repr((FORMAT, *key)).encode(), digest_size=16).hexdigest()
        with contextlib.suppress(*DAMAGE):  # another process may be making it: try again below
            return _verified(folder, load)
        root.mkdir(parents=True, exist_ok=True)
        with file_lock(root.parent / "lock", wait=True):
            if folder.exists():
                try:
                    return _verified(folder, load)
                except DAMAGE as error:
                    logger.warning("Rebuilding %s: %s", shown(folder), error)
                    shutil.rmtree(folder)
            for partial in root.glob(f"{NEW}*"):  # of killed processes, because this process holds the lock
                shutil.rmtree(partial)
            with replacing_folder(folder) as new:
                make(new)
                checksums.record_all(new)
            return load(folder)


DAMAGE = (ValueError, KeyError, OSError, EOFError)
"""The errors that loading a damaged folder raises."""


def _verified(folder: Path, load: Callable[[Path], T]) -> T:
    if not (folder / checksums.SUMS).is_file():
        raise checksums.DamagedError(f"{folder} has no {checksums.SUMS}")
    checksums.verify(folder)
    return load(folder)


@contextlib.contextmanager
def _os_errors_named(cache_dir: str) -> Iterator[None]:
    """Turn errors of the operating system into a `ValueError` that names the setting and the path."""
    try:
        yield
    except OSError as error:
        where = f"{shown(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        raise ValueError(
            f"data.cache_dir={cache_dir!r} cannot be used: {where}{error.strerror or error}; it must be a "
            "writable folder on a disk with free space"
        ) from None
