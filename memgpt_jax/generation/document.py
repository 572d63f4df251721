"""A document as far as a model has read it: an immutable value, and one file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check
from memgpt_jax.config.model import EXECUTION, ModelConfig
from memgpt_jax.config.serialization import differences_from_json, to_json
from memgpt_jax.data import Tokenizer
from memgpt_jax.files.checksums import DamagedError
from memgpt_jax.generation.packing import pack, packed_array, starts_of
from memgpt_jax.generation.text import AnswerText
from memgpt_jax.models import ModelState, Params
from memgpt_jax.ops.trees import named_leaves

KEY, NO_SUM = "memgpt_jax.session", "0" * 64
"""The entry of a file's header with its values as JSON, and what its checksum `sha256` is while it is computed."""

MOST_TOKENS = 2**63
"""Above the number of tokens of any document."""


class Document(NamedTuple):
    """A document as far as a model has read it."""

    state: ModelState
    """The state after all tokens but those in `unread`; one row."""
    unread: tuple[int, ...]
    """The last token, which the model reads when the next one is needed; () after the end of the document."""
    num_tokens: int
    """Number of tokens of the document so far."""
    penalized_ids: frozenset[int]
    """The ids of the document, to which a repetition penalty applies."""
    context: tuple[int, ...]
    """The last ids whose text is settled (see `AnswerText`)."""
    unfinished: tuple[int, ...] = ()
    """The ids after `context`, whose text may still change."""


def new_document(config: ModelConfig, tokenizer: Tokenizer) -> Document:
    """A document without text."""
    state = models.functional(config).init_state(batch_size=1)
    return Document(state, (tokenizer.start_id,), 1, frozenset(), ())


def continued(
    document: Document,
    tokenizer: Tokenizer,
    state: ModelState,
    ids: Sequence[int],
    unread: Sequence[int],
    text: AnswerText | None = None,
) -> Document:
    """The document with more tokens.

    Args:
        document: before them.
        tokenizer: of the model.
        state: the state after all tokens but those in `unread`.
        ids: the new tokens.
        unread: the last token; () after the end of the document.
        text: of the answer that the tokens are, whose last character may be incomplete; default: they are a prompt.
    """
    if text is None and ids:
        text = AnswerText(tokenizer, [*document.context, *document.unfinished, *ids])
    settled, unfinished = (document.context, document.unfinished) if text is None else (text.context, text.unfinished)
    return Document(
        state,
        tuple(unread),
        document.num_tokens + len(ids),
        document.penalized_ids.union(ids),
        tuple(settled),
        tuple(unfinished),
    )


def memory_stats(config: ModelConfig, params: Params, state: ModelState) -> list[dict[str, Any]]:
    """The `stats` of each layer's memory (occupancy, write gates, ages, bytes); {} for a layer without one."""
    layers = zip(models.from_params(config, params).blocks, state.layers, strict=True)
    measured = [block.memory_layer.memory.stats(s.stream.memory) if s.stream else {} for block, s in layers]
    return jax.tree.map(lambda x: np.asarray(x).tolist(), measured)


def to_bytes(
    document: Document, config: ModelConfig, tokenizer: Tokenizer, notes: Mapping[str, Any] | None = None
) -> bytes:
    """The content of a file in the safetensors format with the document.

    Its header holds the model's configuration, the tokenizer's fingerprint, the SHA-256 of the file, the first slot of
    arrays that are stored without empty slots (see `pack`), and `notes`: what JSON can express, which `from_bytes`
    returns.
    """
    from safetensors.numpy import save

    values: dict[str, Any] = {"sha256": NO_SUM, "config": to_json(config), "tokenizer": tokenizer.fingerprint}
    values["notes"] = dict(notes or {})
    values |= {name: value for name, value in document._asdict().items() if name != "state"}
    values |= {"penalized_ids": sorted(document.penalized_ids)}
    arrays = named_leaves(pack(document.state))
    values["starts"] = starts_of(arrays)
    content = save({name: array.slots for name, array in arrays.items()}, {KEY: json.dumps(values)})
    return content.replace(NO_SUM.encode(), hashlib.sha256(content).hexdigest().encode(), 1)


