"""Reading and writing of pretrained models in the layout of the transformers library, without that library."""

import contextlib
import dataclasses
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from memgpt_jax import models
from memgpt_jax.checkpoint import load_run
from memgpt_jax.config.checks import check
from memgpt_jax.config.model import BaseModelConfig
from memgpt_jax.config.serialization import from_json
from memgpt_jax.data import Tokenizer
from memgpt_jax.data.hub import find
from memgpt_jax.data.tokenizers.files import OF_TOKENIZERS
from memgpt_jax.files.saved_files import replacing_files
from memgpt_jax.interop.adapters import SETTINGS, read_adapters, save_adapters, with_adapters
from memgpt_jax.interop.assembly import (
    OURS,
    lacks_key_bias,
    params_from_tensors,
    plan_of,
    shapes_of,
    table_of,
    tensors_from_params,
)
from memgpt_jax.interop.families.clip import part_of
from memgpt_jax.interop.folder import named, read_recorded, writable, write_json
from memgpt_jax.interop.origin import CONFIG, GENERATION, Origin, read_origin
from memgpt_jax.interop.quantized import bits_of, quantization_values, quantized_params, quantized_tensors
from memgpt_jax.interop.task_heads import has_task_head, with_task_head
from memgpt_jax.interop.tensors import FLOATS, INTEGERS, Contents, open_tensors, write_tensors
from memgpt_jax.interop.values import check_agreement, family_of, saved_config
from memgpt_jax.models.model_functions import MODELS, AnyModel
from memgpt_jax.models.quantization import loadable, quantized_bits
from memgpt_jax.ops.quantized import Bits

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
WEIGHT_FILES = r"model(-.*-of-.*)?\.safetensors(\.index\.json)?"
RUN_ORIGIN = "pretrained"
"""The sub-folder of a run for the origin (`Origin`) of the pretrained model that it started from."""

logger = logging.getLogger(__name__)

SameModel = TypeVar("SameModel", bound=AnyModel)


class Pretrained(NamedTuple):
    """A pretrained model whose parameters have not been read yet."""

    config: BaseModelConfig
    params: Callable[[], models.Params]
    """Reads the parameters; errors as in `from_pretrained`."""
    origin: Origin | None
    """The settings that `save_pretrained` writes back; None for a model of this library."""
    bits: Bits | None = None
    """How the weights are quantised (`models.quantize`); None: they are float32."""


def from_pretrained(
    source: str | Path,
    *,
    revision: str | None = None,
    adapters: str | Path | None = None,
    task_head: bool = False,
    part: str | None = None,
    **changes: Any,
) -> AnyModel:
    """A pretrained model, of the transformers library or of this one.

    As in transformers, a head that the file lacks is omitted, and tensors of heads that the model does not have are
    ignored; a warning in the log names both. `model.origin` keeps the JSON files beside the weights.

    Arguments:
        source: a folder in the layout of the transformers library (config.json, safetensors in one file or several); a
            GGUF file, or a folder with one; the name of a model on the Hugging Face Hub; or the `workdir` of a run.
        revision: branch, tag or commit of a model on the Hub.
        adapters: a folder that `save_pretrained` wrote with `only="trained"`: the trained parameters of a run that
            started from this model. The model has their memory, LoRA and head.
        task_head: True: also read the head of a class for labels, tags or answers to questions, such as
            `BertForSequenceClassification`; the model is then a `Headed`. Other classes are read as without it. Not
            together with adapters, which have a head of their own.
        part: of a `CLIPModel`: `text`, a decoder, or `vision`, an encoder; with `task_head=True` under its projection.
            Other models have no parts.
        changes: new values of fields of `ModelConfig` that do not change the shapes of parameters, such as
            `window_size=2048` or `dtype="bfloat16"`. They change both stacks of an encoder-decoder.

    Returns:
        The model, its parameters float32, or quantised as it was saved.

    Raises:
        DamagedError: a file that this library wrote differs from its recorded checksum.
        ValueError: there is no such model, its architecture, a setting or the type of its tensors is not supported,
            tensors of its body are missing, unexpected or of a wrong shape (they are listed), the adapters were trained
            over another model, or a change does not fit.
    """
    check(not task_head or adapters is None, "task_head=True and adapters: give one of them, adapters have their head")
    with _openable():
        found = describe(source, revision, task_head=task_head, part=part)
        config, params = found.config, found.params()
        if adapters is not None:
            check(found.bits is None, f"{source} is quantised: give the adapters to the model itself, then quantize it")
            trained = read_adapters(adapters)
            config, params = trained.config, with_adapters(trained, str(source), config, params)
        model = models.from_params(_changed(config, changes), params)
    return with_origin(model, found.origin)


