"""`/v1/completions` and `/v1/chat/completions`."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from memgpt_jax.data import Tokenizer
from memgpt_jax.generation.text import AnswerText
from memgpt_jax.serving.chat import Message
from memgpt_jax.serving.errors import ApiError
from memgpt_jax.serving.idempotency import idempotent
from memgpt_jax.serving.protocol import ChatCompletion, Completion, Generation
from memgpt_jax.serving.requests import Finished, PromptToken, Read, Token
from memgpt_jax.serving.runs import Choice, Run
from memgpt_jax.serving.service import Service
from memgpt_jax.serving.sse import PING, frame, streamed
from memgpt_jax.serving.store import Entry

router = APIRouter()
MOST_CHOICES = 128
"""Answers of one request, over all of its prompts; fewer where the queue is shorter."""


@router.post("/v1/completions", response_model=None)
@idempotent
async def completions(body: Completion, http: Request) -> Response | dict[str, Any]:
    """Continue texts."""
    service, owner = service_of(http)
    service.check_model(body.model)
    if body.prompt == []:
        raise ApiError("prompt is an empty list", param="prompt", code="invalid_value")
    prompts = await asyncio.to_thread(service.prompts_of, body.prompt, is_new=body.session is None)
    best_of = body.n if body.best_of is None else body.best_of
    engine = service.engine_or_refuse()
    most, most_tokens = min(MOST_CHOICES, engine.most_answers), engine.settings.queue_tokens
    is_short = len(prompts) == 1 or sum(map(len, prompts)) <= most_tokens
    checks = [
        (best_of >= body.n, "best_of", "best_of must be at least n"),
        (body.best_of in (None, body.n) or not body.stream, "best_of", "best_of cannot be streamed"),
        (body.max_tokens > 0 or body.echo, "max_tokens", "max_tokens=0 needs echo=true"),
        (body.session is None or len(prompts) == 1, "prompt", "a session continues with one prompt"),
        (len(prompts) * best_of <= most, "n", f"one request may have {most} answers, over all of its prompts"),
        (is_short, "prompt", f"the prompts of one request may have {most_tokens} tokens together"),
        (body.stream or body.stream_options is None, "stream_options", "stream_options needs stream=true"),
    ]
    refuse_unless(checks)
    entry = None if body.session is None else await entry_of(body.session, http)
    options: dict[str, Any] = {"owner": owner, "max_new_tokens": body.max_tokens, "number": best_of}
    options |= {"limit_field": "max_tokens" if "max_tokens" in body.model_fields_set else None}
    options |= {"alternatives": body.logprobs or 0, "score_prompt": body.echo and body.logprobs is not None}
    run = Run(service, [service.request(body, [ids], entry, **options) for ids in prompts])
    form = _Completions(service, body, owner, entry, [service.tokenizer.decode(ids) for ids in prompts])
    if body.stream:
        return streamed(form.chunks(run))
    await run.result(http)
    return await form.whole(run, best_of)


@router.post("/v1/chat/completions", response_model=None)
@idempotent
async def chat_completions(body: ChatCompletion, http: Request) -> Response | dict[str, Any]:
    """Answer in a dialogue."""
    service, owner = service_of(http)
    service.check_model(body.model)
    most = service.engine_or_refuse().most_answers
    refuse_unless(
        [
            (body.logprobs or body.top_logprobs is None, "top_logprobs", "top_logprobs needs logprobs=true"),
            (body.stream or body.stream_options is None, "stream_options", "stream_options needs stream=true"),
            (body.n <= most, "n", f"one request may have {most} answers"),
        ]
    )
    entry = None if body.session is None else await entry_of(body.session, http)
    start_id, parts = await asyncio.to_thread(service.chat_parts, messages_of(body.messages), entry)
    limit = body.max_completion_tokens or body.max_tokens or service.settings.default_new_tokens
    field = next((name for name in ("max_completion_tokens", "max_tokens") if getattr(body, name)), None)
    request = service.request(
        body,
        parts,
        entry,
        owner=owner,
        max_new_tokens=limit,
        alternatives=body.top_logprobs or 0,
        start_id=start_id,
        limit_field=field,
    )
    run, form = Run(service, [request]), _Chat(service, body, owner, entry)
    if body.stream:
        return streamed(form.chunks(run))
    await run.result(http)
    return await form.whole(run, body.n)


def service_of(http: Request) -> tuple[Service, str]:
    """The service, and the owner of the request."""
    return http.app.state.service, http.state.owner


async def entry_of(id: str, http: Request) -> Entry:
    """The document of an id, whose root becomes the header `x-session-id`. Raises `NotFoundError`."""
    service, owner = service_of(http)
    entry = await asyncio.to_thread(service.store.get, id, owner)  # perhaps from a bucket
    http.state.root = entry.root
    return entry


def messages_of(messages: Sequence[Any]) -> list[Message]:
    """Messages with the roles that templates know."""
    return [Message("system" if each.role == "developer" else each.role, each.text) for each in messages]


def refuse_unless(checks: Sequence[tuple[bool, str, str]]) -> None:
    """Raise `ApiError` for the first condition that does not hold, with its field and reason."""
    for holds, param, reason in checks:
        if not holds:
            raise ApiError(reason, param=param, code="invalid_value")


class _Form:
    """The objects of one endpoint."""

    name: str
    chunk_name: str
    prefix: str

    def __init__(self, service: Service, body: Generation, owner: str, entry: Entry | None):
        self.service, self.body, self.owner, self.entry = service, body, owner, entry
        self.head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": service.name}

    async def whole(self, run: Run, tried: int) -> dict[str, Any]:
        """The answer in one object.

        Args:
            run: the results.
            tried: answers for each prompt, of which the best n are returned.
        """
        choices = []
        for first in range(0, len(run.choices), tried):
            group = run.choices[first : first + tried]
            if tried > self.body.n:
                group = sorted(group, key=lambda choice: -choice.mean_logprob)[: self.body.n]
            for choice in group:
                session = await self._session(choice)
                choices.append({"index": len(choices)} | self.choice(choice, run) | session)
        return self.head | {"object": self.name, "choices": choices, "usage": run.usage()}

    async def chunks(self, run: Run) -> AsyncIterator[str]:
        """The answer in events."""
        usage = self.body.stream_options is not None and self.body.stream_options.include_usage
        more = {"usage": None} if usage else {}

        def chunk(index: int, **values: Any) -> str:
            choice = {"index": index, "logprobs": None, "finish_reason": None} | values
            return frame(self.head | {"object": self.chunk_name, "choices": [choice]} | more)

        for index in range(len(run.choices)):
            for values in self.first(run.choices[index]):
                yield chunk(index, **values)
        async for found in run.events():
            if found is None:
                yield PING
                continue
            index, event = found
            if isinstance(event, Read):
                for number, choice in enumerate(run.choices):
                    if choice.prompt == index:
                        for values in self.read(choice, event):
                            yield chunk(number, **values)
                        if choice.finish_reason is not None:  # an answer without tokens
                            yield chunk(number, **self.text(""), **await self._end(choice))
            elif isinstance(event, Token):
                values = self.delta(event, run.choices[index])
                if values is not None:
                    yield chunk(index, **values)
            elif isinstance(event, Finished):
                if event.text:
                    yield chunk(index, **self.text(event.text))
                yield chunk(index, **self.text(""), **await self._end(run.choices[index]))
        if usage:
            yield frame(self.head | {"object": self.chunk_name, "choices": [], "usage": run.usage()})

    async def _end(self, choice: Choice) -> dict[str, Any]:
        return {"finish_reason": choice.finish_reason} | await self._session(choice)

    async def _session(self, choice: Choice) -> dict[str, Any]:
        """The id of the document with an answer, if it continues a session."""
        if choice.document is None:
            return {}
        return {"session": (await self.service.keep(choice.document, self.owner, self.entry)).id}

    def choice(self, choice: Choice, run: Run) -> dict[str, Any]:
        """A choice of the whole answer."""
        raise NotImplementedError

    def first(self, choice: Choice) -> list[dict[str, Any]]:
        """What the first chunks of a choice hold."""
        raise NotImplementedError

    def read(self, choice: Choice, read: Read) -> list[dict[str, Any]]:
        """What the chunks of a choice hold once its prompt has been read."""
        return []

    def text(self, text: str) -> dict[str, Any]:
        """What a chunk with a text holds."""
        raise NotImplementedError

    def delta(self, token: Token, choice: Choice) -> dict[str, Any] | None:
        """What the chunk of a token holds; None: there is nothing to send."""
        raise NotImplementedError


class _Completions(_Form):
    name = chunk_name = "text_completion"
    prefix = "cmpl"

    def __init__(self, service: Service, body: Completion, owner: str, entry: Entry | None, prompts: list[str]):
        super().__init__(service, body, owner, entry)
        self.wants, self.echo, self.prompts = body.logprobs, body.echo, prompts

    def choice(self, choice: Choice, run: Run) -> dict[str, Any]:
        scores = run.prompts[choice.prompt].scores if self.echo else []
        before = self.prompts[choice.prompt] if self.echo else ""
        logprobs = None if self.wants is None else self._logprobs([*scores, *choice.tokens], len(before))
        return {"text": before + choice.text, "logprobs": logprobs, "finish_reason": choice.finish_reason}

    def first(self, choice: Choice) -> list[dict[str, Any]]:
        return [self.text(self.prompts[choice.prompt])] if self.echo and self.wants is None else []

    def read(self, choice: Choice, read: Read) -> list[dict[str, Any]]:
        if not self.echo or self.wants is None:
            return []
        return [self.text(self.prompts[choice.prompt]) | {"logprobs": self._logprobs(read.scores, 0)}]

    def text(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def delta(self, token: Token, choice: Choice) -> dict[str, Any] | None:
        if self.wants is None:
            return self.text(token.text) if token.text else None
        before = len(self.prompts[choice.prompt]) if self.echo else 0
        return self.text(token.text) | {"logprobs": self._logprobs([token], before)}

    def _logprobs(self, tokens: Sequence[Token | PromptToken], before: int) -> dict[str, list[Any]]:
        """The log-probabilities of tokens, as completions have them. `before`: characters before the answer.

        The offset of a token is the place in the text of the character that it begins or continues.
        """
        tokenizer, prompt = self.service.tokenizer, AnswerText(self.service.tokenizer, [])
        offsets: list[int] = []
        top: list[dict[str, float] | None] = []
        for token in tokens:
            if isinstance(token, Token):
                offsets.append(before + token.offset)
            else:
                offsets.append(prompt.length)
                prompt.push(token.id)
            found: dict[str, float] = {}
            for id, value in token.alternatives[: self.wants]:
                found.setdefault(tokenizer.decode([id]), value)
            if token.logprob is not None and self.wants:
                found.setdefault(tokenizer.decode([token.id]), token.logprob)
            top.append(found if token.logprob is not None else None)
        texts, values = [tokenizer.decode([token.id]) for token in tokens], [token.logprob for token in tokens]
        return {"tokens": texts, "token_logprobs": values, "top_logprobs": top, "text_offset": offsets}


class _Chat(_Form):
    name, chunk_name, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"
    body: ChatCompletion

    def choice(self, choice: Choice, run: Run) -> dict[str, Any]:
        logprobs = None
        if self.body.logprobs:
            content = [with_alternatives(self.service.tokenizer, token) for token in choice.tokens]
            logprobs = {"content": content, "refusal": None}
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        return {"message": message, "logprobs": logprobs, "finish_reason": choice.finish_reason}

    def first(self, choice: Choice) -> list[dict[str, Any]]:
        return [{"delta": {"role": "assistant", "content": ""}}]

    def text(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def delta(self, token: Token, choice: Choice) -> dict[str, Any] | None:
        if not self.body.logprobs:
            return self.text(token.text) if token.text else None
        found = with_alternatives(self.service.tokenizer, token)
        return {"delta": {"content": token.text}, "logprobs": {"content": [found], "refusal": None}}


def with_alternatives(tokenizer: Tokenizer, token: Token) -> dict[str, Any]:
    """A token with its log-probability and those of others, as chat completions and responses have it."""

    def one(id: int, logprob: float) -> dict[str, Any]:
        text = tokenizer.decode([id])
        bytes_of = getattr(tokenizer, "bytes_of", None)
        own = None if bytes_of is None else bytes_of(id)
        return {
            "token": text,
            "bytes": list(text.encode("utf-8", "replace") if own is None else own),
            "logprob": logprob,
        }

    return one(token.id, token.logprob) | {"top_logprobs": [one(*pair) for pair in token.alternatives]}
