"""Word vectors from files, and the most similar words."""

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.data.corpora.sources import expand
from memgpt_jax.data.tokenizers.base import Tokenizer
from memgpt_jax.files.paths import shown
from memgpt_jax.files.replacement import replace_file


class WordVectors:
    """Vectors of V words."""

    def __init__(self, words: list[str], vectors: np.ndarray):
        """Args: words: V words. vectors: [V, D] float32; only their directions are used."""
        self.words = words
        self.vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        self.places = {word: place for place, word in enumerate(words)}
        self.fingerprint = hashlib.blake2b("\n".join(words).encode() + vectors.tobytes(), digest_size=8).hexdigest()
        """A hash of words and vectors."""
        self.nearest = functools.lru_cache(maxsize=None)(self._nearest)

    def _nearest(self, word: str, number: int) -> tuple[str, ...]:
        """The words with the most similar vectors, by cosine, without the word itself; () for an unknown word."""
        place = self.places.get(word, self.places.get(word.lower()))
        if place is None:
            return ()
        similarity = self.vectors @ self.vectors[place]
        order = np.argsort(-similarity, kind="stable")[: number + 1]
        return tuple(self.words[other] for other in order if other != place)[:number]


def read_vectors(name: str) -> WordVectors:
    """The word vectors of a file in the text format of GloVe and word2vec: lines of a word and D numbers.

    A first line of two numbers (word2vec) is skipped. A word may hold spaces, as in some files of GloVe, but not
    in the first line. Raises `ValueError` if there is no such file, or a line has another form.
    """
    path = expand(name)
    check(path.is_file(), f"augment.vectors={name!r}: there is no such file")
    words, rows = [], []
    for where, fields in _lines(path):
        check(len(fields) >= 2, f"{where} must be a word and its numbers, got {' '.join(fields)[:80]!r}")
        size = len(rows[0]) if rows else len(fields) - 1
        inner = [field for field in fields[1:-size] if _is_number(field)]
        check(
            len(fields) > size and not inner,
            f"{where} has {len(inner) + min(size, len(fields) - 1)} numbers, and the lines before it {size}",
        )
        fields = [" ".join(fields[:-size]), *fields[-size:]]
        try:
            rows.append(np.array(fields[1:], np.float32))
        except ValueError as error:
            raise ValueError(f"{where} must be a word and its numbers: {error}") from None
        check(bool(np.isfinite(rows[-1]).all()), f"{where} has a number that is not finite")
        words.append(fields[0])
    check(len(words) >= 2, f"{shown(path)} must have at least two words, got {len(words)}")
    return WordVectors(words, np.stack(rows))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The place and the fields of each line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{shown(path)}, line {number}"
            try:
                fields = line.decode("utf-8-sig").rstrip().split(" ")
            except UnicodeDecodeError as error:
                raise ValueError(f"{where} is not valid UTF-8: {error}") from None
            if not (number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields)):
                yield where, fields


def write_vectors(path: str | Path, tokenizer: Tokenizer, table: np.ndarray) -> int:
    """Write the token embeddings of a model as word vectors, of all tokens that are whole words of letters.

    >>> model = mg.from_pretrained(NAME)
    >>> mg.data.write_vectors("vectors.txt", mg.load_tokenizer(NAME), model.embedding[...])

    Args:
        path: the file, for `AugmentConfig.vectors`.
        tokenizer: of the model.
        table: embeddings [V, D] of the ids of the tokenizer.

    Returns:
        The number of words.

    Raises:
        ValueError: the table is not of this tokenizer, or fewer than two tokens are words.
    """
    table = np.asarray(table, np.float32)
    check(
        table.ndim == 2 and len(table) >= tokenizer.vocab_size,
        f"table must be [V, D] with V of at least {tokenizer.vocab_size}, the ids of the tokenizer, got {table.shape}",
    )
    lines: dict[str, str] = {}
    for number in range(tokenizer.vocab_size):
        word = tokenizer.decode([number]).strip()
        if word.isalpha() and [number] in (list(tokenizer.encode(f" {word}")), list(tokenizer.encode(word))):
            lines[word] = " ".join([word, *(f"{value:.6g}" for value in table[number].tolist())])
    check(len(lines) >= 2, f"only {len(lines)} tokens of the tokenizer are whole words")
    replace_file(Path(path), "".join(f"{line}\n" for line in lines.values()))
    return len(lines)
