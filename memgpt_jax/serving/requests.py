"""What the engine is asked for, and what it tells."""

import itertools
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import NamedTuple

from memgpt_jax.generation.document import Document
from memgpt_jax.generation.text import AnswerText
from memgpt_jax.serving.sampling import Options


class BusyError(Exception):
    """The queue is full."""

    def __init__(self, retry_after: float):
        super().__init__("the server has as many requests as it may keep waiting")
        self.retry_after = retry_after
        """Seconds after which a place may be free."""


class CancelledError(Exception):
    """The request was cancelled."""


class FailedError(Exception):
    """What the model computed for a request is not finite, or the engine has ended: there is no answer."""


class Token(NamedTuple):
    """One new token of an answer."""

    choice: int
    id: int
    text: str
    """The text that it adds, often empty."""
    logprob: float
    alternatives: list[tuple[int, float]]
    """The most probable ids with their log-probabilities."""
    offset: int
    """Characters of the answer before the one that it begins or continues."""


class PromptToken(NamedTuple):
    """A token of the prompt."""

    id: int
    logprob: float | None
    """None: no token precedes it."""
    alternatives: list[tuple[int, float]]
    """The most probable ids in its place, with their log-probabilities."""


class Finished(NamedTuple):
    """The end of an answer."""

    choice: int
    text: str
    """The text that was held back."""
    reason: str
    """`stop` or `length`."""
    document: Document | None
    """The document with the answer, on the host; None: it is not kept."""
    ids: list[int]
    """The ids of the answer that the document has; without the end."""


class Read(NamedTuple):
    """The prompt has been read."""

    document: Document | None
    """The document with the prompt, for an answer without tokens."""
    cached_tokens: int
    """Tokens of the prompt whose state was known."""
    scores: list[PromptToken]
    """Of each token of the prompt, if they are wanted."""


Event = Token | Finished | Read | Exception


@dataclass(kw_only=True, eq=False)
class Request:
    """What a client asks for: read `parts` after `document`, and write n answers. Equal to itself alone."""

    document: Document
    parts: list[list[int]]
    """Ids to read; the states after the parts but the last are kept for later requests that begin alike."""
    deliver: Callable[[Event], None]
    """Called in the engine's thread for each event."""
    options: Options = field(default_factory=Options)
    number: int = 1
    max_new_tokens: int = 16
    stop_ids: frozenset[int] = frozenset()
    stop_texts: tuple[str, ...] = ()
    keep: bool = False
    """Whether the documents with the answers are wanted."""
    score_prompt: bool = False
    owner: str = ""
    is_new: bool = True
    """Whether `document` is empty, so that prefixes of it may be known."""
    cancelled: bool = False
    """Set by any thread: the request ends within two steps."""
    arrived: float = field(default_factory=time.monotonic)

    @property
    def ids(self) -> list[int]:
        """All ids to read."""
        return [token for part in self.parts for token in part]

    @property
    def ends(self) -> list[int]:
        """The numbers of tokens, with the unread one before the prompt, at which the parts of the prompt end; the last
        token of all is not read."""
        parts = self.parts if self.is_new else [self.ids]  # states are kept of new documents alone
        ends = [*itertools.accumulate(map(len, parts), initial=len(self.document.unread))][1:]
        return [end for end in ends[:-1] if end > 0] + [ends[-1] - 1] if ends else []


@dataclass(eq=False)
class Answer:
    """One answer that is decoded in a slot, or waits for one. Equal to itself alone."""

    request: Request
    number: int
    before: Document
    """The document up to the answer, on the device; its last token is unread."""
    text: AnswerText
    ids: list[int] = field(default_factory=list)
    rereading: Generator[None, None, Document] | None = None
    """Reads what was returned again, a piece a step, after a stop text whose beginning the slot has read; it returns
    the document with the answer."""
