"""SHA-256 checksums of the files in a folder, in a file `SHA256SUMS` that `sha256sum --check` reads too.

Each folder that the library saves (a checkpoint, a session, a tokenized corpus, a model) records the checksums of its
files when it is written, and verifies the files that are read when it is loaded. A folder without `SHA256SUMS`, such as
one that another library wrote, is read unverified.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from memgpt_jax.files.replacement import replace_file

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


class DamagedError(ValueError):
    """A file differs from its recorded checksum, or is missing."""


def record(folder: Path, names: Iterable[str]) -> None:
    """Write the checksums of files to the folder's `SHA256SUMS`, atomically. Entries of other existing files are kept.

    Args:
        folder: the folder.
        names: paths of files relative to it, with "/" between parts.

    Raises `DamagedError` if an existing `SHA256SUMS` cannot be parsed.
    """
    kept = {name: digest for name, digest in recorded(folder).items() if (folder / name).is_file()}
    entries = kept | {name: _digest(folder / name) for name in names}
    write(folder, entries)


def write(folder: Path, entries: Mapping[str, str]) -> None:
    """Write the `SHA256SUMS` of a folder, atomically: the digest of each file by its relative path."""
    replace_file(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(entries.items())))


def record_all(folder: Path) -> None:
    """Write the checksums of every file below the folder: see `record`."""
    record(folder, _files(folder))


def digests(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder by its relative path."""
    return {name: _digest(folder / name) for name in _files(folder)}


def verify(folder: Path, names: Iterable[str] | None = None) -> None:
    """Check files of a folder against its `SHA256SUMS`; nothing is checked if there is none.

    Args:
        folder: the folder.
        names: relative paths of the files to check; default: all recorded files. A file that was not recorded is not
            checked.

    Raises `DamagedError`, which names each file that differs or is missing.
    """
    entries = recorded(folder)
    names = entries if names is None else [name for name in names if name in entries]
    missing = [name for name in entries if not (folder / name).is_file()]
    wrong = [f"{name} is missing" for name in missing]
    wrong += [
        f"{name} differs from its checksum"
        for name in names
        if name not in missing and _digest(folder / name) != entries[name]
    ]
    if wrong:
        raise DamagedError(
            f"{folder} does not match its {SUMS}: {'; '.join(wrong)}. Restore the files from a copy; if they were "
            f"changed on purpose, delete {folder / SUMS}"
        )


def recorded(folder: Path) -> dict[str, str]:
    """The recorded digest of each file by its relative path; empty if the folder has no `SHA256SUMS`.

    Raises `DamagedError` if a line of it is not a digest, two spaces and a path, or two lines name one path.
    """
    path = folder / SUMS
    if not path.is_file():
        return {}
    try:
        lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
        matches = [LINE.fullmatch(line) for line in lines[:-1]]
    except PermissionError:  # not damaged
        raise
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error}") from None
    found = [match for match in matches if match is not None]
    if len(found) < len(matches) or lines[-1] or not found:
        raise DamagedError(f"{path} is damaged: each line must be a SHA-256 digest, two spaces and a path")
    entries = {match[2]: match[1] for match in found}
    if len(entries) < len(found):  # which of them is right is unknown
        raise DamagedError(f"{path} is damaged: two of its lines name the same path")
    return entries


def _files(folder: Path) -> list[str]:
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    unfinished = re.compile(rf"{SUMS}\.\w+\.partial")
    return sorted(path for path in paths if path != SUMS and not unfinished.fullmatch(path))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
