"""Pictures with a label: what do they show?"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memgpt_jax.config.checks import at_least, check
from memgpt_jax.config.data import ObjectiveConfig
from memgpt_jax.config.features import PatchesConfig
from memgpt_jax.data import pictures
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.examples.media import MediaConfig, MediaFile
from memgpt_jax.data.tasks.labelled_media import FeatureLabelsConfig, LabelledMediaTask


@dataclass(frozen=True, kw_only=True)
class PicturesConfig(MediaConfig):
    """Predict the label of a picture. A row holds one picture, whose tokens are its patches, row by row.

    Pictures are held in memory, height width channels bytes each.
    """

    suffixes: ClassVar[tuple[str, ...]] = pictures.SUFFIXES

    height: int = 32
    """Height in pixels to which pictures are resized."""
    width: int = 32
    """Width in pixels to which pictures are resized."""
    patch_size: int = 4
    """Height and width of a patch in pixels."""
    channels: int = 3
    """3: colours, 1: grey."""
    class_token: bool = False
    """Whether the patches follow a token of id 1 without features, as in ViT; the model then needs vocab_size=2."""
    flip: bool = False
    """In training, mirror each picture with probability 1/2, drawn anew in every epoch."""
    shift: int = at_least(0, default=0)
    """In training, move each picture by up to this number of pixels in both directions, drawn anew in every epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.channels in (1, 3), f"data.channels must be 1 or 3, got {self.channels}")
        check(
            self.shift < min(self.height, self.width),
            f"data.shift={self.shift} must be below height={self.height} and width={self.width}",
        )

        check(bool(self.patches), "the patches divide a picture")  # or `PatchesConfig` says that they do not

    @property
    def patches(self) -> PatchesConfig:
        """The features of its tokens."""
        return PatchesConfig(height=self.height, width=self.width, patch_size=self.patch_size, channels=self.channels)

    @property
    def objective(self) -> ObjectiveConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Predict the label at the last patch."""
        return FeatureLabelsConfig(layout=self.patches.layout)

    @property
    def num_ids(self) -> int:
        """The id of patches, and that of the class token."""
        return 1 + self.class_token

    @property
    def row_length(self) -> int:
        """Tokens of a picture."""
        rows, columns = self.patches.grid
        return rows * columns + self.class_token


class PicturesTask(LabelledMediaTask[PicturesConfig]):
    """The pictures of one split."""

    config: PicturesConfig

    @classmethod
    def shapes(cls, config: PicturesConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        return cls.labelled_shapes(rows, length, config.patches.size)

    @property
    def is_changed(self) -> bool:
        return self.config.flip or self.config.shift > 0

    def decode(self, file: MediaFile) -> np.ndarray:
        """The pixels, uint8 [Y, X, C]."""
        config = self.config
        return pictures.read_picture(file.content, config.height, config.width, config.channels, where=file.where)

    def features(self, index: int, rng: np.random.Generator | None = None) -> np.ndarray:
        config, pixels = self.config, self.decoded[index]
        if rng is not None:
            pixels = pictures.changed(pixels, rng, flip=config.flip, shift=config.shift)
        found = pictures.patches(pictures.normalised(pixels), config.patch_size)
        return np.pad(found, ((1, 0), (0, 0))) if config.class_token else found

    def tokens(self, number: int) -> np.ndarray:
        ids = np.zeros(number, np.int32)
        ids[: int(self.config.class_token)] = 1
        return ids
