"""Generated pictures of coloured shapes with a statement or a question: does a model fuse picture and text?"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from memgpt_jax.config.checks import check, check_literals, check_positive
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.features import FeaturesConfig, PatchesConfig, VectorsConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.pictures import normalised, patches
from memgpt_jax.data.shapes import COLOURS, SHAPES, TEXT_LENGTH, WORDS, drawn_shape, edges_of_rows
from memgpt_jax.data.tasks.base import Task, choose
from memgpt_jax.data.tasks.labelled_media import FeatureLabelsConfig
from memgpt_jax.data.tokenizers.base import Tokenizer

ANSWERS = {"statement": ("false", "true"), "colour": tuple(COLOURS)}


@dataclass(frozen=True, kw_only=True)
class ShapesLabelsConfig(FeatureLabelsConfig):
    """Predict the answer at the last token. Needs a `HeadedConfig` over a model with features."""

    further: tuple[str, ...] = ()
    """Further inputs of batches: `token_types`, `edges`."""

    def check_model(self, model: Any, length: int) -> None:
        """Raise `ValueError` if the model has no head, or other features or inputs than the data."""
        super().check_model(model, length)
        for name in ("token_types", "edges"):
            has, needs = name in self.further, name in model.inputs
            check(
                has == needs,
                f"data.{name}={has}, and the model {'has no such input' if has else f'reads {name}: give True'}",
            )


@dataclass(frozen=True, kw_only=True)
class ShapesConfig(TaskConfig):
    """Coloured shapes on a grid, then "there is a red circle" (true or false), or "what colour is the circle".

    A row is the picture, a token for each patch or object, then a token for each word. Half of the statements are true,
    of each picture and of each statement: neither picture nor text alone says anything about the answer.
    """

    grid: int = 3
    """Height and width of the grid in cells; a cell is a patch."""
    cell_size: int = 8
    """Height and width of a cell in pixels."""
    colours: int = 3
    """Number of colours, at most 6."""
    shapes: int = 3
    """Number of shapes, at most 4."""
    objects: int = 4
    """Number of shapes in a picture, at most one in a cell."""
    ask: Literal["statement", "colour"] = "statement"
    """`statement`: is it true; `colour`: what colour has the only shape of its kind."""
    view: Literal["patches", "objects"] = "patches"
    """The tokens of a picture: `patches`, the pixels of each cell; `objects`, colour, shape and place of each shape."""
    drop_picture: float = 0.1
    """Fraction of training rows without the picture."""
    drop_text: float = 0.1
    """Fraction of training rows without the text."""
    token_types: bool = False
    """Whether batches have token types: 0 for words, 1 for patches or objects."""
    edges: bool = False
    """Whether batches have the edges of a graph of words and patches or objects, of four kinds:
    `memgpt_jax.data.shapes.EDGES`."""

    def __post_init__(self) -> None:
        check_positive(self)
        check_literals(self)
        check(2 <= self.colours <= len(COLOURS), f"data.colours must be from 2 to {len(COLOURS)}, got {self.colours}")
        check(2 <= self.shapes <= len(SHAPES), f"data.shapes must be from 2 to {len(SHAPES)}, got {self.shapes}")
        check(
            self.objects <= self.grid**2 and self.objects < self.colours * self.shapes,
            f"data.objects={self.objects} must be at most the {self.grid**2} cells of data.grid={self.grid}, and fewer "
            f"than the {self.colours * self.shapes} coloured shapes",
        )
        check(self.cell_size >= 8, f"data.cell_size must be at least 8 pixels, got {self.cell_size}")
        for name in ("drop_picture", "drop_text"):
            check(0 <= getattr(self, name) <= 1, f"data.{name} must be from 0 to 1, got {getattr(self, name)}")
        check(
            self.drop_picture + self.drop_text <= 1,
            f"data.drop_picture={self.drop_picture} and data.drop_text={self.drop_text} add up to more than 1",
        )

    @property
    def objective(self) -> ShapesLabelsConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Predict the answer at the last token."""
        further = tuple(name for name in ("token_types", "edges") if getattr(self, name))
        return ShapesLabelsConfig(layout=self.features_config.layout, further=further)

    @property
    def features_config(self) -> FeaturesConfig:
        """The features of the tokens of a picture."""
        if self.view == "objects":
            return VectorsConfig(size=self.colours + self.shapes + 2)
        side = self.grid * self.cell_size
        return PatchesConfig(height=side, width=side, patch_size=self.cell_size)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The answers."""
        return ANSWERS[self.ask][: self.colours if self.ask == "colour" else None]

    @property
    def num_ids(self) -> int:
        """The id 0 of patches and objects, and the words."""
        return 1 + len(WORDS)

    @property
    def picture_length(self) -> int:
        """Tokens of a picture."""
        return self.objects if self.view == "objects" else self.grid**2

    @property
    def row_length(self) -> int:
        """Twice the longer of picture and text, so that `HeadedConfig.call_length` can divide them."""
        return 2 * max(self.picture_length, TEXT_LENGTH)


class ShapesTask(Task[ShapesConfig]):
    """Pictures with a text each. In evaluation, a third of the rows each lacks nothing, the picture, or the text."""

    groups: ClassVar[tuple[str, ...]] = ("all", "without picture", "without text")

    def __init__(self, config: ShapesConfig, split: str, tokenizer: Tokenizer | None = None):
        super().__init__(config, split, tokenizer)
        self.drops = split == "train"
        """Whether modalities are dropped at random; else in turn."""

    @classmethod
    def shapes(cls, config: ShapesConfig, rows: int, length: int) -> Batch:
        shape = (rows, config.row_length)
        inputs: dict[str, Any] = dict.fromkeys(("reset", "valid"), (shape, bool))
        inputs |= {"tokens": (shape, np.int32), "features": ((*shape, config.features_config.size), np.float32)}
        if config.token_types:
            inputs["token_types"] = (shape, np.int32)
        if config.edges:
            inputs["edges"] = ((rows, *_edges(config).shape[1:]), np.int32)
        return zeros(inputs, {"labels": shape})

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        """A batch as in `Task.batch`, whose targets are the labels, numbers of `ShapesConfig.output_names`."""
        config, rng = self.config, np.random.default_rng(rng)
        if self.drops:
            u = rng.random(batch_size)
            group = np.where(u < config.drop_picture, 1, np.where(u < config.drop_picture + config.drop_text, 2, 0))
        else:
            group = np.arange(batch_size) % 3
        codes, asked, labels = self._scenes(rng, batch_size)
        cells = choose(rng, batch_size, config.grid**2, config.objects)
        words = self._words(asked)

        shape, number = (batch_size, config.row_length), config.picture_length
        tokens, types = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        features = np.zeros((*shape, config.features_config.size), np.float32)
        starts = np.where(group == 1, 0, number)  # of the text
        ends = np.where(group == 2, number, starts + TEXT_LENGTH)
        has_picture, has_text = group != 1, group != 2
        features[has_picture, :number] = self._picture(codes, cells)[has_picture]
        types[has_picture, :number] = 1
        places = starts[:, None] + np.arange(TEXT_LENGTH)
        rows = np.arange(batch_size)[:, None]
        tokens[rows[has_text], places[has_text]] = words[has_text]
        valid = np.arange(config.row_length) < ends[:, None]
        reset = np.zeros(shape, bool)
        reset[:, 0] = True
        inputs = {"tokens": tokens, "reset": reset, "valid": valid, "features": features}
        if config.token_types:
            inputs["token_types"] = types
        if config.edges:
            inputs["edges"] = self._edges[group]
        targets, weights = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
        targets[np.arange(batch_size), ends - 1] = labels
        weights[np.arange(batch_size), ends - 1] = 1
        return Batch(inputs, {"labels": targets}, {"labels": weights}, {"group": group})

    def _scenes(self, rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The coloured shapes of each picture [rows, objects], the one that is asked for, and the answers [rows].

        A coloured shape is the number colour x shapes + shape.
        """
        config = self.config
        colours, shapes = config.colours, config.shapes
        codes = rng.integers(colours * shapes, size=(rows, config.objects))
        if config.ask == "colour":  # the others have other shapes than the first
            others = (codes[:, :1] + rng.integers(1, shapes, size=codes[:, 1:].shape)) % shapes
            codes[:, 1:] = codes[:, 1:] // shapes * shapes + others
            return codes, codes[:, 0], codes[:, 0] // shapes
        present = np.zeros((rows, colours * shapes), bool)
        np.put_along_axis(present, codes, True, axis=1)
        labels = rng.integers(2, size=rows)
        fits = present == (labels[:, None] == 1)
        asked = np.where(fits, rng.random(present.shape), -1).argmax(axis=1)
        return codes, asked, labels

    def _words(self, asked: np.ndarray) -> np.ndarray:
        """The ids of the words of each text [rows, 5], for the coloured shape that is asked for."""
        shape = np.array([f"{name}" for name in SHAPES])[asked % self.config.shapes]
        colour = np.array(list(COLOURS))[asked // self.config.shapes]
        if self.config.ask == "colour":
            texts = [("what", "colour", "is", "the", name) for name in shape]
        else:
            texts = [("there", "is", "a", *names) for names in zip(colour, shape, strict=True)]
        return np.array([[1 + WORDS.index(word) for word in text] for text in texts], np.int32).reshape(-1, TEXT_LENGTH)

    def _picture(self, codes: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """The features of the tokens of each picture [rows, tokens, F]."""
        config = self.config
        if config.view == "objects":
            colour, shape = np.divmod(codes, config.shapes)
            place = np.stack(np.divmod(cells, config.grid), axis=-1) / max(1, config.grid - 1) * 2 - 1
            one_hot = [np.eye(size)[numbers] for size, numbers in ((config.colours, colour), (config.shapes, shape))]
            return np.concatenate([*one_hot, place], axis=-1).astype(np.float32)
        contents = np.full((len(codes), config.grid**2), -1)
        np.put_along_axis(contents, cells, codes, axis=1)
        return self._cells[contents]

    @cached_property
    def _cells(self) -> np.ndarray:
        """The patch of each coloured shape, and last that of an empty cell."""
        config = self.config
        colours = list(COLOURS.values())[: config.colours]
        drawn = [
            drawn_shape(shape, colour, config.cell_size) for colour in colours for shape in SHAPES[: config.shapes]
        ]
        drawn.append(np.zeros_like(drawn[0]))
        return np.concatenate([patches(normalised(pixels), config.cell_size) for pixels in drawn])

    @cached_property
    def _edges(self) -> np.ndarray:
        return _edges(self.config)


def _edges(config: ShapesConfig) -> np.ndarray:
    """`edges_of_rows` of the task."""
    return edges_of_rows(config.picture_length, None if config.view == "objects" else config.grid)
