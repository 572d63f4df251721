"""Pretrained models in the layout of the transformers library, in both directions, without that library."""

import dataclasses
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config import ModelConfig
from memgpt_jax.config_json import from_json, to_json
from memgpt_jax.config_memory import NoMemoryConfig
from memgpt_jax.config_model import Seq2SeqConfig
from memgpt_jax.hub import find
from memgpt_jax.interop.families import FAMILIES, Family, Weight
from memgpt_jax.interop.tensors import read_tensors, write_tensors
from memgpt_jax.models.functional import MODELS

OURS = "memgpt"
"""Key of config.json that holds a config of ours, and prefix of the tensors that only we have."""


Model = models.MemGPT | models.Encoder | models.EncoderDecoder | models.XLNet


def from_pretrained(source: str | Path, *, revision: str | None = None, **changes) -> Model:
    """A model with somebody's weights, or with ours.

    Arguments:
        source: a folder in the layout of the transformers library (config.json, safetensors in one file or several); a
            GGUF file, or a folder with one; the name of a model on the Hugging Face Hub; or the `workdir` of a run.
        revision: of a model on the Hub.
        changes: fields of `ModelConfig` that leave the weights as they are, such as `window_size=2048` (each token
            attends to so many; the state is as large) or `dtype="bfloat16"`. Both stacks of an encoder-decoder change.

    Returns:
        The model, its parameters float32.

    Raises:
        ValueError: there is no such model, its architecture or a setting is not supported, tensors are missing, left
            over or of a wrong shape (they are listed), or a change does not fit.
    """
    config, params = describe(source, revision)
    return models.merge(_changed(config, changes), params())


def save_pretrained(model: Model, folder: str | Path, *, tokenizer=None, shard_bytes: int = 5 * 10**9) -> None:
    """Write a model so that `from_pretrained` reads it, and the transformers library too if it has such models.

    A memory and its fusion go along as tensors "memgpt.*", which transformers leaves aside: it reads the base model. A
    model that no family of theirs can express is written under our own names.

    Arguments:
        folder: made if missing; gets config.json and model.safetensors, or several such files with an index.
        tokenizer: written too, if given.
        shard_bytes: largest size of a file.
    """
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    values = _values(model.config)
    _, weights, _ = _described(values)
    params = _flat(models.split(model))
    tensors = {name: part for weight in weights for name, part in _parts(weight, params[weight.ours]).items()}
    write_tensors(folder, tensors, shard_bytes)
    if tokenizer is not None:
        tokenizer.save(folder)
        values |= {"bos_token_id": tokenizer.document_id, "eos_token_id": tokenizer.document_id}
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")


def load_tokenizer(source: str | Path, *, revision: str | None = None):
    """The tokenizer of a pretrained model, or of a run: see `from_pretrained`.

    Raises `ValueError` where there is none, or it is of an unknown kind.
    """
    from memgpt_jax.data import load_saved_tokenizer

    path = find(source, revision)
    return load_saved_tokenizer(path / "tokenizer" if (path / "checkpoints").is_dir() else path)


def describe(source: str | Path, revision: str | None = None) -> tuple[ModelConfig, Callable[[], Any]]:
    """The config of a pretrained model, and what reads its parameters; errors as in `from_pretrained`."""
    path = find(source, revision)
    if (path / "checkpoints").is_dir():
        from memgpt_jax.training import load

        saved = load(path)
        return saved.config.model, lambda: saved.params
    values, tensors = _read(path)
    config, weights, family = _described(values)
    return config, lambda: _assembled(config, weights, tensors(), family, path)


def _read(path: Path) -> tuple[dict[str, Any], Callable[[], dict[str, np.ndarray]]]:
    """The values of config.json, and what reads all tensors by name."""
    files = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    if path.is_file() or (files and not (path / "config.json").is_file()):
        from memgpt_jax.interop.gguf import read_gguf

        if len(files) != 1 or files[0].suffix != ".gguf":
            raise ValueError(f"{path} is not one .gguf file: {', '.join(file.name for file in files)}")
        return read_gguf(files[0])
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} holds no model: there is no config.json, no .gguf file and no checkpoints/")
    return json.loads((path / "config.json").read_text()), partial(read_tensors, path)


def _described(values: dict[str, Any]) -> tuple[ModelConfig, list[Weight], Family | None]:
    """The config, where each of its arrays is, and the family."""
    ours = from_json(values[OURS], tuple(MODELS)) if OURS in values else None
    kind, family, table, config = values.get("model_type"), None, [], ours
    if kind != OURS or ours is None:
        family = _family(kind)
        config = ours or family.config(values)
        table = family.weights(config)
    covered = {weight.ours for weight in table}
    rest = [Weight(name, (f"{OURS}.{name.replace('/', '.')}",)) for name in _shapes(config) if name not in covered]
    return config, table + rest, family


def _family(kind: str | None) -> Family:
    for family in FAMILIES:
        if kind in family.architectures:
            return family
    known = ", ".join(kind for family in FAMILIES for kind in family.architectures)
    raise ValueError(f"config.json: model_type={kind!r} is not supported; valid: {known}")


