"""Reading of GGUF files with the gguf package, in bounded time even if a file is damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class GGUFFile(NamedTuple):
    """The content of a GGUF file."""

    fields: dict[str, Any]
    """The values of metadata fields by name."""
    tensors: dict[str, Any]
    """The tensors (`gguf.ReaderTensor`) by name, which are read when they are used."""


def read_fields(path: Path, wanted: Callable[[str], Any]) -> GGUFFile:
    """The tensors of a file, and the metadata fields whose names are `wanted`.

    Raises `ValueError`, which names the file, if it cannot be read.
    """
    from gguf import GGUFReader

    class Reader(GGUFReader):
        def _get(self, offset: int, *arguments, **options):
            if offset >= len(self.data):  # the package would iterate over all entries of a damaged list length
                raise ValueError(f"it ends at byte {len(self.data)}, before the end of a list")
            return super()._get(offset, *arguments, **options)

    try:
        reader = Reader(path)
        fields = {name: field.contents() for name, field in reader.fields.items() if wanted(name)}
    except Exception as error:  # lengths in a damaged file cause errors of many types in the package
        raise ValueError(f"{path} cannot be read as GGUF: {type(error).__name__}: {error}") from None
    return GGUFFile(fields, {tensor.name: tensor for tensor in reader.tensors})
