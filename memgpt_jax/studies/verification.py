"""Verify the files of a folder that the library wrote against their checksums."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from memgpt_jax.checkpoint import DAMAGED, run_folder
from memgpt_jax.files import checksums
from memgpt_jax.files.checksums import SUMS, DamagedError
from memgpt_jax.generation.document import is_document, verify_document
from memgpt_jax.training import RunError, read_metrics
from memgpt_jax.training.evaluation import read_evaluation
from memgpt_jax.training.tensorboard import check_events

KINDS = {
    "tokens.bin": "tokenized text",
    "model.safetensors": "model",
    "model.safetensors.index.json": "model",
    "config.json": "model",
    "tokenizer.json": "tokenizer",
    "tokenizer.model": "tokenizer",
}
"""The kind of a folder with checksums by a file in it; the first file that exists decides."""


class Checked(NamedTuple):
    """One part of a folder."""

    name: str
    """Its path relative to the folder."""
    kind: str
    """Its kind, with the number of its files."""
    problem: str | None
    """The reason why it is damaged or cannot be read; None: all files agree with their checksums."""


def verify_folder(folder: str | Path) -> list[Checked]:
    """Verify every file with a checksum of a run, a session, a tokenized corpus, a cache, a model or a tokenizer.

    The last part names the files without checksums.

    Raises:
        ValueError: there is no such folder, or it holds no checksums.
    """
    try:
        folder = run_folder(folder)
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}")
    except (RunError, OSError) as error:
        raise ValueError(str(error)) from None
    files, closed = _files(folder)
    found, covered = [Checked(str(path.relative_to(folder)), "folder", problem) for path, problem in closed], set()
    for sums in sorted(path for path in files if path.name == SUMS):
        part = sums.parent
        below = {path for path in files if path.is_relative_to(part)}
        check = functools.partial(checksums.verify, part)
        found.append(_checked(folder, part, f"{_kind(part)}, {len(below)} files", check))
        covered |= _recorded(part) | {sums}
    for path in sorted(path for path in files - covered if path.suffix == ".safetensors" and is_document(path)):
        found.append(_checked(folder, path, "session", functools.partial(verify_document, path)))
        covered.add(path)
    if os.path.isdir(folder / "checkpoints"):
        for path, check in _run_files(folder).items():
            if path in files:
                found.append(_checked(folder, path, "log" if path.suffix != ".json" else "evaluation", check))
                covered.add(path)
    if not found:
        raise ValueError(f"{folder} holds no checksums: it is no run, session, tokenized text, model or tokenizer")
    bare = sorted(str(path.relative_to(folder)) for path in files - covered if path.name != "lock")
    if bare:
        shown = ", ".join(bare[:5]) + (", ..." if len(bare) > 5 else "")
        found.append(Checked(".", f"{len(bare)} files without checksums, not verified: {shown}", None))
    return found


def _files(folder: Path) -> tuple[set[Path], list[tuple[Path, str]]]:
    """All files below a folder, without damaged checkpoints that were moved away; and the unreadable folders, each with
    the reason."""
    files, closed = set(), []
    for place, folders, names in os.walk(folder, onerror=lambda e: closed.append((Path(e.filename), str(e)))):
        here = Path(place)
        if here == folder and DAMAGED in folders:
            folders.remove(DAMAGED)
        files |= {here / name for name in names}
    return files, closed


def _run_files(folder: Path) -> dict[Path, Callable[[], object]]:
    """The check of each file of a run that contains its own checksums."""
    checks: dict[Path, Callable[[], object]] = {
        folder / "metrics.jsonl": functools.partial(read_metrics, folder),
        folder / "evaluation.json": functools.partial(read_evaluation, folder),
    }
    events = sorted((folder / "tensorboard").glob("events.*"))
    return checks | {path: functools.partial(check_events, path) for path in events}


def _recorded(part: Path) -> set[Path]:
    try:
        return {part / name for name in checksums.recorded(part)}
    except (DamagedError, OSError):
        return set()


def _kind(part: Path) -> str:
    if part.parent.name == "checkpoints":
        return "checkpoint"
    return next((kind for name, kind in KINDS.items() if os.path.isfile(part / name)), "folder")


def _checked(folder: Path, path: Path, kind: str, check: Callable[[], object]) -> Checked:
    try:
        check()
        problem = None
    except (DamagedError, RunError, OSError) as error:
        problem = str(error)
    return Checked(str(path.relative_to(folder)), kind, problem)
