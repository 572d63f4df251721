"""The requests of one HTTP request: their events, and what has arrived of their answers."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest

from memgpt_jax.generation.document import Document
from memgpt_jax.serving.errors import ApiError
from memgpt_jax.serving.requests import CancelledError, Event, PromptToken, Read, Request, Token
from memgpt_jax.serving.service import Service

T = TypeVar("T")
PING_SECONDS = 15.0
"""Seconds without an event after which a stream sends a comment, so that proxies keep it open."""


@dataclass
class Choice:
    """One answer, as far as it has arrived."""

    prompt: int
    """The number of its prompt."""
    tokens: list[Token] = field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None
    document: Document | None = None

    @property
    def mean_logprob(self) -> float:
        """The mean log-probability of its tokens."""
        return sum(token.logprob for token in self.tokens) / max(1, len(self.tokens))


@dataclass
class Prompt:
    """What is known of one prompt."""

    num_tokens: int
    cached_tokens: int = 0
    scores: list[PromptToken] = field(default_factory=list)
    document: Document | None = None


class Run:
    """The requests of one HTTP request, seen from asyncio: an iterator over events, and the results so far."""

    def __init__(self, service: Service, requests: Sequence[Request], *, answered: bool = True):
        """Submit the requests. Raises `BusyError` if they cannot wait; none of them then does.

        Args:
            service: of the requests.
            requests: to the engine.
            answered: False: their prompts are read and have no answers, of which no token may then be wanted.
        """
        self._service, self._requests = service, requests
        self._queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._started = time.monotonic()
        self.ended = False
        """Whether all events have arrived; it is then too late to cancel."""
        loop = asyncio.get_running_loop()

        def deliver_of(number: int) -> Callable[[Event], None]:
            def deliver(event: Event) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                    loop.call_soon_threadsafe(self._queue.put_nowait, (number, event))

            return deliver

        self.prompts = [Prompt(len(request.ids)) for request in requests]
        numbers = [request.number if answered else 0 for request in requests]
        self.choices = [Choice(prompt) for prompt, number in enumerate(numbers) for _ in range(number)]
        self._first = [sum(request.number for request in requests[:number]) for number in range(len(requests))]
        try:
            for number, request in enumerate(requests):
                request.deliver = deliver_of(number)
                service.engine_or_refuse().submit(request)
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """End the requests within two steps."""
        for request in self._requests:
            request.cancelled = True

    async def events(self) -> AsyncIterator[tuple[int, Event] | None]:
        """The number of the choice (of the prompt, for `Read`) and each event; None every `PING_SECONDS` without one.

        Raises what an event says that went wrong. If the caller stops iterating, the requests are cancelled. A
        cancelled run is counted once.
        """
        metrics, last = self._service.metrics, dict[int, float]()
        left = len(self._requests) if self._requests[0].max_new_tokens == 0 else len(self.choices)
        completed = False
        try:
            while left:
                try:
                    async with asyncio.timeout(PING_SECONDS):  # `wait_for` of Python 3.11 can ignore `cancel`
                        number, event = await self._queue.get()
                except TimeoutError:
                    yield None
                    continue
                now = time.monotonic()
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, Read):
                    prompt = self.prompts[number]
                    prompt.cached_tokens, prompt.scores = event.cached_tokens, event.scores
                    prompt.document = event.document
                    if self._requests[number].max_new_tokens == 0:
                        left -= 1
                        self._end_without_tokens(number, event)
                    metrics.read(prompt.num_tokens, event.cached_tokens, now - self._started)
                    yield number, event
                    continue
                index = self._first[number] + event.choice
                choice = self.choices[index]
                choice.text += event.text
                if isinstance(event, Token):
                    choice.tokens.append(event)
                    metrics.token(now - last.get(index, self._started), is_first=index not in last)
                    last[index] = now
                else:
                    choice.finish_reason, choice.document = event.reason, event.document
                    left -= 1
                    metrics.finished(event.reason, len(choice.tokens))
                yield index, event
            if any(request.cancelled for request in self._requests):  # after the last event
                raise CancelledError()
            completed = self.ended = True
            metrics.latency.observe(time.monotonic() - self._started)
        except (GeneratorExit, asyncio.CancelledError, CancelledError):
            metrics.cancelled()
            raise
        finally:
            if not completed:
                self.cancel()

    def _end_without_tokens(self, number: int, event: Read) -> None:
        """The answers of a prompt of which no token is wanted."""
        document = event.document if self._requests[number].keep else None
        for choice in self.choices:
            if choice.prompt == number:
                choice.finish_reason, choice.document = "length", document
                self._service.metrics.finished("length", 0)

    async def result(self, http: HttpRequest) -> None:
        """Wait for all events; if the client leaves before, the requests are cancelled."""

        async def collect() -> None:
            async for _ in self.events():
                pass

        try:
            await unless_left(http, collect())
        finally:
            self.cancel()

    def usage(self) -> dict[str, Any]:
        """The usage object of completions."""
        prompt = sum(prompt.num_tokens for prompt in self.prompts)
        answer = sum(len(choice.tokens) for choice in self.choices)
        cached = sum(prompt.cached_tokens for prompt in self.prompts)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


async def unless_left(http: HttpRequest, work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine. Raises `ApiError` and cancels it if the client leaves before it has ended."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(http))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError("the client has left", status=499, code="cancelled")
        return await task
    finally:
        for each in (task, gone):
            each.cancel()


async def _disconnected(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
