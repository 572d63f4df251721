"""Pictures and sounds as pipelines take them, with the types of the transformers library."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memgpt_jax.config.checks import check, instance_of, whole
from memgpt_jax.config.extras import library
from memgpt_jax.data.examples.media import MediaFile
from memgpt_jax.data.examples.picture_files import PictureFilesConfig
from memgpt_jax.data.examples.sound_files import SoundFilesConfig
from memgpt_jax.data.sound import as_samples, resampled


def picture_features(config: PictureFilesConfig, item: Any) -> np.ndarray:
    """The features [s, F] of a picture: a path, the bytes of a file, an image of Pillow, or a uint8 array [Y, X] or
    [Y, X, C].

    Raises `ValueError` if it is not a valid picture.
    """
    if isinstance(item, str | Path | bytes):
        return config.features(config.pixels(_file(item, "the picture")))
    image = library("PIL.Image", "pictures", "senses")
    if isinstance(item, np.ndarray):
        fits = item.dtype == np.uint8 and (item.ndim == 2 or (item.ndim == 3 and item.shape[2] in (1, 2, 3, 4)))
        check(
            fits and item.size > 0,
            f"an array must be uint8 [Y, X] or [Y, X, C] with C from 1 to 4, got {item.dtype}{list(item.shape)}",
        )
        item = image.fromarray(item[..., 0] if item.shape[2:] == (1,) else item)
    return config.features(config.pixels_of(instance_of(item, image.Image, "a picture")))


def sound_features(config: SoundFilesConfig, item: Any) -> np.ndarray:
    """The features [s, F] of a sound: a path, the bytes of a file, samples [n] at the sample rate of the task, or
    {"raw": samples, "sampling_rate": samples a second}. Samples are floats from -1 to 1, or int16 or int32.

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
        rate = whole("sampling_rate", given["sampling_rate"], 1)
        samples = resampled(as_samples(np.asarray(given["raw"])), rate, config.sample_rate)
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
