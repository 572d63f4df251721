"""Is a sentence true of a scene of three boxes of objects: generated statements, and sentences of people (NLVR)."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from memgpt_jax.config.checks import at_least, check, check_positive
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.features import VectorsConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.corpora.sources import SPLITS, expand
from memgpt_jax.data.drawn_statements import LONGEST, WORDS, drawn_rows
from memgpt_jax.data.examples.nlvr import LABELS, Sentence, read_nlvr
from memgpt_jax.data.scenes import BOXES, COLOURS, FEATURES, NAMES, SCATTERED, Scenes, edges_of, joined, num_edges
from memgpt_jax.data.tasks.base import Task, digest
from memgpt_jax.data.tasks.shapes import ShapesLabelsConfig
from memgpt_jax.data.tokenizers.base import Tokenizer

FOLDS = 5
UNKNOWN = 1
"""The id of words that are not in the vocabulary; 0 is that of boxes and objects."""
VALID_EVERY = 10
"""Every tenth of the sentences that are not in the test fold is a validation sentence."""


@dataclass(frozen=True, kw_only=True)
class ScenesConfig(TaskConfig):
    """Is a sentence true of a scene of three boxes of objects: "there is exactly one tower with a blue block on top".

    A row is the words, a token for each box, and one for each object. Generated statements are endless: each statement
    and each scene occurs as often with the answer true as with false. With `path`, batches of training also have
    sentences of NLVR (Suhr et al., 2017), and those of the other splits no others.
    """

    path: str | None = None
    """File of sentences of NLVR with the objects of their scenes, .jsonl, perhaps with .gz; default: generated
    statements alone. `~` and `$VARIABLES` are expanded."""
    fold: int = at_least(0, default=0)
    """Which fifth of the sentences of `path` is the test split. All scenes of equal words are in one split."""
    generated: float = 0.5
    """Fraction of generated statements in the training batches with `path`."""
    most_words: int = 24
    """Maximum number of words of a sentence."""
    length: int = 40
    """Maximum number of tokens of a row: the words of a sentence, three boxes, and the objects of its scene."""
    words: tuple[str, ...] = ()
    """The vocabulary; default: the words of generated statements, and those of at least two training sentences."""
    token_types: bool = False
    """Whether batches have token types: 0 for words, 1 for boxes and objects."""
    edges: bool = False
    """Whether batches have the edges of a graph of words, boxes and objects: `memgpt_jax.data.scenes.EDGES`."""

    def __post_init__(self) -> None:
        check_positive(self)
        check(not isinstance(self.words, str), f"data.words must be a list, got {self.words!r}")
        object.__setattr__(self, "words", tuple(self.words))  # a list is also accepted
        most = self.most_words
        check(most >= LONGEST, f"data.most_words must be at least {LONGEST}, the longest statement, got {most}")
        longest = LONGEST + BOXES + SCATTERED
        check(self.length >= longest, f"data.length must be at least {longest}, got {self.length}")
        check(self.fold < FOLDS, f"data.fold must be from 0 to {FOLDS - 1}, got {self.fold}")
        check(
            not self.words or {*WORDS} <= {*self.words},
            f"data.words must have the words of generated statements; missing: {', '.join({*WORDS} - {*self.words})}",
        )
        check(0 <= self.generated <= 1, f"data.generated must be from 0 to 1, got {self.generated}")

    @property
    def objective(self) -> ShapesLabelsConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Predict the answer at the last token."""
        further = tuple(name for name in ("token_types", "edges") if getattr(self, name))
        return ShapesLabelsConfig(layout=self.features_config.layout, further=further)

    @property
    def features_config(self) -> VectorsConfig:
        """The features of boxes and objects."""
        return VectorsConfig(size=FEATURES)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The answers."""
        return LABELS

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The words that have ids, from 2 on."""
        return self.words or WORDS

    @property
    def num_ids(self) -> int:
        """The ids of boxes and objects, of unknown words, and of the words."""
        return 2 + len(self.vocabulary)

    @property
    def row_length(self) -> int:
        """`length`."""
        return self.length

    def completed(self) -> Self:
        """The configuration with `words` filled in from the training split."""
        if self.words or self.path is None:
            return self
        found = Counter(word for sentence in read_split(self, "train")[0] for word in set(sentence.words))
        new = sorted(word for word, number in found.items() if number >= 2 and word not in WORDS)
        return dataclasses.replace(self, words=(*WORDS, *new))


