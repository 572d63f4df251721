"""The base class of tasks that are learned from files of examples."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from memgpt_jax.config.data import TextConfig
from memgpt_jax.data.corpora.cache import cached
from memgpt_jax.data.corpora.text import make_tokenizer
from memgpt_jax.data.examples.files import ExamplesConfig, read_split
from memgpt_jax.data.tasks.base import FileTask, digest
from memgpt_jax.data.tokenizers.base import Tokenizer
from memgpt_jax.data.tokenizers.load import read_tokenizer
from memgpt_jax.data.tokenizers.sentencepiece_file import train_sentencepiece

Config = TypeVar("Config", bound=ExamplesConfig)


class ExamplesTask(FileTask[Config]):
    """The examples of one split. Implement `shapes`, `batches` and `training_tokens`, and override `training_texts` if
    the examples have other texts than those of the column `text_column`."""

    def __init__(self, config: Config, split: str, tokenizer: Tokenizer | None = None):
        """Args: config: labels that it lacks are taken from the training split. tokenizer: default: the config's.

        Raises `ValueError` if there is no tokenizer, or as `TaskConfig.completed`.
        """
        tokenizer = self.make_tokenizer(config) if tokenizer is None else tokenizer
        super().__init__(config.completed(), split, tokenizer)
        self.tokenizer = tokenizer

    @classmethod
    def make_tokenizer(cls, config: Config) -> Tokenizer:
        """As `Task.make_tokenizer`; `bpe` is trained on `training_texts`."""
        return tokenizer_of_texts(config, lambda: cls.training_texts(config))

    @classmethod
    def training_texts(cls, config: Config) -> list[str]:
        """The texts of the training split. Raises `ValueError` if they cannot be read."""
        return [record.text(config.text_column) for record in read_split(config, "train")]


class TokenizedConfig(Protocol):
    """A configuration that names a tokenizer, such as an `ExamplesConfig`."""

    @property
    def tokenizer(self) -> str: ...
    @property
    def tokenizer_vocab_size(self) -> int: ...
    @property
    def cache_dir(self) -> str: ...
    @property
    def text(self) -> TextConfig: ...


def tokenizer_of_texts(config: TokenizedConfig, texts: Callable[[], list[str]]) -> Tokenizer:
    """The tokenizer that the config names; `bpe` is trained once on the texts.

    Raises `ValueError` if it is not a tokenizer, or the texts cannot be read.
    """
    if config.tokenizer != "bpe":
        return make_tokenizer(config.text)
    found = texts()
    key = (digest(*found), config.tokenizer_vocab_size)

    def train(folder: Path) -> None:
        train_sentencepiece(found, config.tokenizer_vocab_size).save(folder)

    return cached(config.cache_dir, "tokenizers", key, train, read_tokenizer)
