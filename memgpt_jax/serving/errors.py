"""Errors in the form of OpenAI's API; nothing of a request is repeated in them but names of fields."""

import logging
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from memgpt_jax.serving import protocol
from memgpt_jax.serving.requests import BusyError, CancelledError, FailedError
from memgpt_jax.serving.store import NotFoundError, UnreadableError

logger = logging.getLogger(__name__)

BODIES = [each for each in vars(protocol).values() if isinstance(each, type) and issubclass(each, BaseModel)]
FIELDS = frozenset(name for body in BODIES for name in body.model_fields)
"""The names of all fields of bodies."""
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
CODES = {401: "invalid_api_key", 404: "not_found", 405: "method_not_allowed", 408: "timeout", 413: "request_too_large"}


class ApiError(HTTPException):
    """A request that is answered with an error."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        """Args: message, code, param: of the error object; status, headers: of the answer."""
        super().__init__(status, message, headers)
        self.message, self.status, self.code, self.param = message, status, code, param

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.body, self.status, dict(self.headers or {}))


HANDLED = (
    BusyError,
    CancelledError,
    FailedError,
    NotFoundError,
    UnreadableError,
    RequestValidationError,
    HTTPException,
    ValueError,
)
"""The exceptions that are answered with an error that names the cause."""


def as_api_error(error: BaseException) -> ApiError:
    """An exception as the error that a client sees. Unknown ones say nothing of their cause."""
    match error:
        case ApiError():
            return error
        case BusyError():
            seconds = max(1, round(error.retry_after))
            return ApiError(str(error), status=429, code="queue_full", headers={"Retry-After": str(seconds)})
        case NotFoundError():
            return ApiError("there is no such id", status=404, code="response_not_found")
        case UnreadableError():
            message = "the stored document is damaged, or belongs to another model: it can only be deleted"
            return ApiError(message, status=500, code="document_unreadable")
        case RequestValidationError():
            return _of_validation(error)
        case HTTPException():
            return ApiError(str(error.detail), status=error.status_code, code=CODES.get(error.status_code))
        case CancelledError():
            return ApiError("the request was cancelled", status=409, code="cancelled")
        case FailedError():
            return ApiError(str(error), status=500, code="no_answer")
        case ValueError():
            return ApiError(str(error).encode("utf-8", "replace").decode(), code="invalid_value")
        case _:
            return ApiError("the server failed to answer; its log has the reason", status=500, code="server_error")


def _of_validation(error: RequestValidationError) -> ApiError:
    """The first problem of a body or a query, without the values in it."""
    first = ("unsupported_parameter", "unsupported_part")  # others may say that it is not of another valid form
    problems = [problem for problem in error.errors() if problem["type"] in first] or error.errors()
    problem = problems[0]
    place = _place(problem)
    kinds = {"unsupported_parameter": "unsupported_parameter", "extra_forbidden": "unknown_parameter"}
    code = kinds.get(problem["type"], "invalid_value")
    if problem["type"] == "unsupported_parameter":
        return ApiError(problem["msg"], code=code, param=problem["ctx"]["name"])
    if problem["type"] == "extra_forbidden":
        return ApiError(f"there is no field {place!r}", code=code, param=place)
    return ApiError(f"{place}: {problem['msg']}" if place else problem["msg"], code=code, param=place or None)


def _place(problem: dict[str, Any]) -> str:
    """The field of a problem, such as messages.0.content, or a query parameter; "" for the whole body.

    Of the parts of `loc`, the numbers in lists and the names of fields: neither the types that a value may have, nor
    keys of the client.
    """
    if problem["type"] == "json_invalid":  # the place in the text
        return ""
    parts = problem["loc"][1:]
    if problem["loc"][0] == "query":
        return parts[0]
    is_unknown = problem["type"] == "extra_forbidden"
    kept = [part for part in parts[:-1] if isinstance(part, int) or part in FIELDS]
    kept += [part for part in parts[-1:] if isinstance(part, int) or part in FIELDS or is_unknown]
    return ".".join(map(str, kept)).encode("utf-8", "replace").decode()[:200]


async def handle(request: Request, error: Exception) -> JSONResponse:
    """The exception handler of the app."""
    found = as_api_error(error)
    if found.status == 500:
        logger.error("request %s failed", request.state.request_id, exc_info=error)
    metrics = getattr(request.app.state, "metrics", None)
    if metrics is not None and found.status in (401, 413, 429, 503):
        metrics.rejected(found.code or str(found.status))
    return found.response()
