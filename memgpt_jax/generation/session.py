"""A document that is read and written in turns, with one memory; it can be forked, saved and loaded."""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.config.checks import check, whole
from memgpt_jax.config.memory import Compression
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import Tokenizer
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.generation.answers import Answers
from memgpt_jax.generation.document import (
    Document,
    from_bytes,
    is_document,
    memory_stats,
    new_document,
    to_bytes,
)
from memgpt_jax.generation.prefill import prefill
from memgpt_jax.generation.prompts import Prompts, check_tokenizer, checked_ids
from memgpt_jax.generation.request import (
    GenerativeModel,
    Request,
    check_length,
    check_source,
    decoder_of,
    default_end_ids,
)
from memgpt_jax.generation.sampling import Sampling, SamplingOptions
from memgpt_jax.generation.text import AnswerText, ids_of_text
from memgpt_jax.models import ModelState, Params, compress_memory, from_params


class Session:
    """One document that is read (`feed`) and written (`generate`, `stream`) in turns.

    >>> session = mg.Session(model, tokenizer)
    >>> session.feed("To whom it may concern,")
    >>> draft = session.fork()
    >>> session.generate(max_new_tokens=64), draft.generate(max_new_tokens=64, temperature=0.8)

    The state has the size of one window and one memory per layer, whatever the length of the document.
    """

    state: ModelState
    """The state after all tokens but those in `unread`; one row."""
    unread: list[int]
    """The last token, which the model reads when the next one is needed; [] after the end of the document."""
    num_tokens: int
    """Number of tokens of the document so far."""
    penalized_ids: frozenset[int]
    """The ids of the document, to which a repetition penalty applies."""
    _text: AnswerText
    """The end of the text so far, possibly inside a character."""

    def __init__(self, model: GenerativeModel, tokenizer: Tokenizer):
        """Begin a document.

        Args:
            model: a `MemGPT`, or `(config, params)` of one. For the decoder of an encoder-decoder, set `state` to one
                with a source.
            tokenizer: turns texts into ids and back.

        Raises:
            ValueError: the model cannot generate, or lacks ids that the tokenizer encodes text to.
        """
        self._model = decoder_of(model)
        check_tokenizer(self._model.config, tokenizer)
        self.tokenizer = tokenizer
        self._stream: Generator[str, None, None] | None = None
        self.reset()

    @property
    def config(self) -> ModelConfig:
        """The decoder's configuration."""
        return self._model.config

    @property
    def params(self) -> Params:
        """The decoder's parameters."""
        return self._model.params

    def reset(self) -> None:
        """Discard the state and begin a new document."""
        self.open(new_document(self.config, self.tokenizer))

    def feed(self, text: str) -> None:
        """Read a text of any length as the continuation of the document.

        Raises:
            ValueError: the text does not fit the model, or logits are not finite. The session is then unchanged.
        """
        self._end_stream()
        check(isinstance(text, str), f"text must be a str, got {type(text).__name__}")
        new = checked_ids(self.config, "token ids", np.array(self.tokenizer.encode(text), np.int64)).tolist()
        check_length(self.config, self.num_tokens + len(new))
        tokens = self.unread + new
        if len(tokens) > 1:
            _, self.state = prefill(self.config, self.params, [np.array(tokens[:-1], np.int32)], self.state)
        self.unread = tokens[-1:]
        self.num_tokens, self.penalized_ids = self.num_tokens + len(new), self.penalized_ids.union(new)
        self._text = AnswerText(self.tokenizer, [*self._text.context, *self._text.unfinished, *new])

    def generate(
        self,
        *,
        max_new_tokens: int,
        stop: int | str | Sequence[int | str] = (),
        ignore_eos: bool = False,
        seed: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> str:
        """Continue the document and return the new text, equal to the text that `mg.generate` adds to the document.

        Args:
            max_new_tokens, stop, ignore_eos, seed, sampling: as in `mg.generate`.

        Returns:
            The new text. If the end of the document ended it, call `feed` or `reset` before the next answer.

        Raises:
            ValueError: an option is out of range, the document has ended, or logits are not finite. The session is then
                as it was before the answer.
        """
        pieces = self.stream(max_new_tokens=max_new_tokens, stop=stop, ignore_eos=ignore_eos, seed=seed, **sampling)
        return "".join(pieces)

    def stream(
        self,
        *,
        max_new_tokens: int,
        stop: int | str | Sequence[int | str] = (),
        ignore_eos: bool = False,
        seed: int = 0,
        **sampling: Unpack[SamplingOptions],
    ) -> Iterator[str]:
        """`generate` in pieces: an iterator over the new text.

        If the caller stops iterating or uses the session otherwise, the document ends with the last piece returned.

        Args and errors: as `generate`; errors in options are raised at the call.
        """
        self._end_stream()
        check(bool(self.unread), "the document has ended: call feed() to continue it, or reset()")
        end_ids = default_end_ids(self.tokenizer, self._model, ignore_eos)
        prompts = Prompts(
            self.config,
            [self.unread],
            tokenizer=self.tokenizer,
            max_new_tokens=max_new_tokens,
            stop=stop,
            end_ids=end_ids,
            penalized_ids=self.penalized_ids,
        )
        check_length(self.config, self.num_tokens + int(prompts.limit[0]))
        check_source(self.state)
        request = Request(
            model=self._model,
            prompts=prompts,
            state=self.state,
            tokenizer=self.tokenizer,
            sampling=Sampling(**sampling),
            copies=1,
            seed=whole("seed", seed, 0, 2**32 - 1),
        )
        self._stream = self._pieces(Answers(request, previous=self._text), end_ids)
        return self._stream

    def _pieces(self, answers: Answers, end_ids: list[int]) -> Generator[str, None, None]:
        try:
            for piece in answers.stream():
                if piece.texts and piece.texts[0]:
                    yield piece.texts[0]
        finally:
            if not answers.failed:
                self._accept(answers, end_ids)
            self._stream = None

    def _accept(self, answers: Answers, end_ids: list[int]) -> None:
        """Append the answer to the document."""
        new, text = answers.new[0], answers.texts[0]
        new = new[new >= 0].tolist()
        if text.stopped or text.holds:  # tokens behind what was returned have been read: read again what was returned
            context, unfinished = self._text.context, self._text.unfinished
            new = ids_of_text(self.tokenizer, context, unfinished, new, text.text)
            tokens = [*self.unread, *new]
            if len(tokens) > 1:
                _, self.state = prefill(self.config, self.params, [np.array(tokens[:-1], np.int32)], self.state)
            self.unread = tokens[-1:]
            if new:
                self._text = AnswerText(self.tokenizer, [*context, *unfinished, *new])
        else:
            ended = new[-1] in end_ids
            self.state, self.unread, self._text = answers.state, [] if ended else new[-1:], text
            new = new[:-1] if ended else new
        self.num_tokens, self.penalized_ids = self.num_tokens + len(new), self.penalized_ids.union(new)

    def _end_stream(self) -> None:
        """End a streamed answer with the pieces that were returned."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def fork(self) -> "Session":
        """A second session with the same document so far; the two are independent."""
        self._end_stream()
        other = object.__new__(Session)
        other.__dict__.update(self.__dict__, unread=list(self.unread))
        return other

    def compressed(self, memory_size: int, by: Compression = "merge") -> "Session":
        """A second session with the same document, whose memories have fewer entries.

        Its model has the smaller memories, too. Arguments and errors are those of `compress_memory`.
        """
        other = self.fork()
        model, other.state = compress_memory(from_params(self.config, self.params), self.state, memory_size, by)
        other._model = decoder_of(model)._replace(stop_ids=self._model.stop_ids)
        return other

    def memory(self) -> list[dict[str, Any]]:
        """The `stats` of each layer's memory (occupancy, write gates, ages, bytes); {} for a layer without one."""
        return memory_stats(self.config, self.params, self.state)

    def document(self) -> Document:
        """The document so far, as a value. A streamed answer ends with the last piece that was returned."""
        self._end_stream()
        text = self._text
        return Document(
            self.state,
            tuple(self.unread),
            self.num_tokens,
            self.penalized_ids,
            tuple(text.context),
            tuple(text.unfinished),
        )

    def open(self, document: Document) -> None:
        """Discard the state and continue a document, which is not modified."""
        self._end_stream()
        self.state, self.unread = jax.tree.map(jnp.asarray, document.state), list(document.unread)
        self.num_tokens, self.penalized_ids = document.num_tokens, document.penalized_ids
        self._text = AnswerText(self.tokenizer, document.context, unfinished=document.unfinished)

    def save(self, path: str | Path) -> None:
        """Write the session into one file, in the safetensors format with its checksum.

        A session that the file holds is replaced once the new one is written.

        Raises:
            ValueError: the file holds something else or cannot be written. It is then unchanged.
        """
        path = Path(path).expanduser().absolute()
        content = to_bytes(self.document(), self.config, self.tokenizer)
        with _readable_errors(f"the session cannot be written into {path}"):
            check(not path.exists() or (path.is_file() and is_document(path)), f"{path} exists and is not a session")
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content)

    @classmethod
    def load(cls, path: str | Path, model: GenerativeModel, tokenizer: Tokenizer) -> "Session":
        """Read a session that `save` wrote, with the same model configuration and tokenizer.

        Raises:
            ValueError: there is no session, it cannot be read, or its model configuration or tokenizer differs.
            DamagedError: a `ValueError`: the file differs from its checksum.
        """
        path = Path(path).expanduser().absolute()
        with _readable_errors(f"the session in {path} cannot be read"):
            check(path.is_file(), f"there is no session in {path}")
            content = path.read_bytes()
        session = cls(model, tokenizer)
        session.open(from_bytes(content, session.config, tokenizer, path)[0])
        return session


@contextlib.contextmanager
def _readable_errors(problem: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{problem}: {error}") from error
