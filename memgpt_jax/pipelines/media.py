"""Pictures and sounds as pipelines take them, with the types of the transformers library."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.extras import library
from memgpt_jax.data.examples.media import MediaFile
from memgpt_jax.data.examples.picture_files import PictureFilesConfig
from memgpt_jax.data.examples.sound_files import SoundFilesConfig


def picture_features(config: PictureFilesConfig, item: Any) -> np.ndarray:
    """The features [s, F] of a picture: a path, the bytes of a file, an image of Pillow, or a uint8 array [Y, X, C].

    Raises `ValueError` if it is not a valid picture.
    """
    if isinstance(item, str | Path | bytes):
        file = _file(item, "the picture")
    else:
        image = library("PIL.Image", "pictures", "senses")
        picture = image.fromarray(item) if isinstance(item, np.ndarray) else item
        picture = instance_of(picture, image.Image, "a picture")
        with io.BytesIO() as buffer:
            picture.save(buffer, "PNG")
            file = MediaFile("the picture", "", None, buffer.getvalue())
    return config.features(config.pixels(file))


def sound_features(config: SoundFilesConfig, item: Any) -> np.ndarray:
    """The features [s, F] of a sound: a path, the bytes of a file, floats [n] at the sample rate of the task, or
    {"raw": floats, "sampling_rate": samples a second}.

    Raises `ValueError` if it is not valid sound.
    """
    if isinstance(item, str | Path | bytes):
        samples = config.samples(_file(item, "the sound"))
    else:
        given = item if isinstance(item, Mapping) else {"raw": item, "sampling_rate": config.sample_rate}
        check(
            {*given} == {"raw", "sampling_rate"},
            f"a sound must be a path, an array or {{'raw': ..., 'sampling_rate': ...}}, got the keys {[*given]}",
        )
        samples = np.asarray(given["raw"], np.float32)
        check(samples.ndim == 1 and samples.size > 0, f"samples must be floats [n], got {list(samples.shape)}")
        check(bool(np.isfinite(samples).all()), "a sample is NaN or infinite")
        if given["sampling_rate"] != config.sample_rate:
            soxr = library("soxr", "sounds of another rate", "senses")
            samples = soxr.resample(samples, given["sampling_rate"], config.sample_rate)
    return config.features(config.log_mel(samples))


def _file(item: str | Path | bytes, name: str) -> MediaFile:
    """A file by its path, or by its content, whose name in messages is `name`."""
    if isinstance(item, bytes):
        return MediaFile(name, "", None, item)
    try:
        return MediaFile(str(item), "", None, Path(item).expanduser().read_bytes())
    except OSError as error:
        raise ValueError(f"the file {str(item)!r} cannot be read: {error.strerror}") from None


def without_paths(inputs: Any) -> Any:
    """Inputs of strangers: the content of a file in base64, perhaps with `data:...;base64,` before it, becomes bytes.

    Raises `ValueError` for other texts, such as paths.
    """
    if isinstance(inputs, list):
        return [without_paths(item) for item in inputs]
    if not isinstance(inputs, str):
        return inputs
    _, _, content = inputs.rpartition(",")
    try:
        return base64.b64decode(content, validate=True)
    except ValueError:
        raise ValueError("a picture or a sound must be the content of its file in base64") from None
