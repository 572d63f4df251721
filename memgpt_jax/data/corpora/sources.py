"""Corpora of files on this machine: the split of each document, and the fingerprint of the corpus.

The split of a document is the split of its sub-folder, or follows from a stable hash of its name (90% train, 5% valid,
5% test). Every problem is a `ValueError` that names the file.
"""

import dataclasses
import functools
import hashlib
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from memgpt_jax.data.corpora.reading import (
    DEFAULT,
    Document,
    Kind,
    Options,
    always,
    document_names,
    kind_of,
    read_file,
    unreadable,
)
from memgpt_jax.data.progress_bar import track

SPLITS = ("train", "valid", "test")
MORE = (
    "add documents (each split gets at least one of three; the sub-folders train, valid and test of a folder are its "
    "splits), or evaluate another split (evaluation.split)"
)

STDLIB_LEFT_OUT = {  # tests, third-party code and data
    "test", "tests", "idle_test", "site-packages", "dist-packages", "ensurepip", "_vendor", "pydoc_data"
}  # fmt: skip
STDLIB_GENERATED = re.compile(rb"auto-?generated|file is (automatically )?generated|character mapping codec", re.I)
STDLIB_FEWEST_FILES = 100


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A file of a corpus: one document, or a table of them."""

    name: str
    """Path inside the corpus, with forward slashes; bytes that are not UTF-8 are encoded as by `os.fsdecode`."""
    path: Path
    split: str | None = None
    """The split of all its documents; None: the split of each document follows from the hash of its name."""

    @property
    def kind(self) -> Kind:
        """The format of the file; a file with an unknown suffix is text."""
        return kind_of(self.name) or "text"


def expand(path: str | os.PathLike[str]) -> Path:
    """The path with `~` and `$VARIABLES` expanded. Raises `ValueError` if one is not set."""
    filled = os.path.expandvars(path)
    unset = re.search(r"\$(\w+|\{\w+\})", filled)
    if unset and not os.path.exists(filled):
        raise ValueError(f"the path {os.fspath(path)!r} holds {unset[0]}, and no such environment variable is set")
    try:
        return Path(filled).expanduser()
    except RuntimeError as error:
        raise ValueError(f"the path {os.fspath(path)!r} cannot be expanded: {error}") from None


def hash_split(name: str) -> str:
    """The split of a document by its name, the same on every machine: 90% train, 5% valid, 5% test."""
    percent = int.from_bytes(_digest(name, 8), "big") % 100
    return "train" if percent < 90 else "valid" if percent < 95 else "test"


def by_hash(files: Sequence[SourceFile]) -> list[SourceFile]:
    """The files in a fixed random order, so that the first n documents are a fair sample."""
    return sorted(files, key=lambda file: _digest(file.name))


def _digest(name: str, size: int = 64) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=size).digest()


class FileCorpus:
    """The documents of files, in the order of the files.

    A document whose file has no split is assigned to one by the hash of its name. If a split would be empty, because
    there are few documents, one document of the largest split is moved to it, in the order train, valid, test: three
    documents fill three splits, two documents fill train and valid.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[SourceFile],
        options: Options = DEFAULT,
        keep: Callable[[SourceFile], bool] = always,
    ):
        """Args: name: of the corpus; files: all candidates; keep: True for files that belong to the corpus."""
        self.name, self.files, self.options, self.keep = name, files, options, keep

    @property
    def fingerprint(self) -> str:
        """A name that changes with the documents: a digest of the options and of each file's metadata."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        """A digest that changes with the options, and with each file's name, split, size, inode or times.

        Contents are not read. Every change updates ctime, which programs cannot set; a change is missed only if it
        keeps the size and follows the previous change within one clock tick of the file system (about 4 ms on Linux).
        """
        digest = hashlib.blake2b(repr((self.name, self.options)).encode(), digest_size=8)
        for file in self.files:
            try:
                stat = file.path.stat()
            except OSError as error:
                raise unreadable(file.path, error) from None
            times = stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns
            digest.update(repr((file.name, file.split, *times)).encode())
        return digest.hexdigest()

    @property
    def splits(self) -> list[str]:
        """The splits that hold at least one document."""
        filled, _ = self._scanned
        return [split for split in SPLITS if split in filled]

    def read(self, split: str) -> Iterator[Document]:
        """The documents of a split; their texts are read when they are iterated.

        Raises `ValueError` if there is none, and while iterating, if a file is damaged.
        """
        if split not in self.splits:
            raise ValueError(
                f"{self.name} holds no documents in split {split!r}, only in {', '.join(map(repr, self.splits))}; "
                f"{MORE}"
            )
        _, moved = self._scanned
        for file in track(self.files, f"Reading {self.name}, {split}"):
            if file.split in (split, None) and self.keep(file):
                wanted = always if file.split else lambda name: moved.get(name, hash_split(name)) == split
                yield from read_file(file.path, file.name, file.kind, wanted, self.options)

    @functools.cached_property
    def _scanned(self) -> tuple[set[str], dict[str, str]]:
        """(splits that have documents, {name of a document that is moved to an empty split: this split})."""
        names: dict[str, list[str]] = {split: [] for split in SPLITS}
        for file in self.files:
            for name in document_names(file.path, file.name, file.kind, self.options) if file.split is None else ():
                names[hash_split(name)].append(name)
                if all(names.values()):
                    return set(SPLITS), {}
        moved = {}
        for split in SPLITS[: sum(map(len, names.values()))]:
            if not names[split]:
                largest = max(reversed(SPLITS), key=lambda other: len(names[other]))
                names[split].append(max(names[largest], key=_digest))
                names[largest].remove(names[split][0])
                moved[names[split][0]] = split
        filled = {split for split in SPLITS if names[split]}
        return filled | {file.split for file in self.files if file.split}, moved


def stdlib_files() -> list[SourceFile]:
    """The `.py` files of the standard library of the running Python, without tests and third-party code."""
    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for folder, subfolders, names in os.walk(root, onerror=_refuse):
        subfolders[:] = [name for name in subfolders if name not in STDLIB_LEFT_OUT]
        for name in names:
            path = Path(folder, name)
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                files.append(SourceFile(path.relative_to(root).as_posix(), path))
    if len(files) < STDLIB_FEWEST_FILES:
        raise ValueError(
            f"data.corpus='stdlib': {sys.executable} ships only {len(files)} source files of its standard library, in "
            f"{root}; install the library's source, or use data.corpus='folder' with data.path"
        )
    return by_hash(files)


def _refuse(error: OSError):
    raise unreadable(error.filename, error) from None


def is_written_by_hand(file: SourceFile) -> bool:
    """Whether the first 1,000 bytes of a file do not declare it as generated."""
    try:
        with file.path.open("rb") as stream:
            return not STDLIB_GENERATED.search(stream.read(1000))
    except OSError as error:
        raise unreadable(file.path, error) from None


def stdlib_corpus(options: Options = DEFAULT) -> FileCorpus:
    """The standard library's source on this machine; each file is one document."""
    return FileCorpus(f"stdlib of Python {platform.python_version()}", stdlib_files(), options, is_written_by_hand)
