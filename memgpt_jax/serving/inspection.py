"""`/inspect`: the page that looks into a memory, and what it asks."""

import asyncio
from collections.abc import Generator
from typing import Any

import jax
import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.generation.document import Document, continued
from memgpt_jax.generation.pieces import result_of
from memgpt_jax.generation.prefill import compiled_read
from memgpt_jax.generation.request import decoder_of
from memgpt_jax.inspector import edit_entry, forget, list_entries, without_memory
from memgpt_jax.inspector.page import page
from memgpt_jax.inspector.trace import Trace, trace_pieces
from memgpt_jax.serving.completions import entry_of, refuse_unless, service_of
from memgpt_jax.serving.documents import shown
from memgpt_jax.serving.engine import Engine
from memgpt_jax.serving.errors import ApiError
from memgpt_jax.serving.protocol import EditEntry, Forget, Inspect, ListEntries, Next
from memgpt_jax.serving.requests import FailedError
from memgpt_jax.serving.runs import unless_left
from memgpt_jax.serving.store import on_host

router = APIRouter()
MOST_TOKENS = 20_000
"""Tokens of a text to inspect: the answer holds what each of them has read."""
ALTERNATIVES = 10


@router.get("/inspect", include_in_schema=False)
async def show() -> HTMLResponse:
    """The page; it holds no data."""
    return HTMLResponse(page())


@router.post("/v1/inspect")
async def inspect(body: Inspect, http: Request) -> dict[str, Any]:
    """The trace of a text, and the id of the document after it."""
    service, owner = service_of(http)
    engine, entry = service.engine_or_refuse(), None if body.session is None else await entry_of(body.session, http)
    document = engine.new_document() if entry is None else entry.document
    text = await asyncio.to_thread(service.encode, body.text)
    ids = [*document.unread, *text]
    if not 1 < len(ids) <= MOST_TOKENS:
        raise ApiError(f"the text may have 1 to {MOST_TOKENS} tokens", param="text", code="invalid_value")
    service.check_lengths(document, len(text))
    found, after = await unless_left(http, service.call_in_pieces(_traced(engine, document, ids)))
    entry = await service.keep(after, owner, entry)
    http.state.root = entry.root
    return {"object": "trace", "session": entry.id, "trace": await asyncio.to_thread(found.encoded)}


@router.post("/v1/inspect/next")
async def compare(body: Next, http: Request) -> dict[str, Any]:
    """The most probable next tokens of a document, and those without a part of its memory."""
    service, entry = service_of(http)[0], await entry_of(body.session, http)
    pairs = (body.start, body.end), (body.layer, body.place)
    is_range, is_entry = (pair != (None, None) for pair in pairs)
    is_whole = all((first is None) == (second is None) for first, second in pairs)
    ways = "give all=true, or start and end, or layer and place, and nothing else"
    refuse_unless(
        [
            (is_whole and body.all + is_range + is_entry == 1, "start", ways),
            (body.gate is None or is_entry, "gate", "gate needs layer and place"),
            (bool(entry.document.unread), "session", "the document has ended: there is no next token"),
        ]
    )
    engine = service.engine_or_refuse()
    return await service.call(lambda: _compared(engine, entry.document, body))


@router.post("/v1/inspect/forget")
async def cut(body: Forget, http: Request) -> dict[str, Any]:
    """The document without the entries of a part of it, under a new id."""
    service, owner = service_of(http)
    engine, entry = service.engine_or_refuse(), await entry_of(body.session, http)
    after = await service.call(lambda: _cut(engine, entry.document, body.start, body.end))
    return shown(await service.keep(after, owner, entry), http)


@router.post("/v1/inspect/entries")
async def entries(body: ListEntries, http: Request) -> dict[str, Any]:
    """The entries of one layer's memory of a document, with the tokens that they come from."""
    service, entry = service_of(http)[0], await entry_of(body.session, http)
    engine = service.engine_or_refuse()
    found = await service.call(lambda: list_entries((engine.config, engine.params), entry.document.state, body.layer))
    rows = (dict(zip(found._fields, row, strict=True)) for row in zip(*(each.tolist() for each in found), strict=True))
    data = [row for row in rows if body.token is None or 0 <= body.token - row["token"] < row["length"]]
    return {"object": "list", "data": data}


