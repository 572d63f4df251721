"""A question and a text of any length as documents of at most L tokens: windows of whole words that overlap."""

from typing import NamedTuple

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.data.tasks.tagged_text import words_need_no_space
from memgpt_jax.data.text.words import word_pattern
from memgpt_jax.data.tokenizers.base import Tokenizer

SHORTEST = 16
"""Tokens of the shortest window."""


class EncodedText(NamedTuple):
    """The words of a text that have tokens."""

    spans: np.ndarray
    """[words, 2] int64: the characters of each word are `text[start:end]`."""
    ids: list[list[int]]
    """The token ids of each word; with tokenizers that encode spaces, also those of the spaces before it."""

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """[words], [words]: the number of the first token of each word, and of the one after its last, in the text."""
        ends = np.cumsum([len(ids) for ids in self.ids], dtype=np.int64)
        return ends - [len(ids) for ids in self.ids], ends

    def words_of(self, start: int, end: int) -> tuple[int, int] | None:
        """The first and the last word that share a character with `text[start:end]`; None: no word does."""
        first = int(np.searchsorted(self.spans[:, 1], start, side="right"))
        last = int(np.searchsorted(self.spans[:, 0], end, side="left")) - 1
        return (first, last) if first <= last else None


def encode_text(tokenizer: Tokenizer, text: str) -> EncodedText:
    """The words of a text, as found by `word_pattern`, and their tokens. Words without tokens are left out."""
    spaced, before, spans, ids = not words_need_no_space(tokenizer), 0, [], []
    for match in word_pattern().finditer(text):
        start, end = match.span()
        found = tokenizer.encode(text[before if spaced else start : end])
        before = end
        if found:
            spans.append((start, end))
            ids.append(list(found))
    return EncodedText(np.array(spans, np.int64).reshape(-1, 2), ids)


class Window(NamedTuple):
    """A question and consecutive words of a text, as one document of n tokens."""

    inputs: dict[str, np.ndarray]
    """`tokens` [n] int32, and perhaps `token_types` [n] int32."""
    words: range
    """The words of the text."""
    starts: np.ndarray
    """[words] index of the first token of each word."""
    ends: np.ndarray
    """[words] index of the last token of each word."""


class Windows(NamedTuple):
    """How a question and a text become documents: `start_id`, question, separator, words, separator.

    The separator is [SEP]; without this token, a line feed between question and text, and nothing at the end.
    """

    tokenizer: Tokenizer
    length: int
    """Most tokens of a document."""
    overlap: int
    """Most tokens that two consecutive windows share."""
    types: bool
    """Whether documents have token types: 0 up to the first separator, then 1."""

    def head(self, question: str) -> list[int]:
        """The ids in front of the words; a long question is cut, so that they fill at most half of a window."""
        check(self.length >= SHORTEST, f"windows must have at least {SHORTEST} tokens, got {self.length}")
        separator = self._end() or list(self.tokenizer.encode("\n"))
        room = self.length // 2 - 1 - len(separator)
        return [self.tokenizer.start_id, *self.tokenizer.encode(question)[:room], *separator]

    def _end(self) -> list[int]:
        return [self.tokenizer.special_ids["sep"]] if "sep" in self.tokenizer.special_ids else []

    def ranges(self, head: list[int], text: EncodedText) -> list[range]:
        """The words of each window: as many as have room, from a word on that the window before holds."""
        room, number, first, found = self._room(head), len(text.ids), 0, []
        sizes = [min(len(ids), room) for ids in text.ids]
        while True:
            last, used = first, 0
            while last < number and used + sizes[last] <= room:
                used += sizes[last]
                last += 1
            found.append(range(first, last))
            if last == number:
                return found
            before, first, shared = first, last, 0
            while first > before + 1 and shared + sizes[first - 1] <= self.overlap:
                first -= 1
                shared += sizes[first]

    def _room(self, head: list[int]) -> int:
        return self.length - len(head) - len(self._end())

    def window(self, head: list[int], text: EncodedText, words: range) -> Window:
        """The document with these words; a word that is longer than a window is cut."""
        room, tokens, starts, ends = self._room(head), list(head), [], []
        for word in words:
            starts.append(len(tokens))
            tokens += text.ids[word][:room]
            ends.append(len(tokens) - 1)
        inputs = {"tokens": np.array([*tokens, *self._end()], np.int32)}
        if self.types:
            inputs["token_types"] = (np.arange(len(inputs["tokens"])) >= len(head)).astype(np.int32)
        return Window(inputs, words, np.array(starts, np.int64), np.array(ends, np.int64))

    def all(self, question: str, text: EncodedText) -> list[Window]:
        """All windows of a question and a text."""
        head = self.head(question)
        return [self.window(head, text, words) for words in self.ranges(head, text)]
