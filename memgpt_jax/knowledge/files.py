"""Knowledge in a folder, read back as memory-mapped arrays, which several processes share."""

import json
from pathlib import Path

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.files import checksums
from memgpt_jax.files.json_files import read_json
from memgpt_jax.files.replacement import recover_folder, replacing_folder
from memgpt_jax.generation.request import GenerativeModel, decoder_of
from memgpt_jax.knowledge.entries import Knowledge, LayerEntries, sha256_of

FILE = "knowledge.json"


def save(knowledge: Knowledge, path: str | Path) -> None:
    """Write knowledge into a folder: `knowledge.json`, an `.npy` file of each array, and their checksums.

    Raises:
        ValueError: the folder holds something else.
        OSError: it cannot be written. It is then unchanged.
    """
    folder = Path(path).expanduser().absolute()
    recover_folder(folder)
    check(not folder.exists() or (folder / FILE).is_file(), f"{folder} exists and holds no knowledge")
    with replacing_folder(folder) as new:
        for number, layer in enumerate(knowledge.layers):
            for name, array in layer._asdict().items():
                np.save(new / f"{number}.{name}.npy", array)
        values = {"model": knowledge.model, "layers": len(knowledge.layers)}
        values |= {"sources": [*knowledge.texts], "texts": [*knowledge.texts.values()]}
        (new / FILE).write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")
        checksums.record_all(new)


def load(path: str | Path, model: GenerativeModel) -> Knowledge:
    """Read knowledge that `save` wrote. Its arrays stay on disk until they are used.

    Args:
        path: the folder.
        model: the model whose parameters encoded it.

    Raises:
        ValueError: there is no knowledge, or other parameters encoded it.
        DamagedError: a `ValueError`: a file differs from its recorded checksum.
    """
    folder = Path(path).expanduser().absolute()
    recover_folder(folder)
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