@router.post("/v1/inspect/edit")
async def edit(body: EditEntry, http: Request) -> dict[str, Any]:
    """The document with another write gate at one entry, or without the entry, under a new id."""
    service, owner = service_of(http)
    engine, entry = service.engine_or_refuse(), await entry_of(body.session, http)
    after = await service.call(lambda: _edited(engine, entry.document, body))
    return shown(await service.keep(after, owner, entry), http)


def warm_up(engine: Engine) -> None:
    """Compile what the page asks for."""
    config, length = engine.config, engine.config.segment_length + 2
    length = min(length, config.num_positions) if config.position == "learned" else length
    _, document = result_of(_traced(engine, engine.new_document(), [0] * length))
    _compared(engine, document, Next(session="", all=True))
    if isinstance(config.memory, KVMemoryConfig | NoMemoryConfig):  # the others cannot forget
        _compared(engine, document, Next(session="", start=0, end=1))
        _cut(engine, document, 0, 1)
    if isinstance(config.memory, KVMemoryConfig):
        layer = next(number for number, each in enumerate(document.state.layers) if each.stream)
        for place in list_entries((config, engine.params), document.state, layer).place[:1].tolist():
            _edited(engine, document, EditEntry(session="", layer=layer, place=place))


def _traced(engine: Engine, document: Document, ids: list[int]) -> Generator[None, None, tuple[Trace, Document]]:
    """The trace of all ids but the last, and the document after them. The first ids are the document's unread ones."""
    decoder, tokens = decoder_of((engine.config, engine.params)), np.array(ids[:-1], np.int32)
    try:
        found, state = yield from trace_pieces(decoder, tokens, engine.tokenizer, engine.placed(document.state))
    except ValueError as error:  # the lengths have been checked: a number is not finite
        raise FailedError(str(error)) from None
    return found, on_host(continued(document, engine.tokenizer, state, ids[len(document.unread) :], ids[-1:]))


def _cut(engine: Engine, document: Document, start: int, end: int) -> Document:
    state = forget((engine.config, engine.params), engine.placed(document.state), start, end)
    return on_host(document._replace(state=state))


def _edited(engine: Engine, document: Document, body: EditEntry | Next) -> Document:
    assert body.layer is not None and body.place is not None
    model, state = (engine.config, engine.params), engine.placed(document.state)
    return on_host(document._replace(state=edit_entry(model, state, body.layer, body.place, gate=body.gate or 0.0)))


def _compared(engine: Engine, document: Document, body: Next) -> dict[str, Any]:
    model, state = (engine.config, engine.params), engine.placed(document.state)
    if body.all:
        changed = without_memory(model, state)
    elif body.place is not None:
        changed = engine.placed(_edited(engine, document, body).state)
    else:
        assert body.start is not None and body.end is not None
        changed = forget(model, state, body.start, body.end)
    tokens, present = np.array([document.unread], np.int32), np.ones(1, np.int64)
    both = [
        np.asarray(
            jax.nn.log_softmax(
                compiled_read(engine.config, "any", engine.params, tokens, present, engine.no_logits, each)[0][0]
            )
        )
        for each in (state, changed)
    ]
    if not all(np.isfinite(each).all() for each in both):
        raise FailedError("the logits of the next token are not finite")
    divergence = float(np.sum(np.exp(both[0]) * (both[0] - both[1])) / np.log(2))

    def top(logprobs: np.ndarray) -> list[dict[str, Any]]:
        order = np.argsort(-logprobs, kind="stable")[:ALTERNATIVES]
        return [
            {"token": engine.tokenizer.decode([int(i)]), "id": int(i), "probability": float(np.exp(logprobs[i]))}
            for i in order
        ]

    return {"object": "comparison", "with": top(both[0]), "without": top(both[1]), "divergence": divergence}
