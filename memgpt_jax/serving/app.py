"""The web application of a server."""

import asyncio
import contextlib
import faulthandler
import hmac
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import jax
from fastapi import Depends, FastAPI, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memgpt_jax.serving import completions, documents, inspection, others, responses
from memgpt_jax.serving.engine import Engine
from memgpt_jax.serving.errors import HANDLED, ApiError, as_api_error, handle
from memgpt_jax.serving.idempotency import Answers
from memgpt_jax.serving.service import Service
from memgpt_jax.serving.store import owner_of

logger = logging.getLogger(__name__)

OPEN = frozenset({"/health", "/ready", "/inspect"})
"""Paths that need no key."""
HOUR = 3600.0
CALLS = 10
"""Times as long as a decoding step that a call may take, which may compile, before the engine is said to hang."""
EXPOSED = ("x-request-id", "x-session-id", "retry-after", "idempotent-replayed")
"""Headers of an answer that web pages of `origins` may read."""
REQUEST_ID = re.compile(rb"[\w.:-]{1,128}")


class Compilations:
    """Counts the programs that JAX compiles from now on."""

    def __init__(self) -> None:
        self.number = 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **values: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.number += 1


def create_app(service: Service) -> FastAPI:
    """The application of a service. It compiles all programs before it takes requests."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.start)
        if service.settings.inspector and service.engine is not None:
            engine = service.engine
            await service.call(lambda: inspection.warm_up(engine))
        app.state.compilations = Compilations()
        if service.settings.watchdog_seconds and service.engine is not None:
            threading.Thread(target=_watch, args=(service,), daemon=True).start()
        sweeping = asyncio.create_task(_sweep(service))
        logger.info("ready")
        yield
        sweeping.cancel()
        await asyncio.to_thread(service.stop)

    app = FastAPI(
        title="memgpt_jax",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        strict_content_type=False,  # a JSON body is one under any name
    )
    app.state.service, app.state.metrics, app.state.active = service, service.metrics, {}
    app.state.answers = Answers()
    for module in (completions, responses, documents, others):
        app.include_router(module.router, dependencies=[Depends(check_query)])
    if service.settings.inspector:
        app.include_router(inspection.router, dependencies=[Depends(check_query)])
    for kind in HANDLED:
        app.add_exception_handler(kind, handle)
    app.add_middleware(Guard, service=service)
    if service.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.settings.origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    return app


async def check_query(http: Request) -> None:
    """Raise `ApiError` for a query parameter of the API that its endpoint does not have: it would be ignored."""
    known = {parameter.alias for parameter in http.scope["route"].dependant.query_params}
    name = next((name for name in http.query_params if name not in known), None)
    if http.url.path.startswith("/v1/") and name is not None:
        raise ApiError(f"there is no query parameter {name[:200]!r}", code="unknown_parameter", param=name[:200])


async def _sweep(service: Service) -> None:
    """Remove old documents at the start and every hour."""
    while True:
        try:
            await asyncio.to_thread(service.store.sweep)
        except Exception:  # of any kind: the file systems of fsspec have errors of their own
            logger.exception("documents that are too old could not be looked for")
        await asyncio.sleep(min(HOUR, service.settings.session_hours * HOUR))


class Guard:
    """Names each request, also if it fails, and refuses those without a key, and those whose body is too large or does
    not arrive."""

    def __init__(self, app: ASGIApp, service: Service):
        self._app, self._settings, self._metrics = app, service.settings, service.metrics
        self._most_bytes = service.settings.max_body_mb * 2**20

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        name = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        owner = self._owner(headers.get(b"authorization", b""))

        started = False

        async def named_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                named = [(b"x-request-id", name)]
                if root := scope.get("state", {}).get("root"):
                    named.append((b"x-session-id", root.encode()))
                message["headers"] = [*message.get("headers", []), *named]
            await send(message)

        if owner is None and scope["path"] not in OPEN:
            self._metrics.rejected("invalid_api_key")
            error = ApiError("give a valid API key: Authorization: Bearer KEY", status=401, code="invalid_api_key")
            await error.response()(scope, receive, named_send)
            return
        if headers.get(b"content-length", b"").isdigit() and int(headers[b"content-length"]) > self._most_bytes:
            self._metrics.rejected("request_too_large")
            await self._too_large().response()(scope, receive, named_send)
            return
        scope.setdefault("state", {}).update(owner=owner or "", request_id=name.decode())
        arrived, size = False, 0

        async def checked_receive() -> Message:
            nonlocal arrived, size
            if arrived:
                return await receive()
            try:
                async with asyncio.timeout(self._settings.body_seconds):
                    message = await receive()
            except TimeoutError:
                raise ApiError("the body did not arrive in time", status=408, code="timeout") from None
            arrived = message["type"] != "http.request" or not message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > self._most_bytes:
                raise self._too_large()
            return message

        try:
            await self._app(scope, checked_receive, named_send)
        except Exception as error:  # no handler of the app knows it
            if started:
                raise
            logger.exception("request %s failed", name.decode())
            await as_api_error(error).response()(scope, receive, named_send)

    def _too_large(self) -> ApiError:
        message = f"a body may have {self._settings.max_body_mb} MiB"
        return ApiError(message, status=413, code="request_too_large")

    def _owner(self, authorization: bytes) -> str | None:
        """The owner whom a key belongs to; "" if no key is asked for; None: the key is not valid."""
        if not self._settings.keys:
            return owner_of("")
        scheme, _, key = authorization.partition(b" ")
        valid = [known for known in self._settings.keys if hmac.compare_digest(known.encode(), key.strip())]
        return owner_of(valid[0]) if valid and scheme.lower() == b"bearer" else None


def _watch(service: Service) -> None:
    """End the process if the engine hangs: a supervisor starts it anew."""
    engine, limit = service.engine, service.settings.watchdog_seconds
    assert engine is not None
    while not service.draining:
        time.sleep(min(5.0, limit / 4))
        if engine.failure is not None or hangs(engine, limit):
            logger.critical("the engine does nothing: the process ends")
            faulthandler.dump_traceback()
            os._exit(70)


def hangs(engine: Engine, limit: float) -> bool:
    """Whether an engine has work and has done nothing for `limit` seconds; `CALLS` times as many within a call."""
    seconds = time.monotonic() - engine.last_step
    return engine.has_work and seconds > limit * (CALLS if engine.in_call else 1)
