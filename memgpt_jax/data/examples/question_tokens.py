"""Documents, questions and answers as token ids of a decoder."""

from collections.abc import Sequence

import numpy as np

from memgpt_jax.data.examples.pair_tokens import PLACE, PairTokens
from memgpt_jax.data.tokenizers.base import Tokenizer

DOCUMENT, QUESTION = "{document}", "{question}"
"""The places of the document and of the question in a prompt."""


class QuestionTokens:
    """A document is read once; each question, and the answer to it, is a continuation of the document.

    The text up to the document, the text from there to the answer, and the answer are encoded apart, so that the ids
    of the document do not depend on the question.
    """

    def __init__(self, tokenizer: Tokenizer, template: str):
        """Args: template: the prompt, with DOCUMENT and then QUESTION, each once."""
        self.before, rest = template.split(DOCUMENT)
        self.between, after = rest.split(QUESTION)
        self.tokenizer, self.after = tokenizer, after.rstrip(" ")
        self.answers = PairTokens(tokenizer, PLACE + after)
        """Encodes and decodes answers; spaces at the end of the prompt are the beginning of the answer."""

    def document(self, text: str, room: int | None = None) -> np.ndarray:
        """`start_id` and the ids of a document, int32, cut to `room` ids."""
        return np.array([self.tokenizer.start_id, *self.tokenizer.encode(self.before + text)], np.int32)[:room]

    def ends(self, text: str) -> np.ndarray:
        """The place in the text, in characters, at which each id of `document(text)` ends, [n]; 0 before the text.

        Places are exact if the tokenizer is lossless. Otherwise the bytes of ids are scaled to those of the text.
        """
        before, data = len(self.before.encode()), text.encode()
        ends = np.cumsum(self.tokenizer.token_bytes[self.document(text)], dtype=np.int64)
        ends = ends * (before + len(data)) // max(1, ends[-1])
        begins = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80  # the first byte of a character
        return np.concatenate([[0], np.cumsum(begins)])[np.clip(ends - before, 0, len(data))]

    def held(self, text: str, room: int | None) -> str:
        """The beginning of a text that `document(text, room)` holds."""
        return text if room is None else text[: self.ends(text)[:room][-1]]

    def question(self, text: str) -> np.ndarray:
        """The ids from the end of the document to the answer, int32."""
        return np.array(self.tokenizer.encode(self.between + text + self.after), np.int32)

    def answered(self, question: str, answer: str) -> tuple[np.ndarray, np.ndarray]:
        """The ids of a question and its answer, the end included, int32; and their weights, 1 at the answer."""
        asked, answered = self.question(question), self.answers.target(answer)
        weights = np.concatenate([np.zeros(len(asked)), np.ones(len(answered))])
        return np.concatenate([asked, answered]), weights.astype(np.float32)

    def after_document(self, question: str, answer: str) -> dict[str, np.ndarray]:
        """The arrays of a question and an answer: `tokens`, `targets` and `weights` [n]."""
        ids, weights = self.answered(question, answer)
        return {"tokens": ids[:-1], "targets": ids[1:], "weights": weights[1:]}

    def row(self, document: np.ndarray, pairs: Sequence[tuple[str, str]]) -> dict[str, np.ndarray]:
        """The arrays of a document's ids and (question, answer) pairs: `tokens`, `targets` and `weights` [n]."""
        ids, weights = zip(*(self.answered(*pair) for pair in pairs), strict=True)
        every = np.concatenate([document, *ids])
        weights = np.concatenate([np.zeros(len(document) - 1, np.float32), *weights])
        return {"tokens": every[:-1], "targets": every[1:], "weights": weights}
