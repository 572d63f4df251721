"""The header `Idempotency-Key`: a request that is repeated after a lost answer has the same answer, computed once.

As Stripe documents it, a key belongs to the API key that sent it and to the fields of the first request. Other fields
with it are refused (422), and so is a duplicate while the first request is being answered (409): the states of the IETF
draft "The Idempotency-Key HTTP Header Field". Clients of OpenAI's API repeat a request after 409 by themselves.
Otherwise than with Stripe, only a complete answer is kept: after an error, or if the client has left before the end,
the same key computes again.
"""

import functools
import hashlib
import time
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from memgpt_jax.serving.errors import ApiError
from memgpt_jax.serving.sse import ends_with_error

HEADER = "Idempotency-Key"
LONGEST_KEY = 255
SECONDS = 24 * 3600.0
"""An answer is kept for so long."""
MOST_BYTES = 64 * 2**20
"""Of all kept answers; the oldest ones leave first, and a larger one is not kept."""
OVERHEAD = 1024
"""Bytes that each kept answer counts beside its content."""

Name = tuple[str, str, str]
"""The owner, the path, and the idempotency key."""


class _Answer(NamedTuple):
    """An answer that can be given again."""

    fingerprint: bytes
    content: bytes
    headers: dict[str, str]
    root: str | None
    """Of the header `x-session-id`."""
    ended: float
    """When it was complete, on the clock of `time.monotonic`."""

    @property
    def nbytes(self) -> int:
        return len(self.content) + OVERHEAD


class Answers:
    """Complete answers by idempotency key. It belongs to the event loop of one process."""

    def __init__(self, most_bytes: int = MOST_BYTES, seconds: float = SECONDS):
        """Args: most_bytes: of all answers; seconds: for which an answer is kept."""
        self._most_bytes, self._seconds = most_bytes, seconds
        self._answers: OrderedDict[Name, _Answer] = OrderedDict()
        self._running: dict[Name, bytes] = {}
        self.bytes = 0
        """Bytes of the answers that are kept."""

    def begin(self, name: Name, fingerprint: bytes) -> _Answer | None:
        """The answer of a key; None: there is none, and the caller computes it, and calls `end` in any case.

        fingerprint: of the fields of the request; the object itself tells the request from later ones with its key.

        Raises `ApiError` if the key belongs to other fields, or its answer is being computed.
        """
        self._expire()
        found = self._answers.get(name)
        known = found.fingerprint if found else self._running.get(name)
        if known not in (None, fingerprint):
            raise ApiError(
                f"this {HEADER} belongs to a request with other fields: take a new one",
                status=422,
                code="idempotency_key_reused",
                param=HEADER,
            )
        if known is not None and found is None:
            raise ApiError(
                f"the first request with this {HEADER} is still being answered",
                status=409,
                code="idempotency_key_in_use",
                param=HEADER,
                headers={"Retry-After": "1"},
            )
        if found is None:
            self._running[name] = fingerprint
        return found

    def end(
        self,
        name: Name,
        fingerprint: bytes,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        root: str | None = None,
    ) -> None:
        """The answer to the request with this fingerprint is complete; without content there is none."""
        if self._running.get(name) is not fingerprint:
            return  # it has ended before
        del self._running[name]
        if content is None or headers is None:
            return
        kept = {key: value for key, value in headers.items() if key != "content-length"}
        answer = _Answer(fingerprint, content, kept, root, time.monotonic())
        if answer.nbytes <= self._most_bytes:
            self._answers[name] = answer
            self.bytes += answer.nbytes
            self._expire()

    def _expire(self) -> None:
        """Remove answers that are old, and the oldest ones beyond the budget."""
        now = time.monotonic()
        while self._answers:
            oldest = next(iter(self._answers.values()))
            if oldest.ended + self._seconds > now and self.bytes <= self._most_bytes:
                return
            self.bytes -= self._answers.popitem(last=False)[1].nbytes


Endpoint = Callable[[Any, Request], Awaitable[Response | dict[str, Any]]]


def idempotent(endpoint: Endpoint) -> Endpoint:
    """An endpoint that honours the header, with the fields `body` and `http`."""

    @functools.wraps(endpoint)
    async def once(body: BaseModel, http: Request) -> Response | dict[str, Any]:
        key = http.headers.get(HEADER)
        if key is None:
            return await endpoint(body, http)
        if not (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
            message = f"{HEADER} must have 1 to {LONGEST_KEY} printable ASCII characters"
            raise ApiError(message, code="invalid_value", param=HEADER)
        answers: Answers = http.app.state.answers
        name = (http.state.owner, http.url.path, key)
        fingerprint = hashlib.sha256(body.model_dump_json().encode()).digest()
        found = answers.begin(name, fingerprint)
        if found is not None:
            http.state.root = found.root
            return Response(found.content, headers=found.headers | {"Idempotent-Replayed": "true"})
        try:
            answer = await endpoint(body, http)
            root = getattr(http.state, "root", None)
            if isinstance(answer, StreamingResponse):
                end = functools.partial(answers.end, name, fingerprint)
                answer.body_iterator = _recorded(answer.body_iterator, end, dict(answer.headers), root)
                weakref.finalize(answer.body_iterator, end)  # a client left before the first part
                return answer
            answer = JSONResponse(answer)
        except BaseException:
            answers.end(name, fingerprint)
            raise
        answers.end(name, fingerprint, bytes(answer.body), dict(answer.headers), root)
        return answer

    return once


async def _recorded(
    stream: AsyncIterable[Any], end: Callable[..., None], headers: dict[str, str], root: str | None
) -> AsyncIterator[Any]:
    """The parts of a stream, which is kept when it has ended without an error."""
    parts: list[bytes] = []
    whole = None
    try:
        async for part in stream:
            assert isinstance(part, bytes)
            parts.append(part)
            yield part
        whole = b"".join(parts)
    finally:
        end(None if whole is None or ends_with_error(whole) else whole, headers, root)
