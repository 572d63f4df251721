"""Files of pictures and of sound with a label each: a folder, an archive, or a table of paths; and their splits."""

import io
import posixpath
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from memgpt_jax.config.checks import check, check_positive
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.data.corpora.sources import SPLITS, expand
from memgpt_jax.data.examples.records import Record, read_records
from memgpt_jax.files.paths import shown

TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz")


@dataclass(frozen=True, kw_only=True)
class MediaConfig(TaskConfig):
    """Base of the tasks that are learned from files of pictures or sound with a label each.

    `test` holds the files of `test_groups` and the last `test_last` files of each label and group, `valid` those of
    `valid_groups`, or without them every `valid_every`-th of the others. The order is that of their names, or of the
    rows of a table. A file that a table names in several rows is in the split of its first row.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    """Suffixes of the files that are read; others are skipped."""
    one_label: ClassVar[bool] = True
    """Whether a file has one label; False: the rows of a table may give it several."""

    path: str | None = None
    """A folder, a .tar, .tar.gz or .zip archive, or a table (.csv, .tsv, .jsonl, .parquet) of paths relative to its
    folder. `~` and `$VARIABLES` are expanded."""
    pattern: str = r"(?P<label>[^/]+)/[^/]+$"
    """Folders and archives: regular expression that is searched in the path of a file; its group `label` is the label,
    and `group`, if there is one, the group. Default: the folder of a file is its label."""
    path_column: str = "path"
    """Tables: the column that holds the path."""
    label_column: str = "label"
    """Tables: the column that holds the label."""
    group_column: str | None = None
    """Tables: the column that holds the group, such as the speaker."""
    test_groups: tuple[str, ...] = ()
    """Groups whose files are the test split."""
    test_last: int | None = None
    """Number of files of each label, and of each group, that are in the test split: the last by name, or of a table."""
    valid_groups: tuple[str, ...] = ()
    """Groups whose files are the validation split."""
    valid_every: int = 10
    """Without `valid_groups`: each of the other files whose number (from 1) is a multiple of this is in `valid`."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The column of the path of the file."""
        return (self.path_column,)

    def __post_init__(self) -> None:
        check_positive(self)
        for name in ("test_groups", "valid_groups"):
            value = getattr(self, name)
            check(not isinstance(value, str), f"data.{name} must be a list, got {value!r}")
            object.__setattr__(self, name, tuple(value))
        check(self.valid_every >= 2, f"data.valid_every must be at least 2, got {self.valid_every}")
        both = {*self.test_groups} & {*self.valid_groups}
        check(not both, f"data.test_groups and data.valid_groups share {', '.join(sorted(both))}")
        try:
            names = re.compile(self.pattern).groupindex
        except re.error as error:
            raise ValueError(f"data.pattern={self.pattern!r} is not a regular expression: {error}") from None
        check("label" in names, f"data.pattern={self.pattern!r} needs a group '(?P<label>...)'")

    @property
    def is_changed(self) -> bool:
        """Whether training examples are changed at random."""
        return False

    def table_file(self, record: Record, folder: Path) -> tuple[str, Callable[[], bytes]]:
        """The name of the file of a record of a table in a folder, and what reads it.

        Raises `ValueError` if there is no such file.
        """
        name = record.text(self.path_column)
        file = folder / name
        check(file.is_file(), f"{record.where}: there is no file {name!r} in {shown(folder)}")
        return name, file.read_bytes


class MediaFile(NamedTuple):
    """One file."""

    where: str
    """Its path, for messages."""
    label: str
    group: str | None
    content: bytes


