"""Documents on this machine: which files make up a corpus, which split each is in, and what their bytes say.

A document's split is that of the sub-folder it lies in, or follows from a stable hash of its name (90 % train,
5 % valid, 5 % test). Every problem is a `ValueError` that names the file.
"""

import dataclasses
import gzip
import hashlib
import json
import os
import re
import sys
import sysconfig
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

SPLITS = ("train", "valid", "test")
SPLIT_FOLDERS = {"train": "train", "valid": "valid", "validation": "valid", "test": "test"}
TEXT_SUFFIXES = (".txt", ".md", ".py", ".gz")
JSON_SUFFIXES = (".jsonl", ".jsonl.gz")

STDLIB_LEFT_OUT = {  # tests, what others wrote, data
    "test", "tests", "idle_test", "site-packages", "dist-packages", "ensurepip", "_vendor", "pydoc_data"
}  # fmt: skip
STDLIB_GENERATED = re.compile(rb"auto-?generated|file is (automatically )?generated|character mapping codec", re.I)
STDLIB_FEWEST_FILES = 100


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A file of one document, or with a name in `.jsonl` of one document per line."""

    name: str
    """Path inside the corpus, with forward slashes."""
    path: Path
    split: str | None = None
    """The split of all its documents; None: each goes by the hash of its name."""

    @property
    def is_jsonl(self) -> bool:
        """Whether each line is a document."""
        return self.name.endswith(JSON_SUFFIXES)


def expand(path: str) -> Path:
    """The path with `~` and `$VARIABLES` filled in."""
    return Path(os.path.expandvars(path)).expanduser()


def hash_split(name: str) -> str:
    """The split of a document by its name: 90 % train, 5 % valid, 5 % test, on every machine alike."""
    percent = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") % 100
    return "train" if percent < 90 else "valid" if percent < 95 else "test"


def by_hash(files: Sequence[SourceFile]) -> list[SourceFile]:
    """The files in a fixed random order, so that the first n documents are a fair sample."""
    return sorted(files, key=lambda file: hashlib.blake2b(file.name.encode()).digest())


def stdlib_files() -> list[SourceFile]:
    """The source files of the standard library of the running Python, without tests, vendored and generated ones."""
    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for path in root.rglob("*.py"):
        name = path.relative_to(root)
        if STDLIB_LEFT_OUT.isdisjoint(name.parts) and not name.name.startswith("_sysconfigdata"):
            with path.open("rb") as file:
                if not STDLIB_GENERATED.search(file.read(1000)):
                    files.append(SourceFile(name.as_posix(), path))
    if len(files) < STDLIB_FEWEST_FILES:
        raise ValueError(
            f"data.corpus='stdlib': {sys.executable} ships only {len(files)} source files of its standard library, in "
            f"{root}; install the library's source, or use data.corpus='folder' with data.path"
        )
    return by_hash(files)


def folder_files(folder: str) -> list[SourceFile]:
    """The text files below a folder, or the one JSONL file; hidden files are left out.

    Where there is a sub-folder `train`, it and `valid` (or `validation`) and `test` are the splits, and files outside
    them do not belong to the corpus.
    """
    root = expand(folder)
    if root.is_file() and root.name.endswith(JSON_SUFFIXES):
        return [SourceFile(root.name, root)]
    if not root.is_dir():
        what = "is neither a folder nor a .jsonl or .jsonl.gz file" if root.exists() else "does not exist"
        raise ValueError(f"data.path={folder!r}: {root} {what}")
    names = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    names = [name for name in names if name.name.endswith(TEXT_SUFFIXES + JSON_SUFFIXES)]
    has_splits = (root / "train").is_dir()
    splits = [SPLIT_FOLDERS.get(name.parts[0]) if has_splits else None for name in names]
    files = [
        SourceFile(name.as_posix(), root / name, split)
        for name, split in zip(names, splits, strict=True)
        if split or not has_splits
    ]
    if not files:
        inside = " in its sub-folders train, valid and test" if has_splits else ""
        raise ValueError(f"data.path={folder!r}: {root} holds no .txt, .md, .py, .gz or .jsonl file{inside}")
    return by_hash(files)


def fingerprint(files: Sequence[SourceFile]) -> str:
    """A digest of every file's name, split, size and times, which any change of the corpus changes."""
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        stat = file.path.stat()
        digest.update(repr((file.name, file.split, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)).encode())
    return digest.hexdigest()


def present_splits(files: Sequence[SourceFile]) -> list[str]:
    """The splits that hold at least one document."""
    found = set()
    for file in files:
        if file.split or not file.is_jsonl:
            found.add(file.split or hash_split(file.name))
        else:
            for name, _, _ in _json_lines(file):
                found.add(hash_split(name))
                if len(found) == len(SPLITS):
                    break
    return [split for split in SPLITS if split in found]


def read_documents(file: SourceFile, split: str, invalid_utf8: str) -> Iterator[tuple[str, str]]:
    """The (name, text) of each document of a file that is in the given split."""
    if file.is_jsonl:
        for name, line, offset in _json_lines(file):
            if (file.split or hash_split(name)) == split:
                yield name, _json_text(file, name, decode(line, str(file.path), invalid_utf8, offset), invalid_utf8)
    elif (file.split or hash_split(file.name)) == split:
        with _open(file) as stream:
            data = b"".join(_checked(file, stream))
        zero = data.find(b"\0")
        if zero >= 0:
            raise ValueError(f"{file.path} is not text: it holds a zero byte at offset {zero}")
        yield file.name, decode(data, str(file.path), invalid_utf8)


def read_text(path: Path) -> str:
    """The text of a file, unpacked where its name ends in `.gz`. `ValueError` where it is damaged or not UTF-8."""
    file = SourceFile(path.name, path)
    with _open(file) as stream:
        return decode(b"".join(_checked(file, stream)), str(path), "error")


def decode(data: bytes, where: str, invalid_utf8: str, offset: int = 0) -> str:
    """UTF-8 bytes as text; bytes that are not UTF-8 are an error, or with `replace` become U+FFFD.

    `offset` is that of `data` in `where`, in bytes (of the uncompressed content), for the message.
    """
    try:
        return data.decode("utf-8", "replace" if invalid_utf8 == "replace" else "strict")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where} is not valid UTF-8 at byte offset {offset + error.start}: {error.reason}; "
            "data.invalid_utf8='replace' replaces such bytes"
        ) from None


def _open(file: SourceFile):
    return gzip.open(file.path, "rb") if file.name.endswith(".gz") else file.path.open("rb")


def _checked(file: SourceFile, stream) -> Iterator[bytes]:
    """The lines of an open file, with errors of decompression named."""
    try:
        yield from stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{file.path} is not a complete gzip file: {error}") from None


def _json_lines(file: SourceFile) -> Iterator[tuple[str, bytes, int]]:
    """The (document name, bytes, offset) of every line that is not blank."""
    offset = 0
    with _open(file) as stream:
        for number, line in enumerate(_checked(file, stream), start=1):
            if line.strip():
                yield f"{file.name}:{number}", line, offset
            offset += len(line)


def _json_text(file: SourceFile, name: str, line: str, invalid_utf8: str) -> str:
    where = f"{file.path}, line {name.rpartition(':')[2]}"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        found = f"the fields {', '.join(map(repr, record))}" if isinstance(record, dict) else type(record).__name__
        raise ValueError(f"{where} needs a field 'text' that is a string; it holds {found}")
    # JSON can spell half of a surrogate pair, which no UTF-8 can hold.
    return decode(record["text"].encode("utf-8", "surrogatepass"), f"the text of {where}", invalid_utf8)
