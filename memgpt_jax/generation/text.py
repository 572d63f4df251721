"""Incremental decoding of token ids to text."""

from collections.abc import Iterable, Sequence

import numpy as np

from memgpt_jax.data import Tokenizer

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # decoded from bytes that are not a complete character
UNFINISHED_LENGTH = 3  # most bytes of an incomplete character; some tokenizers decode each to U+FFFD
CONTEXT = 8  # ids before the new ones that are decoded with them: tokenizers often decode a first token differently
LONGEST_UNFINISHED = 32  # ids


class AnswerText:
    """The text of an answer whose ids arrive one at a time: complete characters, up to the first stop text.

    The ids of the prompt and of the answer are decoded together; the text of the answer is the part after the text of
    the prompt. A character whose bytes are spread over several tokens is returned with the last of them; an incomplete
    character at the end is left out. Text that may be the beginning of a stop text is held back until that is decided.

    Each token is decoded after a few earlier ids, so that the cost per token does not grow with the answer's length.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int] | np.ndarray,
        *,
        stop: Iterable[int] = (),
        stop_texts: Sequence[str] = (),
        unfinished: Sequence[int] = (),
    ):
        """Begin an empty answer.

        Args:
            tokenizer: has `decode(ids)` and `vocab_size`; larger ids have no text. Without `unfinished_bytes(ids)`, all
                U+FFFD at the end count as an incomplete character.
            prompt: the ids before the answer.
            stop: ids that end the answer and have no text in it.
            stop_texts: texts that end the answer and are not in it.
            unfinished: ids at the end of the prompt that are the beginning of a character.
        """
        self.text, self.stopped = "", False
        self._tokenizer, self._stop, self._stop_texts = tokenizer, set(map(int, stop)), stop_texts
        self._held = ""
        self.context = self._shortened([int(token) for token in prompt])
        """The last ids whose text is settled (returned or held back)."""
        self.unfinished = [int(token) for token in unfinished]
        """The ids after `context`, whose text may still change."""

    def push(self, token: int) -> str:
        """Append an id, and return the text that it adds."""
        token = int(token)
        if self.stopped or token in self._stop or not 0 <= token < self._tokenizer.vocab_size:
            return ""
        before, ids = self._decode_unfinished(self.unfinished), [*self.unfinished, token]
        text = self._decode_unfinished(ids)
        if text == before and not self._tokenizer.decode([token, token]):  # a special id adds no text
            return ""
        settled = self._settled(text, ids)
        self._held += text[self._settled(before, self.unfinished) : settled]
        self.unfinished = ids
        if settled == len(text):
            self.context, self.unfinished = self._shortened(self.context + ids), []
        elif len(ids) > LONGEST_UNFINISHED:
            self._move_context(text, settled)
        positions = [position for position in map(self._held.find, self._stop_texts) if position >= 0]
        self.stopped = bool(positions)
        return self._release(min(positions) if positions else len(self._held) - self._may_become_stop())

    @property
    def length(self) -> int:
        """Characters of the text, with those that are held back."""
        return len(self.text) + len(self._held)

    @property
    def holds(self) -> bool:
        """Whether text is held back."""
        return bool(self._held)

    def rest(self) -> str:
        """End the answer, and return the text that was held back."""
        return "" if self.stopped else self._release(len(self._held))

    def _decode_unfinished(self, ids: list[int]) -> str:
        """The text of ids after the context."""
        decode = self._tokenizer.decode
        return decode(self.context + ids)[len(decode(self.context)) :] if ids else ""

    def _settled(self, text: str, ids: list[int]) -> int:
        """Number of characters of the ids' text that no later ids can change."""
        unfinished_bytes = getattr(self._tokenizer, "unfinished_bytes", None)
        longest = len(ids) * UNFINISHED_LENGTH if unfinished_bytes is None else UNFINISHED_LENGTH
        if unfinished_bytes is not None and not unfinished_bytes(ids):
            longest = 0
        return max(len(text.rstrip(UNFINISHED)), len(text) - longest)

    def _shortened(self, ids: list[int]) -> list[int]:
        """The last `CONTEXT` ids, or more if those have no text."""
        length = CONTEXT
        while length < len(ids) and not self._tokenizer.decode(ids[-length:]):
            length *= 2
        return ids[-length:]

    def _move_context(self, text: str, settled: int) -> None:
        """Move ids of invalid characters to the context, up to a position that splits no character."""
        context, ids = self.context, self.unfinished
        for cut in range(len(ids) - UNFINISHED_LENGTH - 1, len(ids) - 2 * UNFINISHED_LENGTH - 2, -1):
            head = self._decode_unfinished(ids[:cut])
            self.context = self._shortened(context + ids[:cut])
            if head + self._decode_unfinished(ids[cut:]) == text:
                self.unfinished = ids[cut:]
                self._held += text[settled : len(head)]
                return
            self.context = context

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        self.text += text
        return text

    def _may_become_stop(self) -> int:
        """Number of last characters that are the beginning of a stop text."""
        return max(map(self._beginning_of, self._stop_texts), default=0)

    def _beginning_of(self, stop: str) -> int:
        """The length of the longest beginning of a stop text with which the held text ends; 0: there is none."""
        lengths = range(min(len(stop) - 1, len(self._held)), 0, -1)
        return next((length for length in lengths if self._held.endswith(stop[:length])), 0)


def ids_of_text(
    tokenizer: Tokenizer, context: Sequence[int], unfinished: Sequence[int], ids: Sequence[int], text: str
) -> list[int]:
    """The ids of the beginning of an answer: those of the answer as far as they go, then those of the rest of the text.

    Args:
        tokenizer: of the answer.
        context: ids before the answer whose text is settled.
        unfinished: ids after them, before the answer, whose character the answer completes.
        ids: of the answer.
        text: the beginning of its text.
    """
    before, ids = len(tokenizer.decode(context)), [int(token) for token in ids]
    for kept in range(len(ids), -1, -1):
        written = tokenizer.decode([*context, *unfinished, *ids[:kept]])[before:]
        if text.startswith(written):
            break
    return [*ids[:kept], *tokenizer.encode(text[len(written) :])]
