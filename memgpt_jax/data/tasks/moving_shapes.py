"""Generated videos of coloured shapes that cross the field: which colour passed first, and which last?"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from memgpt_jax.config.checks import at_least, check, check_positive
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.features import PatchesConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.shapes import COLOURS, SHAPES, drawn_shape
from memgpt_jax.data.tasks.base import Task, choose
from memgpt_jax.data.tasks.labelled_media import FeatureLabelsConfig

SIDE, SIZE = 16, 8
"""Height and width of a frame and of a shape, in pixels."""
SPEEDS = (4, 6, 8)
"""Pixels a frame."""
LONGEST = (SIDE + SIZE - 1) // min(SPEEDS)
"""Frames in which the slowest shape is visible."""
ASKED = ("first", "last")
WORDS = ("which", "colour", "passed", *ASKED)
QUESTION_LENGTH = 4
"""Words of "which colour passed first"."""


@dataclass(frozen=True, kw_only=True)
class MovingShapesConfig(TaskConfig):
    """Coloured shapes cross a field one after the other, to the left or to the right; then "which colour passed first".

    A row is a video, a token for each frame, then a token for each word. A frame of 16x16 pixels from 0 (black) to 1 is
    one patch. The question asks for the first or for the last shape; the colours of a video are distinct.
    """

    length_fields: ClassVar[tuple[str, ...]] = ("frames",)

    frames: int = 60
    """Frames of a video."""
    gap: int = at_least(0, default=16)
    """Empty frames at its end. If it is at least num_layers x window_size, only a memory can carry a colour to the
    question."""
    passes: int = 3
    """Shapes of a video, each visible for 2 to 5 frames, at random times before the gap."""
    colours: int = 6
    """Number of colours, at most 6."""

    def __post_init__(self) -> None:
        check_positive(self)
        check(
            2 <= self.passes <= self.colours <= len(COLOURS),
            f"data.passes={self.passes} must be from 2 to data.colours={self.colours}, which is at most {len(COLOURS)}",
        )
        check(
            self.passes * LONGEST <= self.frames - self.gap,
            f"data.frames={self.frames} less data.gap={self.gap} cannot hold data.passes={self.passes} shapes of "
            f"{LONGEST} frames",
        )

    @property
    def objective(self) -> FeatureLabelsConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Predict the colour at the last token."""
        return FeatureLabelsConfig(layout=self.features_config.layout)

    @property
    def features_config(self) -> PatchesConfig:
        """A frame is a patch."""
        return PatchesConfig(height=SIDE, width=SIDE, patch_size=SIDE)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The colours."""
        return tuple(COLOURS)[: self.colours]

    @property
    def num_ids(self) -> int:
        """The id 0 of frames, and the words."""
        return 1 + len(WORDS)

    @property
    def row_length(self) -> int:
        """The frames and the question."""
        return self.frames + QUESTION_LENGTH


class MovingShapesTask(Task[MovingShapesConfig]):
    """Videos with a question each, in groups by what is asked."""

    groups: ClassVar[tuple[str, ...]] = ASKED

    @classmethod
    def shapes(cls, config: MovingShapesConfig, rows: int, length: int) -> Batch:
        shape = (rows, config.row_length)
        features = ((*shape, config.features_config.size), np.float32)
        return zeros({"tokens": (shape, np.int32), "reset": (shape, bool), "features": features}, {"labels": shape})

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        """A batch as in `Task.batch`, whose targets are the labels, numbers of `MovingShapesConfig.output_names`."""
        config, rng = self.config, np.random.default_rng(rng)
        shape, passes = (batch_size, config.row_length), (batch_size, config.passes)
        colours = choose(rng, batch_size, config.colours, config.passes)
        asked = rng.integers(len(ASKED), size=batch_size)
        features = np.zeros((*shape, config.features_config.size), np.float32)
        row, number, time, place = self._places(rng, batch_size)
        kinds, lanes = rng.integers(len(SHAPES), size=passes), rng.integers(SIDE - SIZE + 1, size=passes)
        drawn = self._pictures[colours[row, number], kinds[row, number], lanes[row, number], place]
        features[row, time] = drawn / np.float32(255)

        tokens, reset = np.zeros(shape, np.int32), np.zeros(shape, bool)
        tokens[:, config.frames : -1] = np.arange(1, QUESTION_LENGTH)
        tokens[:, -1] = QUESTION_LENGTH + asked
        reset[:, 0] = True
        targets, weights = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
        targets[:, -1] = np.where(asked == 0, colours[:, 0], colours[:, -1])
        weights[:, -1] = 1
        inputs = {"tokens": tokens, "reset": reset, "features": features}
        return Batch(inputs, {"labels": targets}, {"labels": weights}, {"group": asked})

    def _places(self, rng: np.random.Generator, rows: int) -> tuple[np.ndarray, ...]:
        """Of each visible shape in each frame: its row, its number in the row, the frame, and its place (`_pictures`).

        In each frame, the place increases or decreases by the speed of the shape, one of `SPEEDS`.
        """
        config, shape = self.config, (rows, self.config.passes)
        room = config.frames - config.gap - config.passes * (LONGEST - 1)
        starts = np.sort(choose(rng, rows, room, config.passes), axis=1) + np.arange(config.passes) * (LONGEST - 1)
        place = rng.choice(SPEEDS, size=shape)[..., None] * np.arange(1, LONGEST + 1) - 1
        row, number, passed = np.nonzero(place < SIDE + SIZE - 1)
        place = place[row, number, passed]
        is_backward = rng.integers(2, size=shape)[row, number] == 1
        return row, number, starts[row, number] + passed, np.where(is_backward, SIDE + SIZE - 2 - place, place)

    @cached_property
    def _pictures(self) -> np.ndarray:
        """The features of frames, uint8 [colours, shapes, lanes, places, F]: a shape with its upper edge at the row
        `lane` and its left edge at the column `place - SIZE + 1`, of which some may be outside of the frame."""
        lanes, places = SIDE - SIZE + 1, SIDE + SIZE - 1
        drawn = np.array([[drawn_shape(shape, colour, SIZE) for shape in SHAPES] for colour in COLOURS.values()])
        field = np.zeros((*drawn.shape[:2], lanes, places, SIDE, SIDE + 2 * SIZE, 3), np.uint8)
        for lane, place in np.ndindex(lanes, places):
            field[:, :, lane, place, lane : lane + SIZE, place + 1 : place + 1 + SIZE] = drawn
        frames = np.moveaxis(field[..., SIZE:-SIZE, :], -1, -3)  # channels first, as in a patch
        return frames.reshape(*frames.shape[:4], -1)
