"""Labels of texts, with the calls and results of the transformers library's pipeline."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check
from memgpt_jax.config.texts import CleanConfig
from memgpt_jax.data.corpora.text import encode_pieces
from memgpt_jax.data.tasks.labelled_text import document_ids
from memgpt_jax.data.text import clean
from memgpt_jax.evaluation.documents import call_inputs, check_lengths, end_outputs, read_call
from memgpt_jax.evaluation.scoring import check_finite
from memgpt_jax.pipelines.base import Loaded, check_sizes, labelling, texts_of

Label = dict[str, Any]


class TextClassification:
    """Labels of texts of any length.

    >>> classify = mg.pipeline("runs/sst2")
    >>> classify(["A fine film.", "Two hours lost."])
    [{"label": "1", "score": 0.98}, {"label": "0", "score": 0.97}]

    A text is read in calls of `length` tokens with the memory carried, so memory does not grow with its length.
    """

    def __init__(self, loaded: Loaded, *, rows: int = 16, length: int | None = None):
        """
        Args:
            rows: texts read at the same time.
            length: tokens of a call; default: that of the run's evaluation.

        Raises:
            ValueError: the model has no head for labels of texts.
        """
        self.config, self.head, self.labels = labelling(loaded, of_words=False)
        self.params, self.tokenizer = loaded.params, loaded.tokenizer
        self.rows, self.length = rows, loaded.length if length is None else length
        check_sizes(rows=self.rows, length=self.length)

    def __call__(self, inputs: str | Sequence[str], *, top_k: int | None = 1) -> list[Any]:
        """The most probable labels.

        Args:
            inputs: a text, or several.
            top_k: number of labels of each text, in descending order of probability; None: all.

        Returns:
            With top_k=1 (the default) a list with one {"label", "score"} for each text, also for a single one.
            Otherwise a list of such labels for each text; for a single text, its list.
        """
        texts = texts_of(inputs)
        if top_k is not None:
            check_sizes(top_k=top_k)
        if not texts:
            return []
        cleaned = [clean(text, self.head.clean).text for text in texts]
        ids = [document_ids(self.tokenizer, text, self.head.max_length, self.head.truncation_side) for text in cleaned]
        logits = end_outputs(self.config, self.params, ids, rows=self.rows, length=self.length)
        found = [self._labels(row)[:top_k] for row in logits]
        if top_k == 1:
            return [labels[0] for labels in found]
        return found[0] if isinstance(inputs, str) else found

    def record(self, text: str, *, top: int = 5, question: str | None = None) -> dict[str, Any]:
        """The result for one text as an object of JSON: {"text", "labels"}, with the `top` most probable labels."""
        return {"text": text, "labels": self(text, top_k=None)[:top]}

    def stream(self, chunks: Iterable[str]) -> Iterator[Label]:
        """The most probable label of a text that arrives in chunks, after each part of it that can be tokenized.

        The last answer is that of the whole text. A chunk that ends inside a word waits for the next one.

        Raises:
            ValueError: the backbone is not causal; it would have to read the whole text again for each answer. Or texts
                are cleaned or cut on the left, which needs the whole text.
        """
        check(self.config.streams, "stream needs a causal backbone: a decoder reads each token once")
        keeps_first = self.head.max_length is None or self.head.truncation_side == "right"
        check(keeps_first, "stream cannot keep the last tokens of a text, and the run does: truncation_side='left'")
        check(self.head.clean == CleanConfig(), f"stream cannot clean texts, and the run does: {self.head.clean}")
        state = models.functional(self.config).init_state(1)
        end = self.tokenizer.special_ids.get("sep")
        most, begin = self.head.max_length, [self.tokenizer.start_id]
        room = None if most is None else most - 1 - (end is not None)
        pieces = encode_pieces(self.tokenizer, filter(None, map(_text, chunks)))
        number = 0
        for ids in _at_most(pieces, room):
            number += len(begin) + len(ids)
            check_lengths(self.config, [number], self.length)
            logits, state = self._read([*begin, *ids], state, bool(begin))
            begin = []
            yield self._labels(logits)[0]
        if begin or end is not None:
            logits, state = self._read([*begin, *([] if end is None else [end])], state, bool(begin))
            yield self._labels(logits)[0]

    def _read(self, ids: list[int], state: Any, begins: bool) -> tuple[np.ndarray, Any]:
        """The outputs after the ids of one text, and the state; `begins`: its first id is among them."""
        document, outputs = {"tokens": np.array(ids, np.int32)}, np.zeros((1, 0, 0))
        for first in range(0, len(ids), self.length):
            inputs = call_inputs([document], first, 1, self.length)
            inputs["reset"] &= begins
            outputs, state = read_call(self.config, self.params, inputs, state)
        return np.asarray(outputs)[0, (len(ids) - 1) % self.length], state

    def _labels(self, logits: np.ndarray) -> list[Label]:
        """All labels in descending order of probability. Raises `ValueError` if a logit is NaN or infinite."""
        check_finite(logits)
        scores = np.asarray(jax.nn.sigmoid(logits) if self.head.loss == "binary" else jax.nn.softmax(logits))
        return [{"label": self.labels[i], "score": float(scores[i])} for i in np.argsort(-scores, kind="stable")]


def _text(chunk: str) -> str:
    return texts_of(chunk)[0]


def _at_most(pieces: Iterable[Iterable[int]], room: int | None) -> Iterator[list[int]]:
    """The pieces as lists that are not empty, at most `room` ids together."""
    for piece in pieces:
        ids = [int(number) for number in islice(piece, room)]
        room = None if room is None else room - len(ids)
        if ids:
            yield ids
