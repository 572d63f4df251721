"""The files of a task's examples, and their splits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from memgpt_jax.config.checks import at_least, check, check_literals, check_positive
from memgpt_jax.config.data import ObjectiveConfig, TaskConfig, TextConfig
from memgpt_jax.config.heads import TruncationSide
from memgpt_jax.data.corpora.sources import SPLITS, expand
from memgpt_jax.data.examples.records import MADE, Encoding, Form, Record, read_parallel, read_records


@dataclass(frozen=True, kw_only=True)
class LabelsConfig(ObjectiveConfig):
    """Predict the label of the text so far, at the tokens that have a label. Needs a `HeadedConfig`."""

    heads: ClassVar[tuple[str, ...]] = ("labels",)

    of_words: bool = False
    """Whether each word has a label; else each text has one."""
    token_types: bool = False
    """Whether batches have token types."""
    several: bool = False
    """Whether a text has any number of labels; else it has one."""

    def check_model(self, model: Any, length: int) -> None:
        """Raise `ValueError` if the model has no head, or its head does not fit the labels."""
        super().check_model(model, length)
        check(
            not self.token_types or "token_types" in model.inputs,
            f"data.case_as_token_type needs a model with token types, an encoder with token_types >= 2; this "
            f"{type(model.backbone).__name__} has none",
        )
        pool, noun = getattr(model.head, "pool", None), "word" if self.of_words else "text"
        check(
            (pool == "none") == self.of_words,
            f"model.head.pool={pool!r} does not fit a label for each {noun}: "
            f"{'give pool=' + repr('none') if self.of_words else 'choose another pool, such as ' + repr('mean')}",
        )
        loss = getattr(model.head, "loss", None)
        check(
            self.several or loss != "binary",
            "model.head.loss='binary' needs several labels for each target, and this task has one: take "
            "MultiLabelTextConfig, or loss='cross_entropy'",
        )
        check(
            not self.several or loss == "binary",
            f"model.head.loss={loss!r} fits one label for each text: for any number of labels give loss='binary'",
        )


@dataclass(frozen=True, kw_only=True)
class NumbersConfig(ObjectiveConfig):
    """Predict a number, at the tokens that have one. Needs a `HeadedConfig` with a `ScalarHeadConfig`."""

    heads: ClassVar[tuple[str, ...]] = ("numbers",)

    of_texts: bool = True
    """Whether each text has one number, so that the head must have a pool. Otherwise tokens have numbers that the
    tokens after them give away, so that the backbone must be causal."""

    def check_model(self, model: Any, length: int) -> None:
        """Raise `ValueError` if the model has no head for numbers, or head, backbone or rows do not fit the numbers."""
        super().check_model(model, length)
        check(
            not self.of_texts or getattr(model.head, "pool", None) != "none",
            "model.head.pool='none' does not fit a number for each text: choose another pool, such as 'mean'",
        )
        check(
            self.of_texts or model.backbone.causal,
            f"data.ask='rating' needs a decoder: this {type(model.backbone).__name__} reads the rating after its item",
        )
        check(
            self.of_texts or length % 2 == 0,
            f"data.ask='rating' needs rows of whole pairs of an item and its rating: training.sequence_length={length} "
            "must be even",
        )


@dataclass(frozen=True, kw_only=True)
class SpansConfig(ObjectiveConfig):
    """Predict where an answer starts and ends. Needs a `HeadedConfig` with a `SpanHeadConfig`."""

    heads: ClassVar[tuple[str, ...]] = ("spans",)

    token_types: bool = False
    """Whether batches have token types."""

    def check_model(self, model: Any, length: int) -> None:
        """Raise `ValueError` if the model has no head for spans, or no token types that it needs."""
        super().check_model(model, length)
        check(
            not self.token_types or "token_types" in model.inputs,
            f"data.question_types needs a model with token types, an encoder with token_types >= 2; this "
            f"{type(model.backbone).__name__} has none",
        )


@dataclass(frozen=True, kw_only=True)
class ExamplesConfig(TaskConfig):
    """Base of the tasks that are learned from files of examples.

    Without a file of its own, a split is a part of `train`: every `test_every`-th record, and of the others every
    `valid_every`-th. With a file of its own, the test split is all of it, or every `test_every`-th record. Records of
    equal texts are not held together, unless the task says so: leave repeated ones out of the file.
    """

    train: str | None = None
    """File of the training examples, or a folder of such files. `~` and `$VARIABLES` are expanded."""
    valid: str | None = None
    """File or folder of the validation examples; default: a part of `train`."""
    test: str | None = None
    """File or folder of the test examples; default: a part of `train`, if `test_every` is given."""
    valid_every: int = 10
    """Without `valid`: each record whose number (from 1, without test records) is a multiple of this is in `valid`."""
    test_every: int | None = None
    """Each record of `test`, or without it of `train`, whose number (from 1) is a multiple of this is a test record;
    default: all records of `test`."""
    test_fold: int = at_least(0, default=0)
    """Which of the `test_every` parts is the test split, from 0 on: for cross-validation. Records whose number plus
    `test_fold` is a multiple of `test_every` are in it."""
    max_examples: int | None = None
    """Maximum number of training examples, taken from the start; default: all."""
    form: Form = "auto"
    """Format of the files; see `Form`."""
    encoding: Encoding = "utf-8"
    """Encoding of `label_first`, `conll` and `parallel` files."""
    tokenizer: str = "pretrained"
    """As `TextConfig.tokenizer`. `bpe` is trained on the texts of the training split."""
    tokenizer_vocab_size: int = 2048
    """Vocabulary size of a trained `bpe` tokenizer."""
    text_column: str = "text"
    """The column that holds the text."""
    cache_dir: str = "~/.cache/memgpt_jax"
    """Folder that caches tokenizers."""

    parallel_columns: ClassVar[tuple[str, ...]] = ()
    """The columns of `parallel` files; (): the task does not read such files."""

    def __post_init__(self) -> None:
        check_positive(self)
        check_literals(self)
        check(
            self.form != "parallel" or bool(self.parallel_columns),
            f"data.form='parallel' is for pairs of texts, not for {type(self).__name__}",
        )
        for name in ("valid_every", "test_every"):
            value = getattr(self, name)
            check(value is None or value >= 2, f"data.{name} must be at least 2, got {value}")
        folds = self.test_every or 1
        check(
            0 <= self.test_fold < folds,
            f"data.test_fold must be less than data.test_every={self.test_every}, got {self.test_fold}",
        )

    @property
    def input_columns(self) -> tuple[str, ...]:
        """As in `TaskConfig`; `text` where `form` makes the columns of a record."""
        return ("text",) if self.form in MADE else (self.text_column,)

    @property
    def num_ids(self) -> int:
        """0: no ids are added to the tokenizer's."""
        return 0

    @property
    def text(self) -> TextConfig:
        """The tokenizer."""
        return TextConfig(
            corpus="folder",
            path=self.train or "",
            text_column=self.text_column,
            tokenizer=self.tokenizer,
            tokenizer_vocab_size=self.tokenizer_vocab_size,
            cache_dir=self.cache_dir,
            objective=self.objective,
        )


