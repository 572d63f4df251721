"""Configurations of the training data: text with its objective, and the base class of all generated tasks."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np

from memgpt_jax.config.checks import check, check_literals, check_types, set_tuples
from memgpt_jax.config.features import check_features


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Base of the configuration of every training objective on text.

    Subclasses state what the model must have; `memgpt_jax.data.objectives` makes the batches.
    """

    heads: ClassVar[tuple[str, ...]] = ("tokens",)
    """Heads of the model that have targets."""
    inputs: ClassVar[tuple[str, ...]] = ()
    """Keywords of the model's call that batches contain in addition to `tokens` and `reset`."""
    causal: ClassVar[bool] = False
    """Whether the model must be causal, because the targets of a token are later tokens."""

    def __post_init__(self) -> None:
        check_types(self)

    def check_model(self, model: Any, length: int) -> None:
        """Raise `ValueError` if a model cannot be trained with this objective.

        Args:
            model: a `ModelConfig` or a `Seq2SeqConfig`.
            length: the number of tokens L of a row of text.
        """
        name = f"data.objective={type(self).__name__}"
        for noun, needed, present in (("head", self.heads, model.heads), ("input", self.inputs, model.inputs)):
            missing = [item for item in needed if item not in present]
            check(
                not missing,
                f"{name} needs a model with the {noun} {' and '.join(map(repr, missing))}; this {type(model).__name__} "
                f"has the {noun}s {present}",
            )
        check(
            model.causal or not self.causal,
            f"{name} needs a causal model, not a {type(model).__name__}",
        )


@dataclass(frozen=True, kw_only=True)
class FeaturesObjectiveConfig(ObjectiveConfig):
    """Base of objectives of raw features, for a `HeadedConfig` over a model that reads such features."""

    inputs: ClassVar[tuple[str, ...]] = ("features",)

    layout: tuple[int, ...] = ()
    """`FeaturesConfig.layout` of the data."""

    def check_model(self, model: Any, length: int) -> None:
        """Raise `ValueError` if the model has no such head, or other features than the data."""
        super().check_model(model, length)
        check_features(model.last_stack.features, self.layout, "model.backbone.features")


