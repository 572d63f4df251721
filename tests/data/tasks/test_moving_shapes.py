"""Videos of moving shapes: the answer is that of the frames, shapes move, and what comes first can be long ago."""

import itertools

import numpy as np
import pytest

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.features import PatchesConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import make_task
from memgpt_jax.data.shapes import COLOURS
from memgpt_jax.data.tasks.moving_shapes import SPEEDS, WORDS, MovingShapesConfig
from memgpt_jax.models.heads import LabelHeadConfig

ROWS = 400


def frames_of(config, batch, row):
    """The frames [n, 16, 16, 3] of a row, whole numbers."""
    pixels = batch.inputs["features"][row, : config.frames].reshape(-1, 3, 16, 16) * 255
    return np.rint(pixels).astype(int).transpose(0, 2, 3, 1)


def passes_of(frames):
    """Of each shape in turn its colour, its frames, and the columns at which it begins and ends in each of them."""
    seen = [
        (time, frame.reshape(-1, 3).max(axis=0), frame.any(axis=(0, 2)).nonzero()[0])
        for time, frame in enumerate(frames)
    ]
    seen = [(time, tuple(colour), (columns[0], columns[-1])) for time, colour, columns in seen if len(columns)]
    names = {colour: name for name, colour in COLOURS.items()}
    return [
        (names[colour], [time for time, *_ in group], [ends for *_, ends in group])
        for colour, group in ((colour, list(group)) for colour, group in itertools.groupby(seen, lambda item: item[1]))
    ]


@pytest.fixture(scope="module")
def drawn():
    config = MovingShapesConfig()
    return config, make_task(config, "valid").batch(0, ROWS, 0)


def test_the_answer_is_that_of_the_video(drawn):
    config, batch = drawn
    for row in range(ROWS):
        passes = passes_of(frames_of(config, batch, row))
        words = [WORDS[token - 1] for token in batch.inputs["tokens"][row, config.frames :]]
        assert words[:3] == ["which", "colour", "passed"] and words[3] == ("first", "last")[batch.info["group"][row]]
        assert len({colour for colour, *_ in passes}) == len(passes) == config.passes
        answer = config.output_names[batch.targets["labels"][row, -1]]
        assert answer == passes[0 if words[3] == "first" else -1][0]
        assert passes[-1][1][-1] < config.frames - config.gap
    assert (batch.inputs["tokens"][:, : config.frames] == 0).all() and (batch.weights["labels"].sum(axis=1) == 1).all()
    for values, number in ((batch.targets["labels"][:, -1], 6), (batch.info["group"], 2)):
        np.testing.assert_allclose(np.bincount(values) / ROWS, 1 / number, atol=0.08)


def test_shapes_move_at_constant_speeds_in_both_directions(drawn):
    config, batch = drawn
    steps = set()
    for row in range(100):
        for _, times, ends in passes_of(frames_of(config, batch, row)):
            assert 2 <= len(times) <= 5 and times == list(range(times[0], times[0] + len(times)))
            # The edge that does not touch the border of the field moves by the speed.
            moved = {
                after[side] - before[side]
                for before, after in itertools.pairwise(ends)
                for side in (0, 1)
                if not {before[side], after[side]} & {0, 15}
            }
            assert len(moved) <= 1
            steps |= moved
    assert steps <= {sign * speed for speed in SPEEDS for sign in (1, -1)} and min(steps) < 0 < max(steps)


def test_the_first_shape_can_be_a_thousand_frames_ago():
    config = MovingShapesConfig().at_length(1020)
    batch = make_task(config, "valid").batch(0, 16, 0)
    first = [passes_of(frames_of(config, batch, row))[0][1][0] for row in range(16)]
    assert (
        min(first) < 100 < max(first) and config.row_length == 1024 and config.num_ids == MovingShapesConfig().num_ids
    )


def test_what_does_not_fit_is_named():
    for settings, message in (
        ({"frames": 30}, "data.frames=30 less data.gap=16 cannot hold data.passes=3 shapes of 5 frames"),
        ({"passes": 1}, "data.passes=1 must be from 2 to data.colours=6"),
        ({"colours": 7}, "data.colours=7, which is at most 6"),
    ):
        with pytest.raises(ValueError, match=message):
            MovingShapesConfig(**settings)
    backbone = ModelConfig(vocab_size=6, features=PatchesConfig(height=16, width=16, patch_size=8))
    with pytest.raises(ValueError, match=r"the data have features \(16, 16, 16, 3\), and model.backbone.features="):
        ExperimentConfig(model=HeadedConfig(backbone=backbone, head=LabelHeadConfig()), data=MovingShapesConfig())
