"""Recommendation: what does a user choose next, and how does the user rate it?"""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from memgpt_jax.config.checks import check, check_literals, check_positive, check_statistics, set_tuples
from memgpt_jax.config.data import CausalConfig, Descriptions, ObjectiveConfig, TaskConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.corpora.sources import SPLITS, expand
from memgpt_jax.data.examples.files import NumbersConfig
from memgpt_jax.data.examples.ratings import (
    FIRST_ITEM,
    RARE,
    START,
    History,
    Rating,
    histories,
    item_ids,
    read_items,
    read_ratings,
)
from memgpt_jax.data.examples.rows import packed_rows
from memgpt_jax.data.tasks.base import FileTask, digest
from memgpt_jax.data.tokenizers.base import Tokenizer

MOST_LEVELS = 100
"""Maximum number of distinct ratings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatingsConfig(TaskConfig):
    """Histories of the items that users rated, in order of time, from a table with one rating in each record.

    A history is a document. Its last items are the test; for every `valid_every`-th user, the items before them are the
    validation; all other items are learned. The items before one that is asked for are always read.
    """

    path: str | None = None
    """File of the ratings: .csv, .tsv, .jsonl or .parquet. `~` and `$VARIABLES` are expanded."""
    ask: Literal["next", "rating"] = "next"
    """`next`: the next item, from the logits of a causal model. `rating`: the rating of an item, given the item and the
    rated items before it; needs a `HeadedConfig` with a `ScalarHeadConfig`."""
    user_column: str = "userId"
    """The column that names the user."""
    item_column: str = "movieId"
    """The column that names the item."""
    rating_column: str = "rating"
    """The column that holds the rating, a number."""
    time_column: str = "timestamp"
    """The column that holds the time, a number. At equal times, the item with the lower id is first."""
    min_ratings: int = 5
    """Items with fewer ratings are left out of the histories; with ask='rating' they share one id instead."""
    held_out: float = 10.0
    """Items of a split at the end of each history: from 1 on their number; below 1 the share of the history, at least
    one. Users with fewer than twice as many are left out."""
    valid_every: int = 5
    """Each user whose number (from 1, in order of their ids) is a multiple of this is in `valid`."""
    drop: float = 0.0
    """In training, each item of a history is left out with this probability, drawn anew in every epoch."""
    items_path: str | None = None
    """File of the items, one in each record, with the `item_column`: .csv, .tsv, .jsonl or .parquet. Items with common
    words, near numbers or users in common (in the training split) begin training with similar embeddings; it is not
    read again later. Needs the extra `tasks`. None: embeddings are drawn independently."""
    text_columns: tuple[str, ...] = ("genres",)
    """The columns of `items_path` with the words."""
    number_column: str | None = "title"
    """The column of `items_path` whose last whole number counts, such as the year in the titles of MovieLens."""
    num_items: int | None = None
    """Number of items with an id of their own; default: from the data."""
    levels: tuple[float, ...] = ()
    """The distinct ratings in ascending order; default: from the data."""
    mean: float | None = None
    """Mean of the ratings of the training split; default: from the data."""
    std: float | None = None
    """Their standard deviation; default: from the data."""

    def __post_init__(self) -> None:
        check_positive(self)
        check_literals(self)
        check(not isinstance(self.levels, str), f"data.levels must be a list of numbers, got {self.levels!r}")
        set_tuples(self, "levels", "text_columns")
        check(
            0 < self.held_out < 1 or (self.held_out >= 1 and self.held_out % 1 == 0),
            f"data.held_out must be a whole number from 1 on or between 0 and 1, got {self.held_out}",
        )
        check(0 <= self.drop < 1, f"data.drop must be in [0, 1), got {self.drop}")
        check_statistics(self.mean, self.std)
        check(self.valid_every >= 2, f"data.valid_every must be at least 2, got {self.valid_every}")

    @property
    def objective(self) -> ObjectiveConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Predict the next token, or a number at the tokens of items."""
        return CausalConfig() if self.ask == "next" else NumbersConfig(of_texts=False)

    @property
    def num_ids(self) -> int:
        """The start, the rare items, the items, and with ask='rating' the ratings."""
        return FIRST_ITEM + (self.num_items or 0) + (len(self.levels) if self.ask == "rating" else 0)

    @property
    def head_settings(self) -> dict[str, Any]:
        """With ask='rating': the mean and the standard deviation of the ratings."""
        known = self.ask == "rating" and self.mean is not None
        return {"mean": self.mean, "std": self.std} if known else {}

    def completed(self) -> Self:
        """The configuration with `num_items`, `levels`, `mean` and `std`, where they are not given, from the file."""
        if self.levels and None not in (self.num_items, self.mean, self.std):
            return self
        ratings = self.ratings()
        found = {rating.value for rating in ratings}
        unknown = sorted(found.difference(self.levels)) if self.levels else []
        check(not unknown, f"{self.path!r} holds the ratings {unknown[:5]}, which data.levels={self.levels} lacks")
        levels, items = self.levels or tuple(sorted(found)), len(item_ids(ratings, self.min_ratings))
        check(
            self.num_items is None or self.num_items >= items,
            f"{self.path!r} holds {items} items, data.num_items={self.num_items} is less",
        )
        check(
            len(levels) <= MOST_LEVELS,
            f"{self.path!r} holds {len(levels)} distinct ratings, at most {MOST_LEVELS} are possible: round them",
        )
        learned = [history.ratings[history.asked] for history in self.histories(ratings, "train")]
        check(bool(learned), f"{self.path!r} holds no user with twice the items of data.held_out={self.held_out}")
        values = np.concatenate(learned).astype(np.float64)
        return dataclasses.replace(
            self,
            num_items=items if self.num_items is None else self.num_items,
            levels=levels,
            mean=float(values.mean()) if self.mean is None else self.mean,
            std=float(values.std()) or 1.0 if self.std is None else self.std,
        )

    def ratings(self) -> list[Rating]:
        """`read_ratings` of the file. Raises `ValueError` if there is none."""
        check(self.path is not None, "data.path must name a file of ratings, got None")
        path = _file("data.path", self.path)
        return read_ratings(path, self.user_column, self.item_column, self.rating_column, self.time_column)

    def descriptions(self) -> Descriptions | None:
        """Of the items: the texts of `items_path`, the users who have rated them in training, and their numbers.

        None of the start, of rare items, and of items that the file lacks.
        """
        if self.items_path is None:
            return None
        path, none = _file("data.items_path", self.items_path), ("", math.nan)
        items = read_items(path, self.item_column, self.text_columns, self.number_column)
        ratings = self.ratings()
        ids = item_ids(ratings, self.min_ratings)
        texts, numbers = zip(*[none] * FIRST_ITEM, *(items.get(item, none) for item in ids), strict=True)
        users: list[list[str]] = [[] for _ in texts]
        for place, history in enumerate(self.histories(ratings, "train")):
            for item in history.items[history.asked]:
                users[item].append(str(place))
        users[RARE] = []
        return Descriptions((texts, tuple(map(" ".join, users))), np.array(numbers))

    def histories(self, ratings: list[Rating], split: str) -> list[History]:
        """The `histories` of a split."""
        return histories(
            ratings,
            item_ids(ratings, self.min_ratings),
            split,
            with_rare=self.ask == "rating",
            held_out=self.held_out,
            valid_every=self.valid_every,
        )


