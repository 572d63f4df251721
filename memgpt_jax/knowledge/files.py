"""Knowledge in a folder, read back as memory-mapped arrays, which several processes share."""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.files import checksums
from memgpt_jax.files.json_files import read_json
from memgpt_jax.files.replacement import readable_folder, recover_folder, replacing_folder
from memgpt_jax.generation.request import GenerativeModel, decoder_of
from memgpt_jax.knowledge.entries import Knowledge, LayerEntries, sha256_of

FILE = "knowledge.json"


def save(knowledge: Knowledge, path: str | Path) -> None:
    """Write knowledge into a folder: `knowledge.json`, an `.npy` file of each array, and their checksums.

    Raises:
        ValueError: the folder holds something else.
        OSError: it cannot be written. It is then unchanged.
    """
    save_parts([knowledge], path)


def save_parts(parts: Iterable[Knowledge], path: str | Path) -> None:
    """`save` of the sum of several, of which only one is in memory at a time.

    Raises `ValueError` and `OSError` as `save`, and `ValueError` if there are none.
    """
    folder = Path(path).expanduser().absolute()
    recover_folder(folder)
    check(not folder.exists() or (folder / FILE).is_file(), f"{folder} exists and holds no knowledge")
    with replacing_folder(folder) as new, contextlib.ExitStack() as stack:
        files: dict[str, _GrowingFile] = {}
        texts: dict[int, str] = {}
        model, layers = "", 0
        for part in parts:
            texts.update(part.texts)
            model, layers = part.model, len(part.layers)
            for number, layer in enumerate(part.layers):
                for name, array in layer._asdict().items():
                    file = f"{number}.{name}.npy"
                    if file not in files:
                        files[file] = stack.enter_context(_GrowingFile(new / file, array))
                    files[file].append(array)
        check(bool(model), "there are no texts")
        stack.close()
        values = {"model": model, "layers": layers, "sources": [*texts], "texts": [*texts.values()]}
        (new / FILE).write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")
        checksums.record_all(new)


class _GrowingFile:
    """An `.npy` file to which arrays are appended along their first axis. NumPy's header has room for the number."""

    def __init__(self, path: Path, like: np.ndarray):
        self.file, self.like, self.length = path.open("wb"), like[:0], 0

    def __enter__(self) -> Self:
        self._write_header()
        return self

    def append(self, array: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(array).tobytes())
        self.length += len(array)

    def __exit__(self, *_: object) -> None:
        self.file.seek(0)
        self._write_header()
        self.file.close()

    def _write_header(self) -> None:
        header = np.lib.format.header_data_from_array_1_0(self.like)
        np.lib.format.write_array_header_1_0(self.file, header | {"shape": (self.length, *self.like.shape[1:])})


def load(path: str | Path, model: GenerativeModel) -> Knowledge:
    """Read knowledge that `save` wrote. Its arrays stay on disk until they are used.

    Args:
        path: the folder.
        model: the model whose parameters encoded it.

    Raises:
        ValueError: there is no knowledge, or other parameters encoded it.
        DamagedError: a `ValueError`: a file differs from its recorded checksum.
    """
    folder = readable_folder(Path(path).expanduser().absolute())
    check((folder / FILE).is_file(), f"there is no knowledge in {folder}")
    checksums.verify(folder)
    values = read_json(folder / FILE)
    found = sha256_of(decoder_of(model).params)
    check(found == values["model"], f"other parameters encoded the knowledge in {folder}: encode the texts again")
    layers = [
        LayerEntries(*(np.load(folder / f"{number}.{name}.npy", mmap_mode="r") for name in LayerEntries._fields))
        for number in range(values["layers"])
    ]
    return Knowledge(tuple(layers), dict(zip(values["sources"], values["texts"], strict=True)), values["model"])
