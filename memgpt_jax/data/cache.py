"""The cache of tokenizers and tokenized corpora: each is made once, by one process, and verified when it is loaded."""

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from memgpt_jax import checksums
from memgpt_jax.data.sources import expand
from memgpt_jax.paths import shown

T = TypeVar("T")
FORMAT = 2  # of what is kept; a new one makes all of it anew
MAKING = "making-"


def cached(cache_dir: str, kind: str, key: tuple, make: Callable[[Path], None], load: Callable[[Path], T]) -> T:
    """Load the folder that belongs to the key, made first where it is absent or damaged.

    `make` writes into a temporary folder, which is renamed when complete. All its files carry checksums, which are
    verified before `load`: about 0.8 s for each GB, as SHA-256 reads all of it. A cache that cannot be written serves
    what it holds.

    Raises `ValueError` where the cache cannot be used, or `make` raises it; nothing incomplete stays.
    """
    with _places(cache_dir):
        root = expand(cache_dir) / kind
        folder = root / hashlib.blake2b(repr((FORMAT, *key)).encode(), digest_size=16).hexdigest()
        with contextlib.suppress(*DAMAGE):  # another process may be making it: look again below
            return _verified(folder, load)
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root.parent / "lock"):
            if folder.exists():
                try:
                    return _verified(folder, load)
                except DAMAGE as error:
                    logging.getLogger(__name__).warning("Making %s anew: %s", shown(folder), error)
                    shutil.rmtree(folder)
            for rest in root.glob(f"{MAKING}*"):  # of processes that were killed, as we hold the lock
                shutil.rmtree(rest)
            making = root / f"{MAKING}{uuid.uuid4().hex}"
            making.mkdir()
            try:
                make(making)
                checksums.record_all(making)
                os.replace(making, folder)
            finally:
                shutil.rmtree(making, ignore_errors=True)
            return load(folder)


DAMAGE = (ValueError, KeyError, OSError, EOFError)
"""What loading a damaged folder raises."""


def _verified(folder: Path, load: Callable[[Path], T]) -> T:
    if not (folder / checksums.SUMS).is_file():
        raise checksums.DamagedError(f"{folder} has no {checksums.SUMS}")
    checksums.verify(folder)
    return load(folder)


@contextlib.contextmanager
def _places(cache_dir: str) -> Iterator[None]:
    """Turn errors of the operating system into a `ValueError` that names the setting and the path."""
    try:
        yield
    except OSError as error:
        where = f"{shown(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        raise ValueError(
            f"data.cache_dir={cache_dir!r} cannot be used: {where}{error.strerror or error}; it must be a folder that "
            "can be written and has room"
        ) from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; it ends with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
