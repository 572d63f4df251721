"""Words with a tag each: named entities, slots, parts of speech."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.texts import AugmentConfig, CleanConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.examples.files import ExamplesConfig, LabelsConfig, read_split
from memgpt_jax.data.examples.records import Record, as_labels
from memgpt_jax.data.examples.rows import packed_rows
from memgpt_jax.data.tasks.base import digest
from memgpt_jax.data.tasks.examples import ExamplesTask
from memgpt_jax.data.text import Augmentation, clean_words
from memgpt_jax.data.text.cleaning import check_words
from memgpt_jax.data.tokenizers.base import Tokenizer

CONTEXT = ""
"""The tag of words that are read as context, without a target."""


@dataclass(frozen=True, kw_only=True)
class TaggedTextConfig(ExamplesConfig):
    """Predict the tag of each word, from CoNLL files, dialogues, or tables with lists of words and tags.

    A word with the empty tag is context: it is read, but its tag is neither learned nor scored.
    """

    text_column: str = "words"
    """The column that holds the list of words."""
    tag_column: str = "column1"
    """The column that holds the list of tags; in `conll` files `column1` is the one after the word, in `sgd` files
    it is `slots`."""
    tags: tuple[str, ...] = ()
    """The tags, in the order of their numbers; default: those of the training split, sorted."""
    document: Literal["record", "file"] = "record"
    """What is read with one memory: a record (a sentence of a `conll` file), or all records of a file."""
    case_as_token_type: bool = False
    """Give the case of each word as token type, 1 for words with a capital letter: for uncased tokenizers. Needs an
    encoder with at least two token types."""
    tag_token: Literal["first", "last"] = "last"
    """The token of a word at which its tag is predicted: the last one, where a causal model has read the whole word, or
    the first one, as in taggers of the transformers library."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """How each word is cleaned, in all splits, and by the pipelines of the run; words are not removed."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How words of training documents are changed at random, anew in every epoch. Words with tags such as `B-person`
    are replaced at most."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """`text`: a text, whose words are found; `text_column` holds lists of words."""
        return ("text",)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "tags", as_labels(self.tags, "data.tags"))
        check_words(self.clean)
        check(
            self.form != "sgd" or not self.augment.is_on,
            "data.augment would change who speaks in dialogues, data.form='sgd': leave it off",
        )
        check(
            not (self.clean.lower and self.case_as_token_type),
            "data.clean.lower=True removes the case that data.case_as_token_type=True gives: choose one",
        )

    @property
    def objective(self) -> LabelsConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Predict the label of each word."""
        return LabelsConfig(of_words=True, token_types=self.case_as_token_type)

    def completed(self) -> Self:
        """The configuration with `tags` filled in from the training split."""
        if self.tags:
            return self
        found = {tag for record in self.records("train") for tag in self.tags_of(record)} - {CONTEXT}
        check(len(found) >= 2, f"the training split of {self.train!r} has only the tag {', '.join(found)}")
        return replace(self, tags=tuple(sorted(found)))

    def records(self, split: str) -> list[Record]:
        """The documents of a split."""
        return read_split(self, split, self._joined if self.document == "file" else None)

    def tags_of(self, record: Record) -> list[str]:
        """The tags of a document, without spaces around them. Raises `ValueError` if they are not a list of texts."""
        return [tag.strip() for tag in record.texts(self.tag_column)]

    def words_and_tags(self, record: Record) -> tuple[list[str], list[str]]:
        """The words of a record and as many tags. Raises `ValueError` if their numbers differ."""
        words, tags = record.texts(self.text_column), self.tags_of(record)
        check(len(words) == len(tags), f"{record.where}: {len(words)} words and {len(tags)} tags")
        return words, tags

    def _joined(self, records: list[Record]) -> Record:
        words, tags = zip(*map(self.words_and_tags, records), strict=True)
        values = {self.text_column: list(chain(*words)), self.tag_column: list(chain(*tags))}
        return replace(records[0], values=values)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The tags."""
        return self.tags


class TaggedExample(NamedTuple):
    """One document."""

    where: str
    """File and line of its first word."""
    words: list[str]
    """The words after cleaning; they may be empty."""
    tags: list[str]
    """The tags of the words; `CONTEXT`: the word has none."""

    @property
    def tagged(self) -> np.ndarray:
        """[words] whether a word has a tag."""
        return np.array([tag != CONTEXT for tag in self.tags])


class TaggedTextTask(ExamplesTask[TaggedTextConfig]):
    """The documents of one split, tokenized."""

    evaluation = "tags"

    def __init__(self, config: TaggedTextConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if words and tags of a record do not fit, or there is no tokenizer."""
        super().__init__(config, split, tokenizer)
        self.examples = [self._example(record) for record in self.config.records(split)]
        on = split == "train" and self.config.augment.is_on
        self.augmentation = Augmentation(self.config.augment) if on else None
        """The changes of the words of the training split; None: there are none."""
        changes = () if self.augmentation is None else self.augmentation.content
        self.content = digest(*((example.words, example.tags) for example in self.examples), *changes)
        self.encoded = [
            encode_words(self.tokenizer, example.words, self.config.case_as_token_type) for example in self.examples
        ]

    @classmethod
    def training_texts(cls, config: TaggedTextConfig) -> list[str]:
        """The words of each document after cleaning, separated by spaces."""
        documents = [record.texts(config.text_column) for record in config.records("train")]
        return [" ".join(clean_words(words, config.clean)) for words in documents]

    def _example(self, record: Record) -> TaggedExample:
        words, tags = self.config.words_and_tags(record)
        check(bool(words), f"{record.where}: there are no words")
        check(any(tags), f"{record.where}: no word has a tag")
        for tag in tags:
            if tag not in self.config.tags and tag != CONTEXT:
                raise ValueError(
                    f"{record.where}: the tag {tag!r} is not one of those of the training split or of data.tags: "
                    f"{', '.join(self.config.tags[:20])}"
                )
        return TaggedExample(record.where, clean_words(words, self.config.clean), tags)

    def training_tokens(self, length: int) -> int:
        return sum(len(encoded.inputs["tokens"]) for encoded in self.encoded)

    def targets(self, index: int) -> np.ndarray:
        """The numbers of the tags of a document's words that have one, int32."""
        return self._numbers(self.examples[index].tags)

    def places(self, index: int) -> np.ndarray:
        """The indices of the tokens at which the tags of `targets` are predicted."""
        return self.encoded[index].tag_places(self.config.tag_token)[self.examples[index].tagged]

    def _numbers(self, tags: Sequence[str]) -> np.ndarray:
        return np.array([self.config.tags.index(tag) for tag in tags if tag != CONTEXT], np.int32)

    @classmethod
    def shapes(cls, config: TaggedTextConfig, rows: int, length: int) -> Batch:
        shape = (rows, length)
        inputs = {"tokens": (shape, np.int32), "reset": (shape, bool)}
        if config.case_as_token_type:
            inputs["token_types"] = (shape, np.int32)
        return zeros(inputs, {"labels": shape})

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: every document once in each epoch, in random order, packed into rows.

        A document longer than a row is cut into parts of at most L tokens, each a document of its own.
        """
        parts = [
            (index, first)
            for index, encoded in enumerate(self.encoded)
            for first in range(0, len(encoded.inputs["tokens"]), length)
        ]

        def row(part: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
            return self.row(*parts[part], length=length, rng=rng)

        augmented = None if self.augmentation is None else row
        return packed_rows(row, len(parts), seed, rows, length, augmented=augmented)

    def row(self, index: int, first: int, length: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """The arrays of at most `length` tokens of a document, from the token `first` on; the target -1 is no tag.

        Args:
            index: of the document.
            first: its first token, a multiple of `length`; if random changes leave fewer tokens, the last such token.
            length: tokens of the part.
            rng: of the random changes of the words of the document; default: none.
        """
        encoded, tags = self.encoded[index], self.examples[index].tags
        if rng is not None and self.augmentation is not None:
            words, tags = self.augmentation.words(self.examples[index].words, tags, rng)
            encoded = encode_words(self.tokenizer, words, self.config.case_as_token_type)
        number = len(encoded.inputs["tokens"])
        targets, weights = np.full(number, -1, np.int32), np.zeros(number, np.float32)
        places = encoded.tag_places(self.config.tag_token)[[tag != CONTEXT for tag in tags]]
        targets[places], weights[places] = self._numbers(tags), 1
        first = min(first, (number - 1) // length * length)
        part = slice(first, first + length)
        arrays = encoded.inputs | {"targets": targets, "weights": weights}
        return {name: array[part] for name, array in arrays.items()}


class EncodedWords(NamedTuple):
    """A document of words as tokens."""

    inputs: dict[str, np.ndarray]
    """`tokens` [n] int32, special tokens included, and perhaps `token_types` [n] int32."""
    places: np.ndarray
    """[words] index of the last token of each word."""

    def tag_places(self, token: Literal["first", "last"]) -> np.ndarray:
        """[words] index of the first, or of the last token of each word."""
        return self.places if token == "last" else np.array([0, *self.places], np.int64)[:-1] + 1


def encode_words(tokenizer: Tokenizer, words: Sequence[str], case_as_token_type: bool = False) -> EncodedWords:
    """The tokens of a document of words, separated by spaces; a word without tokens has those of U+FFFD.

    Args:
        tokenizer: the tokenizer.
        words: the words.
        case_as_token_type: whether to give token types: 1 for words with a capital letter, else 0.
    """
    end = [tokenizer.special_ids["sep"]] if "sep" in tokenizer.special_ids else []
    spaced = not words_need_no_space(tokenizer)
    ids, types, places = [tokenizer.start_id], [0], []
    for number, word in enumerate(words):
        space = " " if spaced and number else ""
        pieces = tokenizer.encode(space + word) or tokenizer.encode(space + "\N{REPLACEMENT CHARACTER}")
        ids += pieces
        types += [int(word != word.lower())] * len(pieces)
        places.append(len(ids) - 1)
    inputs = {"tokens": np.array([*ids, *end], np.int32)}
    if case_as_token_type:
        inputs["token_types"] = np.array([*types, *[0] * len(end)], np.int32)
    return EncodedWords(inputs, np.array(places, np.int64))


def words_need_no_space(tokenizer: Tokenizer) -> bool:
    """Whether the ids of words that are encoded one by one are those of the words joined by spaces."""
    return [*tokenizer.encode("ab"), *tokenizer.encode("cd")] == list(tokenizer.encode("ab cd"))
