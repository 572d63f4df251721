"""Pictures with a caption, which a model writes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memgpt_jax.config.features import PatchesConfig
from memgpt_jax.data.examples.media import MediaFile
from memgpt_jax.data.examples.picture_files import PictureFilesConfig
from memgpt_jax.data.tasks.media_texts import MediaTextsConfig, MediaTextsTask


@dataclass(frozen=True, kw_only=True)
class CaptionsConfig(PictureFilesConfig, MediaTextsConfig):
    """Write the caption of a picture, whose patches the encoder of an encoder-decoder reads."""

    pipeline: ClassVar[str | None] = "image-to-text"

    @property
    def features_config(self) -> PatchesConfig:
        """The features of its tokens."""
        return self.patches

    @property
    def source_tokens(self) -> int:
        """Patches of a picture."""
        rows, columns = self.patches.grid
        return rows * columns


class CaptionsTask(MediaTextsTask[CaptionsConfig]):
    """The pictures of one split."""

    config: CaptionsConfig

    def decode(self, file: MediaFile) -> np.ndarray:
        """The pixels, uint8 [Y, X, C]."""
        return self.config.pixels(file)

    def features(self, files: tuple[int, ...], rng: np.random.Generator | None = None) -> np.ndarray:
        return self.config.features(self.decoded[files[0]], rng)
