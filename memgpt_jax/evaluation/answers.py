"""The most probable spans of a text, from the logits of its windows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from memgpt_jax import models
from memgpt_jax.config.model import BaseModelConfig
from memgpt_jax.data.tasks.windows import EncodedText, Window
from memgpt_jax.evaluation.documents import document_outputs
from memgpt_jax.evaluation.scoring import check_finite


class Answer(NamedTuple):
    """A span of words; `first` and `last` are None if the text has no answer."""

    first: int | None
    last: int | None
    score: float
    """Probability of the start times that of the end."""


class SpanLogits(NamedTuple):
    """The logits of one question over all words of its text."""

    words: np.ndarray
    """[words, 2] float32, of start and end."""
    none: np.ndarray | None
    """[2]: those of the first token, of the window in which their sum is lowest; None: there is always an answer."""

    def log_probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """[words, 2] and [2] float64: ln p of each start and end, and of no answer (-inf if it is not possible)."""
        none = np.full(2, -np.inf) if self.none is None else self.none.astype(np.float64)
        together = np.concatenate([none[None], self.words.astype(np.float64)])
        top = together.max(axis=0)
        together = together - top - np.log(np.exp(together - top).sum(axis=0))
        return together[1:], together[0]

    def best(self, text: EncodedText, number: int, max_tokens: int, *, allow_none: bool = True) -> list[Answer]:
        """The most probable spans of at most `max_tokens` tokens, in descending order.

        A span of one word is possible in any case.

        Args:
            text: the text.
            number: of answers.
            max_tokens: of a span.
            allow_none: whether no answer may be among them, if the model has it; its probability counts in any case.
        """
        log_p, log_none = self.log_probabilities()
        begins, ends = text.bounds()
        count, scores, places = len(log_p), [], []
        for more in range(min(count, max_tokens)):  # words after the first
            sums = log_p[: count - more, 0] + log_p[more:, 1]
            if more:
                sums[ends[more:] - begins[: count - more] > max_tokens] = -np.inf
            top = np.argsort(-sums, kind="stable")[:number]
            scores += sums[top].tolist()
            places += [(int(first), int(first) + more) for first in top]
        possible = [(place, score) for place, score in zip(places, scores, strict=True) if np.isfinite(score)]
        found = [Answer(first, last, float(np.exp(score))) for (first, last), score in possible]
        if self.none is not None and allow_none:
            found.append(Answer(None, None, float(np.exp(log_none.sum()))))
        return sorted(found, key=lambda answer: -answer.score)[:number]


def span_logits(
    model: BaseModelConfig, params: models.Params, questions: Sequence[list[Window]], **options: Any
) -> list[SpanLogits]:
    """The logits of each question over its text.

    A word that is in several windows has the logits of the one in which it is farthest from the nearer end of the
    window's words ("maximum context", Devlin et al., 2019).

    Args:
        model: a `HeadedConfig` with a `SpanHeadConfig`.
        params: its parameters.
        questions: the windows of each question.
        options: of `document_outputs`.

    Raises:
        ValueError: a logit is NaN or infinite.
    """
    windows = [window for found in questions for window in found]
    places = [np.concatenate([[0], window.starts, window.ends]).astype(np.int64) for window in windows]
    outputs = iter(document_outputs(model, params, [window.inputs for window in windows], places, **options))
    no_answer = model.head.no_answer  # pyright: ignore[reportAttributeAccessIssue]
    return [_joined(found, [next(outputs) for _ in found], no_answer) for found in questions]


def _joined(windows: list[Window], outputs: list[np.ndarray], no_answer: bool) -> SpanLogits:
    """The logits of all words of the windows of one question."""
    number = max(window.words.stop for window in windows)
    words, margins = np.zeros((number, 2), np.float32), np.full(number, -1)
    for window, found in zip(windows, outputs, strict=True):
        check_finite(found)
        count, here = len(window.words), slice(window.words.start, window.words.stop)
        own = np.stack([found[1 : 1 + count, 0], found[1 + count :, 1]], axis=1)
        margin = np.minimum(np.arange(count), np.arange(count)[::-1])
        better = margin > margins[here]
        words[here][better], margins[here][better] = own[better], margin[better]
    none = min((found[0] for found in outputs), key=np.sum) if no_answer else None
    return SpanLogits(words, none)
