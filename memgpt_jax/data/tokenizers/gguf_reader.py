"""GGUF files, read with the gguf package, in bounded time also if a file is damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_fields(path: Path, wanted: Callable[[str], Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of the metadata fields whose names are `wanted`, and the tensors (`gguf.ReaderTensor`) by name.

    Raises `ValueError` that names the file if it cannot be read; a list must end before the file does.
    """
    from gguf import GGUFReader

    class Reader(GGUFReader):
        def _get(self, offset, *arguments, **options):
            if offset >= len(self.data):  # the package would count a list of a damaged length to its end
                raise ValueError(f"it ends at byte {len(self.data)}, before the end of a list")
            return super()._get(offset, *arguments, **options)

    try:
        reader = Reader(path)
        fields = {name: field.contents() for name, field in reader.fields.items() if wanted(name)}
    except Exception as error:  # the package indexes into the file by the lengths that the file states
        raise ValueError(f"{path} cannot be read as GGUF: {type(error).__name__}: {error}") from None
    return fields, {tensor.name: tensor for tensor in reader.tensors}