def with_origin(model: SameModel, origin: Origin | None) -> SameModel:
    """The model with `origin` set, also on the decoder of an encoder-decoder."""
    for part in (model, getattr(model, "decoder", model)):
        part.origin = origin
    return model


def save_pretrained(
    model: AnyModel | str | Path,
    folder: str | Path,
    *,
    tokenizer: Tokenizer | None = None,
    shard_bytes: int = 5 * 10**9,
    only: Literal["trained"] | None = None,
) -> None:
    """Write a model for `from_pretrained`, and for the transformers library if it has such models.

    A memory and its fusion are saved as tensors "memgpt.*", which transformers ignores: it reads the base model. A
    model that no family of transformers can express, or that is quantised, is saved under the names of this library.
    Settings that came with a pretrained model and are not used here (`model.origin`) are written back.

    A model in the folder is replaced after all new files are written; their checksums are recorded.

    Arguments:
        model: the model, or the folder of a run, whose tokenizer is saved too.
        folder: the folder, created if missing, for config.json, model.safetensors (or several such files with an
            index) and SHA256SUMS.
        tokenizer: if given, it is saved too and replaces any other tokenizer of the folder. Otherwise a tokenizer of
            the folder stays, but the generation_config.json of the model that is replaced goes, with its stop ids.
        shard_bytes: largest size of a weight file, in bytes.
        only: `trained`: of a run that started from a pretrained model, the parameters that were trained
            (`optimizer.trainable`) or added, and the tokenizer. `from_pretrained(base, adapters=folder)` puts them
            over the pretrained model again, and refuses any other one. Default: the whole model.

    Raises:
        ValueError: the folder holds a run, or cannot be written (disk full, no permission, ...). Its content is then
            unchanged. With `only`: the model is not the folder of such a run.
    """
    if only is not None:
        check(only == "trained", f"only must be 'trained' or None, got {only!r}")
        check(isinstance(model, str | Path), "only='trained' needs the folder of a run, which knows what was trained")
        assert isinstance(model, str | Path)
        save_adapters(model, folder)
        return
    if isinstance(model, str | Path):
        tokenizer = tokenizer or load_run(model).tokenizer
        model = from_pretrained(model)
    folder = Path(folder).expanduser()
    if (folder / "checkpoints").is_dir():
        raise ValueError(f"{folder} holds a run (checkpoints/): choose another folder for the model")
    origin = getattr(model, "origin", None)
    params = loadable(models.to_params(model))
    bits = quantized_bits(params)
    saved = saved_config(model.config, origin, tokenizer, as_ours=bits is not None)
    if bits is None:
        table = table_of(model.config, saved.family)
        if lacks_key_bias(model.config, table, params):
            saved, table = saved_config(model.config, origin, tokenizer, as_ours=True), table_of(model.config, None)
        tensors = tensors_from_params(table, params)
    else:
        tensors = quantized_tensors(params)
    stale = {GENERATION} if tokenizer is None else OF_TOKENIZERS

    def is_stale(name: str) -> bool:
        return name in stale or re.fullmatch(WEIGHT_FILES, name) is not None

    with writable(folder), replacing_files(folder, is_stale) as new:
        if tokenizer is not None:
            tokenizer.save(new)
        generation = None if origin is None else origin.generation
        if generation is None and (new / GENERATION).is_file():  # written by the tokenizer
            generation = json.loads((new / GENERATION).read_text(encoding="utf-8"))
        if generation is not None:
            write_json(new / GENERATION, dict(generation))
        write_json(new / CONFIG, saved.values | quantization_values(bits))
        write_tensors(new, tensors, shard_bytes)


