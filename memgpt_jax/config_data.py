"""Configurations of what a model is trained on: text, recall, needles in text."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

from memgpt_jax.checks import check, check_literals

Objective = Literal["causal", "masked", "next_sentence", "masked_next_sentence", "span_corruption", "permutation"]


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Real documents, tokenized, one in-order stream per batch row."""

    corpus: str = "stdlib"
    """`stdlib` (the Python standard library's source on this machine), `folder`, or the name of any text data set of
    TensorFlow Datasets (`pg19`, `lm1b`, `wiki40b/en`, ...)."""
    path: str | None = None
    """The folder, or .jsonl, .csv, .tsv or .parquet file, when `corpus` is `folder`. `~` and `$VARIABLES` are
    expanded. Each .txt, .md and .py file and each row of a table is a document; all but Parquet may be gzipped. Files
    and folders whose names begin with a dot are left out."""
    include: tuple[str, ...] = ()
    """Patterns of the files of a folder to read, such as `"*.py" "docs/**/*.md"`; default: all with a known suffix. A
    pattern without a slash is compared in every folder; one that matches a folder matches all files inside. Files with
    an unknown suffix are read as text if a pattern ends in that suffix (`"*.rst"`)."""
    exclude: tuple[str, ...] = ()
    """Patterns of files and folders to leave out."""
    text_column: str = "text"
    """The field of JSON lines, the column of CSV, TSV and Parquet files, or the feature of a set of TensorFlow Datasets
    that holds the text. With the default `text`, such sets also use another usual name, or their only text feature."""
    tokenizer: str = "bpe"
    """`bpe` (sentencepiece, trained on the training split), `byte`, or that of a pretrained model: its folder or name
    on the Hub, or the path of a `.model` (sentencepiece) or `.gguf` file. `pretrained`: that of the first weights."""
    tokenizer_vocab_size: int = 2048
    """Vocabulary of a `bpe` tokenizer trained here."""
    invalid_utf8: Literal["error", "replace"] = "error"
    """What to do with a file that is not valid UTF-8: refuse it by name and offset, or replace the bad bytes."""
    objective: Objective = "causal"
    """What the model learns to say: the next token (`causal`); of an encoder, tokens that are hidden from it
    (`masked`), whether of two sentences the second follows the first (`next_sentence`), or both; of an encoder-decoder,
    hidden spans (`span_corruption`); of an XLNet, a sixth of the tokens in a random order (`permutation`). For the
    marks that stand in the text, `model.vocab_size` is 3 more than the tokenizer's, unless that has marks of its own;
    for sentinels in the place of spans, 100 more, unless it has `<extra_id_0>` to `<extra_id_99>`, as T5 has."""
    mask_rate: float = 0.15
    """Share of the tokens that are hidden: `masked` tokens, or those in spans."""
    span_length: float = 3.0
    """Mean length of hidden spans."""
    max_documents: int | None = None
    """Use only this many documents of each split (for quick runs)."""
    cache_dir: str = "~/.cache/memgpt_jax"
    """Where prepared data sets, tokenizers and tokenized corpora are kept."""

    def __post_init__(self):
        for name in ("include", "exclude"):
            patterns = getattr(self, name)
            patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
            object.__setattr__(self, name, patterns)  # a list is also accepted
            check(all(patterns), f"data.{name} must be patterns of files, none of them empty, got {patterns}")
            check(
                not patterns or self.corpus == "folder",
                f"data.{name}={patterns} needs data.corpus='folder', got {self.corpus!r}",
            )
        check(
            self.corpus != "folder" or self.path is not None,
            "data.corpus='folder' needs data.path, a folder of text files or a .jsonl, .csv, .tsv or .parquet file",
        )
        check(
            self.corpus == "folder" or self.path is None,
            f"data.path={self.path!r} needs data.corpus='folder', got {self.corpus!r}",
        )
        check(
            self.text_column != "" and (self.text_column == "text" or self.corpus != "stdlib"),
            f"data.text_column={self.text_column!r} must name a column, and data.corpus='stdlib' has none",
        )
        check(
            self.max_documents is None or self.max_documents >= 1,
            f"data.max_documents must be at least 1, got {self.max_documents}",
        )
        check(0 < self.mask_rate < 1, f"mask_rate must be between 0 and 1, got {self.mask_rate}")
        check(self.span_length >= 1, f"span_length must be at least 1, got {self.span_length}")
        check(self.tokenizer_vocab_size >= 300, f"tokenizer_vocab_size must be >= 300, got {self.tokenizer_vocab_size}")
        check_literals(self)


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Base of the configuration of every task: rows of tokens, some of whose targets are answers that are scored."""

    text: ClassVar[TextConfig | None] = None
    """The corpus that the task hides something in, if there is one."""
    length_fields: ClassVar[tuple[str, ...]] = ()
    """The fields that say how long the task is, in its own unit; token ids and parameters do not depend on them."""

    def at_length(self, length: int) -> Self:
        """The same task with its length fields set; `ValueError` if it has none, or it cannot be that long."""
        check(bool(self.length_fields), f"{type(self).__name__} has no field that is its length")
        return replace(self, **dict.fromkeys(self.length_fields, length))

    @property
    def num_ids(self) -> int:
        """Token ids that the task adds to those of the text's tokenizer; all of them where there is no text."""
        raise NotImplementedError

    @property
    def row_length(self) -> int | None:
        """Tokens L of a row, where they follow from the task; None: `training.sequence_length` says it."""
        return None


