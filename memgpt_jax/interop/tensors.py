"""Tensors in the layout of the transformers library: safetensors, in one file or in several.

Other formats are not read, because reading them can run code.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memgpt_jax.interop.folder import check_recorded, read_recorded, write_json

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
METADATA = {"format": "pt", "written_by": "memgpt_jax"}
"""Metadata of the files that are written here; transformers requires the format. Other programs drop `written_by`."""
FLOATS = ("F64", "F32", "F16", "BF16")
"""The types of tensors that are read, as safetensors names them."""
INTEGERS = ("I8", "U8")
"""The types of quantised weights."""


class Tensors(NamedTuple):
    """The tensors of a model, whose values have not been read yet."""

    shapes: dict[str, tuple[int, ...]]
    """The shape of every tensor by its name."""
    read: Callable[[Iterable[str]], dict[str, np.ndarray]]
    """Read tensors by name, floats as float32. Raises `ValueError` if one is damaged or has an unsupported type."""


class Contents(NamedTuple):
    """A model in a folder or a file, whose tensors have not been read yet."""

    values: dict[str, Any]
    """The values of config.json, or of the metadata of a GGUF file under the keys of config.json."""
    tensors: Tensors
    """The tensors, by the names that transformers gives them."""


class Entry(NamedTuple):
    """The file of a tensor, with the type and shape from the header of the file."""

    path: Path
    kind: str
    shape: tuple[int, ...]


def open_tensors(folder: Path, kinds: tuple[str, ...] = FLOATS) -> Tensors:
    """The tensors of a folder.

    Args:
        folder: the folder.
        kinds: the types that can be read.

    Raises:
        DamagedError: a file differs from its recorded checksum.
        ValueError: there are none, there are two sets that differ, or a file is damaged.
    """
    return open_files(_files(folder), kinds)


def open_files(files: list[Path], kinds: tuple[str, ...] = FLOATS) -> Tensors:
    """The tensors of safetensors files. Arguments and errors as in `open_tensors`."""
    entries = _entries(files)

    def read(names: Iterable[str]) -> dict[str, np.ndarray]:
        names = tuple(names)
        for name in names:
            _check_kind(name, entries[name], kinds)
        found = {}
        for path in dict.fromkeys(entries[name].path for name in names):
            with _opened(path) as file:
                here = (name for name in names if entries[name].path == path)
                found |= {name: _as_float32(file.get_tensor(name), entries[name].kind) for name in here}
        return found

    return Tensors({name: entry.shape for name, entry in entries.items()}, read)


def _files(folder: Path) -> list[Path]:
    """The files to read. As in transformers, a single file is preferred to shards; they must not differ."""
    one, index = folder / FILE, folder / INDEX
    if not one.is_file() and not index.is_file():
        others = sorted(
            path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".h5")
        )
        hint = f"; {', '.join(others)} can run code when opened and is not read" if others else ""
        named = sorted(path.name for path in folder.glob("*.safetensors"))
        hint += f"; {', '.join(named)} has another name and is not read" if named else ""
        raise ValueError(f"{folder} holds no weights: neither {FILE} nor {INDEX}, nor a .gguf file{hint}")
    if not one.is_file():
        return _shards(index)
    try:
        shards = _shards(index) if index.is_file() else []
    except ValueError:  # an index that an earlier save left behind
        shards = []
    if shards and not _equal(_entries([one]), _entries(shards)):
        raise ValueError(
            f"{folder} holds two models: {FILE} and the files that {INDEX} names have different tensors. Delete "
            f"{FILE}, or {INDEX} and its files"
        )
    return [one]


def _shards(index: Path) -> list[Path]:
    places = read_recorded(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f'{index} must hold an object "weight_map" of tensor names and file names')
    names = sorted(set(places.values()))
    outside = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if outside:
        raise ValueError(f"{index} must name .safetensors files of its own folder, got {', '.join(outside)}")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ValueError(f"{index} names files that are missing: {', '.join(missing)}")
    return [index.parent / name for name in names]


def _entries(files: list[Path]) -> dict[str, Entry]:
    """The entry of each tensor. Raises `ValueError` if two files have different tensors of the same name."""
    entries = {}
    for path in files:
        new = {}
        with _opened(path, first=True) as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                new[name] = Entry(path, part.get_dtype(), tuple(part.get_shape()))
        twice = [name for name in new if name in entries]
        if not _equal({name: entries[name] for name in twice}, {name: new[name] for name in twice}):
            raise ValueError(f"{path} and {entries[twice[0]].path} have different tensors named {twice[0]}")
        entries |= new
    return entries


def _equal(entries: dict[str, Entry], others: dict[str, Entry]) -> bool:
    """Whether two sets of tensors have the same names, types and shapes, and equal values (if they are floats)."""

    def headers(entries: dict[str, Entry]) -> dict[str, tuple]:
        return {name: (entry.kind, entry.shape) for name, entry in entries.items()}

    if headers(entries) != headers(others):
        return False
    for name in (name for name, entry in entries.items() if entry.kind in FLOATS):
        with _opened(entries[name].path) as file, _opened(others[name].path) as other:
            if not np.array_equal(file.get_tensor(name), other.get_tensor(name), equal_nan=True):
                return False
    return True


def _as_float32(tensor: Any, kind: str) -> np.ndarray:
    return np.asarray(tensor, np.float32) if kind in FLOATS else np.asarray(tensor)


def _check_kind(name: str, entry: Entry, kinds: tuple[str, ...]) -> None:
    if entry.kind not in kinds:
        raise ValueError(
            f"{entry.path}: {name} has the type {entry.kind}, which is not supported; valid: {', '.join(kinds)}. "
            "Save the model without quantisation first"
        )


@contextlib.contextmanager
def _opened(path: Path, first: bool = False) -> Iterator:
    """Open a safetensors file. Args: first: whether to verify its recorded checksum, as it is opened the first time."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            if first:
                check_recorded(path, written_here=not {*(file.metadata() or {})} <= {"format"})
            yield file
    except (SafetensorError, OSError) as error:
        check_recorded(path, written_here=True)
        raise ValueError(f"{path} cannot be read: {error}") from None


def write_tensors(folder: Path, tensors: Mapping[str, np.ndarray], shard_bytes: int) -> None:
    """Write tensors into a new folder, in files of up to `shard_bytes` each; a larger tensor gets its own file.

    Raises `OSError` if a file cannot be written.
    """
    shards, room = [{}], shard_bytes
    for name, tensor in tensors.items():
        if shards[-1] and tensor.nbytes > room:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    names = names if len(shards) > 1 else [FILE]
    for name, shard in zip(names, shards, strict=True):
        write_file(folder / name, shard)
    if len(shards) > 1:
        total = sum(tensor.nbytes for tensor in tensors.values())
        places = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def write_file(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write tensors into one file. Raises `OSError` if it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path, metadata=METADATA)
    except SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from error
