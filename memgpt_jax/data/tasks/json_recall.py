"""Key-value retrieval in JSON, as in Liu et al., 2023, "Lost in the Middle: How Language Models Use Long Contexts".

A row is the object `{"k": "v", ...}` and the questions `\\n"k": "v"`; each character is a token. An answer is right
if every character of the value is predicted, each with the right characters before it as input.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from memgpt_jax.config.checks import check, check_types
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.corpora.reading import DEFAULT, read_tables
from memgpt_jax.data.corpora.sources import expand
from memgpt_jax.data.tasks.base import Task, scored_rows
from memgpt_jax.data.tokenizers.base import Tokenizer

JSON_CHARACTERS = '\n {}":,-0123456789abcdef'
"""The characters of a JSON object of hexadecimal strings; the index of a character is its id."""


@dataclass(frozen=True, kw_only=True)
class JsonRecallConfig(TaskConfig):
    """Key-value retrieval in JSON (Liu et al., 2023, "Lost in the Middle") with one token per character: an object of
    random hexadecimal keys and values, then keys whose values must be recalled."""

    length_fields: ClassVar[tuple[str, ...]] = ("num_pairs",)

    num_pairs: int = 8
    """Number of key-value pairs of the object."""
    key_length: int = 4
    """Number of characters of a key."""
    value_length: int = 4
    """Number of characters of a value."""
    num_questions: int = 4
    """Number of keys queried after the object, each followed by its value; at most `num_pairs`."""
    path: str | None = None
    """A published file to evaluate on, `.jsonl` or `.jsonl.gz` with `ordered_kv_records`, `key` and `value` (36
    characters each), instead of generated objects. Training always uses generated objects."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("num_pairs", "key_length", "value_length", "num_questions"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        check(
            self.num_questions <= self.num_pairs <= 16**self.key_length,
            f"num_questions={self.num_questions} must be at most num_pairs={self.num_pairs}, and that at most "
            f"16 ** key_length={self.key_length}",
        )

    @property
    def num_ids(self) -> int:
        """Characters of JSON."""
        return len(JSON_CHARACTERS)

    @property
    def row_length(self) -> int:
        """Object and questions, `{"k": "v", "k": "v"}` and `\n"k": "v"` each, padded to a multiple of 64."""
        pair = self.key_length + self.value_length
        return 64 * -(-((8 + pair) * self.num_pairs + (7 + pair) * self.num_questions) // 64)


Pairs = list[tuple[str, str]]
"""Keys and values."""


class Record(NamedTuple):
    """The pairs of a row, and the question of the file."""

    pairs: Pairs
    asked: int
    """Index of the queried pair."""


DIGITS = np.array(list("0123456789abcdef"))


class JsonRecallTask(Task[JsonRecallConfig]):
    """Generated objects; evaluations use those of a published file if one is given."""

    def __init__(self, config: JsonRecallConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if the file has another format, or its objects do not fit the config."""
        super().__init__(config, split, tokenizer)
        self.records = None if config.path is None or split == "train" else read_records(config)

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        """`Task.batch`, generated; `answer` [B, L] numbers the questions of a row from 1."""
        rng, config = np.random.default_rng(rng), self.config
        rows = []
        for _ in range(batch_size):
            keys = random_keys(rng, config.num_pairs, config.key_length)
            values = rng.choice(DIGITS, (config.num_pairs, config.value_length))
            pairs = [("".join(key), "".join(value)) for key, value in zip(keys, values, strict=True)]
            rows.append((pairs, rng.permutation(config.num_pairs)[: config.num_questions]))
        return self._rows(rows, batch_size)

    def held_out(
        self, rng: np.random.Generator | int, batch_size: int, length: int, num_batches: int
    ) -> Iterator[Batch]:
        """`num_batches` of generated rows, or each object of the file once; the last batch is filled with padding.

        Of an object in the file, a row contains the queried pair and the first other pairs, `num_pairs` in total, in
        the order of the file. The first question is the file's; the others are about random other pairs.
        """
        if self.records is None:
            yield from super().held_out(rng, batch_size, length, num_batches)
            return
        rng, config = np.random.default_rng(rng), self.config
        for first in range(0, len(self.records), batch_size):
            rows = []
            for pairs, asked in self.records[first : first + batch_size]:
                others = rng.permutation(np.delete(np.arange(config.num_pairs), asked))
                rows.append((pairs, np.array([asked, *others])[: config.num_questions]))
            yield self._rows(rows, batch_size)

    def _rows(self, rows: list[tuple[Pairs, np.ndarray]], batch_size: int) -> Batch:
        config = self.config
        ids = np.zeros(128, np.int32)
        ids[[ord(character) for character in JSON_CHARACTERS]] = np.arange(len(JSON_CHARACTERS))
        tokens = np.zeros((batch_size, config.row_length + 1), np.int32)
        answer = np.zeros((batch_size, config.row_length + 1), np.int32)
        for i, (pairs, asked) in enumerate(rows):
            questions = [f'\n"{pairs[number][0]}": "{pairs[number][1]}"' for number in asked]
            text = json.dumps(dict(pairs)) + "".join(questions)
            tokens[i, : len(text)] = ids[np.frombuffer(text.encode(), np.uint8)]
            end = len(text) - sum(map(len, questions))
            for number, question in enumerate(questions, start=1):
                end += len(question)
                answer[i, end - 1 - config.value_length : end - 1] = number
        return scored_rows(tokens, answer[:, 1:] > 0, answer=answer[:, 1:])


def random_keys(rng: np.random.Generator, number: int, length: int) -> np.ndarray:
    """[number, length] hexadecimal digits, with distinct rows: their first eight digits differ."""
    first = min(length, 8)
    codes = rng.choice(16**first, number, replace=False)
    digits = codes[:, None] // 16 ** np.arange(first) % 16
    return DIGITS[np.concatenate([digits, rng.integers(16, size=(number, length - first))], axis=1)]


def read_records(config: JsonRecallConfig) -> list[Record]:
    """The record of each line of the file. Raises `ValueError`, which names the line, if one is not valid."""
    assert config.path is not None
    path, records = expand(config.path), []
    if not os.path.isfile(path):
        raise ValueError(f"data.path={config.path!r} must be a .jsonl or .jsonl.gz file of key-value records")
    for where, record in read_tables(path, "jsonl", DEFAULT):
        try:
            pairs = [(str(key), str(value)) for key, value in record["ordered_kv_records"]]
            asked = pairs.index((record["key"], record["value"]))
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"{where} must be a JSON object with ordered_kv_records, a list of [key, value], and one of these as "
                "key and value"
            ) from None
        if len(pairs) < config.num_pairs or len(dict(pairs)) < len(pairs):
            raise ValueError(
                f"{where} holds {len(pairs)} pairs with {len(dict(pairs))} distinct keys; it needs distinct keys, "
                f"at least data.num_pairs={config.num_pairs}"
            )
        place = min(asked, config.num_pairs - 1)
        pairs = [*pairs[:place], pairs[asked], *pairs[place + 1 : config.num_pairs]]
        lengths = {(len(key), len(value)) for key, value in pairs}
        if lengths != {(config.key_length, config.value_length)}:
            raise ValueError(
                f"{where} holds keys and values of {sorted(lengths)} characters, not of data.key_length="
                f"{config.key_length} and data.value_length={config.value_length}: set these"
            )
        if not set("".join(key + value for key, value in pairs)) <= set(JSON_CHARACTERS):
            raise ValueError(f"{where} holds characters other than {JSON_CHARACTERS!r}")
        records.append(Record(pairs, place))
    return records
