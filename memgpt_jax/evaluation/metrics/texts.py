"""Metrics of generated texts: BLEU and chrF by sacrebleu, ROUGE by rouge-score, word error rates by jiwer."""

import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np

from memgpt_jax.config.extras import library
from memgpt_jax.data.examples.triple_lines import Parsed, parse_triples
from memgpt_jax.evaluation.metrics.base import ratio
from memgpt_jax.evaluation.metrics.by_length import ByLength, by_length
from memgpt_jax.evaluation.metrics.intervals import bootstrap_interval
from memgpt_jax.evaluation.metrics.spans import word_f1

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts without spaces between words, as in the module regex."""


class TextMetrics(TypedDict):
    """Results on generated texts; those that were asked for."""

    bleu: NotRequired[float]
    """BLEU of the corpus, 0 to 100."""
    bleu_signature: NotRequired[str]
    """The settings of BLEU and the version of sacrebleu: `tok:char` if most letters of the references are of scripts
    without spaces between words, such as Chinese, and else `tok:13a`."""
    chrf: NotRequired[float]
    """chrF2 of the corpus, 0 to 100."""
    rouge1: NotRequired[float]
    """Mean F1 of ROUGE-1 with stemming, 0 to 1; of several references the best one counts. Tokens are those of
    rouge-score, and words in other scripts than Latin, of which rouge-score reads none, or their characters in scripts
    without spaces."""
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


def text_metrics(
    names: Sequence[str],
    texts: Sequence[str],
    references: Sequence[Sequence[str]],
    scores: Mapping[str, np.ndarray] | None = None,
) -> TextMetrics:
    """The metrics of generated texts.

    Args:
        names: of `SCORES` and `METRICS_OF_TEXTS`.
        texts: generated texts.
        references: for each text at least one reference.
        scores: the `text_scores`, if they are known.

    Raises:
        ValueError: a library is not installed.
    """
    scores, found = text_scores(names, texts, references) if scores is None else scores, TextMetrics()
    for name in names:
        found |= MEANS[name](scores[name]) if name in MEANS else METRICS_OF_TEXTS[name](texts, references)
    return found


def absent_text_metrics(names: Sequence[str]) -> set[str]:
    """The names of `TextMetrics` that `text_metrics` of these names does not have."""
    return TextMetrics.__annotations__.keys() - text_metrics(names, ["a"], [["a"]]).keys()


def text_scores(
    names: Sequence[str], texts: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, np.ndarray]:
    """The scores of single texts, by the names of those metrics that are means over texts: `rouge` [n, 4], others [n].

    Args: names, texts, references: as in `text_metrics`.
    """
    return {
        name: np.array([SCORES[name](*pair) for pair in zip(texts, references, strict=True)], np.float64)
        for name in names
        if name in SCORES
    }


def scores_by_length(
    scores: Mapping[str, np.ndarray], unit: str, lengths: Sequence[int], owners: Sequence[int] | None = None
) -> ByLength | None:
    """The first of the `text_scores` by length; None: there are none.

    Args:
        scores: of the texts.
        unit, lengths, owners: as in `by_length`.
    """
    if not scores:
        return None
    name, found = next(iter(scores.items()))
    key, values = ("rouge_l", found[:, ROUGE.index("rougeL")]) if name == "rouge" else (RESULTS[name], found)
    return by_length(key, unit, lengths, lambda chosen: float(values[chosen].mean()), owners)


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
    letters = "".join(itertools.chain(*references))
    unspaced, all_letters = (_pattern(kind).findall(letters) for kind in (f"[{UNSPACED}]", r"\p{L}"))
    tokens = "char" if 2 * len(unspaced) > len(all_letters) else "13a"
    metric = library("sacrebleu.metrics").BLEU(tokenize=tokens)
    score = metric.corpus_score(list(texts), _by_position(references)).score
    return TextMetrics(bleu=float(score), bleu_signature=str(metric.get_signature()))


def _chrf(texts: Sequence[str], references: Sequence[Sequence[str]]) -> TextMetrics:
    metric = library("sacrebleu.metrics").CHRF()
    return TextMetrics(chrf=float(metric.corpus_score(list(texts), _by_position(references)).score))


def _wer(texts: Sequence[str], references: Sequence[Sequence[str]]) -> TextMetrics:
    return TextMetrics(wer=float(library("jiwer").wer([row[0] for row in references], list(texts))))


def same_phrase(pattern: str, texts: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """Of the texts whose first reference has a match of a regular expression, the fraction with the same first match.

    None if no reference has one.
    """
    first = re.compile(pattern).search
    pairs = [(first(row[0]), first(text)) for text, row in zip(texts, references, strict=True)]
    same = [found is not None and found[0] == wanted[0] for wanted, found in pairs if wanted is not None]
    return float(np.mean(same)) if same else None


def _rouge(text: str, references: Sequence[str]) -> list[float]:
    """F1 of each of `ROUGE`, by the best reference."""
    found = _rouge_scorer().score_multi(list(references), text)
    return [found[name].fmeasure for name in ROUGE]


@functools.cache
def _rouge_scorer() -> Any:
    latin = library("rouge_score.tokenizers").DefaultTokenizer(use_stemmer=True)
    return library("rouge_score.rouge_scorer").RougeScorer(list(ROUGE), tokenizer=RougeTokenizer(latin))


class RougeTokenizer:
    """The tokenizer of rouge-score for letters and digits of ASCII, and a token for each word in other scripts.

    Latin letters outside ASCII separate tokens, as in rouge-score, for the published figures of which they do.

    Args:
        latin: a tokenizer of rouge-score.
    """

    def __init__(self, latin: Any):
        self.latin = latin
        letter = rf"[[\p{{L}}\p{{Nd}}]--\p{{Latin}}--\p{{ASCII}}--[{UNSPACED}]]"
        self.others = _pattern(rf"([{UNSPACED}]\p{{M}}*|(?:{letter}\p{{M}}*)+)")

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text, in lower case."""
        parts = self.others.split(text.lower())
        return [token for i, part in enumerate(parts) for token in ([part] if i % 2 else self.latin.tokenize(part))]


