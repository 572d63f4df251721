"""Metrics of generated texts: BLEU and chrF by sacrebleu, ROUGE by rouge-score, word error rates by jiwer."""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NotRequired, TypedDict

import numpy as np

from memgpt_jax.data.examples.triple_lines import Parsed, parse_triples
from memgpt_jax.evaluation.metrics.base import ratio
from memgpt_jax.evaluation.metrics.by_length import ByLength, by_length
from memgpt_jax.evaluation.metrics.libraries import bootstrap_interval, library
from memgpt_jax.evaluation.metrics.spans import word_f1

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


class TextMetrics(TypedDict):
    """Results on generated texts; those that were asked for."""

    bleu: NotRequired[float]
    """BLEU of the corpus, 0 to 100."""
    bleu_signature: NotRequired[str]
    """The settings of BLEU and the version of sacrebleu."""
    chrf: NotRequired[float]
    """chrF2 of the corpus, 0 to 100."""
    rouge1: NotRequired[float]
    """Mean F1 of ROUGE-1 with stemming, 0 to 1; of several references the best one counts."""
    rouge2: NotRequired[float]
    """As `rouge1`, of ROUGE-2."""
    rouge_l: NotRequired[float]
    """As `rouge1`, of ROUGE-L: the longest common subsequence of the whole texts."""
    rouge_lsum: NotRequired[float]
    """As `rouge1`, of ROUGE-L of the union of lines."""
    wer: NotRequired[float]
    """Word error rate of the corpus: words substituted, deleted and inserted, of those of the first references."""
    word_f1: NotRequired[float]
    """Mean F1 of words without case, punctuation and articles, 0 to 1; of several references the best one counts."""
    exact_match: NotRequired[float]
    """Fraction of the texts that equal a reference."""
    exact_match_interval: NotRequired[list[float]]
    """95% confidence interval, by bootstrap over texts."""
    begins: NotRequired[float]
    """Fraction of the texts that begin with a reference, followed by the end of a word, without regard to case."""
    begins_interval: NotRequired[list[float]]
    """95% confidence interval, by bootstrap over texts."""
    triple_precision: NotRequired[float]
    """Fraction of the triples of the texts that are in the first reference of their text; 0 if there are none. Triples
    are lines, as `parse_triples` reads them, and are compared without regard to case; each counts once in a text."""
    triple_recall: NotRequired[float]
    """Fraction of the triples of the first references that their text has; 0 if there are none."""
    triple_f1: NotRequired[float]
    """2 right / (triples of the texts + triples of the references); 0 if there are none."""
    triple_f1_interval: NotRequired[list[float]]
    """95% confidence interval of `triple_f1`, by bootstrap over texts."""
    malformed_lines: NotRequired[int]
    """Number of lines of the texts that are not triples; they count neither as right nor as wrong."""


class GroupMetrics(TextMetrics):
    """Results on the texts of a group."""

    examples: int
    """Number of texts."""


def text_metrics(names: Sequence[str], texts: Sequence[str], references: Sequence[Sequence[str]]) -> TextMetrics:
    """The metrics of generated texts.

    Args:
        names: of `METRICS_OF_TEXTS`.
        texts: generated texts.
        references: for each text at least one reference.

    Raises:
        ValueError: a library is not installed.
    """
    found = TextMetrics()
    for name in names:
        found |= METRICS_OF_TEXTS[name](texts, references)
    return found


def metrics_by_group(
    names: Sequence[str], texts: Sequence[str], references: Sequence[Sequence[str]], groups: Sequence[str]
) -> dict[str, GroupMetrics]:
    """`text_metrics` of the texts of each group, by its name, in alphabetical order. Args: groups: of each text."""
    found = {}
    for group in sorted(set(groups)):
        chosen = [index for index, other in enumerate(groups) if other == group]
        metrics = text_metrics(names, [texts[index] for index in chosen], [references[index] for index in chosen])
        found[group] = GroupMetrics(examples=len(chosen), **metrics)
    return found


