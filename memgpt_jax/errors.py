"""`RunError`, the exception of a run that cannot start or continue, and the errors that are turned into it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


class RunError(Exception):
    """A run cannot start or continue. The message names the reason and what to do."""


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Turn a `ValueError` for wrong settings or data into a `RunError`."""
    try:
        yield
    except ValueError as error:
        raise RunError(str(error)) from error


@contextlib.contextmanager
def usable(places: dict[str, Path]) -> Iterator[None]:
    """Turn every `OSError` of a file or folder into a `RunError` of one line.

    Args: places: the folders of a run by the names of their settings; the message names the setting of the file.
    """
    try:
        yield
    except BrokenPipeError:  # standard output was closed: not an error of a file
        raise
    except OSError as error:
        raise RunError(_place_error(error, places)) from None


def _place_error(error: OSError, places: dict[str, Path]) -> str:
    path = error.filename2 or error.filename
    if path is None or isinstance(path, int):
        return f"{one_line(error)}, while the run used {_listed(places)}"
    path = Path(os.fsdecode(path))
    setting = next((f"{name}={str(place)!r}: " for name, place in places.items() if _inside(path, place)), "")
    return f"{setting}{error.strerror or one_line(error)}: {str(path)!r}{HINTS.get(type(error), '')}"


HINTS = {
    PermissionError: "; change its permissions, or choose another folder",
    FileExistsError: "; it is not a folder: choose another path",
    NotADirectoryError: "; a part of the path is not a folder: choose another path",
}


def _inside(path: Path, place: Path) -> bool:
    return path.is_relative_to(place) or place.is_relative_to(path)


def _listed(places: dict[str, Path]) -> str:
    return ", ".join(f"{name}={str(place)!r}" for name, place in places.items())


def one_line(error: BaseException, limit: int = 300) -> str:
    """The text of an exception in one line of limited length; its class if it has no text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f"{text[:limit]}..."