@functools.cache
def _pattern(text: str) -> Any:
    regex = library("regex")
    return regex.compile(text, regex.V1)


def _is_exact(text: str, references: Sequence[str]) -> bool:
    return text in references


def _begins_with(text: str, references: Sequence[str]) -> bool:
    return any(re.match(re.escape(reference) + r"(?!\w)", text, re.IGNORECASE) for reference in references)


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


def _mean_rouge(scores: np.ndarray) -> TextMetrics:
    rouge1, rouge2, rouge_l, rouge_lsum = map(float, scores.mean(axis=0))
    return TextMetrics(rouge1=rouge1, rouge2=rouge2, rouge_l=rouge_l, rouge_lsum=rouge_lsum)


def _interval(scores: np.ndarray) -> list[float]:
    return bootstrap_interval(lambda chosen: float(scores[chosen].mean()), len(scores))


SCORES: dict[str, Callable[[str, Sequence[str]], Any]] = {
    "rouge": _rouge,
    "exact": _is_exact,
    "word_f1": word_f1,
    "begins": _begins_with,
}
"""The scores of single texts of those metrics that are means over texts."""
MEANS: dict[str, Callable[[np.ndarray], TextMetrics]] = {
    "rouge": _mean_rouge,
    "exact": lambda scores: TextMetrics(exact_match=float(scores.mean()), exact_match_interval=_interval(scores)),
    "word_f1": lambda scores: TextMetrics(word_f1=float(scores.mean())),
    "begins": lambda scores: TextMetrics(begins=float(scores.mean()), begins_interval=_interval(scores)),
}
"""The results of such metrics, from the scores of all texts."""
RESULTS = {"exact": "exact_match", "word_f1": "word_f1", "begins": "begins"}
"""The names of their results."""
METRICS_OF_TEXTS: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], TextMetrics]] = {
    "bleu": _bleu,
    "chrf": _chrf,
    "wer": _wer,
    "triples": _triples,
}
"""The metrics of all texts together, which are not means over texts."""
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