def describe(
    source: str | Path, revision: str | None = None, *, task_head: bool = False, part: str | None = None
) -> Pretrained:
    """The settings and the names of the tensors of a pretrained model: see `from_pretrained`."""
    path = find(source, revision)
    if (path / "checkpoints").is_dir():
        return _run(path)
    _refuse_adapters(path)
    values, tensors = _read(path)
    if part is not None:
        with named(path):
            values = part_of(values, part)
    theirs = {name: value for name, value in values.items() if name != OURS}
    origin = read_origin(path, theirs) if path.is_dir() else Origin(theirs)
    with named(path):
        ours = from_json(values[OURS], tuple(MODELS)) if OURS in values else None
        if ours is not None and values.get("model_type") == OURS:
            config, family = ours, None
        else:
            family = family_of(values.get("model_type"))
            if ours is not None:
                check_agreement(family, theirs, ours)
            config = ours or family.from_hf(theirs)
        if ours is not None and (bits := bits_of(values, path / CONFIG)) is not None:
            return Pretrained(ours, lambda: quantized_params(ours, bits, tensors, path), origin, bits)
        plan = plan_of(config, family, theirs.get("architectures"), tensors, path)
        if task_head and ours is None and has_task_head(theirs):
            plan = with_task_head(plan, theirs, tensors, path)
    return Pretrained(plan.config, lambda: params_from_tensors(plan, tensors, path), origin)


def _run(workdir: Path) -> Pretrained:
    """The model of a run, with the origin of the model that it started from."""
    if (workdir / CONFIG).is_file():
        raise ValueError(f"{workdir} holds a run (checkpoints/) and a model ({CONFIG}): move one of them elsewhere")
    run = load_run(workdir)
    origin = workdir / RUN_ORIGIN
    return Pretrained(
        run.config.model, lambda: run.params, read_origin(origin) if (origin / CONFIG).is_file() else None
    )


def _refuse_adapters(path: Path) -> None:
    found = [name for name in ADAPTER_FILES if (path / name).exists()]
    if found:
        raise ValueError(
            f"{path} holds an adapter of the peft library ({', '.join(found)}), which changes the model and is not "
            "supported. Merge it into the weights first (merge_and_unload, then save_pretrained), or remove these files"
        )


def _read(path: Path) -> Contents:
    """The settings and the tensors of a folder or a GGUF file."""
    if path.is_file():
        return _gguf(path)
    files = sorted(path.glob("*.gguf"))
    weights = [file for file in path.glob("*.safetensors*") if re.fullmatch(WEIGHT_FILES, file.name)]
    if files and not (weights and (path / CONFIG).is_file()):
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise ValueError(f"{path} is not one .gguf file: {names}; give the path of one of them")
        return _gguf(files[0])
    if not (path / CONFIG).is_file():
        check(
            not (path / SETTINGS).is_file(),
            f"{path} holds adapters: give the pretrained model, and this folder as adapters=",
        )
        raise ValueError(f"{path} holds no model: there is no {CONFIG}, no .gguf file and no checkpoints/")
    if files:
        logger.warning("%s: %s is read, %s is not", path, weights[0].name, ", ".join(file.name for file in files))
    values = read_recorded(path / CONFIG)
    kinds = FLOATS if bits_of(values, path / CONFIG) is None else (*FLOATS, *INTEGERS)
    return Contents(values, open_tensors(path, kinds))


def _gguf(path: Path) -> Contents:
    from memgpt_jax.interop.gguf import read_gguf

    if path.suffix != ".gguf":
        raise ValueError(f"{path} must be a folder or a .gguf file")
    return read_gguf(path)


@contextlib.contextmanager
def _openable() -> Iterator[None]:
    """Turn an `OSError` about a folder or file into a `ValueError` that names it."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{error.filename or 'a file'} cannot be read: {error.strerror or error}") from error


def _changed(config: BaseModelConfig, changes: dict[str, Any]) -> BaseModelConfig:
    """The config with changes; `ValueError` if one would change the shapes of the parameters."""
    if not changes:
        return config
    fields = {name: {field.name for field in dataclasses.fields(stack)} for name, stack in config.stacks.items()}
    known = set().union(*fields.values())
    unknown = sorted(changes.keys() - known)
    if unknown:
        kind = type([*config.stacks.values()][-1]).__name__
        raise ValueError(f"{', '.join(unknown)}: {kind} has no such field; valid: {', '.join(sorted(known))}")
    stacks = {}
    for name, stack in config.stacks.items():
        stacks[name] = dataclasses.replace(stack, **{key: changes[key] for key in changes.keys() & fields[name]})
    changed = config.with_stacks(stacks)
    if shapes_of(changed) != shapes_of(config):
        raise ValueError(f"{', '.join(changes)}: this would change the parameters; add_memory adds a memory")
    return changed