def _by_position(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """References as sacrebleu takes them: list i holds the i-th reference of each text, None where there is none."""
    most = max(map(len, references))
    return [[row[i] if i < len(row) else None for row in references] for i in range(most)]


def _bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> TextMetrics:
    metric = library("sacrebleu.metrics").BLEU()
    score = metric.corpus_score(list(texts), _by_position(references)).score
    return TextMetrics(bleu=float(score), bleu_signature=str(metric.get_signature()))


def _chrf(texts: Sequence[str], references: Sequence[Sequence[str]]) -> TextMetrics:
    metric = library("sacrebleu.metrics").CHRF()
    return TextMetrics(chrf=float(metric.corpus_score(list(texts), _by_position(references)).score))


def _rouge(texts: Sequence[str], references: Sequence[Sequence[str]]) -> TextMetrics:
    rows = [rouge_scores(text, tuple(row)) for text, row in zip(texts, references, strict=True)]
    rouge1, rouge2, rouge_l, rouge_lsum = (float(np.mean(column)) for column in zip(*rows, strict=True))
    return TextMetrics(rouge1=rouge1, rouge2=rouge2, rouge_l=rouge_l, rouge_lsum=rouge_lsum)


@functools.lru_cache(maxsize=1 << 16)
def rouge_scores(text: str, references: tuple[str, ...]) -> tuple[float, ...]:
    """F1 of ROUGE-1, -2, -L and -Lsum of a text, each by its best reference."""
    scorer = library("rouge_score.rouge_scorer").RougeScorer(list(ROUGE), use_stemmer=True)
    found = scorer.score_multi(list(references), text)
    return tuple(found[name].fmeasure for name in ROUGE)


def _wer(texts: Sequence[str], references: Sequence[Sequence[str]]) -> TextMetrics:
    return TextMetrics(wer=float(library("jiwer").wer([row[0] for row in references], list(texts))))


def _word_f1(texts: Sequence[str], references: Sequence[Sequence[str]]) -> TextMetrics:
    return TextMetrics(word_f1=float(np.mean([word_f1(*pair) for pair in zip(texts, references, strict=True)])))


def same_phrase(pattern: str, texts: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """Of the texts whose first reference has a match of a regular expression, the fraction with the same first match.

    None if no reference has one.
    """
    first = re.compile(pattern).search
    pairs = [(first(row[0]), first(text)) for text, row in zip(texts, references, strict=True)]
    same = [found is not None and found[0] == wanted[0] for wanted, found in pairs if wanted is not None]
    return float(np.mean(same)) if same else None


def is_exact(text: str, references: Sequence[str]) -> bool:
    """Whether a text equals a reference."""
    return text in references


def begins_with(text: str, references: Sequence[str]) -> bool:
    """Whether a text begins with a reference, followed by the end of a word, without regard to case."""
    return any(re.match(re.escape(reference) + r"(?!\w)", text, re.IGNORECASE) for reference in references)


def _exact(texts: Sequence[str], references: Sequence[Sequence[str]]) -> TextMetrics:
    share, interval = _share(map(is_exact, texts, references))
    return TextMetrics(exact_match=share, exact_match_interval=interval)


def _begins(texts: Sequence[str], references: Sequence[Sequence[str]]) -> TextMetrics:
    share, interval = _share(map(begins_with, texts, references))
    return TextMetrics(begins=share, begins_interval=interval)


def _triples(texts: Sequence[str], references: Sequence[Sequence[str]]) -> TextMetrics:
    written = [parse_triples(text) for text in texts]
    pairs = [
        (_without_case(own), _without_case(parse_triples(row[0]))) for own, row in zip(written, references, strict=True)
    ]
    counts = np.array([(len(found & true), len(found), len(true)) for found, true in pairs])  # [texts, 3]
    right, found, true = counts.sum(axis=0)

    def f1(chosen: np.ndarray) -> float:
        right, found, true = counts[chosen].sum(axis=0)
        return ratio(2 * right, found + true) or 0.0

    return TextMetrics(
        triple_precision=ratio(right, found) or 0.0,
        triple_recall=ratio(right, true) or 0.0,
        triple_f1=f1(np.arange(len(counts))),
        triple_f1_interval=bootstrap_interval(f1, len(counts)),
        malformed_lines=sum(len(parsed.malformed) for parsed in written),
    )


def _without_case(parsed: Parsed) -> set[tuple[str, ...]]:
    return {tuple(field.lower() for field in triple) for triple in parsed.triples}


def _share(right: Iterable[bool]) -> tuple[float, list[float]]:
    """The fraction that is right, and its interval."""
    found = np.array(list(right))
    return float(found.mean()), bootstrap_interval(lambda chosen: float(found[chosen].mean()), len(found))


METRICS_OF_TEXTS: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], TextMetrics]] = {
    "bleu": _bleu,
    "chrf": _chrf,
    "rouge": _rouge,
    "exact": _exact,
    "word_f1": _word_f1,
    "wer": _wer,
    "begins": _begins,
    "triples": _triples,
}
"""The metrics by the names of `TextPairsConfig.metrics`."""
SCORES: dict[str, tuple[str, Callable[[str, Sequence[str]], float]]] = {
    "rouge": ("rouge_l", lambda text, references: rouge_scores(text, tuple(references))[2]),
    "begins": ("begins", begins_with),
    "word_f1": ("word_f1", word_f1),
    "exact": ("exact_match", is_exact),
}
"""Of the metrics that are means over texts: the name of their result and the score of one text."""


def texts_by_length(
    names: Sequence[str], texts: Sequence[str], references: Sequence[Sequence[str]], unit: str, lengths: Sequence[int]
) -> ByLength | None:
    """The first of the metrics that is in `SCORES`, by length; None if none of them is.

    Args:
        names, texts, references: as in `text_metrics`.
        unit: of the lengths.
        lengths: one for each text.
    """
    found = next((SCORES[name] for name in names if name in SCORES), None)
    if found is None:
        return None
    key, score = found
    scores = np.array(list(map(score, texts, references)), np.float64)
    return by_length(key, unit, lengths, lambda chosen: float(scores[chosen].mean()))


LIBRARIES = {
    "bleu": "sacrebleu.metrics",
    "chrf": "sacrebleu.metrics",
    "rouge": "rouge_score.rouge_scorer",
    "wer": "jiwer",
}
"""The module that a metric needs."""


def check_libraries(names: Sequence[str]) -> None:
    """Raise `ValueError` if a library that metrics need is missing."""
    for name in names:
        if name in LIBRARIES:
            library(LIBRARIES[name])
