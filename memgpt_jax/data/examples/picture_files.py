"""Files of pictures: how they are read, changed in training and cut into patches."""

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from memgpt_jax.config.checks import at_least, check
from memgpt_jax.config.extras import library
from memgpt_jax.config.features import PatchesConfig
from memgpt_jax.data import pictures
from memgpt_jax.data.examples.media import MediaConfig, MediaFile
from memgpt_jax.data.examples.records import Record


@dataclass(frozen=True, kw_only=True)
class PictureFilesConfig(MediaConfig):
    """Base of the tasks on pictures, which are held in memory, height width channels bytes each."""

    suffixes: ClassVar[tuple[str, ...]] = pictures.SUFFIXES

    sheet: str | None = None
    """Tables: a picture beside the table that holds all pictures in cells; the columns `x` and `y` are the column and
    the row of a cell, from 0. Default: each picture is a file of its own."""
    sheet_border: int = at_least(0, default=0)
    """Pixels around the picture in each cell of a sheet, which are left out: cells have height + 2 border times
    width + 2 border pixels."""
    height: int = 32
    """Height in pixels to which pictures are resized."""
    width: int = 32
    """Width in pixels to which pictures are resized."""
    patch_size: int = 4
    """Height and width of a patch in pixels."""
    channels: int = 3
    """3: colours, 1: grey."""
    flip: bool = False
    """In training, mirror each picture with probability 1/2, drawn anew in every epoch."""
    shift: int = at_least(0, default=0)
    """In training, move each picture by up to this number of pixels in both directions, drawn anew in every epoch."""
    erase: int = at_least(0, default=0)
    """In training, fill a square of this side in pixels with the mean of the picture, drawn anew in every epoch."""
    light: float = 0.0
    """In training, multiply brightness and contrast by numbers from 1 - light to 1 + light, drawn anew in every
    epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.channels in (1, 3), f"data.channels must be 1 or 3, got {self.channels}")
        check(
            self.shift < min(self.height, self.width),
            f"data.shift={self.shift} must be below height={self.height} and width={self.width}",
        )
        check(0 <= self.light < 1, f"data.light must be in [0, 1), got {self.light}")
        check(bool(self.patches), "the patches divide a picture")  # or `PatchesConfig` says that they do not

    @property
    def patches(self) -> PatchesConfig:
        """The features of its tokens."""
        return PatchesConfig(height=self.height, width=self.width, patch_size=self.patch_size, channels=self.channels)

    @property
    def is_changed(self) -> bool:
        """Whether training pictures are changed at random."""
        return self.flip or max(self.shift, self.erase, self.light) > 0

    def pixels(self, file: MediaFile) -> np.ndarray:
        """The pixels of a file, uint8 [Y, X, C]. Raises `ValueError` if it is not a valid picture."""
        return pictures.read_picture(file.content, self.height, self.width, self.channels, where=file.where)

    def pixels_of(self, picture: Any) -> np.ndarray:
        """The pixels of an image of Pillow, uint8 [Y, X, C]. Raises `ValueError` if it is not a valid picture."""
        return pictures.picture_pixels(picture, self.height, self.width, self.channels)

    def features(self, pixels: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """The patches [N, F] of pixels [Y, X, C]; rng: of random changes, None: there are none."""
        if rng is not None:
            changes = {name: getattr(self, name) for name in ("flip", "shift", "erase", "light")}
            pixels = pictures.changed(pixels, rng, **changes)
        return pictures.patches(pictures.normalised(pixels), self.patch_size)

    def table_file(self, record: Record, folder: Path) -> tuple[str, Callable[[], bytes]]:
        if self.sheet is None:
            return super().table_file(record, folder)
        x, y = (_number(record, column) for column in ("x", "y"))
        width, height = (size + 2 * self.sheet_border for size in (self.width, self.height))
        sheet, left, top = _sheet(folder / self.sheet), x * width, y * height
        check(
            min(left, top) >= 0 and left + width <= sheet.size[0] and top + height <= sheet.size[1],
            f"{record.where}: {self.sheet} of {sheet.size[0]} x {sheet.size[1]} pixels has no cell ({x}, {y}) of "
            f"{width} x {height} pixels",
        )
        border = self.sheet_border
        box = (left + border, top + border, left + width - border, top + height - border)
        return f"{self.sheet}: {x}, {y}", functools.partial(_crop, sheet, box)


def _number(record: Record, column: str) -> int:
    try:
        return int(record.get(column))
    except (TypeError, ValueError):
        raise ValueError(f"{record.where}: column {column!r} must be a number, got {record.get(column)!r}") from None


@functools.lru_cache(maxsize=1)
def _sheet(path: Path) -> Any:
    """The picture of all cells. Raises `ValueError` if it is none."""
    check(path.is_file(), f"data.sheet: there is no file {path.name!r} in {path.parent.name!r}")
    with pictures.readable(path.name):
        sheet = library("PIL.Image", "pictures", "senses").open(path)
    pictures.check_depth(sheet, path.name)
    with pictures.readable(path.name):
        return sheet.convert("RGBA")


def _crop(sheet: Any, box: tuple[int, int, int, int]) -> bytes:
    with io.BytesIO() as file:
        sheet.crop(box).save(file, "PNG", compress_level=0)
        return file.getvalue()