def _file(field: str, path: str | None) -> Path:
    """The file that a field names. Raises `ValueError` if there is none."""
    assert path is not None
    found = expand(path)
    check(found.is_file(), f"{field}: there is no file {path!r}")
    return found


class RatingsTask(FileTask[RatingsConfig]):
    """The histories of one split, as documents.

    With ask='next' a history is `START item item ...`, and the target of a token is the next item. With ask='rating' it
    is `item rating item rating ...`, and the target at an item is its rating.
    """

    config: RatingsConfig
    evaluation = "ranking"
    """With ask='rating': `numbers`."""

    def __init__(self, config: RatingsConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if the file is not valid, or the split asks for nothing."""
        check(split in SPLITS, f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        super().__init__(config.completed(), split, tokenizer)
        if config.ask == "rating":
            self.evaluation = "numbers"
        ratings = self.config.ratings()
        self.content = digest(ratings)
        self.histories = self.config.histories(ratings, split)
        check(
            bool(self.histories), f"split {split!r} of {config.path!r} asks for nothing: give a smaller data.held_out"
        )
        self.documents = [{"tokens": self._tokens(history)} for history in self.histories]
        """The tokens of each history, up to the last one that is asked for."""
        self.places = [history.asked * self._stride for history in self.histories]
        """The indices of the tokens with a target."""
        values = [history.items if config.ask == "next" else history.ratings for history in self.histories]
        self.targets = [value[history.asked] for value, history in zip(values, self.histories, strict=True)]
        """The targets at these tokens: ids, or ratings."""

    @property
    def _stride(self) -> int:
        """Tokens of an item."""
        return 1 if self.config.ask == "next" else 2

    @property
    def items(self) -> slice:
        """The ids of the items."""
        assert self.config.num_items is not None  # it is completed
        return slice(FIRST_ITEM, FIRST_ITEM + self.config.num_items)

    def _tokens(self, history: History) -> np.ndarray:
        if self.config.ask == "next":
            return np.concatenate([[START], history.items[:-1]]).astype(np.int32)
        levels = np.searchsorted(np.array(self.config.levels, np.float32), history.ratings)
        return np.stack([history.items, self.items.stop + levels], axis=1).reshape(-1)[:-1].astype(np.int32)

    @classmethod
    def shapes(cls, config: RatingsConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        shape, (head,) = (rows, length), config.objective.heads
        inputs = {"tokens": (shape, np.int32), "reset": (shape, bool)}
        return zeros(inputs, {head: shape}, target_type=np.int32 if config.ask == "next" else np.float32)

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: every history once in each epoch, in random order.

        A history of more than `length` tokens is divided; each part is a document of its own.
        """
        parts = [
            (index, first)
            for index, document in enumerate(self.documents)
            for first in range(0, len(document["tokens"]), length)
        ]
        (head,) = self.config.objective.heads

        def row(part: int) -> dict[str, np.ndarray]:
            return self.row(*parts[part], length)

        augmented = None if self.config.drop == 0 else lambda part, rng: self.dropped(row(part), rng)
        return packed_rows(row, len(parts), seed, rows, length, head=head, augmented=augmented)

    def row(self, index: int, first: int, length: int) -> dict[str, np.ndarray]:
        """The arrays of at most `length` tokens of a history from `first` on: `tokens`, `targets` and `weights`."""
        tokens, places, values = self.documents[index]["tokens"], self.places[index], self.targets[index]
        targets, weights = np.zeros(len(tokens), values.dtype), np.zeros(len(tokens), np.float32)
        targets[places], weights[places] = values, 1
        part = slice(first, first + length)
        return {"tokens": tokens[part], "targets": targets[part], "weights": weights[part]}

    def dropped(self, row: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A `row` without the items that are drawn with the probability `drop` each; one item always stays."""
        number = -(-len(row["tokens"]) // self._stride)
        kept = rng.random(number) >= self.config.drop
        kept[rng.integers(number)] |= not kept.any()
        found = {name: array[np.repeat(kept, self._stride)[: len(array)]] for name, array in row.items()}
        if self.config.ask == "next":  # a token is the target before it
            found["tokens"] = np.concatenate([row["tokens"][:1], found["targets"][:-1]])
        return found
