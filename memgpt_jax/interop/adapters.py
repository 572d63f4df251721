"""The trained part of a run, saved without the pretrained model over which it was trained.

The folder holds the parameters that were trained or added, the settings of the whole model, the tokenizer, and a
fingerprint of the other parameters, which did not change: the adapters work over this pretrained model alone.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from memgpt_jax import models
from memgpt_jax.checkpoint import load_run
from memgpt_jax.config.checks import check
from memgpt_jax.config.data import DataConfig, TaskConfig, TextConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.model import BaseModelConfig, EncoderConfig
from memgpt_jax.config.serialization import from_json, to_json
from memgpt_jax.data import without_paths
from memgpt_jax.data.tokenizers.files import OF_TOKENIZERS
from memgpt_jax.files.saved_files import replacing_files
from memgpt_jax.interop.assembly import SHOWN, shapes_of, tree_of
from memgpt_jax.interop.folder import named, read_recorded, writable, write_json
from memgpt_jax.interop.origin import CONFIG
from memgpt_jax.interop.tensors import Tensors, open_files, write_file
from memgpt_jax.models.model_functions import MODELS
from memgpt_jax.ops.trees import named_leaves

SETTINGS, TENSORS = "adapters.json", "adapters.safetensors"
ADDED_PARTS = ("memory_layer", "lora")
"""Path components of parameters that a pretrained model may lack."""
BACKBONE = "backbone/"
"""The prefix of the parameters of a pretrained model under a head."""


class Adapters(NamedTuple):
    """Saved adapters, whose tensors have not been read yet."""

    folder: Path
    """Where they were saved."""
    config: BaseModelConfig
    """The config of the whole model."""
    pretrained: str
    """The name of the pretrained model when they were trained."""
    fingerprint: str
    """`fingerprint` of the parameters that did not change."""
    call_length: int
    """Tokens of a call in the evaluations of the run."""
    tensors: Tensors
    """The trained and added parameters by their paths."""
    data: DataConfig | None = None
    """The data of the run, without paths; None in folders of earlier versions."""


def save_adapters(workdir: str | Path, folder: str | Path) -> None:
    """Write the trained and the added parameters of a run: see `save_pretrained` with `only="trained"`.

    Raises `ValueError` if the run trained all parameters or did not start from a pretrained model, or the folder holds
    a run or a model or cannot be written.
    """
    folder = Path(folder).expanduser()
    for name, noun in (("checkpoints", "a run"), (CONFIG, "a model")):
        check(not (folder / name).exists(), f"{folder} holds {noun} ({name}): choose another folder")
    run = load_run(workdir)
    pretrained, patterns = run.config.pretrained, run.config.optimizer.trainable
    check(pretrained is not None, f"{workdir} did not start from a pretrained model: save it without only='trained'")
    params = {name: np.asarray(array) for name, array in named_leaves(run.params).items()}
    added = added_parameters(run.config.model)
    changed = {name for name in params if name in added or any(re.search(pattern, name) for pattern in patterns)}
    kept = {name: array for name, array in params.items() if name not in changed}
    check(
        bool(patterns) and bool(kept),
        f"{workdir} trained all parameters (optimizer.trainable={patterns}): save it without only='trained'",
    )
    with writable(folder), replacing_files(folder, OF_TOKENIZERS.__contains__) as new:
        if run.tokenizer is not None:
            run.tokenizer.save(new)
        values = {
            "pretrained": pretrained,
            "trainable": list(patterns),
            "step": run.step,
            "call_length": run.config.evaluation.chunk_length,
            "data": to_json(without_paths(run.config.data)),
            "base_sha256": fingerprint(kept),
            "parameters": sorted(changed),
            "config": to_json(run.config.model),
        }
        write_json(new / SETTINGS, values)
        write_file(new / TENSORS, {name: params[name] for name in sorted(changed)})


def read_adapters(folder: str | Path) -> Adapters:
    """Saved adapters.

    Raises:
        DamagedError: a file differs from its recorded checksum.
        ValueError: there are none, the settings are not valid, or parameters are missing or have wrong shapes.
    """
    folder = Path(folder).expanduser()
    check((folder / SETTINGS).is_file(), f"{folder} holds no adapters: there is no {SETTINGS}")
    values = read_recorded(folder / SETTINGS)
    with named(folder / SETTINGS):
        config = from_json(values["config"], tuple(MODELS))
        names, length = values["parameters"], int(values["call_length"])
        data = from_json(values["data"], (TextConfig, TaskConfig)) if "data" in values else None
        texts = str(values["pretrained"]), str(values["base_sha256"])
        shapes = shapes_of(config)
        expected = {name: shapes[name] for name in names}
    tensors = open_files([folder / TENSORS])
    _check_shapes(tensors.shapes, expected, f"the tensors in {folder / TENSORS} are not those of its {SETTINGS}")
    unexpected = sorted(tensors.shapes.keys() - expected.keys())
    check(not unexpected, f"{folder / TENSORS} has tensors that are not in {SETTINGS}: {', '.join(unexpected[:SHOWN])}")
    return Adapters(folder, config, *texts, length, tensors, data)


def with_adapters(adapters: Adapters, name: str, config: BaseModelConfig, params: models.Params) -> models.Params:
    """The parameters of `adapters.config`: the adapters over those of a pretrained model.

    Args:
        adapters: the adapters.
        name: the name of the pretrained model, for messages.
        config: its config.
        params: its parameters.

    Raises `ValueError`, which names both, if the adapters were trained over another model.
    """
    base = {key: np.asarray(array) for key, array in named_leaves(params).items()}
    if isinstance(adapters.config, HeadedConfig) and not isinstance(config, HeadedConfig):
        base = {BACKBONE + key: array for key, array in base.items()}
    shapes = shapes_of(adapters.config)
    kept = {key: shape for key, shape in shapes.items() if key not in adapters.tensors.shapes}
    pair = f"the adapters in {adapters.folder}, trained over {adapters.pretrained!r}, do not fit {name!r}"
    _check_shapes({key: array.shape for key, array in base.items()}, kept, pair)
    frozen = {key: base[key] for key in kept}
    found = fingerprint(frozen)
    check(
        found == adapters.fingerprint,
        f"{pair}: its weights differ (SHA-256 {found[:12]}..., it must be {adapters.fingerprint[:12]}...)",
    )
    merged = frozen | adapters.tensors.read(adapters.tensors.shapes)
    return tree_of({key: merged[key] for key in shapes})


def fingerprint(params: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the paths, shapes and float32 values (little-endian) of parameters; 0 and -0 are equal."""
    digest = hashlib.sha256()
    for name in sorted(params):
        array = np.ascontiguousarray(params[name], "<f4") + np.float32(0)
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def added_parameters(config: BaseModelConfig) -> set[str]:
    """The paths of the parameters that the pretrained model of a run may lack: memories, LoRA and heads."""
    found = {name for name in shapes_of(config) if not {*ADDED_PARTS}.isdisjoint(name.split("/"))}
    if isinstance(config, HeadedConfig):
        outside = {name for name in shapes_of(config) if not name.startswith(BACKBONE)}
        return found | outside | {BACKBONE + name for name in head_parameters(config.backbone)}
    return found | head_parameters(config)


def head_parameters(config: BaseModelConfig) -> set[str]:
    """The paths of the parameters of an encoder's heads."""
    if not isinstance(config, EncoderConfig):
        return set()
    return set(shapes_of(config)) - set(shapes_of(dataclasses.replace(config, heads=())))


def _check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], message: str) -> None:
    """Raise `ValueError` with the message and a list if parameters are missing or have other shapes."""
    wrong = list(_wrong(found, expected))
    more = [f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
    check(not wrong, f"{message}:\n  " + "\n  ".join(wrong[:SHOWN] + more))


def _wrong(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> Iterable[str]:
    for name, shape in expected.items():
        if name not in found:
            yield f"missing: {name} {list(shape)}"
        elif found[name] != shape:
            yield f"wrong shape: {name} is {list(found[name])}, must be {list(shape)}"
