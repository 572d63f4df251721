"""The files of a folder that belong to a corpus, their splits, and the files that are skipped, with the reasons."""

import difflib
import errno
import fnmatch
import functools
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from memgpt_jax.data.corpora.reading import DEFAULT, SHOWN, Options, kind_of, listed
from memgpt_jax.data.corpora.sources import FileCorpus, SourceFile, by_hash, expand
from memgpt_jax.files.paths import shown

SPLIT_FOLDERS = {
    "train": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "test": "test"
}  # fmt: skip
READ = ".txt, .md, .py, .gz, .jsonl, .csv, .tsv or .parquet"

Skipped = dict[str, list[str]]
"""The names of files that are skipped, by reason."""

logger = logging.getLogger(__name__)


def folder_files(folder: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[SourceFile]:
    """The files of documents and of tables of documents below a folder, or the one table; links are followed.

    If there is a sub-folder `train`, it and the sub-folders `valid` (or `validation`, `val`, `dev`) and `test` are the
    splits, and files outside of them do not belong to the corpus. One warning in the log names the skipped files.

    Args:
        folder: the path; `~` and `$VARIABLES` are expanded.
        include: patterns of the files to read, default: those with a known suffix. A pattern is compared with the path
            in the folder, part by part, as in a shell: `**` matches any folders, a pattern without a "/" is compared in
            every folder, and one that matches a folder matches all files inside. A file with an unknown suffix is read
            as text if a pattern ends in that suffix (`*.rst`).
        exclude: patterns of files and folders to skip.

    Raises:
        ValueError: the folder is absent or cannot be read, it holds no such file, or a pattern matches nothing.
    """
    root = expand(folder)
    try:
        return _files(folder, root, include, exclude)
    except OSError as error:
        where = shown(error.filename or root)
        hint = "" if where == shown(root) else "; data.exclude skips folders"
        raise ValueError(f"data.path={folder!r}: {where} cannot be read: {error.strerror or error}{hint}") from None


def folder_corpus(
    folder: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    options: Options = DEFAULT,
) -> FileCorpus:
    """The corpus of `folder_files`. Raises `ValueError` also if `text_column` is set and no file is a table."""
    files = folder_files(folder, include, exclude)
    if options.text_column != DEFAULT.text_column and all(file.kind == "text" for file in files):
        raise ValueError(
            f"data.text_column={options.text_column!r}: no file of data.path={folder!r} is a table, .jsonl, .csv, .tsv "
            "or .parquet"
        )
    return FileCorpus(f"data.path={folder!r}", files, options)


def _files(folder: str, root: Path, include: Sequence[str], exclude: Sequence[str]) -> list[SourceFile]:
    skipped: Skipped = {}
    if root.is_file():
        if kind_of(root.name) in (None, "text"):
            raise ValueError(
                f"data.path={folder!r}: {shown(root)} is neither a folder nor a .jsonl, .csv, .tsv or .parquet file"
            )
        found, has_splits = [(root.name, root)], False
    elif root.is_dir():
        found = list(_walk(root, exclude, skipped))
        has_splits = any(path.name.lower() == "train" and path.is_dir() for path in root.iterdir())
    else:
        missing = f"is a link to {shown(os.readlink(root))}, which does" if root.is_symlink() else "does"
        problem = "is neither a folder nor a file" if root.exists() else f"{missing} not exist"
        raise ValueError(f"data.path={folder!r}: {shown(root)} {problem}")
    files = []
    for name, path in found:
        first, slash, _ = name.partition("/")
        split = SPLIT_FOLDERS.get(first.lower()) if has_splits and slash else None
        reason = _reason(name, path, include, exclude)
        if reason is None and has_splits and split is None:
            reason = "outside of the folders train, valid and test"
        if reason is None:
            files.append(SourceFile(name, path, split))
        else:
            skipped.setdefault(reason, []).append(name)
    _check_patterns({"include": include, "exclude": exclude}, [name for name, _ in found], skipped)
    summary = "; ".join(listed(reason, names) for reason, names in skipped.items())
    if not files:
        inside = " in its sub-folders train, valid and test" if has_splits else ""
        raise ValueError(
            f"data.path={folder!r}: {shown(root)} holds no {READ} file{inside}{' to read; ' * bool(skipped)}{summary}"
        )
    stems = {name.partition(".")[0].lower() for name, _ in found if "/" not in name}
    if not has_splits and "train" in stems and len(stems & SPLIT_FOLDERS.keys()) > 1:
        _warn_once(
            f"data.path={folder!r}: only folders train, valid and test are splits; files with these names "
            "are assigned to splits by a hash, like all other files"
        )
    if skipped:
        _warn_once(f"data.path={folder!r}: skipped {summary}")
    return by_hash(files)


def _reason(name: str, path: Path, include: Sequence[str], exclude: Sequence[str]) -> str | None:
    """The reason why a file is skipped; None: it is read."""
    parts = tuple(name.split("/"))
    if any(matches(parts, pattern) for pattern in exclude):
        return "data.exclude"
    matching = [pattern for pattern in include if matches(parts, pattern)]
    if include and not matching:
        return "not in data.include"
    names_suffix = any(path.suffix and PurePosixPath(pattern).suffix == path.suffix for pattern in matching)
    if kind_of(name) is None and not names_suffix:
        return "other suffix"
    return "empty" if path.stat().st_size == 0 else None


def _walk(root: Path, exclude: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, Path]]:
    """The (name, path) of every visible file below a folder; names of other entries are added to `skipped`."""
    waiting = [(root, "", frozenset({_identity(root.stat())}))]
    while waiting:
        folder, prefix, parents = waiting.pop()
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            name, path = prefix + entry.name, folder / entry.name
            if entry.name.startswith("."):
                skipped.setdefault("hidden", []).append(name)
                continue
            if any(matches(tuple(name.split("/")), pattern) for pattern in exclude):
                skipped.setdefault("data.exclude", []).append(name)
                continue
            try:
                found = path.stat()
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ELOOP):
                    raise
                if folder == root and name.lower() in SPLIT_FOLDERS:
                    raise ValueError(f"{shown(path)}, a split of the corpus, is a broken link") from None
                skipped.setdefault("broken link", []).append(name)
                continue
            if stat.S_ISREG(found.st_mode):
                yield name, path
            elif not stat.S_ISDIR(found.st_mode):
                skipped.setdefault("not a regular file", []).append(name)
            elif _identity(found) in parents:
                skipped.setdefault("link to an enclosing folder", []).append(name)
            else:
                waiting.append((path, f"{name}/", parents | {_identity(found)}))


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def matches(parts: tuple[str, ...], pattern: str) -> bool:
    """Whether a pattern (see `folder_files`) matches a path or one of its parent folders."""
    wanted = PurePosixPath(pattern).parts
    return _match(parts, wanted if len(wanted) > 1 else ("**", *wanted))


def _match(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    if not wanted:
        return True
    if wanted[0] == "**":
        return any(_match(parts[start:], wanted[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and _match(parts[1:], wanted[1:])


def _check_patterns(patterns: dict[str, Sequence[str]], names: Sequence[str], skipped: Skipped) -> None:
    """Raise `ValueError` for a pattern that matches nothing."""
    everything = dict.fromkeys([*names, *(name for found in skipped.values() for name in found)])
    for setting, values in patterns.items():
        for pattern in values:
            if not any(matches(tuple(name.split("/")), pattern) for name in everything):
                near = difflib.get_close_matches(pattern, everything, n=SHOWN, cutoff=0) or ["none"]
                raise ValueError(
                    f"data.{setting}: no file matches {pattern!r}; the nearest are {', '.join(map(shown, near))}"
                )


@functools.cache
def _warn_once(message: str) -> None:
    """Log a warning once per process, because a run lists its corpus several times."""
    logger.warning(message)
