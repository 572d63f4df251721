"""What the memories of a decoder do with a text, token by token."""

import base64
import dataclasses
import functools
import html
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check, whole
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import Tokenizer
from memgpt_jax.data.progress_bar import track
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.generation.citations import segment_calls
from memgpt_jax.generation.pieces import result_of
from memgpt_jax.generation.prompts import check_tokenizer, checked_ids
from memgpt_jax.generation.request import DecoderModel, GenerativeModel, check_length, decoder_of
from memgpt_jax.generation.text import AnswerText
from memgpt_jax.inspector.editing import without_memory
from memgpt_jax.inspector.page import page
from memgpt_jax.memory import MEMORIES
from memgpt_jax.models import ModelState, Params
from memgpt_jax.models.decoder import MemGPT
from memgpt_jax.models.entry_reads import LayerTrace, trace_call
from memgpt_jax.shapes import Array, Flags, Tokens

FORMAT = 1
"""Version of the file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerRecord:
    """What the memory of one layer did with n tokens, in c calls that end with segments. NumPy arrays."""

    layer: int
    """Number of the layer."""
    fusion_gate: np.ndarray
    """[n] float32, mean over the width."""
    write_gate: np.ndarray | None
    """[n] float32; None: the mechanism has no write gate for a token."""
    read_mass: np.ndarray | None
    """[n, H] float32: the weight that each head gives to entries; None: the mechanism has no entries."""
    top_entry: np.ndarray | None
    """[n, k] int32: the entries with the largest weights, a mean over heads; -1: none. With `has_places`, an entry is
    named by the first token of the document that it comes from, else by its place in the memory."""
    top_length: np.ndarray | None
    """[n, k] int32: the number of tokens from which the entry comes; 1 without places."""
    top_weight: np.ndarray | None
    """[n, k] float32: their weights, mean over heads."""
    top_head: np.ndarray | None
    """[n, k] int32: the head that gives the entry the largest weight."""
    window_token: np.ndarray
    """[n, k] int32: the tokens of the document to which self-attention gives the largest weights, mean over heads; -1:
    none."""
    window_weight: np.ndarray
    """[n, k] float32: their weights, mean over heads."""
    has_places: bool
    """Whether entries are known by the tokens of the document."""
    evicted: np.ndarray | None
    """[n] int32: with places, the call before which the entry of a token alone has left the memory; -1: the last call
    still found it; -2: not known, or there was none: no call found one, or entries of several tokens took its place."""
    slot_reads: np.ndarray | None = None
    """[n, M] uint8: the weight with which each token reads each slot, mean over read heads, in 255ths; None: the
    mechanism does not write slots token by token."""
    slot_writes: np.ndarray | None = None
    """[n, M] uint8: the weight with which it writes each slot, mean over write heads, in 255ths."""
    stats: dict[str, np.ndarray]
    """Statistics of the memory after each call, [c] float32 each, such as occupancy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """What the memories of a decoder did with a text of n tokens."""

    mechanism: str
    """Name of the memory mechanism."""
    segment_length: int
    first: int
    """The place of the first token in its document."""
    tokens: np.ndarray
    """[n] int32."""
    texts: list[str]
    """The text that each token adds; "" inside a character."""
    calls: np.ndarray
    """[c + 1] int32: the tokens at which the calls begin, and n."""
    bits: np.ndarray
    """[n] float32: -log2 p of each token given those before it; NaN for the first token of the trace."""
    bits_without: np.ndarray | None
    """[n] float32: the same with empty memories, and the same window and knowledge; None: not computed."""
    layers: list[LayerRecord]
    """The layers with a memory."""

    def save(self, path: str | Path) -> None:
        """Write the trace as JSON: the fields of `Trace` and `LayerRecord`, and `format`.

        An array is {"dtype", "shape", "data"}, with its little-endian bytes in base64. Raises `OSError`.
        """
        replace_file(Path(path), self.json())

    def json(self) -> str:
        """The content of the file of `save`."""
        return json.dumps(self.encoded(), ensure_ascii=False, separators=(",", ":"))

    def encoded(self) -> dict[str, Any]:
        """The values in the file of `save`."""
        return {"format": FORMAT} | _encoded(_fields(self))

    def _repr_html_(self) -> str:
        """The page, as notebooks show it below a cell."""
        return (
            f'<iframe srcdoc="{html.escape(page(self.json()))}" style="width: 100%; height: 720px; border: 0"></iframe>'
        )

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """The trace that `save` wrote. Raises `ValueError` if the file is not one, `OSError` if it cannot be read."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            check(values.pop("format") == FORMAT, f"{path} has another format than {FORMAT}")
            values = _decoded(values)
            return cls(**values | {"layers": [LayerRecord(**layer) for layer in values["layers"]]})
        except (KeyError, TypeError, AttributeError, RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a trace: {error}") from None


def write_page(trace: Trace, path: str | Path) -> None:
    """Write the page with a trace into one HTML file. Raises `OSError`."""
    replace_file(Path(path), page(trace.json()))


def trace(
    model: GenerativeModel,
    text: str | Sequence[int] | np.ndarray,
    *,
    tokenizer: Tokenizer,
    state: ModelState | None = None,
    top: int = 8,
    compare: bool = True,
    noun: str = "",
) -> tuple[Trace, ModelState]:
    """What the memories of a decoder do with a text.

    The text is read in calls that end with segments, so device memory does not grow with it.

    Args:
        model: a `MemGPT` or `(config, params)` of one.
        text: the text, or ids; it begins a document if no `state` is given.
        tokenizer: of the model.
        state: one row, what has been read before. It is not modified.
        top: the number k of entries that are kept for each token.
        compare: whether the text is also read with empty memories (`bits_without`).
        noun: of the calls, for a progress bar; "": no bar.

    Returns:
        The trace, and the state after the text.

    Raises:
        ValueError: the text is empty, does not fit the model or exceeds its learned positions, or logits are not
            finite.
    """
    decoder = decoder_of(model)
    config = decoder.config
    check_tokenizer(config, tokenizer)
    top = whole("top", top, 1)
    ids = tokenizer.encode(text) if isinstance(text, str) else [whole("token ids", token, 0) for token in text]
    if state is None:
        ids = ids if ids[:1] == [tokenizer.start_id] else [tokenizer.start_id, *ids]
        state = models.functional(config).init_state(1)
    check(bool(ids), "the text is empty: give at least one token")
    tokens = checked_ids(config, "token ids", np.array(ids, np.int64))
    return result_of(trace_pieces(decoder, tokens, tokenizer, state, top=top, compare=compare, noun=noun))


def trace_pieces(
    decoder: DecoderModel,
    tokens: np.ndarray,
    tokenizer: Tokenizer,
    state: ModelState,
    *,
    top: int = 8,
    compare: bool = True,
    noun: str = "",
) -> Generator[None, None, tuple[Trace, ModelState]]:
    """`trace` of valid ids [n], n >= 1; yields after each call of the model."""
    config, params, _ = decoder
    first = int(np.asarray(state.position)[0])
    check_length(config, first + len(tokens))
    recorder, other = _Recorder(config, params, tokens, first), state
    nats, nats_without = np.full(len(tokens), np.nan, np.float32), np.full(len(tokens), np.nan, np.float32)
    calls = list(segment_calls(config, state, [tokens]))
    for number, (place, part, valid) in enumerate(track(calls, noun) if noun else calls):
        following = np.zeros_like(part)
        later = tokens[place + 1 : place + 1 + int(valid.sum())]
        following[0, : len(later)] = later
        before = state
        read, losses, state = _call(config, top, params, part, following, valid, state)
        nats[place + 1 : place + 1 + len(later)] = np.asarray(losses)[0, : len(later)]
        recorder.add(number, place, int(valid.sum()), before, jax.device_get(read))
        if compare:
            losses, other = _score(config, params, part, following, valid, other)
            nats_without[place + 1 : place + 1 + len(later)] = np.asarray(losses)[0, : len(later)]
        yield
    check(bool(np.isfinite(nats[1:]).all()), "losses are not finite: the parameters or the state hold such values")
    found = Trace(
        mechanism=MEMORIES.name_of(config.memory),
        segment_length=config.segment_length,
        first=first,
        tokens=tokens,
        texts=_texts(tokenizer, tokens),
        calls=np.array([*(place for place, _, _ in calls), len(tokens)], np.int32),
        bits=nats / np.float32(np.log(2)),
        bits_without=nats_without / np.float32(np.log(2)) if compare else None,
        layers=recorder.layers(len(calls)),
    )
    return found, state


def _texts(tokenizer: Tokenizer, tokens: np.ndarray) -> list[str]:
    """The text that each token adds."""
    text = AnswerText(tokenizer, [])
    found = [text.push(token) for token in tokens]
    if found:
        found[-1] += text.rest()
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def _call(
    config: ModelConfig, top: int, params: Params, tokens: Tokens, following: Tokens, valid: Flags, state: ModelState
) -> tuple[list[dict[str, Array] | None], Array, ModelState]:
    """What each memory did, the loss of each following token in nats, and the state after the call."""
    model = models.from_params(config, params)
    traced = trace_call(model, tokens, state, valid)
    loss = model.score_hidden(traced.stream, {"tokens": following})["tokens"].losses
    pairs = zip(traced.layers, traced.state.layers, strict=True)
    reads = [None if layer is None else _kept(layer, after.stream.memory, top) for layer, after in pairs]
    return reads, loss, traced.state


@functools.partial(jax.jit, static_argnums=0)
def _score(
    config: ModelConfig, params: Params, tokens: Tokens, following: Tokens, valid: Flags, state: ModelState
) -> tuple[Array, ModelState]:
    """The loss of each following token with empty memories, and the state after the call."""
    state = without_memory((config, params), state)
    model: MemGPT = models.from_params(config, params)
    scores, state = model.score(tokens, {"tokens": following}, state, valid=valid)
    return scores["tokens"].losses, state


def _kept(layer: LayerTrace, after: Any, top: int) -> dict[str, Any]:
    """What is kept of a layer, whose memory has the state `after`; the batch axis is dropped."""
    stats = {name: value for name, value in layer.memory.stats(after).items() if value.ndim == 0}
    window = jnp.mean(layer.window[0], axis=0)  # [L, W + L]
    window_weight, window_token = jax.lax.top_k(window, min(top, window.shape[-1]))
    found: dict[str, Any] = {"fusion_gate": layer.fusion_gates[0], "stats": stats}
    found |= {"window_weight": window_weight, "window_token": window_token}
    if layer.write_gates is not None:
        found["write_gate"] = layer.write_gates[0]
    if layer.explanation is not None:
        weights = layer.explanation.weights[0]  # [L, H, M]
        mean = jnp.mean(weights, axis=1)
        number = min(top, mean.shape[-1])
        top_weight, top_entry = jax.lax.top_k(mean, number)
        by_head = jnp.take_along_axis(weights, top_entry[:, None], axis=-1)
        found |= {
            "read_mass": jnp.sum(weights, axis=-1),
            "top_weight": top_weight,
            "top_entry": top_entry,
            "top_head": jnp.argmax(by_head, axis=1),
            "valid": layer.explanation.valid[0],
        }
        if layer.explanation.writes is not None:
            writes = jnp.mean(layer.explanation.writes[0], axis=1)
            found |= {"slot_reads": _in_255ths(mean), "slot_writes": _in_255ths(writes)}
        try:
            origins = layer.memory.origins(layer.before)
            found |= {"start": origins.start[0], "length": origins.length[0]}
        except (NotImplementedError, ValueError):  # the mechanism or the configuration has entries without a place
            pass
    return found


def _in_255ths(weights: Array) -> Array:
    return jnp.round(255 * jnp.clip(weights, 0, 1)).astype(jnp.uint8)


class _Recorder:
    """Collects the reads of all calls."""

    def __init__(self, config: ModelConfig, params: Params, tokens: np.ndarray, first: int):
        self._first, self._number, self._window_size = first, len(tokens), config.window_size
        blocks = models.from_params(config, params).blocks
        owners = [
            layer for layer, block in enumerate(blocks) if getattr(block.memory_layer, "memory", None) is not None
        ]
        self._parts: dict[int, list[dict[str, Any]]] = {layer: [] for layer in owners}
        self._evicted = {layer: np.full(len(tokens), -2, np.int32) for layer in owners}
        self._places: set[int] = set()  # layers whose entries are known by the tokens they come from

    def add(self, number: int, place: int, size: int, before: ModelState, reads: list[dict[str, Any] | None]) -> None:
        """Add call `number` of `size` tokens from `place` on."""
        for layer, read in enumerate(reads):
            if read is None:
                continue
            part = {
                name: value[:size] for name, value in read.items() if name not in ("valid", "start", "length", "stats")
            }
            part["stats"] = read["stats"]
            oldest = self._first + place - self._window_size
            part["window_token"] = np.where(part["window_weight"] > 0, oldest + part["window_token"], -1)
            if "start" in read:
                self._places.add(layer)
                stream = before.layers[layer].stream
                written = int(np.asarray(before.position)[0] - (stream.offset - stream.start)[0])
                start = written - read["start"]
                known = read["valid"][: len(start)]
                entry = np.minimum(part["top_entry"], len(start) - 1)  # entries of knowledge come last
                is_entry = (part["top_entry"] < len(start)) & known[entry]
                part["top_length"] = np.where(is_entry, read["length"][entry], 0)
                part["top_entry"] = np.where(is_entry & (part["top_weight"] > 0), start[entry], -1)
                self._follow(layer, number, start[known] - self._first, read["length"][known])
            elif "top_entry" in part:
                part["top_entry"] = np.where(read["valid"][part["top_entry"]], part["top_entry"], -1)
                part["top_length"] = np.ones_like(part["top_entry"])
            self._parts[layer].append(part)

    def _follow(self, layer: int, number: int, starts: np.ndarray, lengths: np.ndarray) -> None:
        """Note from the entries before call `number` which tokens have one of their own, and which have lost theirs."""
        evicted = self._evicted[layer]
        own, change = np.zeros(self._number + 1, bool), np.zeros(self._number + 1, np.int64)
        own[np.clip(starts[lengths == 1], -1, self._number)] = True  # the last place: tokens outside the trace
        np.add.at(change, np.clip(starts, 0, self._number), 1)
        np.subtract.at(change, np.clip(starts + lengths, 0, self._number), 1)
        own, is_covered = own[:-1], np.cumsum(change[:-1]) > 0
        has_left = (evicted == -1) & ~own
        evicted[has_left] = np.where(is_covered[has_left], -2, number)
        evicted[own] = -1

    def layers(self, calls: int) -> list[LayerRecord]:
        """The records of all layers with a memory."""
        found = []
        for layer, parts in self._parts.items():
            values: dict[str, Any] = {
                name: np.concatenate([part[name] for part in parts]) if name in parts[0] else None
                for name in (
                    "fusion_gate",
                    "write_gate",
                    "read_mass",
                    "top_entry",
                    "top_length",
                    "top_weight",
                    "top_head",
                    "window_token",
                    "window_weight",
                    "slot_reads",
                    "slot_writes",
                )
            }
            for name in ("top_entry", "top_length", "top_head", "window_token"):
                values[name] = None if values[name] is None else values[name].astype(np.int32)
            stats = {name: np.array([part["stats"][name] for part in parts], np.float32) for name in parts[0]["stats"]}
            has_places = layer in self._places
            evicted = self._evicted[layer] if has_places else None
            found.append(LayerRecord(layer=layer, has_places=has_places, evicted=evicted, stats=stats, **values))
        return found


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _encoded(value: Any) -> Any:
    """A value as JSON can express it."""
    if isinstance(value, LayerRecord):
        return _encoded(_fields(value))
    if isinstance(value, dict):
        return {name: _encoded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_encoded(each) for each in value]
    if isinstance(value, np.ndarray):
        value = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        data = base64.b64encode(value.tobytes()).decode()
        return {"dtype": str(value.dtype), "shape": list(value.shape), "data": data}
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"dtype", "shape", "data"}:
        array = np.frombuffer(base64.b64decode(value["data"]), np.dtype(value["dtype"]).newbyteorder("<"))
        return array.reshape(value["shape"]).astype(value["dtype"])
    if isinstance(value, dict):
        return {name: _decoded(each) for name, each in value.items()}
    return [_decoded(each) for each in value] if isinstance(value, list) else value
