"""`/v1/responses`: the id of a response names a document that never changes and can be continued many times."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response as HttpResponse

from memgpt_jax.serving.chat import Message
from memgpt_jax.serving.completions import entry_of, messages_of, refuse_unless, service_of, with_alternatives
from memgpt_jax.serving.errors import ApiError, as_api_error
from memgpt_jax.serving.idempotency import idempotent
from memgpt_jax.serving.protocol import Generation, InputTokens, Response
from memgpt_jax.serving.requests import Finished, Token
from memgpt_jax.serving.runs import Choice, Run
from memgpt_jax.serving.service import Service
from memgpt_jax.serving.sse import PING, frame, streamed
from memgpt_jax.serving.store import Entry, NotFoundError, new_id

router = APIRouter()
NO_TEMPLATE = "the model has no chat template"


@router.post("/v1/responses", response_model=None)
@idempotent
async def create(body: Response, http: Request) -> HttpResponse | dict[str, Any]:
    """Answer a text or messages, as a continuation of an earlier response or of none."""
    service, owner = service_of(http)
    service.check_model(body.model)
    entry, start_id, parts, items = await _prompt(service, body, http)
    limit = body.max_output_tokens or service.settings.default_new_tokens
    names = ("temperature", "top_p", "top_k", "seed")
    generation = Generation(**{name: getattr(body, name) for name in names})
    request = service.request(
        generation,
        parts,
        entry,
        owner=owner,
        start_id=start_id,
        max_new_tokens=limit,
        alternatives=(body.top_logprobs or 0),
        keep=body.store,
        limit_field="max_output_tokens" if body.max_output_tokens else None,
    )
    form = _Form(service, body, owner, entry, items)
    http.state.root = form.id if entry is None else entry.root
    run = Run(service, [request])
    active = http.app.state.active
    active[form.id] = owner, run
    if body.stream:
        return streamed(form.events(run, active), done=False)
    try:
        await run.result(http)
        return await form.completed(run)
    finally:
        active.pop(form.id, None)


@router.post("/v1/responses/input_tokens")
async def input_tokens(body: InputTokens, http: Request) -> dict[str, Any]:
    """The number of tokens that a response would read."""
    service, _ = service_of(http)
    service.check_model(body.model)
    _, _, parts, _ = await _prompt(service, body, http)
    return {"object": "response.input_tokens", "input_tokens": sum(map(len, parts))}


@router.get("/v1/responses/{id}")
async def get(id: str, http: Request) -> dict[str, Any]:
    """A response."""
    return (await _entry(id, http)).response


@router.get("/v1/responses/{id}/input_items")
async def items(
    id: str,
    http: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> dict[str, Any]:
    """What a response was asked, the last item first: `limit` items in this order, which follow the item `after`."""
    found = (await _entry(id, http)).items
    found = found if order == "asc" else found[::-1]
    places = {item["id"]: place for place, item in enumerate(found)}
    if after is not None and after not in places:
        raise ApiError("after is no item of this response", code="invalid_value", param="after")
    start = 0 if after is None else places[after] + 1
    page = found[start : start + limit]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
    return {"object": "list", "data": page, "has_more": start + limit < len(found)} | ends


@router.delete("/v1/responses/{id}")
async def delete(id: str, http: Request) -> dict[str, Any]:
    """Remove a response, and what it has read."""
    service, owner = service_of(http)
    if not id.startswith("resp_"):  # its object may be damaged, and is not read
        raise NotFoundError(id)
    await asyncio.to_thread(service.store.delete, id, owner)
    return {"id": id, "object": "response", "deleted": True}


@router.post("/v1/responses/{id}/cancel")
async def cancel(id: str, http: Request) -> dict[str, Any]:
    """End a response that is being written. What it continues is unharmed."""
    service, owner = service_of(http)
    found = http.app.state.active.get(id)
    run = found[1] if found is not None and found[0] == owner else None
    if run is None:
        await _entry(id, http)
    if run is None or run.ended:
        raise ApiError("the response has ended", code="invalid_value")
    run.cancel()
    return {"id": id, "object": "response", "status": "cancelled"}


async def _entry(id: str, http: Request) -> Entry:
    entry = await entry_of(id, http)
    if not entry.response:
        raise NotFoundError(id)
    return entry


async def _prompt(
    service: Service, body: Response, http: Request
) -> tuple[Entry | None, int | None, list[list[int]], list[dict[str, Any]]]:
    """The document that a response continues, the first token of a new one, the ids to read, and the input items."""
    entry = None if body.previous_response_id is None else await entry_of(body.previous_response_id, http)
    before = None if entry is None else entry.instructions
    refuse_unless(
        [
            (
                entry is None or body.instructions in (None, before),
                "instructions",
                "a response that continues another keeps its instructions: a memory cannot forget them",
            ),
            (body.include != [] or body.top_logprobs is None, "top_logprobs", "top_logprobs needs include"),
        ]
    )
    messages = [Message("user", body.input)] if isinstance(body.input, str) else messages_of(body.input)
    items = [_item(message) for message in messages]
    if service.template is None:
        refuse_unless(
            [
                (all(each.role == "user" for each in messages), "input", f"{NO_TEMPLATE}: only user texts"),
                (body.instructions is None, "instructions", f"{NO_TEMPLATE}: no instructions"),
            ]
        )
        texts = [message.text for message in messages]
        return entry, None, await asyncio.to_thread(lambda: [service.encode(text) for text in texts]), items
    if body.instructions is not None and entry is None:
        messages = [Message("system", body.instructions), *messages]
    start_id, parts = await asyncio.to_thread(service.chat_parts, messages, entry)
    return entry, start_id, parts, items


def _item(message: Message) -> dict[str, Any]:
    role, text = message
    content = [{"type": "output_text" if role == "assistant" else "input_text", "text": text}]
    return {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": role, "status": "completed", "content": content}


class _Form:
    """The objects and events of one response."""

    def __init__(self, service: Service, body: Response, owner: str, entry: Entry | None, items: list[dict[str, Any]]):
        self.service, self.body, self.owner, self.entry, self.items = service, body, owner, entry, items
        self.id, self.message = new_id("resp"), f"msg_{uuid.uuid4().hex}"
        self.wants = bool(body.include)
        instructions = body.instructions if entry is None else entry.instructions
        self.head: dict[str, Any] = {
            "id": self.id,
            "object": "response",
            "created_at": int(time.time()),
            "model": service.name,
            "error": None,
            "incomplete_details": None,
            "instructions": instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata,
            "parallel_tool_calls": False,
            "previous_response_id": body.previous_response_id,
            "store": body.store,
            "temperature": body.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": body.truncation,
        }

    def response(self, status: str, run: Run | None = None, **values: Any) -> dict[str, Any]:
        """The response object."""
        output = [] if run is None else [self._output(run.choices[0], "completed" if status == "completed" else status)]
        usage = None
        if run is not None:
            usage = run.usage()
            usage = {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": usage["prompt_tokens_details"] | {"cache_write_tokens": 0},
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage["total_tokens"],
            }
        return self.head | {"status": status, "output": output, "usage": usage} | values

    async def completed(self, run: Run) -> dict[str, Any]:
        """The object of an answer that has ended. It is stored before it is returned."""
        choice = run.choices[0]
        if choice.finish_reason == "length":
            found = self.response("incomplete", run, incomplete_details={"reason": "max_output_tokens"})
        else:
            found = self.response("completed", run)
        if choice.document is not None:
            values = {"response": found, "items": self.items, "instructions": self.head["instructions"]}
            await self.service.keep(choice.document, self.owner, self.entry, self.id, **values)
        return found

    async def events(self, run: Run, active: dict[str, Any]) -> AsyncIterator[str]:
        """The events of a stream."""
        number = 0

        def event(kind: str, **values: Any) -> str:
            nonlocal number
            number += 1
            return frame({"type": kind, "sequence_number": number - 1} | values, kind)

        place = {"item_id": self.message, "output_index": 0, "content_index": 0}
        item = {"id": self.message, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        logprobs: list[dict[str, Any]] = []  # of tokens whose text has not been sent
        try:
            yield event("response.created", response=self.response("in_progress"))
            yield event("response.in_progress", response=self.response("in_progress"))
            yield event("response.output_item.added", output_index=0, item=item)
            yield event("response.content_part.added", part=self._part(Choice(0)), **place)
            async for found in run.events():
                if found is None:
                    yield PING
                    continue
                _, each = found
                if self.wants and isinstance(each, Token):
                    logprobs.append(with_alternatives(self.service.tokenizer, each))
                is_end = isinstance(each, Finished)
                if isinstance(each, Token | Finished) and (each.text or (is_end and logprobs)):
                    yield event("response.output_text.delta", delta=each.text, logprobs=logprobs, **place)
                    logprobs = []
            response = await self.completed(run)
            choice = run.choices[0]
            part = self._part(choice)
            yield event("response.output_text.done", text=choice.text, logprobs=part["logprobs"], **place)
            yield event("response.content_part.done", part=part, **place)
            yield event("response.output_item.done", output_index=0, item=response["output"][0])
            yield event(f"response.{response['status']}", response=response)
        except Exception as error:
            found = as_api_error(error)
            details = {"code": found.code or "server_error", "message": found.message}
            yield event("response.failed", response=self.response("failed", error=details))
        finally:
            run.cancel()
            active.pop(self.id, None)

    def _output(self, choice: Choice, status: str) -> dict[str, Any]:
        content = [self._part(choice)]
        return {"id": self.message, "type": "message", "role": "assistant", "status": status, "content": content}

    def _part(self, choice: Choice) -> dict[str, Any]:
        tokens = choice.tokens if self.wants else []
        logprobs = [with_alternatives(self.service.tokenizer, token) for token in tokens]
        return {"type": "output_text", "text": choice.text, "annotations": [], "logprobs": logprobs}
