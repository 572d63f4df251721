"""Texts to knowledge: a model reads each text alone, and its Writers give the entries."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check, instance_of, whole
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.progress_bar import track
from memgpt_jax.data.tokenizers.base import Tokenizer
from memgpt_jax.generation.prompts import row_of_ids
from memgpt_jax.generation.request import DecoderModel, GenerativeModel, decoder_of
from memgpt_jax.knowledge.entries import Knowledge, LayerEntries, sha256_of
from memgpt_jax.knowledge.files import load, save_parts
from memgpt_jax.models import ModelState, Params
from memgpt_jax.ops.int8_vectors import as_floats
from memgpt_jax.ops.trees import where_rows
from memgpt_jax.shapes import Array, Bool, Flags, Tokens


def encode(
    model: GenerativeModel,
    texts: Iterable[str] | Iterable[Sequence[int]],
    tokenizer: Tokenizer | None = None,
    *,
    sources: Iterable[int] | None = None,
    batch_size: int = 16,
    path: str | Path | None = None,
) -> Knowledge:
    """The entries that the Writers of a model's memories make of texts, each text read alone from an empty memory.

    A text is a document: it begins with `start_id`, whose entry is left out where each token has one, because it is
    read for every question. Its last segment is written although it is not full.

    Args:
        model: a `MemGPT`, or `(config, params)` of one, whose memory is `kv`.
        texts: texts, or without `tokenizer` whole numbers, the ids of each; an iterator is read batch by batch.
        tokenizer: encodes the texts.
        sources: the number of each text, at least 1; default: from 1 on.
        batch_size: texts that are read at the same time.
        path: a folder, into which entries are written batch by batch, as `save` does at once; the arrays of the result
            are memory-mapped. Host memory holds the entries of one batch, and the texts.

    Raises:
        ValueError: there is no text, one is empty or does not fit the model, numbers repeat or are below 1, the memory
            is not `kv` or holds fewer entries than a segment writes, with `evict="lowest_gate"` it holds fewer than a
            text writes, or the folder holds something else.
        OSError: the folder cannot be written. It is then unchanged.
    """
    check(not isinstance(texts, str | bytes), f"texts must be a list of texts, got one text, {texts!r:.40}")
    decoder, number = decoder_of(model), len(texts) if isinstance(texts, Sized) else None
    if number is not None and isinstance(sources, Sized):
        check(len(sources) == number, f"{number} texts have {len(sources)} sources")
    parts = _parts(decoder, _numbered(texts, sources), tokenizer, whole("batch_size", batch_size, 1))
    parts = track(parts, "batches of texts", None if number is None else -(-number // batch_size))
    if path is not None:
        save_parts(parts, path)
        return load(path, model)
    found = [*parts]
    check(bool(found), "there are no texts")
    layers = [
        LayerEntries(*map(np.concatenate, zip(*of_layer, strict=True)))
        for of_layer in zip(*(part.layers for part in found), strict=True)
    ]
    return Knowledge(tuple(layers), dict(item for part in found for item in part.texts.items()), found[0].model)


def _numbered(texts: Iterable[Any], sources: Iterable[int] | None) -> Iterator[tuple[Any, Any]]:
    """The texts with their numbers, from 1 on if none are given."""
    if sources is None:
        yield from zip(texts, itertools.count(1), strict=False)
        return
    missing = object()
    for place, (text, source) in enumerate(itertools.zip_longest(texts, sources, fillvalue=missing)):
        more, fewer = ("texts", "sources") if source is missing else ("sources", "texts")
        check(text is not missing and source is not missing, f"there are more {more} than {place} {fewer}")
        yield text, source


def _parts(
    decoder: DecoderModel, items: Iterable[tuple[Any, int]], tokenizer: Tokenizer | None, batch_size: int
) -> Iterator[Knowledge]:
    """The knowledge of each batch of texts with their numbers."""
    params, memory = decoder.params, _checked_memory(decoder.config)
    config = dataclasses.replace(decoder.config, memory=dataclasses.replace(memory, knowledge_size=0))  # none is read
    skip_start = memory.select == "all" and tokenizer is not None
    fingerprint, known, place = sha256_of(params), set[int](), 0
    items = iter(items)
    while batch := [*itertools.islice(items, batch_size)]:
        names, group = {}, []
        for text, source in batch:
            source = whole("sources", source, 1)
            check(source not in known, "two texts have the same number in sources")
            known.add(source)
            group.append(_ids(config, place, text, tokenizer))
            _check_length(config, memory, place, len(group[-1]))
            names[source] = text if isinstance(text, str) else " ".join(map(str, text))
            place += 1
        rows = _of_group(config, params, group + [group[-1]] * (batch_size - len(group)), skip_start)
        layers = []
        for of_layer in rows:
            of_texts = of_layer[: len(group)]
            keys, values, log_gate = (np.concatenate(arrays) for arrays in zip(*of_texts, strict=True))
            sizes = [len(arrays[0]) for arrays in of_texts]
            layers.append(LayerEntries(keys, values, log_gate, np.repeat(np.array([*names], np.int32), sizes)))
        yield Knowledge(tuple(layers), names, fingerprint)


def _written(config: ModelConfig, memory: KVMemoryConfig) -> int:
    """The entries that a segment writes."""
    return config.segment_length if memory.select == "all" else memory.select_size


def _check_length(config: ModelConfig, memory: KVMemoryConfig, number: int, tokens: int) -> None:
    """Raise `ValueError` if entries of a text would leave the memory as soon as they are written."""
    kept = (memory.memory_size - memory.initial_entries) // _written(config, memory)  # segments
    check(
        memory.evict != "lowest_gate" or tokens // config.segment_length <= kept,
        f"text {number} has {tokens} tokens, at most {config.segment_length * (kept + 1) - 1} are possible with "
        f"model.memory.evict='lowest_gate' and memory_size={memory.memory_size}: divide the text",
    )


def _checked_memory(config: ModelConfig) -> KVMemoryConfig:
    memory = instance_of(config.memory, KVMemoryConfig, "model.memory")
    written = _written(config, memory)
    check(
        memory.memory_size >= written,
        f"model.memory.memory_size={memory.memory_size} must be at least {written}, the entries of a segment",
    )
    return memory


def _ids(config: ModelConfig, number: int, text: Any, tokenizer: Tokenizer | None) -> np.ndarray:
    if tokenizer is not None:
        check(isinstance(text, str), f"text {number} must be a str, got {type(text).__name__}")
        check(bool(text.strip()), f"text {number} is empty")
        text = [tokenizer.start_id, *tokenizer.encode(text)]
    else:
        check(not isinstance(text, str), "texts need tokenizer=")
    check(not isinstance(text, Sized) or len(text) > 0, f"text {number} is empty")
    ids = row_of_ids(config, f"the ids of text {number}", text)
    return ids


def _of_group(
    config: ModelConfig, params: Params, group: Sequence[np.ndarray], skip_start: bool
) -> list[list[tuple[np.ndarray, ...]]]:
    """For each layer with a memory, keys, values and log gates of each text."""
    found: list[list[list[tuple[np.ndarray, ...]]]] = []
    for first, layers in _segments(config, params, group):
        found = found or [[[] for _ in group] for _ in layers]
        for of_layer, (entries, new) in zip(found, layers, strict=True):
            for row, parts in enumerate(of_layer):
                chosen = np.flatnonzero(new[row])
                chosen = chosen[1:] if first and skip_start else chosen
                parts.append(tuple(array[row][chosen].astype(np.float32) for array in entries))
    return [[tuple(map(np.concatenate, zip(*parts, strict=True))) for parts in of_layer] for of_layer in found]


def _segments(config: ModelConfig, params: Params, group: Sequence[np.ndarray]) -> Iterator[tuple[bool, Any]]:
    """Read texts segment by segment; after each, whether it was the first, and the new entries of each layer."""
    length, state = config.segment_length, models.functional(config).init_state(len(group))
    for start in range(0, max(map(len, group)), length):
        tokens, valid = np.zeros((len(group), length), np.int32), np.zeros((len(group), length), bool)
        for row, ids in enumerate(group):
            part = ids[start : start + length]
            tokens[row, : len(part)], valid[row, : len(part)] = part, True
        layers, state = _read_segment(config, params, tokens, valid, state)
        yield start == 0, jax.device_get(layers)


@functools.partial(jax.jit, static_argnums=0)
def _read_segment(
    config: ModelConfig, params: Params, tokens: Tokens, valid: Flags, state: ModelState
) -> tuple[list[tuple[tuple[Array, Array, Array], Bool[Array, "B N"]]], ModelState]:
    """The N entries that each memory writes of one segment, full or open, and which of them are of this call."""
    model = models.from_params(config, params)
    _, state, *_ = model.hidden(tokens, state, valid=valid)
    memory = instance_of(config.memory, KVMemoryConfig, "model.memory")
    number, found = _written(config, memory), []
    for block, layer in zip(model.blocks, state.layers, strict=True):
        if layer.stream:
            stream, place = layer.stream, jnp.arange(config.segment_length)[None, :]
            full = jax.tree.map(lambda x: x[:, -number:], stream.memory.entries)
            full = full._replace(valid=full.valid & (full.age == 1))
            present = (place >= stream.start[:, None]) & (place < stream.offset[:, None])
            still_open, _ = block.memory_layer.memory.new_entries(stream.pending, stream.memory, present)
            entries = where_rows(stream.offset > 0, still_open, as_floats(full, still_open.keys.dtype))
            new = entries.valid & jnp.any(valid, axis=1)[:, None]
            found.append(((entries.keys, entries.values, entries.log_gate), new))
    return found, state
