"""Metrics of answers that are spans of a text: those of SQuAD's official script, version 2.0.

No maintained library without a deep-learning framework has them.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from memgpt_jax.evaluation.metrics.intervals import bootstrap_interval

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")


class SpanMetrics(TypedDict):
    """Results on answers; each is compared with all references, and the best value counts."""

    exact_match: float
    """Fraction of the answers that equal a reference, up to case, punctuation, articles and spaces."""
    f1: float
    """Mean over questions of the harmonic mean of precision and recall of words."""
    f1_interval: list[float]
    """95% confidence interval of `f1`, by bootstrap over questions."""


def normal(answer: str) -> str:
    """An answer in lower case, without punctuation (ASCII) and articles, and with single spaces."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def _normal_references(references: Sequence[str]) -> list[str]:
    """The references that have words, normalised; if none has, one that is empty."""
    return [reference for reference in map(normal, references) if reference] or [""]


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 if the answer equals a reference with words, else 0. No such reference: 1 if the answer has no words."""
    return float(normal(answer) in _normal_references(references))


def word_f1(answer: str, references: Sequence[str]) -> float:
    """The highest F1 of words over the references: 2 common / (words of the answer + words of the reference).

    Of two texts, one of which has no words, it is 1 if both have none, else 0. References without words count only if
    all are; no references: one that is empty.
    """
    return max(_word_f1(normal(answer).split(), reference.split()) for reference in _normal_references(references))


def _word_f1(words: list[str], expected: list[str]) -> float:
    if not words or not expected:
        return float(words == expected)
    return 2 * (Counter(words) & Counter(expected)).total() / (len(words) + len(expected))


def span_metrics(answers: Sequence[str], references: Sequence[Sequence[str]]) -> SpanMetrics:
    """The metrics of answers, "" for none, and of the right answers to each question, [] for none."""
    f1 = np.array([word_f1(*pair) for pair in zip(answers, references, strict=True)])
    return SpanMetrics(
        exact_match=float(np.mean([exact_match(*pair) for pair in zip(answers, references, strict=True)])),
        f1=float(f1.mean()),
        f1_interval=bootstrap_interval(lambda chosen: float(f1[chosen].mean()), len(f1)),
    )
