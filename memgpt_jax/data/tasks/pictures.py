"""Pictures with a label: what do they show?"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memgpt_jax.config.data import ObjectiveConfig
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.examples.media import MediaFile
from memgpt_jax.data.examples.picture_files import PictureFilesConfig
from memgpt_jax.data.tasks.labelled_media import FeatureLabelsConfig, LabelledMediaConfig, LabelledMediaTask


@dataclass(frozen=True, kw_only=True)
class PicturesConfig(PictureFilesConfig, LabelledMediaConfig):
    """Predict the label of a picture. A row holds one picture, whose tokens are its patches, row by row."""

    pipeline: ClassVar[str | None] = "image-classification"

    class_token: bool = False
    """Whether the patches follow a token of id 1 without features, as in ViT; the model then needs vocab_size=2."""

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

    def document(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs of the model for a picture: `tokens` and `features`, those of the class token first."""
        found, first = super().document(features), int(self.class_token)
        padding = {"tokens": np.ones(first, np.int32), "features": np.zeros((first, features.shape[1]), np.float32)}
        return {name: np.concatenate([padding[name], array]) for name, array in found.items()}


class PicturesTask(LabelledMediaTask[PicturesConfig]):
    """The pictures of one split."""

    config: PicturesConfig

    @classmethod
    def shapes(cls, config: PicturesConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        return cls.labelled_shapes(rows, length, config.patches.size)

    def decode(self, file: MediaFile) -> np.ndarray:
        """The pixels, uint8 [Y, X, C]."""
        return self.config.pixels(file)

    def features(self, index: int, rng: np.random.Generator | None = None) -> np.ndarray:
        return self.config.features(self.decoded[index], rng)
