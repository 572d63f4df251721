"""Pairs of texts: translations, summaries and whatever else is said in answer to a text."""

import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from memgpt_jax.config.checks import check, check_types, set_tuples
from memgpt_jax.config.data import ObjectiveConfig, TaskConfig
from memgpt_jax.config.model import ModelConfig, Seq2SeqConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.examples.files import ExamplesConfig, read_split
from memgpt_jax.data.examples.pair_tokens import PLACE, PairTokens, row_batch, source_shapes
from memgpt_jax.data.examples.records import MADE, Record
from memgpt_jax.data.examples.rows import packed_rows, padded_rows
from memgpt_jax.data.tasks.base import digest
from memgpt_jax.data.tasks.examples import ExamplesTask
from memgpt_jax.data.tokenizers.base import Tokenizer

PairMetric = Literal["bleu", "chrf", "rouge", "exact", "word_f1", "wer", "begins", "triples"]
"""Metrics of generated texts: BLEU and chrF of a corpus (sacrebleu); ROUGE-1, -2, -L and -Lsum with stemming
(rouge-score); the fraction of texts that equal a reference; the mean F1 of words; the word error rate of a corpus
(jiwer); the fraction of texts that begin with a reference; precision, recall and F1 of triples, which are lines."""


@dataclass(frozen=True, kw_only=True)
class PairsConfig(ObjectiveConfig):
    """Predict the tokens of a target after its source. Needs a decoder or an encoder-decoder."""

    source_length: int | None = None
    """Tokens of a source that the encoder of an encoder-decoder reads; None: the model is a decoder."""

    def check_model(self, model: Any, length: int) -> None:
        """Raise `ValueError` if the model is neither, or `source_length` does not fit it."""
        super().check_model(model, length)
        name = type(model).__name__
        check(
            isinstance(model, ModelConfig | Seq2SeqConfig),
            f"pairs of texts need a decoder or an encoder-decoder, not a {name}",
        )
        if not isinstance(model, Seq2SeqConfig):
            check(
                self.source_length is None,
                f"data.source_length={self.source_length} is for the encoder of an encoder-decoder; a {name} reads "
                "the source in its row: leave it out",
            )
            return
        places = model.decoder.source_length
        assert places is not None
        check(
            self.source_length is not None and self.source_length <= places,
            f"data.source_length={self.source_length} must be the number of tokens of a source, at most "
            f"model.decoder.source_length={places}",
        )


@dataclass(frozen=True, kw_only=True)
class WrittenTextsConfig(TaskConfig):
    """Base of the tasks in which a model writes a text after its source."""

    metrics: tuple[PairMetric, ...] = ("bleu", "chrf")
    """Metrics of the texts that are generated in evaluation."""
    phrase: str | None = None
    """A regular expression, such as `"(light|dark) skin"`: of the texts whose first reference has a match, the fraction
    that has the same first match is reported as `phrase`. Default: none."""
    max_new_tokens: int = 64
    """Maximum number of tokens of a generated text."""
    num_beams: int = 1
    """Beams of generation; 1: greedy."""

    def __post_init__(self) -> None:
        check_types(self)
        check_metrics(self)
        try:
            re.compile(self.phrase or "")
        except re.error as error:
            raise ValueError(f"data.phrase={self.phrase!r} is not a regular expression: {error}") from None


@dataclass(frozen=True, kw_only=True)
class TextPairsConfig(ExamplesConfig, WrittenTextsConfig):
    """Write the target of a source text, from tables or parallel text files.

    A decoder reads `prompt` with the source in one row with the target; the encoder of an encoder-decoder reads it
    apart from the decoder, which writes the target. Only tokens of the target, and the end after it, have a weight.
    """

    source_column: str = "source"
    """The column that holds the source: a text, or a list of texts, which are joined by spaces."""
    target_column: str = "target"
    """The column that holds the target: a text, or a list of alternatives. Training uses the first; of the metrics,
    BLEU and chrF count all as references, ROUGE and exact match take the best."""
    group_column: str | None = None
    """The column of a name by which the pairs are grouped in the results; default: no groups."""
    source_length: int | None = None
    """Tokens of a source that the encoder of an encoder-decoder reads, the end included; longer sources are cut.
    Default: the model is a decoder. It reads sources of any length, which in training are cut so that the row holds
    the target."""
    prompt: str | None = None
    """The text that is read before the target, with `{source}` in place of the source. Spaces at its end are the
    beginning of the target. Default: `{source}`, and for decoders a line break after it."""
    start_token: bool = True
    """Decoders read the tokenizer's `start_id` before the prompt. False: the prompt, which must then hold a token,
    comes first, for pretrained models whose tokenizer adds no token before a text, such as SmolLM2. An encoder-decoder
    always reads `start_id`."""
    pipeline: Literal[  # pyright: ignore[reportIncompatibleVariableOverride]
        "summarization", "translation", "text2text-generation"
    ] = "text2text-generation"
    """The pipeline of a run."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The column of the source; `text` where `form` makes the columns of a record."""
        return ("text",) if self.form in MADE else (self.source_column,)

    def __post_init__(self) -> None:
        super().__post_init__()
        WrittenTextsConfig.__post_init__(self)
        check(self.template.count(PLACE) == 1, f"data.prompt must hold {PLACE} once, got {self.prompt!r}")
        check(
            self.start_token or self.source_length is None,
            "data.start_token=False is for decoders; with data.source_length, targets begin with the start token",
        )
        check(
            self.source_column != self.target_column,
            f"data.source_column and data.target_column must differ, both are {self.source_column!r}",
        )

    @property
    def template(self) -> str:
        """The prompt, or the default one."""
        return self.prompt if self.prompt is not None else PLACE if self.source_length is not None else f"{PLACE}\n"

    def tokens(self, tokenizer: Tokenizer) -> PairTokens:
        """Encodes the pairs by a tokenizer."""
        return PairTokens(tokenizer, self.template, self.source_length, start=self.start_token)

    @property
    def objective(self) -> PairsConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Predict the tokens of the target."""
        return PairsConfig(source_length=self.source_length)

    @property
    def parallel_columns(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The two columns."""
        return self.source_column, self.target_column