@dataclass(frozen=True, kw_only=True)
class CutTextsConfig(ExamplesConfig):
    """Base of the tasks whose texts are each read as one document of limited length."""

    length_fields: ClassVar[tuple[str, ...]] = ("max_length",)

    max_length: int | None = None
    """Texts are cut to this number of tokens, special tokens included, in all splits; in training also to the length of
    a row. None: no limit."""
    truncation_side: TruncationSide = "right"
    """The end at which they are cut: `left` keeps the last tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_literals(self)
        check(
            self.max_length is None or self.max_length >= 3,
            f"data.max_length must be at least 3, got {self.max_length}",
        )


def read_split(
    config: ExamplesConfig,
    split: str,
    join: Callable[[list[Record]], Record] | None = None,
    *,
    units: Callable[[list[Record]], Sequence[object]] = lambda records: [record.where for record in records],
) -> list[Record]:
    """The records of a split, in the order of the files.

    Args:
        join: makes one record of all records of a file, before records are counted; default: records stay as they are.
        units: what parts of a file are made of, for each of its records: records of an equal unit are counted as one,
            where the first of them is; default: each record is counted.

    Raises:
        ValueError: a file cannot be read, there is no such split, or it is empty.
    """
    check(split in SPLITS, f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    own = {"train": None, "valid": config.valid, "test": config.test}[split]
    check(
        own is not None or config.train is not None,
        "data.train must name a file or folder of training examples, got None",
    )
    check(
        own is not None or split != "test" or config.test_every is not None,
        "there is no test split: give data.test, or data.test_every to take records from data.train",
    )
    records = _read(config.train or "" if own is None else own, config, join)
    if own is None or (split == "test" and config.test_every is not None):
        records = _part(list(records), config, split, units)
    records = list(records)
    if split == "train":
        records = records[: config.max_examples]
    if not records:
        name = config.train if own is None else own
        few = f": of data.train, every {config.valid_every}th is one; give data.valid, or a smaller data.valid_every"
        raise ValueError(f"split {split!r} of {name!r} has no records{few * (own is None and split == 'valid')}")
    return records


def _part(
    records: list[Record], config: ExamplesConfig, split: str, units: Callable[[list[Record]], Sequence[object]]
) -> Iterator[Record]:
    """The records of a split: every `test_every`-th one for `test`; for the others a part of `train`."""
    splits: dict[object, str] = {}
    others, with_test = 0, config.test_every is not None and (split == "test" or config.test is None)
    for record, name in zip(records, units(records), strict=True):
        if name not in splits:
            number = len(splits) + 1
            if with_test and (number + config.test_fold) % (config.test_every or 1) == 0:
                splits[name] = "test"
            else:
                others += 1
                is_valid = config.valid is None and others % config.valid_every == 0
                splits[name] = "valid" if is_valid else "train"
        if splits[name] == split:
            yield record


def _read(name: str, config: ExamplesConfig, join: Callable[[list[Record]], Record] | None) -> Iterator[Record]:
    if config.form == "parallel":
        check("*" in name, f"{name!r} must hold '*' in place of the columns {', '.join(config.parallel_columns)}")
        paths = {column: expand(name.replace("*", column)) for column in config.parallel_columns}
        for path in paths.values():
            check(path.is_file(), f"there is no file {str(path)!r}")
        yield from read_parallel(paths, config.encoding)
        return
    path = expand(name)
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        check(bool(files), f"{name!r} is a folder without files")
    check(path.exists(), f"there is no file {name!r}")
    for file in files:
        records = read_records(file, config.form, config.encoding)
        if join is None:
            yield from records
        elif found := list(records):
            yield join(found)