def read_media(config: MediaConfig, split: str) -> list[MediaFile]:
    """The files of a split, ordered by name, or as the table has them.

    Raises `ValueError` if there are none, a file cannot be read, or the pattern does not fit its path.
    """
    check(split in SPLITS, f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    entries = _entries(config)
    groups = {entry.group for entry in entries}
    for name in (*config.test_groups, *config.valid_groups):
        known = ", ".join(sorted(map(str, groups))[:20])
        check(name in groups, f"data.test_groups, data.valid_groups: there is no group {name!r}; valid: {known}")
    chosen = [entry for entry, part in zip(entries, _splits(entries, config), strict=True) if part == split]
    wanted = ", ".join(config.suffixes)
    check(bool(chosen), f"split {split!r} of {config.path!r} has no files ({wanted}); see MediaConfig for the splits")
    return [MediaFile(entry.where, entry.label, entry.group, entry.read()) for entry in chosen]


def media_labels(config: MediaConfig) -> set[str]:
    """The labels of the files of all splits. Raises `ValueError` as `read_media`."""
    return {entry.label for entry in _entries(config)}


def _entries(config: MediaConfig) -> list["_Entry"]:
    """The files of all splits."""
    check(config.path is not None, "data.path must name a folder, an archive or a table of files, got None")
    assert config.path is not None
    path = expand(config.path)
    check(path.exists(), f"data.path: there is no file or folder {config.path!r}")
    is_table = path.is_file() and path.name.lower().endswith(TABLES)
    return list(_from_table(path, config) if is_table else _from_names(path, config))


class _Entry(NamedTuple):
    where: str
    label: str
    group: str | None
    read: Callable[[], bytes]
    name: str
    """Of the file: it is equal for the rows of a table that name the same file."""


def _splits(entries: Sequence[_Entry], config: MediaConfig) -> list[str]:
    """The split of each entry. Raises `ValueError` if a file has several groups, or several labels where it has one."""
    first: dict[str, _Entry] = {}
    for entry in entries:
        other = first.setdefault(entry.name, entry)
        for noun, differ in (
            ("groups", entry.group != other.group),
            ("labels", config.one_label and entry.label != other.label),
        ):
            check(not differ, f"{entry.where}: the file has other {noun} than in {other.where}")
    splits = dict(zip(first, _splits_of_files([*first.values()], config), strict=True))
    return [splits[entry.name] for entry in entries]


def _splits_of_files(entries: Sequence[_Entry], config: MediaConfig) -> list[str]:
    """The split of each of some different files."""
    kinds = [(entry.label, entry.group) for entry in entries]
    last, found, number = dict.fromkeys(kinds, config.test_last or 0), [], 0
    is_last = []
    for kind in reversed(kinds):
        is_last.append(last[kind] > 0)
        last[kind] -= 1
    for entry, late in zip(entries, reversed(is_last), strict=True):
        if late or entry.group in config.test_groups:
            found.append("test")
        elif config.valid_groups:
            found.append("valid" if entry.group in config.valid_groups else "train")
        else:
            number += 1
            found.append("train" if number % config.valid_every else "valid")
    return found


def _from_names(path: Path, config: MediaConfig) -> Iterator[_Entry]:
    pattern = re.compile(config.pattern)
    for name, read in sorted(dict(_files(path)).items()):  # of members of the same name, the last
        hidden = any(part.startswith(".") for part in name.split("/"))
        if hidden or not name.lower().endswith(config.suffixes):
            continue
        found = pattern.search(name)
        if found is None:
            raise ValueError(f"{shown(path)}: data.pattern={config.pattern!r} does not fit the path {name!r}")
        parts = found.groupdict()
        yield _Entry(f"{shown(path)}/{name}", parts["label"], parts.get("group"), read, name)


def _files(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The names of the files of a folder or an archive, and what reads them."""
    if path.is_dir():
        for file in path.rglob("*"):
            if file.is_file():
                yield file.relative_to(path).as_posix(), file.read_bytes
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            contents = {item: archive.read(item) for item in archive.namelist() if not item.endswith("/")}
        yield from ((posixpath.normpath(name), io.BytesIO(content).getvalue) for name, content in contents.items())
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            for member in archive:
                if (file := archive.extractfile(member) if member.isfile() else None) is not None:
                    yield posixpath.normpath(member.name), io.BytesIO(file.read()).getvalue
    else:
        raise ValueError(f"data.path={str(path)!r} must be a folder, an archive (.tar, .zip) or a table of paths")


def _from_table(path: Path, config: MediaConfig) -> Iterator[_Entry]:
    for record in read_records(path):
        name, read = config.table_file(record, path.parent)
        group = None if config.group_column is None else record.label(config.group_column)
        where = f"{record.where} ({name})"
        yield _Entry(where, record.label(config.label_column), group, read, posixpath.normpath(name))
