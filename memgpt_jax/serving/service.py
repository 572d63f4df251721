"""A model behind a server: it turns bodies into requests to the engine."""

import asyncio
import secrets
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import Tokenizer
from memgpt_jax.generation.document import Document, from_bytes, memory_stats, to_bytes
from memgpt_jax.generation.prompts import check_tokenizer
from memgpt_jax.models.quantization import laid_out, quantize_params, with_state_bits
from memgpt_jax.pipelines import FeatureExtraction
from memgpt_jax.pipelines.base import Loaded
from memgpt_jax.serving.chat import ChatTemplate, Message
from memgpt_jax.serving.engine import Engine
from memgpt_jax.serving.errors import ApiError
from memgpt_jax.serving.metrics import Metrics
from memgpt_jax.serving.protocol import Generation
from memgpt_jax.serving.requests import BusyError, FailedError, Request
from memgpt_jax.serving.sampling import Options
from memgpt_jax.serving.settings import ServerSettings
from memgpt_jax.serving.store import Entry, Store, new_id, on_host


class Service:
    """One model, with its engine, its documents and its pipelines."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        name: str,
        loaded: Loaded | None,
        pipelines: dict[str, Any] | None = None,
    ):
        """Args:
            settings: of the server; `quantize` and `state_bits` round the decoder, not the pipelines.
            name: of the model.
            loaded: the decoder that generates text; None: the server has pipelines alone.
            pipelines: functions by name.

        Raises `ValueError` if the chat template or a setting is not valid.
        """
        self.settings, self.name, self.created = settings, name, int(time.time())
        self.metrics = Metrics(name)
        self.pipelines = dict(pipelines or {})
        self._pipeline_thread = ThreadPoolExecutor(1, "pipelines")  # one call at a time, beside the engine
        self.pipeline_calls = 0
        """Calls of pipelines that run or wait."""
        self.engine: Engine | None = None
        self.template: ChatTemplate | None = None
        self.draining = False
        """True: no new work is taken."""
        self._vectors: FeatureExtraction | None = None
        if loaded is None:
            self.store = Store(None, memory_bytes=0, seconds=0, encode=_none, decode=_none)
            return
        assert isinstance(loaded.config, ModelConfig)
        check_tokenizer(loaded.config, loaded.tokenizer)
        config, tokenizer = loaded.config, loaded.tokenizer
        if settings.quantize is not None:
            loaded = loaded._replace(params=quantize_params(config, loaded.params, settings.quantize))
        if settings.state_bits is not None:
            config = with_state_bits(config, settings.state_bits)
            loaded = loaded._replace(config=config)
        loaded = loaded._replace(params=laid_out(config, loaded.params, settings.slots))
        self.engine = Engine(config, loaded.params, tokenizer, settings)
        self._vectors = FeatureExtraction(loaded, pool="mean")
        self._stop_ids = [*(tokenizer.stop_ids or loaded.stop_ids), tokenizer.start_id]
        template = settings.template or getattr(tokenizer, "chat_template", None)
        self.template = None if template is None else ChatTemplate(template, tokenizer)
        self.store = Store(
            settings.sessions,
            memory_bytes=settings.session_mb * 2**20,
            seconds=settings.session_hours * 3600,
            encode=lambda document, notes: to_bytes(document, config, tokenizer, notes),
            decode=lambda content, path: from_bytes(content, config, tokenizer, path),
        )

    def start(self) -> None:
        """Compile everything, and begin to work."""
        if self.engine is not None:
            assert self._vectors is not None
            self._vectors.mean([0, 0])
            self.memory_stats(on_host(self.engine.new_document()))
            self.engine.start()

    def stop(self) -> None:
        """Take no new work, and wait for the work that has begun."""
        self.draining = True
        self._pipeline_thread.shutdown(cancel_futures=True)
        if self.engine is not None:
            self.engine.stop()

    @property
    def ready(self) -> bool:
        """Whether new work is taken."""
        return not self.draining and (self.engine is None or self.engine.is_alive)

    def engine_or_refuse(self) -> Engine:
        """The engine, for new work. Raises `ApiError` if there is none, or no new work is taken."""
        engine = self._engine
        if not self.ready:
            raise ApiError("the server takes no new work", status=503, code="shutting_down")
        return engine

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model that generates text, also for answers that end while no new work is taken.

        Raises `ApiError` if the server has no such model.
        """
        return self._engine.tokenizer

    @property
    def _engine(self) -> Engine:
        if self.engine is None:
            raise ApiError(f"{self.name} generates no text: call /v1/pipelines/NAME", status=404, code="not_found")
        return self.engine

    def check_model(self, model: str | None) -> None:
        """Raise `ApiError` unless the model is the one that is served."""
        if model is not None and model != self.name:
            raise ApiError(
                f"there is no such model; the server has {self.name!r}",
                status=404,
                code="model_not_found",
                param="model",
            )

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Raises `ApiError` if it holds half a character."""
        return list(self.tokenizer.encode(text))

    def request(
        self,
        body: Generation,
        parts: list[list[int]],
        entry: Entry | None,
        *,
        owner: str,
        max_new_tokens: int,
        alternatives: int = 0,
        number: int | None = None,
        keep: bool | None = None,
        score_prompt: bool = False,
        start_id: int | None = None,
        limit_field: str | None = None,
    ) -> Request:
        """A request to the engine.

        Args:
            body: sampling and stops.
            parts: ids to read.
            entry: the document that they continue; None: they begin one.
            owner: of the request.
            max_new_tokens: most tokens of an answer.
            alternatives: of each token.
            number: answers; default: `n`.
            keep: whether the document with the answer is wanted; default: if it continues another.
            score_prompt: whether the tokens of the prompt are scored.
            start_id: the first token of a new document; None: the tokenizer's `start_id`.
            limit_field: the field of the body with `max_new_tokens`, for messages; None: it is a default, and smaller
                where the model has fewer positions left.

        Raises `ApiError` if the prompt or the answer is longer than the server allows.
        """
        engine = self.engine_or_refuse()
        document = engine.new_document() if entry is None else entry.document
        if entry is None and start_id is not None:
            document = document._replace(unread=(start_id,))
        prompt, config = sum(map(len, parts)), engine.config
        if limit_field is None and config.position == "learned" and max_new_tokens:
            max_new_tokens = max(1, min(max_new_tokens, config.num_positions - document.num_tokens - prompt))
        self.check_lengths(document, prompt, max_new_tokens, limit_field)
        try:
            bias = {int(token): value for token, value in body.logit_bias.items()}
        except ValueError:
            raise ApiError("the keys of logit_bias must be ids", param="logit_bias", code="invalid_value") from None
        vocab_size = engine.config.vocab_size
        if not all(0 <= token < vocab_size for token in (*bias, *body.stop_token_ids)):
            raise ApiError(f"ids must be from 0 to {vocab_size - 1}", code="invalid_value")
        if "" in body.stops:
            raise ApiError("stop holds an empty text", param="stop", code="invalid_value")
        greedy = body.temperature == 0
        options = Options(
            temperature=body.temperature if greedy else max(body.temperature, 1e-6),
            top_k=None if greedy else body.top_k,
            top_p=None if greedy else body.top_p,
            min_p=None if greedy else body.min_p,
            repetition_penalty=body.repetition_penalty,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            logit_bias=bias,
            alternatives=alternatives,
            seed=secrets.randbits(32) if body.seed is None else body.seed % 2**32,
        )
        return Request(
            document=document,
            parts=parts,
            deliver=lambda event: None,
            options=options,
            number=body.n if number is None else number,
            max_new_tokens=max_new_tokens,
            stop_ids=frozenset(body.stop_token_ids + ([] if body.ignore_eos else self._stop_ids)),
            stop_texts=body.stops,
            keep=entry is not None if keep is None else keep,
            score_prompt=score_prompt,
            owner=owner,
            is_new=entry is None,
        )

    def check_lengths(self, document: Document, prompt: int, answer: int = 0, limit_field: str | None = None) -> None:
        """Raise `ApiError` if a text is longer than the server allows or the model's learned positions.

        Args:
            document: which has been read.
            prompt: tokens to read.
            answer: most new tokens.
            limit_field: the field of the body with them.
        """
        config, most = self.engine_or_refuse().config, self.settings.max_prompt_tokens
        if prompt > most:
            raise ApiError(
                f"the prompt has {prompt} tokens, and the server reads at most {most} in one request",
                code="context_length_exceeded",
            )
        most = self.settings.max_new_tokens
        if answer > most:
            raise ApiError(
                f"at most {most} new tokens may be asked for, got {answer}", code="invalid_value", param=limit_field
            )
        total = document.num_tokens + prompt + answer
        if config.position == "learned" and total > config.num_positions:
            raise ApiError(
                f"the document would have {total} tokens, and the model has learned {config.num_positions} positions",
                code="context_length_exceeded",
            )

    def chat_parts(self, messages: Sequence[Message], entry: Entry | None) -> tuple[int | None, list[list[int]]]:
        """The first token of a new document, and the ids of messages, by the chat template.

        Raises `ApiError` if the model has no template.
        """
        if self.template is None:
            raise ApiError(
                f"{self.name} has no chat template: use /v1/completions, or start the server with --chat-template FILE",
                code="no_chat_template",
            )
        return self.template.opened(messages) if entry is None else (None, self.template.continuation(messages))

    async def keep(
        self, document: Document, owner: str, after: Entry | None, id: str | None = None, **values: Any
    ) -> Entry:
        """Store a document.

        Args:
            document: to be stored.
            owner: the owner.
            after: the document that it continues; None: none.
            id: its id; default: a new one.
            values: of the `Entry`.
        """
        id = id or new_id("sess")
        root, parent = (id, None) if after is None else (after.root, after.id)
        if after is not None:
            values.setdefault("instructions", after.instructions)
        entry = Entry(id=id, owner=owner, document=document, root=root, parent=parent, **values)
        await asyncio.to_thread(self.store.put, entry)
        return entry

    async def call_pipeline(self, function: Callable[[], Any]) -> Any:
        """Run a call of a pipeline in the thread of the pipelines, while the engine continues.

        Raises `BusyError` if `queue_requests` calls wait.
        """
        if self.pipeline_calls > self.settings.queue_requests:
            raise BusyError(1.0)
        self.pipeline_calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pipeline_thread, function)
        finally:
            self.pipeline_calls -= 1

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run a function of the model and its documents in the engine's thread, between two steps.

        Raises the errors of `Engine.call_in_pieces`.
        """
        return await asyncio.wrap_future(self.engine_or_refuse().call(function))

    async def call_in_pieces(self, pieces: Generator[None, None, Any]) -> Any:
        """`call` of a generator: each of its pieces is run between two steps. Cancelled, it ends after its piece."""
        return await asyncio.wrap_future(self.engine_or_refuse().call_in_pieces(pieces))

    def memory_stats(self, document: Document) -> list[dict[str, Any]]:
        """Statistics of each layer's memory. To be run by `call`."""
        assert self.engine is not None
        return memory_stats(self.engine.config, self.engine.params, document.state)

    def vectors(self, prompts: list[list[int]]) -> Generator[None, None, list[Any]]:
        """The mean of the hidden states of each prompt, of length 1. To be run by `call_in_pieces`.

        Raises `FailedError` if a number is not finite.
        """
        assert self._vectors is not None
        found = []
        for ids in prompts:
            try:
                found.append((yield from self._vectors.mean_in_pieces([self.tokenizer.start_id, *ids])))
            except ValueError as error:
                raise FailedError(str(error)) from None
        return found

    def prompts_of(self, prompt: Any, *, is_new: bool = True) -> list[list[int]]:
        """The ids of a text, ids, or a list of either; of new documents without `start_id` at the beginning."""
        if isinstance(prompt, str):
            found = [self.encode(prompt)]
        elif prompt and isinstance(prompt[0], str | list):
            found = [self.encode(each) if isinstance(each, str) else list(each) for each in prompt]
        else:
            found = [list(prompt)]
        start, vocab_size = self.tokenizer.start_id, self.engine_or_refuse().config.vocab_size
        for ids in found:
            if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
                raise ApiError(
                    f"the ids of a prompt must be from 0 to {vocab_size - 1}", param="prompt", code="invalid_value"
                )
        return [ids[1:] if is_new and ids[:1] == [start] else ids for ids in found]


def _none(*arguments: Any) -> Any:
    raise AssertionError("a server without a decoder stores nothing")
