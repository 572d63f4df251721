"""Server-sent events: what a client of OpenAI's API expects on the wire."""

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse

from memgpt_jax.serving.errors import as_api_error

logger = logging.getLogger(__name__)

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
PING = ": ping\n\n"


def frame(content: dict[str, Any], event: str | None = None) -> str:
    """One event. Raises `ValueError` for numbers that are not finite, which JSON cannot express."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(',', ':'))}\n\n"


def ends_with_error(content: bytes) -> bool:
    """Whether a whole stream holds the event of an error. Texts in it cannot look like one: JSON has no line ends."""
    return any(line.startswith((b'data: {"error":', b"event: response.failed")) for line in content.split(b"\n"))


def streamed(frames: AsyncIterator[str], *, done: bool = True) -> StreamingResponse:
    """A stream of frames. After an error there is one frame with it, and the stream ends.

    Args:
        frames: the events.
        done: whether `data: [DONE]` ends the stream.
    """

    async def guarded() -> AsyncIterator[bytes]:
        try:
            async for each in frames:
                yield each.encode("utf-8", "replace")
        except Exception as error:
            found = as_api_error(error)
            if found.status >= 500:
                logger.error("a stream ended with an error", exc_info=error)
            yield frame(found.body).encode("utf-8", "replace")
        if done:
            yield b"data: [DONE]\n\n"

    return StreamingResponse(guarded(), media_type="text/event-stream", headers=HEADERS)