@dataclass(frozen=True, kw_only=True)
class RecallConfig(TaskConfig):
    """Associative recall: key-value pairs among filler, then, in the last segment, keys whose values are asked for."""

    length_fields: ClassVar[tuple[str, ...]] = ("context_length",)

    num_pairs: int = 8
    """Keys hidden in each context, each in a pair k v."""
    num_rewrites: int = 0
    """Further pairs, of keys that have one already, with a new value: the last one counts."""
    num_keys: int = 64
    """Size of the key alphabet; keys of one context are distinct."""
    num_values: int = 64
    """Size of the value alphabet; values of one context are distinct."""
    num_fillers: int = 16
    """Size of the filler alphabet, disjoint from keys and values."""
    context_length: int = 64
    """Tokens that hold the pairs and filler; a multiple of the model's segment length."""
    gap_length: int = 0
    """The last tokens of the context, which hold no pair: with layers x window of them, only a memory reaches back."""
    query_length: int = 16
    """Tokens that hold the queries: key, value, key, value, ...; an even number, at most 2 num_pairs."""

    def __post_init__(self):
        for name in ("num_pairs", "num_keys", "num_values", "num_fillers", "context_length", "query_length"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("gap_length", "num_rewrites"):
            check(getattr(self, name) >= 0, f"{name} must be at least 0, got {getattr(self, name)}")
        check(
            self.num_pairs <= self.num_keys and self.num_pairs + self.num_rewrites <= self.num_values,
            f"num_pairs={self.num_pairs} must be at most num_keys={self.num_keys}, and with num_rewrites="
            f"{self.num_rewrites} at most num_values={self.num_values}",
        )
        check(
            2 * (self.num_pairs + self.num_rewrites) <= self.context_length - self.gap_length,
            f"context_length={self.context_length} less gap_length={self.gap_length} cannot hold "
            f"num_pairs={self.num_pairs} and num_rewrites={self.num_rewrites} pairs of two tokens",
        )
        check(
            self.query_length % 2 == 0 and 2 <= self.query_length <= 2 * self.num_pairs,
            f"query_length must be even and between 2 and {2 * self.num_pairs}, got {self.query_length}",
        )

    @property
    def num_ids(self) -> int:
        """Fillers, then keys, then values."""
        return self.num_fillers + self.num_keys + self.num_values

    @property
    def row_length(self) -> int:
        """The context and the queries."""
        return self.context_length + self.query_length


@dataclass(frozen=True, kw_only=True)
class NeedleConfig(TaskConfig):
    """Facts hidden in real text, "The key of <word> is <answer>.", then questions about them.

    A row has `training.sequence_length` tokens: text with the needles, a gap of text, the questions.
    """

    text: TextConfig = field(default_factory=TextConfig)
    """The text that hides them, and its tokenizer."""
    num_needles: int = 8
    """Facts hidden in each row, about distinct words."""
    num_questions: int = 8
    """Facts asked for at the end of a row; at most `num_needles`."""
    gap_length: int = 128
    """Tokens of text between the last needle and the questions: with layers x window of them, only a memory reaches
    back."""
    num_words: int = 64
    """Words that facts are about, each one token of the text; and answers, which are ids after the tokenizer's."""

    def __post_init__(self):
        for name in ("num_needles", "num_questions", "num_words"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        check(self.gap_length >= 0, f"gap_length must be at least 0, got {self.gap_length}")
        check(
            self.num_questions <= self.num_needles <= self.num_words,
            f"num_questions={self.num_questions} must be at most num_needles={self.num_needles}, and that at most "
            f"num_words={self.num_words}",
        )

    @property
    def num_ids(self) -> int:
        """The answers."""
        return self.num_words


DataConfig = TextConfig | TaskConfig