def read_split(config: ScenesConfig, split: str) -> tuple[list[Sentence], Scenes]:
    """The sentences of a split and their scenes.

    Sentences are numbered in the order of their first scene; test sentences are those of number i with i mod 5 =
    `fold`, and of the others every tenth is a validation sentence.

    Raises `ValueError` if the file is not valid, a sentence has too many words, or there is no such split.
    """
    check(split in SPLITS, f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    sentences, scenes = read_nlvr(expand(config.path or ""))
    for sentence, objects in zip(sentences, scenes.present.sum(axis=(1, 2)).tolist(), strict=True):
        words, most, where = len(sentence.words), config.most_words, sentence.where
        check(words <= most, f"{where}: the sentence has {words} words, data.most_words is {most}")
        tokens = words + BOXES + objects
        check(tokens <= config.length, f"{where}: the row has {tokens} tokens, data.length is {config.length}")
    numbers: dict[tuple[str, ...], int] = {}  # NLVR has equal sentences of several identifiers
    place = np.array([numbers.setdefault(sentence.words, len(numbers)) for sentence in sentences])
    is_test, rank = place % FOLDS == config.fold, place - (place + FOLDS - 1 - config.fold) // FOLDS
    is_valid = ~is_test & (rank % VALID_EVERY == VALID_EVERY - 1)
    kept = np.flatnonzero({"test": is_test, "valid": is_valid, "train": ~is_test & ~is_valid}[split])
    check(len(kept) > 0, f"the split {split!r} of {config.path!r} has no sentences")
    return [sentences[i] for i in kept], scenes.at(kept)


class Rows(NamedTuple):
    """N sentences with their scenes and labels."""

    ids: np.ndarray
    """[N, W] the ids of words; 0 fills up."""
    lengths: np.ndarray
    """[N] words."""
    scenes: Scenes
    labels: np.ndarray
    """[N] numbers in `LABELS`."""

    def at(self, rows: np.ndarray) -> "Rows":
        """The rows of these numbers."""
        return Rows(self.ids[rows], self.lengths[rows], self.scenes.at(rows), self.labels[rows])

    def followed_by(self, other: "Rows") -> "Rows":
        """These rows and others after them."""
        ids, lengths, labels = (
            np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("ids", "lengths", "labels")
        )
        return Rows(ids, lengths, joined(self.scenes, other.scenes), labels)


class ScenesTask(Task[ScenesConfig]):
    """Sentences about scenes. With `path`, an evaluation has each sentence of the split once."""

    def __init__(self, config: ScenesConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if the sentences are not valid."""
        super().__init__(config.completed(), split, tokenizer)
        self.trains, self.known = split == "train", None
        self.id_of = {word: number for number, word in enumerate(self.config.vocabulary, start=2)}
        if self.config.path is not None:
            sentences, scenes = read_split(self.config, split)
            self.known = self.rows(
                [sentence.words for sentence in sentences], scenes, np.array([s.label for s in sentences])
            )
            self.content = digest(*((s.words, s.label) for s in sentences), *(array.tolist() for array in scenes))

    def rows(self, words: Sequence[Sequence[str]], scenes: Scenes, labels: np.ndarray) -> Rows:
        """Sentences with their scenes and labels."""
        ids = np.zeros((len(words), self.config.most_words), np.int32)
        for row, sentence in enumerate(words):
            ids[row, : len(sentence)] = [self.id_of.get(word, UNKNOWN) for word in sentence]
        return Rows(ids, np.array([len(sentence) for sentence in words]), scenes, labels)

    @classmethod
    def shapes(cls, config: ScenesConfig, rows: int, length: int) -> Batch:
        shape = (rows, config.row_length)
        inputs: dict[str, Any] = dict.fromkeys(("reset", "valid"), (shape, bool))
        inputs |= {"tokens": (shape, np.int32), "features": ((*shape, FEATURES), np.float32)}
        if config.token_types:
            inputs["token_types"] = (shape, np.int32)
        if config.edges:
            inputs["edges"] = ((rows, num_edges(config.most_words), 3), np.int32)
        return zeros(inputs, {"labels": shape})

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        """A batch as in `Task.batch`, whose targets are the labels, numbers of `ScenesConfig.output_names`.

        With `path`, sentences of the split; in training also generated statements, and sentences are `changed`.
        """
        rng = np.random.default_rng(rng)
        share = 1.0 if self.known is None else self.config.generated * self.trains
        number = round(share * batch_size)
        drawn = drawn_rows(rng, number)
        rows = self.rows([statement.text.split() for statement in drawn.statements], drawn.scenes, drawn.labels)
        if self.known is not None:
            chosen = self.known.at(rng.integers(len(self.known.ids), size=batch_size - number))
            rows = rows.followed_by(self.changed(rng, chosen) if self.trains else chosen)
        return self.arrays(rows)

    def changed(self, rng: np.random.Generator, rows: Rows) -> Rows:
        """The rows with boxes in random order, and other colours in sentence and scene alike, which keep the labels."""
        number = len(rows.ids)
        boxes, colours = (rng.permuted(np.broadcast_to(np.arange(3), (number, 3)), axis=1) for _ in range(2))
        of_colours = np.array([self.id_of[name] for name in COLOURS])
        ids = np.where(rows.ids[..., None] == of_colours, of_colours[colours][:, None], 0).sum(axis=-1)
        return rows._replace(ids=np.where(ids > 0, ids, rows.ids), scenes=rows.scenes.changed(boxes, colours))

    def held_out(
        self, rng: np.random.Generator | int, batch_size: int, length: int, num_batches: int
    ) -> Iterator[Batch]:
        """With `path`, all sentences of the split in their order; the last rows of the last batch may have weight 0."""
        if self.known is None:
            yield from super().held_out(rng, batch_size, length, num_batches)
            return
        number = len(self.known.ids)
        for start in range(0, number, batch_size):
            places = np.arange(start, start + batch_size)
            batch = self.arrays(self.known.at(places % number))
            batch.weights["labels"][places >= number] = 0
            yield batch

    def arrays(self, rows: Rows) -> Batch:
        """The batch of some rows."""
        number, length = len(rows.ids), self.config.length
        shape = (number, length)
        filled = [rows.ids > 0, np.ones((number, BOXES), bool), rows.scenes.present.reshape(number, -1)]
        row, column = np.nonzero(np.concatenate(filled, axis=1))
        ends = np.bincount(row, minlength=number)
        place = np.arange(len(row)) - np.repeat(np.cumsum(ends) - ends, ends)
        blank = np.zeros((number, rows.ids.shape[1], FEATURES), np.float32)
        boxes, objects = rows.scenes.features
        tokens, types = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        features = np.zeros((*shape, FEATURES), np.float32)
        everything = np.concatenate([blank, boxes, objects.reshape(number, -1, FEATURES)], axis=1)
        features[row, place] = everything[row, column]
        tokens[row, place] = np.pad(rows.ids, ((0, 0), (0, everything.shape[1] - blank.shape[1])))[row, column]
        types[row, place] = column >= blank.shape[1]
        valid = np.arange(length) < ends[:, None]
        reset = np.zeros(shape, bool)
        reset[:, 0] = True
        inputs = {"tokens": tokens, "reset": reset, "valid": valid, "features": features}
        if self.config.token_types:
            inputs["token_types"] = types
        if self.config.edges:
            names = np.array([-1, -1, *(NAMES.get(word, -1) for word in self.config.vocabulary)])
            inputs["edges"] = edges_of(rows.scenes, rows.lengths, names[rows.ids])
        targets, weights = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
        targets[np.arange(number), ends - 1] = rows.labels
        weights[np.arange(number), ends - 1] = 1
        return Batch(inputs, {"labels": targets}, {"labels": weights}, {})