def check_metrics(config: Any) -> None:
    """Make `config.metrics` a tuple; `ValueError` unless it holds distinct names of metrics."""
    set_tuples(config, "metrics")
    metrics, valid = config.metrics, PairMetric.__args__
    check(
        bool(metrics) and set(metrics) <= set(valid) and len(set(metrics)) == len(metrics),
        f"data.metrics must be distinct names of {', '.join(valid)}, got {metrics}",
    )


class TextPair(NamedTuple):
    """One example."""

    where: str
    """File and line."""
    source: str
    targets: tuple[str, ...]
    """Alternatives."""
    group: str
    """Empty without groups."""


class TextPairsTask(ExamplesTask[TextPairsConfig]):
    """The pairs of one split."""

    evaluation = "texts"

    def __init__(self, config: TextPairsConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if a record lacks a text, or there is no tokenizer."""
        super().__init__(config, split, tokenizer)
        self.examples = pairs(self.config, split)
        self.content = digest(*((example.source, example.targets) for example in self.examples))
        self.tokens = self.config.tokens(self.tokenizer)

    @classmethod
    def training_texts(cls, config: TextPairsConfig) -> list[str]:
        """The sources and the targets."""
        return [text for pair in pairs(config, "train") for text in (pair.source, *pair.targets)]

    @classmethod
    def shapes(cls, config: TextPairsConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        shape = (rows, length)
        inputs = {"tokens": (shape, np.int32), "reset": (shape, bool)}
        if config.source_length is not None:
            inputs |= source_shapes(rows, config.source_length)
        return zeros(inputs, {"tokens": shape})

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: every pair once in each epoch, in random order.

        For a decoder, rows hold one pair after the other, each a document of its own; for an encoder-decoder one pair.
        """
        source_length = self.config.source_length
        if source_length is None:
            return packed_rows(
                lambda index: self.row(index, length), len(self.examples), seed, rows, length, head="tokens"
            )
        return padded_rows(
            lambda index: row_batch(self.row(index, length), length, source_length),
            len(self.examples),
            seed,
            rows,
        )

    def training_tokens(self, length: int) -> int:
        if self.config.source_length is not None:
            return length * len(self.examples)  # a row each
        return sum(len(self.row(index, length)["tokens"]) for index in range(len(self.examples)))

    def source(self, index: int) -> str:
        """What is read before the target of an example."""
        return self.examples[index].source

    def row(self, index: int, length: int | None = None) -> dict[str, np.ndarray]:
        """`PairTokens.row` of an example."""
        example = self.examples[index]
        return self.tokens.row(example.source, example.targets[0], length)


def pairs(config: TextPairsConfig, split: str) -> list[TextPair]:
    """The examples of a split. Raises `ValueError` with file and line if a text is missing or empty."""
    return [_pair(config, record) for record in read_split(config, split)]


def _pair(config: TextPairsConfig, record: Record) -> TextPair:
    source, targets = (_texts(record, column) for column in (config.source_column, config.target_column))
    group = record.label(config.group_column) if config.group_column else ""
    return TextPair(record.where, " ".join(source), tuple(targets), group)


def _texts(record: Record, column: str) -> list[str]:
    """The texts of a column that holds a text or a list of texts, without spaces around them and without empty ones."""
    found = record.texts(column) if isinstance(record.get(column), list) else [record.text(column)]
    texts = [text.strip() for text in found if text.strip()]
    check(bool(texts), f"{record.where}: the text of column {column!r} is empty")
    return texts
