"""Pictures as arrays: files to pixels, pixels to patches, and random changes. Pillow is imported on first use."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.extras import library

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""The modes of Pillow that are read: up to 8 bits a channel."""


def read_picture(
    content: bytes, height: int, width: int, channels: int = 3, *, where: str = "the picture"
) -> np.ndarray:
    """The pixels of a file, uint8 [height, width, channels].

    A picture of another size is resized (bilinear, antialiased), its proportions are not kept. Transparent pixels are
    shown on white, grey ones become colours, and colours with channels=1 grey. Of moving pictures, the first is read.

    Args:
        content: the bytes of the file.
        height, width: in pixels.
        channels: 3 for colours, 1 for grey.
        where: name of the file, for messages.

    Raises:
        ValueError: it is not a picture, is damaged, has more than 8 bits a channel, or Pillow is not installed.
    """
    with readable(where):
        picture = library("PIL.Image", "pictures", "senses").open(io.BytesIO(content))
    return picture_pixels(picture, height, width, channels, where=where)


def picture_pixels(
    picture: Any, height: int, width: int, channels: int = 3, *, where: str = "the picture"
) -> np.ndarray:
    """The pixels of an image of Pillow, turned as its EXIF data say: see `read_picture`."""
    image, ops = (library(f"PIL.{name}", "pictures", "senses") for name in ("Image", "ImageOps"))
    check(channels in (1, 3), f"channels must be 1 or 3, got {channels}")
    check_depth(picture, where)
    with readable(where):
        picture.load()
        picture = ops.exif_transpose(picture)
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = image.alpha_composite(image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB" if channels == 3 else "L")
    if picture.size != (width, height):
        picture = picture.resize((width, height), image.Resampling.BILINEAR)
    return np.asarray(picture, np.uint8).reshape(height, width, channels)


@contextlib.contextmanager
def readable(where: str) -> Iterator[None]:
    """Errors of Pillow as a `ValueError`."""
    image = library("PIL.Image", "pictures", "senses")
    try:
        yield
    except (OSError, ValueError, SyntaxError, image.DecompressionBombError) as error:
        raise ValueError(f"{where}: it is not a picture, or it is damaged: {error}") from None


def check_depth(picture: Any, where: str) -> None:
    """Raise `ValueError` if an image of Pillow that has not been loaded has more than 8 bits a channel.

    Pillow reads 16 bits of several channels as 8, without a warning; how pixels are packed in the file says so.
    """
    check(picture.mode in MODES, f"{where}: pixels of mode {picture.mode!r}; valid: {', '.join(MODES)}")
    packed = " ".join(str(tile[3]) for tile in getattr(picture, "tile", ()))
    check(";16" not in packed, f"{where}: it has 16 bits a channel, at most 8 are read")


def patches(pixels: np.ndarray, patch_size: int) -> np.ndarray:
    """The patches of a picture [Y, X, C], row by row: [N, C patch_size^2] in the order (channel, row, column)."""
    (height, width, channels), size = pixels.shape, patch_size
    check(
        height % size == 0 and width % size == 0 and min(height, width) > 0,
        f"a picture of {height} x {width} pixels has no whole patches of {size} x {size}",
    )
    x = pixels.reshape(height // size, size, width // size, size, channels)
    return x.transpose(0, 2, 4, 1, 3).reshape(-1, channels * size * size)


def normalised(pixels: np.ndarray) -> np.ndarray:
    """uint8 pixels as float32 from -1 to 1, as ViT has them."""
    return pixels.astype(np.float32) / np.float32(127.5) - 1


def changed(
    pixels: np.ndarray,
    rng: np.random.Generator,
    *,
    flip: bool = False,
    shift: int = 0,
    erase: int = 0,
    light: float = 0.0,
) -> np.ndarray:
    """A picture [Y, X, C] in uint8 that is changed at random.

    Args:
        pixels: the picture.
        rng: of the draws, all uniform.
        flip: mirror it with probability 1/2.
        shift: move it by up to this number of pixels in both directions; the mirror image of the border moves in.
        erase: fill a square of this side with the mean of the picture; its centre is any pixel (DeVries and Taylor,
            "Cutout", 2017).
        light: brightness and contrast: a pixel p becomes a (p - m) + b m, m the mean of the picture, a and b from
            1 - light to 1 + light.
    """
    if flip and rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if shift:
        y, x = rng.integers(2 * shift + 1, size=2)
        padded = np.pad(pixels, ((shift, shift), (shift, shift), (0, 0)), mode="reflect")
        pixels = padded[y : y + pixels.shape[0], x : x + pixels.shape[1]]
    if light:
        contrast, brightness = rng.uniform(1 - light, 1 + light, size=2)
        mean = pixels.mean()
        pixels = np.clip(contrast * (pixels - mean) + brightness * mean, 0, 255).round().astype(np.uint8)
    if erase:
        y, x = (int(rng.integers(size)) - erase // 2 for size in pixels.shape[:2])
        pixels = pixels.copy()
        pixels[max(0, y) : y + erase, max(0, x) : x + erase] = pixels.mean(axis=(0, 1)).round().astype(np.uint8)
    return pixels