@dataclass(frozen=True, kw_only=True)
class CausalConfig(ObjectiveConfig):
    """Predict each next token from the tokens before it."""

    causal: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Text of a corpus; each batch row is one stream of consecutive whole documents."""

    corpus: str = "stdlib"
    """`stdlib` (the Python standard library's source on this machine), `folder`, or the name of a text data set of
    TensorFlow Datasets (`pg19`, `lm1b`, `wiki40b/en`, ...)."""
    path: str | None = None
    """With `corpus='folder'`: a folder, or a .jsonl, .csv, .tsv or .parquet file. `~` and `$VARIABLES` are expanded.
    Each .txt, .md and .py file and each row of a table is a document; all but Parquet may be gzipped. Quotes enclose
    fields of .csv files alone. Files and folders whose names begin with a dot are skipped."""
    include: tuple[str, ...] = ()
    """Patterns of the files of a folder to read, such as `"*.py" "docs/**/*.md"`; default: all with a known suffix. A
    pattern without a slash is compared in every folder; one that matches a folder matches all files inside. Files with
    an unknown suffix are read as text if a pattern ends in that suffix (`"*.rst"`)."""
    exclude: tuple[str, ...] = ()
    """Patterns of files and folders to skip."""
    text_column: str = "text"
    """The field of JSON lines, the column of CSV, TSV and Parquet files, or the feature of a TensorFlow data set that
    holds the text. With the default `text`, the feature of a TensorFlow data set may also have another common name, or
    be its only text feature."""
    tokenizer: str = "bpe"
    """`bpe` (sentencepiece, trained on the training split), `byte`, `pretrained` (the tokenizer of
    `ExperimentConfig.pretrained`), or the tokenizer of a pretrained model: its folder or name on the Hub, or the path
    of a `.model` (sentencepiece) or `.gguf` file."""
    tokenizer_vocab_size: int = 2048
    """Vocabulary size of a trained `bpe` tokenizer."""
    invalid_utf8: Literal["error", "replace"] = "error"
    """What to do with a file that is not valid UTF-8: raise an error with its name and offset, or replace the bytes."""
    objective: ObjectiveConfig = field(default_factory=CausalConfig)
    """The training objective. Unless the tokenizer has the special tokens itself, `model.vocab_size` must be larger
    than the tokenizer's vocabulary: by 3 for objectives with mask, class and separator tokens, by 100 for the sentinels
    of span corruption."""
    max_documents: int | None = None
    """Maximum number of documents of each split, for quick runs; default: all."""
    cache_dir: str = "~/.cache/memgpt_jax"
    """Folder that caches prepared data sets, tokenizers and tokenized corpora."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns of a file whose texts, separated by spaces, the model reads to predict."""
        return (self.text_column,)

    def __post_init__(self) -> None:
        check_types(self)
        set_tuples(self, "include", "exclude")
        for name in ("include", "exclude"):
            patterns = getattr(self, name)
            check(all(patterns), f"data.{name} must be non-empty patterns of files, got {patterns}")
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
        check(self.tokenizer_vocab_size >= 300, f"tokenizer_vocab_size must be >= 300, got {self.tokenizer_vocab_size}")
        check_literals(self)


class Descriptions(NamedTuple):
    """Texts and numbers of the ids 0, 1, ..., such as the genres and the years of films."""

    texts: tuple[tuple[str, ...], ...]
    """One or more kinds of texts, each with a text for each id; "": none."""
    numbers: np.ndarray
    """A number for each id; NaN: none."""


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Base of the configuration of every task: rows of tokens in which some targets are scored answers."""

    objective: ClassVar[ObjectiveConfig] = CausalConfig()
    """Tasks are learned by predicting the next token."""
    text: ClassVar[TextConfig | None] = None
    """The corpus of the task, if it uses one."""
    length_fields: ClassVar[tuple[str, ...]] = ()
    """The fields that set the length of the task, in the task's own unit. Token ids and parameter shapes do not depend
    on them."""

    carries: ClassVar[bool] = False
    """Whether rows continue in the next batch, so that training must carry the state."""
    pipeline: ClassVar[str | None] = None
    """The pipeline of a run; None: that of the model's head, else `text-generation`."""

    def __post_init__(self) -> None:
        check_types(self)

    def at_length(self, length: int) -> Self:
        """The same task with its length fields set to `length`.

        Raises `ValueError` if the task has no such field, or the length is not valid.
        """
        check(bool(self.length_fields), f"{type(self).__name__} has no length field")
        return replace(self, **dict.fromkeys(self.length_fields, length))

    def completed(self) -> Self:
        """The configuration with everything filled in that follows from the data, such as the labels of its texts.

        Raises `ValueError` if the data are not valid.
        """
        return self

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns of a file whose texts, separated by spaces, the model reads to predict."""
        return ("text",)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs of the head that the task trains; (): the task does not determine them."""
        return ()

    @property
    def head_settings(self) -> dict[str, Any]:
        """Further fields of the head that follow from the data, such as the mean of its targets."""
        return {}

    @property
    def num_ids(self) -> int:
        """Number of token ids that the task adds to the tokenizer's; without a text, the number of all its ids."""
        raise NotImplementedError

    def descriptions(self) -> Descriptions | None:
        """What is known of the ids; training from scratch begins with similar embeddings where it is alike.

        None: the embeddings are drawn independently. Raises `ValueError` if it cannot be read.
        """
        return None

    @property
    def row_length(self) -> int | None:
        """Tokens L per row if the task determines them; None: `training.sequence_length` does."""
        return None


DataConfig = TextConfig | TaskConfig