def _values(config: ModelConfig) -> dict[str, Any]:
    """The values of config.json: of the family that expresses the model without its memory, and ours beside them."""
    plain = _architecture(config)
    for family in FAMILIES:
        values = family.values(plain) if type(plain) is family.kind else {}
        read = _reads_back(family, values) if values else None
        if read is not None and _architecture(read) == plain:
            ours = {} if read == config else {OURS: to_json(config)}
            return {"architectures": [family.architectures[values["model_type"]]]} | values | ours
    return {"model_type": OURS, OURS: to_json(config)}


def _reads_back(family: Family, values: dict[str, Any]) -> ModelConfig | None:
    try:
        return family.config(values)
    except (ValueError, TypeError):  # words that only we know
        return None


def _architecture(config: ModelConfig) -> ModelConfig:
    """The config without memory, and without all that leaves the base model's function alone."""
    if isinstance(config, Seq2SeqConfig):
        encoder, decoder = _architecture(config.encoder), _architecture(config.decoder)
        places = decoder.window_size
        return Seq2SeqConfig(
            encoder=dataclasses.replace(encoder, window_size=places),
            decoder=dataclasses.replace(decoder, source_length=places),
        )
    default = ModelConfig(memory=NoMemoryConfig())
    names = ("memory", "memory_layers", "fusion", "fusion_bias", "segment_length", "adapter_rank", "dropout", "dtype")
    widths = {
        "num_kv_heads": config.kv_heads,
        "head_dim": config.attention_head_dim,
        "d_ff": config.feed_forward_dim,
    }
    plain = {name: getattr(default, name) for name in names}
    return dataclasses.replace(config, **plain, **widths).run_like(default)


def _assembled(
    config: ModelConfig, weights: list[Weight], tensors: dict[str, np.ndarray], family: Family | None, path: Path
) -> Any:
    """The tree of parameters. Raises `ValueError` that lists what is missing, left over or of a wrong shape."""
    prefix = re.compile("|".join(map(re.escape, family.prefixes)) if family and family.prefixes else r"(?!)")
    bare = lambda name: prefix.sub("", name, count=1) if prefix.match(name) else name  # noqa: E731
    ignored = family.ignored if family else r"(?!)"
    tensors = {bare(name): tensor for name, tensor in tensors.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not re.fullmatch(ignored, name)}
    shapes, params, wrong = _shapes(config), {}, []
    for weight in weights:
        parts = []
        for name, part_shape in _part_shapes(weight, shapes[weight.ours]).items():
            tensor, shape = tensors.pop(bare(name), None), weight.shape or part_shape
            if tensor is None:
                wrong.append(f"missing: {name} {list(shape)}")
            elif tensor.shape != shape:
                wrong.append(f"wrong shape: {name} is {list(tensor.shape)}, must be {list(shape)}")
            else:
                part = tensor.reshape(part_shape)
                parts.append(part.T if weight.transposed else part)
        params[weight.ours] = np.concatenate(parts, axis=-1) if len(parts) > 1 else next(iter(parts), None)
    embedding = params.get("decoder/embedding", params.get("embedding"))
    if "lm_head.weight" in tensors and np.array_equal(tensors["lm_head.weight"], embedding):
        del tensors["lm_head.weight"]  # tied, and written nevertheless
    wrong += [f"left over: {name} {list(tensor.shape)}" for name, tensor in sorted(tensors.items())]
    if wrong:
        raise ValueError(f"the weights in {path} do not fit their config:\n  " + "\n  ".join(wrong))
    tree = {}
    for name, array in params.items():
        *folders, last = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = jnp.asarray(array, jnp.float32)
    return tree


def _part_shapes(weight: Weight, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of theirs, its axes joined as in ours (see `Weight.shape`)."""
    widths = weight.widths or shape[-1:]
    shapes = ((*shape[:-1], width) for width in widths)
    turned = (part[::-1] if weight.transposed else part for part in shapes)
    return dict(zip(weight.theirs, turned, strict=True))


def _parts(weight: Weight, array: np.ndarray) -> dict[str, np.ndarray]:
    """The tensors of theirs that one of our arrays becomes."""
    cuts = np.cumsum(weight.widths)[:-1]
    parts = np.split(np.asarray(array), cuts, axis=-1) if weight.widths else [np.asarray(array)]
    turned = (part.T if weight.transposed else part for part in parts)
    return dict(zip(weight.theirs, (part.reshape(weight.shape or part.shape) for part in turned), strict=True))


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter by its path."""
    return {name: leaf.shape for name, leaf in _flat(models.shapes(config)).items()}


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with paths such as "blocks/0/attention/output/kernel"."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {name: leaf for key in tree for name, leaf in _flat(tree[key], f"{prefix}{key}/").items()}


def _changed(config: ModelConfig, changes: dict[str, Any]) -> ModelConfig:
    """The config with changes that leave the parameters as they are; `ValueError` if one does not."""
    if isinstance(config, Seq2SeqConfig):  # of both stacks
        of_encoder = {name: value for name, value in changes.items() if name != "source_length"}
        changed = Seq2SeqConfig(
            encoder=dataclasses.replace(config.encoder, **of_encoder),
            decoder=dataclasses.replace(config.decoder, **changes),
        )
    else:
        changed = dataclasses.replace(config, **changes)
    if _shapes(changed) != _shapes(config):
        raise ValueError(f"{', '.join(changes)}: this would change the parameters; add_memory adds a memory")
    return changed
