"""Immutable objects by name, in a folder of this machine or in a bucket."""

import contextlib
import uuid
from pathlib import Path
from typing import Any

from memgpt_jax.files.replacement import replace_file


class Objects:
    """Objects that a reader finds either whole or not at all.

    In a bucket, an object is written in one call, and is there when the service has all of it. Objects are read without
    a listing: fsspec's file systems cache listings, which would hide what another server has written.
    """

    def __init__(self, address: str):
        """Args: address: a path, or an address of fsspec such as s3://bucket/sessions.

        Raises:
            ValueError: fsspec does not know the address, or lacks the library for it.
            OSError: no object can be written there.
        """
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        try:
            self._files, self._root = fsspec.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise ValueError(f"{address} cannot be reached: {error}") from None
        self._is_local = isinstance(self._files, LocalFileSystem)
        probe = f"probe-{uuid.uuid4().hex}"  # several servers may begin at once
        self.write(probe, b"")
        self.delete(probe)

    def write(self, name: str, content: bytes) -> None:
        """Write an object; parts of the name are separated by /. Raises `OSError`."""
        path = self._path(name)
        if self._is_local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            replace_file(Path(path), content)
        else:
            self._files.pipe_file(path, content)

    def read(self, name: str) -> bytes | None:
        """The content of an object; None: there is none. Raises `OSError`."""
        try:
            content: Any = self._files.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        return content

    def delete(self, name: str) -> None:
        """Remove an object, if there is one. Raises `OSError`."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def names(self) -> list[str]:
        """The names of all objects. Raises `OSError`, or an error of the file system."""
        self._files.invalidate_cache()
        try:
            return [path.removeprefix(self._root).lstrip("/") for path in self._files.find(self._root)]
        finally:
            self._files.invalidate_cache()

    def written(self, name: str) -> float:
        """When an object was written, in seconds since 1970. Raises `OSError`, or an error of the file system."""
        return self._files.modified(self._path(name)).timestamp()

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"
