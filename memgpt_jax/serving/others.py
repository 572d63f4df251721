"""Models, embeddings, tokens, pipelines, health and measurements."""

import asyncio
import base64
import inspect
import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from memgpt_jax.pipelines.media import without_paths
from memgpt_jax.pipelines.media_classification import MediaClassification
from memgpt_jax.pipelines.media_to_text import MediaToText
from memgpt_jax.serving.completions import messages_of, service_of
from memgpt_jax.serving.errors import ApiError
from memgpt_jax.serving.protocol import Detokenize, Embedding, PipelineCall, Tokenize
from memgpt_jax.serving.runs import unless_left
from memgpt_jax.serving.service import Service

router = APIRouter()
MOST_EMBEDDINGS = 256


@router.get("/v1/models")
async def models(http: Request) -> dict[str, Any]:
    """The model."""
    return {"object": "list", "data": [_model(service_of(http)[0])]}


@router.get("/v1/models/{name:path}")
async def model(name: str, http: Request) -> dict[str, Any]:
    """The model, by its name."""
    service, _ = service_of(http)
    service.check_model(name)
    return _model(service)


def _model(service: Service) -> dict[str, Any]:
    found = {"id": service.name, "object": "model", "created": service.created, "owned_by": "memgpt_jax"}
    return found | {"root": service.name, "max_model_len": service.settings.max_prompt_tokens}


@router.post("/v1/embeddings")
async def embeddings(body: Embedding, http: Request) -> dict[str, Any]:
    """Vectors of texts: the mean of the last hidden states, of length 1."""
    service, _ = service_of(http)
    service.check_model(body.model)
    engine, prompts = service.engine_or_refuse(), await asyncio.to_thread(service.prompts_of, body.input)
    if len(prompts) > MOST_EMBEDDINGS or body.input == []:
        raise ApiError(f"input must hold 1 to {MOST_EMBEDDINGS} texts", param="input", code="invalid_value")
    width, tokens = engine.config.d_model, sum(map(len, prompts))
    if body.dimensions not in (None, width):
        raise ApiError(f"the vectors have {width} dimensions", param="dimensions", code="invalid_value")
    if tokens > service.settings.max_prompt_tokens:
        raise ApiError(f"input has {tokens} tokens, more than the server reads", code="context_length_exceeded")
    document = engine.new_document()
    for ids in prompts:
        service.check_lengths(document, len(ids))
    vectors = await unless_left(http, service.call_in_pieces(service.vectors(prompts)))
    as_base64 = body.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
            if as_base64
            else np.asarray(vector, np.float32).tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": service.name, "usage": usage}


@router.post("/tokenize")
async def tokenize(body: Tokenize, http: Request) -> dict[str, Any]:
    """The ids of a text, or of a dialogue up to the next answer, without the token that starts the document."""
    service, _ = service_of(http)
    service.check_model(body.model)
    if body.messages is not None:
        _, parts = await asyncio.to_thread(service.chat_parts, messages_of(body.messages), None)
        ids = [token for part in parts for token in part]
    else:
        ids = await asyncio.to_thread(service.encode, body.prompt or "")
    return {"tokens": ids, "count": len(ids), "max_model_len": service.settings.max_prompt_tokens}


@router.post("/detokenize")
async def detokenize(body: Detokenize, http: Request) -> dict[str, Any]:
    """The text of ids."""
    service, _ = service_of(http)
    service.check_model(body.model)
    if any(not 0 <= token < 2**31 for token in body.tokens):
        raise ApiError("tokens must be ids", param="tokens", code="invalid_value")
    return {"prompt": service.tokenizer.decode(body.tokens)}


@router.get("/v1/pipelines")
async def pipelines(http: Request) -> dict[str, Any]:
    """The pipelines."""
    service, _ = service_of(http)
    data = [{"id": name, "object": "pipeline", "task": type(each).__name__} for name, each in service.pipelines.items()]
    return {"object": "list", "data": data}


@router.post("/v1/pipelines/{name}")
async def call_pipeline(name: str, body: PipelineCall, http: Request) -> dict[str, Any]:
    """Call a pipeline: `inputs` is its first argument, `parameters` are its others by name."""
    service, _ = service_of(http)
    pipeline: Any = service.pipelines.get(name)
    if pipeline is None:
        names = ", ".join(service.pipelines) or "none"
        raise ApiError(f"there is no such pipeline; the server has {names}", status=404, code="pipeline_not_found")
    if service.draining:
        raise ApiError("the server takes no new work", status=503, code="shutting_down")
    parameters = body.parameters | (body.model_extra or {})
    if "inputs" in parameters:
        raise ApiError("inputs are a field of the body", code="invalid_value", param="parameters")
    inputs = [] if body.inputs is None else [body.inputs]
    reads_files = isinstance(pipeline, MediaToText | MediaClassification)
    if reads_files:
        inputs = [without_paths(each) for each in inputs]  # a client reads no file of this machine
    try:
        inspect.signature(pipeline).bind(*inputs, **parameters)
    except TypeError as error:  # a wrong name or number of arguments
        raise ApiError(f"the arguments do not fit the pipeline: {error}", code="invalid_value") from None
    found = await service.call_pipeline(lambda: pipeline(*inputs, **parameters))
    return {"object": "pipeline.result", "result": _json(found)}


def _json(value: Any) -> Any:
    """A result as JSON can express it; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): _json(each) for key, each in value.items()}
    if hasattr(value, "_asdict"):  # a NamedTuple
        return _json(value._asdict())
    if isinstance(value, list | tuple):
        return [_json(each) for each in value]
    if hasattr(value, "tolist"):
        return _json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@router.get("/health")
async def health(http: Request) -> Response:
    """Whether the engine works: 200 or 503."""
    service: Service = http.app.state.service
    works = service.engine is None or service.engine.is_alive
    return JSONResponse({"status": "ok" if works else "the engine has ended"}, 200 if works else 503)


@router.get("/ready")
async def ready(http: Request) -> Response:
    """Whether the server takes new work: 200 or 503."""
    is_ready = http.app.state.service.ready
    return JSONResponse({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)


@router.get("/version")
async def show_version() -> dict[str, str]:
    """The version of the library."""
    return {"version": version("memgpt-jax")}


@router.get("/metrics")
async def metrics(http: Request) -> Response:
    """Measurements for Prometheus."""
    service: Service = http.app.state.service
    content = service.metrics.text(service, http.app.state.compilations.number)
    return Response(content, media_type=CONTENT_TYPE_LATEST)
