"""Configurations of what a model is trained on: text, recall, needles in text."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from memgpt_jax.config.checks import check, check_literals

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


DataConfig = TextConfig | TaskConfig