def from_bytes(
    content: bytes, config: ModelConfig, tokenizer: Tokenizer, name: str | Path
) -> tuple[Document, dict[str, Any]]:
    """The document that `to_bytes` wrote, with its state on the host, and its notes.

    Args:
        content: of the file.
        config: of the model that is to continue the document.
        tokenizer: of this model.
        name: of the file, for messages.

    Raises:
        DamagedError: a `ValueError`: the file differs from its checksum, or is no such file.
        ValueError: the model's configuration or the tokenizer differs from those in the file.
    """
    from safetensors import SafetensorError, deserialize

    values = _values(content, name)
    changed = differences_from_json(values["config"], config, EXECUTION)
    check(not changed, f"the session in {name} belongs to another model:\n  " + "\n  ".join(changed))
    check(values["tokenizer"] == tokenizer.fingerprint, f"the session in {name} belongs to another tokenizer")
    _check_values(values, config.vocab_size, name)
    try:
        found = dict(deserialize(content))
    except SafetensorError as error:
        raise DamagedError(f"{name} cannot be read: {error}") from None
    like = jax.eval_shape(lambda: models.functional(config).init_state(1))
    wanted, starts = named_leaves(like), values["starts"]
    check(wanted.keys() == found.keys(), f"{name} does not hold the state of such a model: its arrays have other names")
    try:
        arrays = [
            packed_array(found[key]["data"], found[key]["shape"], starts.get(key, 0), x).whole()
            for key, x in wanted.items()
        ]
    except ValueError as error:
        raise ValueError(f"{name} does not hold the state of such a model: {error}") from None
    state = jax.tree.unflatten(jax.tree.structure(like), arrays)
    sequences = {key: tuple(values[key]) for key in ("unread", "context", "unfinished")}
    penalized_ids = frozenset(values["penalized_ids"])
    document = Document(state, penalized_ids=penalized_ids, num_tokens=values["num_tokens"], **sequences)
    return document, values["notes"]


def _check_values(values: dict[str, Any], vocab_size: int, name: str | Path) -> None:
    """Raise `DamagedError` unless a header holds what `to_bytes` writes: its checksum proves no author."""

    def is_whole(value: Any, below: int) -> bool:
        return type(value) is int and 0 <= value < below

    ids = [values[key] for key in ("unread", "context", "unfinished", "penalized_ids")]
    starts = values["starts"]
    holds = (
        all(isinstance(each, list) and all(is_whole(token, vocab_size) for token in each) for each in ids)
        and len(values["unread"]) <= 1
        and is_whole(values["num_tokens"], MOST_TOKENS)
        and values["num_tokens"] >= 1
        and isinstance(starts, dict)
        and all(is_whole(start, MOST_TOKENS) for start in starts.values())
        and isinstance(values["notes"], dict)
    )
    if not holds:
        raise DamagedError(f"{name} is no session that this library wrote: its header has values that cannot be")


def is_document(path: Path) -> bool:
    """Whether a file begins as those of `to_bytes`, perhaps damaged behind its header. Raises `OSError`."""
    with path.open("rb") as file:
        start = file.read(8)
        return KEY in file.read(min(int.from_bytes(start, "little"), 1 << 24)).decode("utf-8", "replace")


def verify_document(path: Path) -> None:
    """Raise `DamagedError` if a file of `to_bytes` differs from its checksum, `OSError` if it cannot be read."""
    _values(path.read_bytes(), path)


def _values(content: bytes, name: str | Path) -> dict[str, Any]:
    """The values in the header. Raises `DamagedError` if there are none, or the content differs from its checksum."""
    try:
        length = int.from_bytes(content[:8], "little")
        values = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][KEY])
        recorded = values.pop("sha256").encode()
        values = {"starts": {}} | values
        missing = {"config", "tokenizer", "notes", *Document._fields} - {"state"} - values.keys()
        if missing:
            raise KeyError(missing)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedError(f"{name} is no session that this library wrote, or is damaged") from None
    if hashlib.sha256(content.replace(recorded, NO_SUM.encode(), 1)).hexdigest().encode() != recorded:
        raise DamagedError(f"{name} is damaged: it differs from its checksum")
    return values
