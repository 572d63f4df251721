"""Folders of tensors in the layout of the transformers library: safetensors, in one file or in several.

Nothing else is read: other formats can run code.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder by name, float32. Raises `ValueError` where there are none, or a file is damaged."""
    tensors = {}
    for path in _files(folder):
        tensors |= _read(path)
    return tensors


def _files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"{folder / INDEX} names files that are not there: {', '.join(missing)}")
        return [folder / name for name in names]
    if (folder / FILE).is_file():
        return [folder / FILE]
    others = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".h5"))
    hint = f"; {', '.join(others)} can run code when opened, and is not read" if others else ""
    raise ValueError(f"{folder} holds no weights: neither {FILE} nor {INDEX}, nor a .gguf file{hint}")


def _read(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def write_tensors(folder: Path, tensors: Mapping[str, np.ndarray], shard_bytes: int) -> None:
    """Write tensors into a folder, into files of up to `shard_bytes` each, a larger tensor by itself."""
    from safetensors.numpy import save_file

    shards, room = [{}], shard_bytes
    for name, tensor in tensors.items():
        if shards[-1] and tensor.nbytes > room:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = np.ascontiguousarray(tensor)
        room -= tensor.nbytes
    for old in (*folder.glob("model-*-of-*.safetensors"), folder / FILE, folder / INDEX):
        old.unlink(missing_ok=True)
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    names = names if len(shards) > 1 else [FILE]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name, metadata={"format": "pt"})  # which transformers asks for
    if len(shards) > 1:
        total = sum(tensor.nbytes for tensor in tensors.values())
        places = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
