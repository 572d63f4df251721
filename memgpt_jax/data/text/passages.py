"""Passages of a text, and those that are nearest to a question."""

import re
from collections.abc import Sequence

import numpy as np

from memgpt_jax.data.text.bm25 import bm25_scores
from memgpt_jax.data.text.sentences import sentences

Span = tuple[int, int]
"""The first character and the one after the last."""
BREAK = "\n\n"


def passages(text: str, num_words: int) -> list[Span]:
    """The spans of passages: consecutive sentences with at most `num_words` words together.

    The end of a line ends a sentence. A longer sentence is a passage of its own. Raises `ValueError` if sentencex
    is not installed.
    """
    lines = [(found.start(), found.end()) for found in re.finditer(r"[^\n]+", text)]
    parts = [(start + a, start + b) for start, end in lines for a, b in sentences(text[start:end])]
    found, held = [], num_words
    for start, end in parts:
        words = len(text[start:end].split())
        if held + words > num_words:
            found.append((start, end))
            held = 0
        found[-1] = (found[-1][0], end)
        held += words
    return found


def nearest_passages(
    text: str, questions: Sequence[str], number: int, num_words: int, language: str | None = "english"
) -> list[list[Span]]:
    """For each question the spans of the `number` `passages` with the highest BM25, in the order of the text.

    Of equal scores, the earlier passage wins.

    Raises:
        ValueError: there is no stemmer of the language (see `bm25_scores`), or the extra `tasks` is not installed.
    """
    spans = passages(text, num_words)
    scores = bm25_scores(questions, [text[start:end] for start, end in spans], language)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :number]
    return [[spans[place] for place in sorted(row)] for row in best]


def joined(text: str, spans: Sequence[Span]) -> str:
    """The passages, with an empty line between them, which also ends a sentence."""
    return BREAK.join(text[start:end] for start, end in spans)


def original_place(place: int, spans: Sequence[Span]) -> int:
    """The place in the text of a character of `joined`, from 0 to its length."""
    for start, end in spans:
        if place <= end - start:
            return start + place
        place -= end - start + len(BREAK)
    raise ValueError("the place lies after the last passage")
