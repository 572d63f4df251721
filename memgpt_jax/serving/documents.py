"""`/v1/sessions`: documents that are fed with text, forked, measured, taken along and brought back.

Each id names a document that never changes: feeding one gives a new id. Ids of sessions and of responses may stand for
each other.
"""

import asyncio
from typing import Any

import jax
import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from memgpt_jax.generation.document import Document, from_bytes, to_bytes
from memgpt_jax.serving.completions import entry_of, service_of
from memgpt_jax.serving.engine import Engine
from memgpt_jax.serving.errors import ApiError
from memgpt_jax.serving.protocol import Feed, Generation
from memgpt_jax.serving.runs import Run
from memgpt_jax.serving.store import Entry

router = APIRouter()


@router.post("/v1/sessions")
async def create(body: Feed, http: Request) -> dict[str, Any]:
    """A new document that has read a text."""
    return await _fed(None, body, http)


@router.post("/v1/sessions/{id}/feed")
async def feed(id: str, body: Feed, http: Request) -> dict[str, Any]:
    """The document of an id with more text, under a new id."""
    return await _fed(await entry_of(id, http), body, http)


@router.post("/v1/sessions/{id}/fork")
async def fork(id: str, http: Request) -> dict[str, Any]:
    """The same document under a new id."""
    service, owner = service_of(http)
    entry = await entry_of(id, http)
    return shown(await service.keep(entry.document, owner, entry), http)


@router.get("/v1/sessions/{id}")
async def get(id: str, http: Request) -> dict[str, Any]:
    """A document: its number of tokens, and statistics of each layer's memory."""
    service, entry = service_of(http)[0], await entry_of(id, http)
    memory = await service.call(lambda: service.memory_stats(entry.document))
    return shown(entry, http) | {"memory": memory}


@router.delete("/v1/sessions/{id}")
async def delete(id: str, http: Request) -> dict[str, Any]:
    """Remove a document."""
    service, owner = service_of(http)
    await asyncio.to_thread(service.store.delete, id, owner)
    return {"id": id, "object": "session", "deleted": True}


@router.get("/v1/sessions/{id}/export")
async def export(id: str, http: Request) -> Response:
    """The document as a file, which `Session.load` and `/v1/sessions/import` read."""
    engine, entry = service_of(http)[0].engine_or_refuse(), await entry_of(id, http)
    content = await asyncio.to_thread(to_bytes, entry.document, engine.config, engine.tokenizer)
    headers = {"Content-Disposition": f'attachment; filename="{entry.id}.safetensors"'}
    return Response(content, media_type="application/octet-stream", headers=headers)


@router.post("/v1/sessions/import")
async def bring(http: Request) -> dict[str, Any]:
    """A document from the content of a file, under a new id."""
    service, owner = service_of(http)
    engine = service.engine_or_refuse()
    document = await asyncio.to_thread(_document_of, await http.body(), engine)
    return shown(await service.keep(document, owner, None), http)


def _document_of(content: bytes, engine: Engine) -> Document:
    """The document in the content of a file. Raises `ValueError` or `ApiError` if it is not valid."""
    document, _ = from_bytes(content, engine.config, engine.tokenizer, "the file")
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(document.state) if _is_float(leaf)):
        raise ApiError("the state holds values that are not finite", code="invalid_value")
    return document


async def _fed(entry: Entry | None, body: Feed, http: Request) -> dict[str, Any]:
    service, owner = service_of(http)
    service.check_model(body.model)
    ids = await asyncio.to_thread(service.encode, body.text)
    if not ids:  # nothing to read
        document = service.engine_or_refuse().new_document() if entry is None else entry.document
        return shown(await service.keep(document, owner, entry), http)
    request = service.request(Generation.model_validate({}), [ids], entry, owner=owner, max_new_tokens=0)
    run = Run(service, [request], answered=False)
    await run.result(http)
    document = run.prompts[0].document
    assert document is not None
    return shown(await service.keep(document, owner, entry), http) | {"usage": run.usage()}


def shown(entry: Entry, http: Request) -> dict[str, Any]:
    """A document as an object. Its root becomes the header `x-session-id`."""
    http.state.root = entry.root
    return {
        "id": entry.id,
        "object": "session",
        "created_at": int(entry.created),
        "model": service_of(http)[0].name,
        "num_tokens": entry.document.num_tokens,
        "bytes": entry.nbytes,
    }


def _is_float(leaf: Any) -> bool:
    return jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
