"""BM25, the ranking of documents by the words that they share with a query, by bm25s."""

import functools
import logging
import re
from collections.abc import Callable, Sequence

import numpy as np

from memgpt_jax.config.extras import library


def bm25_scores(queries: Sequence[str], documents: Sequence[str], language: str | None = "english") -> np.ndarray:
    """BM25 of all documents for each query, float32 [Q, N].

    The sum over the words w of a query that the document has f_w times:

        ln(1 + (N - n_w + 1/2) / (n_w + 1/2)) f_w / (f_w + k (1 - b + b l / L)),    k = 1.5, b = 0.75

    where n_w of the N documents have w, the document has l words, and L is the mean of l (Robertson and Zaragoza, 2009,
    in the form of Lucene).

    Args:
        queries: Q texts.
        documents: N texts.
        language: of NLTK's Snowball stemmer, which is applied to words; None: whole words. Words are compared in lower
            case.

    Raises:
        ValueError: there is no stemmer of the language, or the extra `tasks` is not installed.
    """
    stem = stemmer(language)

    def words(text: str) -> list[str]:
        return [stem(word) for word in re.findall(r"\w+", text.lower())]

    split = [words(text) for text in documents]
    if not queries or not any(split):
        return np.zeros((len(queries), len(documents)), np.float32)
    index = library("bm25s", "BM25 scores").BM25(k1=1.5, b=0.75)
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it would report each index
    index.index(split, show_progress=False)
    # The library raises an error for a query that shares no word with any document.
    known = {word for document in split for word in document}
    shared = ([word for word in words(text) if word in known] for text in queries)
    return np.stack([index.get_scores(found) if found else np.zeros(len(split), np.float32) for found in shared])


def stemmer(language: str | None) -> Callable[[str], str]:
    """A function that gives the stem of a word. Raises `ValueError` like `bm25_scores`."""
    if language is None:
        return str
    snowball = library("nltk.stem.snowball", "stems of words").SnowballStemmer
    if language not in snowball.languages:
        raise ValueError(f"language must be None or one of {', '.join(sorted(snowball.languages))}, got {language!r}")
    return functools.cache(snowball(language).stem)
