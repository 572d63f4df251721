"""Texts with a label: sentiment, topic, intent and whatever else people sort texts by."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.heads import TruncationSide
from memgpt_jax.config.texts import AugmentConfig, CleanConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.examples.files import CutTextsConfig, LabelsConfig, read_split
from memgpt_jax.data.examples.records import Record, as_labels
from memgpt_jax.data.examples.rows import packed_rows, sampled_rows
from memgpt_jax.data.tasks.base import digest, warn_of_absent_labels
from memgpt_jax.data.tasks.examples import ExamplesTask
from memgpt_jax.data.text import Augmentation, clean
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class LabelledTextConfig(CutTextsConfig):
    """Predict the label of a text of any length, from a file with a text and a label in each record.

    A training row holds whole texts, one after the other, and the label is the target at the last token of its text.
    """

    objective: ClassVar[LabelsConfig] = LabelsConfig()

    more_columns: tuple[str, ...] = ()
    """Columns whose texts follow that of `text_column`, each after a space; a column may hold a list of texts."""
    label_column: str = "label"
    """The column that holds the label: a string, a number or a truth value."""
    labels: tuple[str, ...] = ()
    """The labels, in the order of their numbers; default: those of the training split, sorted as strings. A label of
    another split that is not among them is refused."""
    ask_every: int | None = None
    """Number of tokens between training targets of the label, so that the model learns to answer early. Default: one
    target, at the last token."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """How texts are cleaned, in all splits, and by the pipelines of the run."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How words of training texts are changed at random, anew in every epoch."""
    sample_rows: int | None = None
    """Draw each text for each batch with the probability `sample_rows` / texts (Poisson sampling), one text a row, as
    private training needs. `training.batch_size` rows is the most; choose it larger by a quarter, so that texts are
    rarely left out. Default: every text once in each epoch, several in a row."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """`text_column` and `more_columns`."""
        return super().input_columns + self.more_columns

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            not isinstance(self.more_columns, str),
            f"data.more_columns must be a list of columns, got {self.more_columns!r}",
        )
        object.__setattr__(self, "more_columns", tuple(self.more_columns))  # a list is also accepted
        object.__setattr__(self, "labels", as_labels(self.labels, "data.labels"))

    def completed(self) -> Self:
        """The configuration with `labels` filled in from the training split."""
        if self.labels:
            return self
        found = {label for record in read_split(self, "train") for label in self.labels_of(record)}
        check(len(found) >= 2, f"the training split of {self.train!r} has only the label {', '.join(found)}")
        return replace(self, labels=tuple(sorted(found)))

    def labels_of(self, record: Record) -> list[str]:
        """The labels of a record: here one. Raises `ValueError` if it is missing or has another type."""
        return [record.label(self.label_column)]

    @property
    def output_names(self) -> tuple[str, ...]:
        """The labels."""
        return self.labels


class LabelledExample(NamedTuple):
    """One text."""

    where: str
    """File and line."""
    text: str
    """The text after cleaning; it may be empty."""
    labels: tuple[int, ...]
    """The numbers of its labels in `LabelledTextConfig.labels`, ascending; one number, if a text has one label."""

    @property
    def label(self) -> int:
        """The number of its only label."""
        (number,) = self.labels
        return number


class LabelledTextTask(ExamplesTask[LabelledTextConfig]):
    """The texts of one split, tokenized."""

    evaluation = "labels"

    def __init__(self, config: LabelledTextConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if a record has no text or an unknown label, or there is no tokenizer."""
        super().__init__(config, split, tokenizer)
        self.examples = [self._example(record) for record in read_split(self.config, split)]
        present = {self.config.labels[number] for example in self.examples for number in example.labels}
        warn_of_absent_labels(self.config, split, present)
        on = split == "train" and self.config.augment.is_on
        self.augmentation = Augmentation(self.config.augment) if on else None
        """The changes of the texts of the training split; None: there are none."""
        changes = () if self.augmentation is None else self.augmentation.content
        pairs = ((example.text, self.target(index).tolist()) for index, example in enumerate(self.examples))
        self.content = digest(*pairs, *changes)
        self.ids = [self._document_ids(example.text) for example in self.examples]
        """Token ids of each text, special tokens included."""

    @property
    def documents(self) -> Sequence[dict[str, np.ndarray]]:
        """`tokens` [n] of each text."""
        return [{"tokens": ids} for ids in self.ids]

    @classmethod
    def training_texts(cls, config: LabelledTextConfig) -> list[str]:
        """The texts after cleaning."""
        return [_text(config, record) for record in read_split(config, "train")]

    def _example(self, record: Record) -> LabelledExample:
        known, text = self.config.labels, _text(self.config, record)
        labels = sorted(set(self.config.labels_of(record)))
        for label in labels:
            if label not in known:
                raise ValueError(
                    f"{record.where}: the label {label!r} is not one of the {len(known)} labels of the training split "
                    f"or of data.labels: {', '.join(known[:20])}"
                )
        return LabelledExample(record.where, text, tuple(sorted(map(known.index, labels))))

    def _document_ids(self, text: str) -> np.ndarray:
        return document_ids(self.tokenizer, text, self.config.max_length, self.config.truncation_side)

    def target(self, index: int) -> np.ndarray:
        """The number of the label of a text, int32 []."""
        return np.array(self.examples[index].label, np.int32)

    @classmethod
    def shapes(cls, config: LabelledTextConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        shape = (rows, length)
        inputs = {"tokens": (shape, np.int32), "reset": (shape, bool)}
        inputs |= {} if config.sample_rows is None else {"valid": (shape, bool)}
        return zeros(inputs, {"labels": shape})

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: every text once in each epoch, in random order, packed into rows.

        With `sample_rows`, each batch is drawn by itself.
        """

        def row(index: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
            return self.row(index, length, rng)

        augmented, mean = None if self.augmentation is None else row, self.config.sample_rows
        if mean is not None:
            return sampled_rows(row, len(self.ids), seed, rows, length, mean=mean, augmented=augmented)
        return packed_rows(row, len(self.ids), seed, rows, length, augmented=augmented)

    def training_tokens(self, length: int) -> int:
        return sum(min(len(ids), length) for ids in self.ids)

    def row(self, index: int, length: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """The arrays of one text, cut to `length` tokens: `tokens`, `targets` and `weights`.

        Args:
            index: of the text.
            length: tokens to which it is cut.
            rng: of the random changes of the words; default: none.
        """
        ids = self.ids[index]
        if rng is not None and self.augmentation is not None:
            text = self.augmentation.text(self.examples[index].text, rng)
            ids = self._document_ids(text)
        ids = cut(self.tokenizer, ids, length, self.config.truncation_side)
        weights = np.zeros(len(ids), np.float32)
        weights[-1] = 1
        if self.config.ask_every is not None:
            weights[self.config.ask_every - 1 :: self.config.ask_every] = 1
        target = self.target(index)
        return {"tokens": ids, "targets": np.tile(target, (len(ids), *(1,) * target.ndim)), "weights": weights}


def _text(config: LabelledTextConfig, record: Record) -> str:
    """The text of a record after cleaning. Raises `ValueError` if the record has none."""
    columns = (config.text_column, *config.more_columns)
    text = record.joined(columns) if config.more_columns else record.text(config.text_column)
    check(bool(text.strip()), f"{record.where}: the text is empty")
    return clean(text, config.clean).text


def document_ids(
    tokenizer: Tokenizer, text: str, max_length: int | None = None, side: TruncationSide = "right"
) -> np.ndarray:
    """The ids of a text as a document, int32: `start_id`, the text, and the id of [SEP] if the tokenizer has one.

    Args:
        tokenizer: the tokenizer.
        text: the text.
        max_length: ids to which it is cut; default: no limit.
        side: where it is cut.
    """
    end: Sequence[int] = [tokenizer.special_ids["sep"]] if "sep" in tokenizer.special_ids else []
    ids = np.array([tokenizer.start_id, *tokenizer.encode(text), *end], np.int32)
    return ids if max_length is None else cut(tokenizer, ids, max_length, side)


def cut(tokenizer: Tokenizer, ids: np.ndarray, length: int, side: TruncationSide = "right") -> np.ndarray:
    """A document of at most `length` ids: its first ones (`right`), or its last ones after the first id (`left`).

    The id of [SEP], if it ends the document, stays at the end.
    """
    if side == "left" and len(ids) > length:
        return np.concatenate([ids[:1], ids[len(ids) - length + 1 :]])
    if len(ids) <= length or "sep" not in tokenizer.special_ids:
        return ids[:length]
    return np.concatenate([ids[: length - 1], ids[-1:]])
