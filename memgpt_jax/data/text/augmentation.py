"""Random changes of words in training (EDA, Wei and Zou 2019): substitution, insertion, swap, deletion."""

import re
from collections.abc import Sequence

import numpy as np

from memgpt_jax.config.texts import AugmentConfig
from memgpt_jax.data.text.vectors import read_vectors

ENTITY = re.compile(r"[BIELSU]-")
"""The beginning of the tags of entities that have positions: the words stay together, in their order."""
CORE = re.compile(r"\w(?:.*\w)?", re.DOTALL)


class Augmentation:
    """The changes of an `AugmentConfig`, which depend on a random generator alone."""

    def __init__(self, config: AugmentConfig):
        """Raises `ValueError` if the file of word vectors is not valid."""
        self.config = config
        self.vectors = None if config.vectors is None else read_vectors(config.vectors)

    @property
    def content(self) -> tuple[object, ...]:
        """What determines the changes beside the configuration: the word vectors."""
        return () if self.vectors is None else (self.vectors.fingerprint,)

    def text(self, text: str, rng: np.random.Generator) -> str:
        """The changed text: its words, joined by spaces; the text itself if no word has changed."""
        words = text.split()
        changed, _ = self.words(words, [""] * len(words), rng)
        return text if changed == words else " ".join(changed)

    def words(self, words: Sequence[str], tags: Sequence[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
        """The changed words and the tag of each.

        Words with tags such as `B-person` are not moved, deleted, inserted or parted; with any other tag, the tag goes
        with its word.
        """
        pairs = list(zip(words, tags, strict=True))
        for rate, step in (
            (self.config.substitute, self._substitute),
            (self.config.insert, self._insert),
            (self.config.swap, _swap),
            (self.config.delete, _delete),
        ):
            if rate > 0 and pairs:
                pairs = step(pairs, rate, rng)
        return [word for word, _ in pairs], [tag for _, tag in pairs]

    def _substitute(self, pairs: "Pairs", rate: float, rng: np.random.Generator) -> "Pairs":
        drawn = rng.random(len(pairs)) < rate
        likes = [self._like(word, rng) if hit else None for (word, _), hit in _with(pairs, drawn)]
        return [(like or word, tag) for like, (word, tag) in zip(likes, pairs, strict=True)]

    def _insert(self, pairs: "Pairs", rate: float, rng: np.random.Generator) -> "Pairs":
        result: Pairs = []
        sources = [pair for pair in pairs if _moves(pair[1])]
        drawn = rng.random(len(pairs)) < rate
        for (word, tag), hit in _with(pairs, drawn):
            result.append((word, tag))
            if hit and _moves(tag):
                source, own = sources[rng.integers(len(sources))]
                result.append((self._like(source, rng) or source, own))
        return result

    def _like(self, word: str, rng: np.random.Generator) -> str | None:
        """A similar word, with the punctuation and the capital letter of the word; None: there is none."""
        core = CORE.search(word)
        if self.vectors is None or core is None:
            return None
        others = self.vectors.nearest(core[0], self.config.neighbours)
        if not others:
            return None
        other = others[rng.integers(len(others))]
        other = other[:1].upper() + other[1:] if core[0][0].isupper() else other
        return word[: core.start()] + other + word[core.end() :]


Pairs = list[tuple[str, str]]
"""Words, each with its tag."""


def _moves(tag: str) -> bool:
    return ENTITY.match(tag) is None


def _with(pairs: Pairs, drawn: np.ndarray) -> zip:
    return zip(pairs, drawn.tolist(), strict=True)


def _swap(pairs: Pairs, rate: float, rng: np.random.Generator) -> Pairs:
    """Each word, if drawn, is exchanged with the next one."""
    pairs, drawn = list(pairs), rng.random(len(pairs)) < rate
    for place in np.flatnonzero(drawn[:-1]):
        if _moves(pairs[place][1]) and _moves(pairs[place + 1][1]):
            pairs[place], pairs[place + 1] = pairs[place + 1], pairs[place]
    return pairs


def _delete(pairs: Pairs, rate: float, rng: np.random.Generator) -> Pairs:
    drawn = rng.random(len(pairs)) < rate
    kept = [pair for pair, hit in _with(pairs, drawn) if not (hit and _moves(pair[1]))]
    return kept or [pairs[rng.integers(len(pairs))]]
