"""Pictures and sounds with a text each, which a model writes: what their tasks share."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.features import FeaturesConfig, check_features
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.examples.media import MediaConfig, MediaFile, media_labels, read_media
from memgpt_jax.data.examples.pair_tokens import PLACE, PairTokens, row_batch, source_shapes
from memgpt_jax.data.examples.rows import padded_rows
from memgpt_jax.data.tasks.base import FileTask, digest
from memgpt_jax.data.tasks.examples import tokenizer_of_texts
from memgpt_jax.data.tasks.text_pairs import PairsConfig, WrittenTextsConfig
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class FeaturePairsConfig(PairsConfig):
    """Predict the tokens of a text after raw features. Needs an encoder-decoder whose encoder has such features."""

    inputs: ClassVar[tuple[str, ...]] = ("source_features",)

    layout: tuple[int, ...] = ()
    """`FeaturesConfig.layout` of the data."""

    def check_model(self, model: Any, length: int) -> None:
        """Raise `ValueError` if the encoder has no features, or others than the data."""
        super().check_model(model, length)
        check_features(model.encoder.features, self.layout, "model.encoder.features")


@dataclass(frozen=True, kw_only=True)
class MediaTextsConfig(MediaConfig, WrittenTextsConfig):
    """Base of the tasks in which a model writes the text of a picture or a sound: the label of its file.

    The encoder of an encoder-decoder reads the features, its decoder writes the text.
    """

    one_label: ClassVar[bool] = False

    words: tuple[str, ...] = ()
    """Texts of labels of the files, each as `LABEL=TEXT`; other labels are the texts themselves."""
    tokenizer: str = "byte"
    """As `TextConfig.tokenizer`, of the texts; `bpe` is trained on those of the training split."""
    tokenizer_vocab_size: int = 2048
    """Vocabulary size of a trained `bpe` tokenizer."""
    cache_dir: str = "~/.cache/memgpt_jax"
    """Folder that caches tokenizers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        WrittenTextsConfig.__post_init__(self)
        check(not isinstance(self.words, str), f"data.words must be a list, got {self.words!r}")
        object.__setattr__(self, "words", tuple(self.words))
        for item in self.words:
            check("=" in item, f"data.words must be texts LABEL=TEXT, got {item!r}")
        labels = [item.split("=", 1)[0] for item in self.words]
        repeated = ", ".join(sorted({label for label in labels if labels.count(label) > 1}))
        check(not repeated, f"data.words has several texts of {repeated}")

    @property
    def features_config(self) -> FeaturesConfig:
        """The features of the tokens of a source."""
        raise NotImplementedError

    @property
    def source_tokens(self) -> int:
        """Tokens S of a source, padding included."""
        raise NotImplementedError

    @property
    def objective(self) -> PairsConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Predict the tokens of the text."""
        return FeaturePairsConfig(source_length=self.source_tokens, layout=self.features_config.layout)

    @property
    def num_ids(self) -> int:
        """0: no ids are added to the tokenizer's."""
        return 0

    @property
    def text(self) -> TextConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tokenizer."""
        return TextConfig(
            corpus="folder",
            path=self.path or "",
            tokenizer=self.tokenizer,
            tokenizer_vocab_size=self.tokenizer_vocab_size,
            cache_dir=self.cache_dir,
            objective=self.objective,
        )

    def tokens(self, tokenizer: Tokenizer) -> PairTokens:
        """Encodes the texts by a tokenizer."""
        return PairTokens(tokenizer, PLACE, self.source_tokens)

    def check_words(self) -> None:
        """Raise `ValueError` if `words` has a label that no file has."""
        known = media_labels(self) if self.words else set()
        unknown = [item for item in self.words if item.split("=", 1)[0] not in known]
        check(not unknown, f"data.words: no file has the label of {', '.join(unknown)}")

    def text_of(self, file: MediaFile) -> str:
        """The text of a file. Raises `ValueError` if it is empty."""
        text = dict(item.split("=", 1) for item in self.words).get(file.label, file.label).strip()
        check(bool(text), f"{file.where}: its text is empty")
        return text


Config = TypeVar("Config", bound=MediaTextsConfig)


class MediaText(NamedTuple):
    """One example."""

    where: str
    """The path of its first file."""
    targets: tuple[str, ...]
    """Its text."""
    files: tuple[int, ...]
    """The indices of the files whose contents follow one another."""
    group: str = ""
    """Empty: results are not grouped."""


class MediaTextsTask(FileTask[Config]):
    """The files of one split. Implement `decode` and `features`."""

    evaluation = "texts"

    def __init__(self, config: Config, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if a file is not valid or has no text, or `words` has a label of no file."""
        super().__init__(config, split, tokenizer)
        config.check_words()
        self.tokenizer = self.make_tokenizer(config) if tokenizer is None else tokenizer
        self.tokens = config.tokens(self.tokenizer)
        self.files = read_media(config, split)
        self.texts = [config.text_of(file) for file in self.files]
        self.content = digest(*zip([file.content for file in self.files], self.texts, strict=True))
        self.draws = split == "train" and self.is_changed
        """Whether training examples are drawn anew in every epoch."""
        self.decoded = [self.decode(file) for file in self.files]
        """What is held of each file in memory."""
        self.examples = [self.example(index, np.random.default_rng(index)) for index in range(len(self.files))]

    @classmethod
    def make_tokenizer(cls, config: Config) -> Tokenizer:
        """As `Task.make_tokenizer`; `bpe` is trained on the texts of the training split."""
        return tokenizer_of_texts(config, lambda: [config.text_of(file) for file in read_media(config, "train")])

    @property
    def is_changed(self) -> bool:
        """Whether the configuration changes training examples at random."""
        return self.config.is_changed

    def decode(self, file: MediaFile) -> np.ndarray:
        """The content of a file as it is held in memory. Raises `ValueError` if it is not valid."""
        raise NotImplementedError

    def features(self, files: tuple[int, ...], rng: np.random.Generator | None = None) -> np.ndarray:
        """The features [s, F] float32 of an example with these files; rng: of its random changes, None: none."""
        raise NotImplementedError

    def example(self, index: int, rng: np.random.Generator) -> MediaText:
        """The example that begins with a file; rng: of what else is drawn."""
        return MediaText(self.files[index].where, (self.texts[index],), (index,))

    def source(self, index: int) -> np.ndarray:
        """What is read before the text of an example: its features [s, F]."""
        return self.features(self.examples[index].files)

    @classmethod
    def shapes(cls, config: Config, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        inputs = {"tokens": ((rows, length), np.int32), "reset": ((rows, length), bool)}
        sources = source_shapes(rows, config.source_tokens, config.features_config.size)
        return zeros(inputs | sources, {"tokens": (rows, length)})

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: every file once in each epoch, in random order, one in each row."""

        def row(index: int, rng: np.random.Generator | None = None) -> Batch:
            return row_batch(self.row(index, length, rng), length, self.config.source_tokens)

        return padded_rows(row, len(self.files), seed, rows, augmented=row if self.draws else None)

    def training_tokens(self, length: int) -> int:
        return length * len(self.files)  # a row each

    def row(
        self, index: int, length: int | None = None, rng: np.random.Generator | None = None
    ) -> dict[str, np.ndarray]:
        """`PairTokens.row` of an example. Args: rng: of an example that is drawn anew, with random changes."""
        example = self.examples[index] if rng is None else self.example(index, rng)
        return self.tokens.row(self.features(example.files, rng), example.targets[0], length)
