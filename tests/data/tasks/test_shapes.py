"""Generated shapes: the answer follows from picture and text together, and from neither alone."""

import numpy as np
import pytest

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.model import EncoderConfig
from memgpt_jax.data import make_task
from memgpt_jax.data.shapes import COLOURS, SHAPES, WORDS, drawn_shape
from memgpt_jax.data.tasks.shapes import ShapesConfig
from memgpt_jax.models.heads import GraphHeadConfig, LabelHeadConfig

ROWS = 3000


def drawn(split="valid", **settings):
    config = ShapesConfig(**settings)
    return config, make_task(config, split).batch(0, ROWS, 0)


def scene(config, batch, row):
    """The coloured shapes of a row of objects, and its words."""
    tokens, valid = batch.inputs["tokens"][row], batch.inputs["valid"][row]
    features = batch.inputs["features"][row][valid & (tokens == 0)]
    colours, shapes, _ = np.split(features, [config.colours, config.colours + config.shapes], axis=1)
    names = [(list(COLOURS)[a], SHAPES[b]) for a, b in zip(colours.argmax(axis=1), shapes.argmax(axis=1), strict=True)]
    return names, [WORDS[token - 1] for token in tokens[valid & (tokens > 0)]]


@pytest.mark.parametrize("ask", ["statement", "colour"])
def test_the_answer_is_that_of_the_scene(ask):
    config, batch = drawn(view="objects", ask=ask)
    last = batch.inputs["valid"].sum(axis=1) - 1
    labels = batch.targets["labels"][np.arange(ROWS), last]
    assert (batch.weights["labels"].sum(axis=1) == 1).all() and labels.min() >= 0
    for row in range(0, ROWS, 3):
        assert batch.info["group"][row] == 0
        objects, words = scene(config, batch, row)
        if ask == "statement":
            assert words[:3] == ["there", "is", "a"]
            assert config.output_names[labels[row]] == str((words[3], words[4]) in objects).lower()
        else:
            assert words[:4] == ["what", "colour", "is", "the"]
            assert [colour for colour, shape in objects if shape == words[4]] == [config.output_names[labels[row]]]
    assert scene(config, batch, 1)[0] == [] and scene(config, batch, 2)[1] == []
    share = np.bincount(labels) / ROWS
    np.testing.assert_allclose(share, 1 / len(config.output_names), atol=0.04)


def test_half_of_the_statements_are_true_of_each_coloured_shape_and_each_number_of_equal_objects():
    config, batch = drawn(view="objects")
    rows = np.arange(0, ROWS, 3)
    labels = batch.targets["labels"][rows].max(axis=1)
    scenes = [scene(config, batch, row) for row in rows]
    for groups in (
        [words[4] for _, words in scenes],
        [words[3] for _, words in scenes],
        [len({*o}) for o, _ in scenes],
    ):
        for value in set(groups):
            of_group = labels[[group == value for group in groups]]
            assert abs(of_group.mean() - 0.5) < 2 / np.sqrt(len(of_group))  # four standard errors


def test_patches_show_the_objects_and_edges_join_what_is_there():
    config, batch = drawn(token_types=True, edges=True)
    patches = batch.inputs["features"].reshape(ROWS, -1, 3, 8, 8)
    filled = (patches > -1).any(axis=(2, 3, 4)) & (batch.inputs["token_types"] == 1)
    assert (filled.sum(axis=1) == np.where(batch.info["group"] == 1, 0, 4)).all()
    pictures = {(shape, colour): drawn_shape(shape, COLOURS[colour], 8) for shape in SHAPES for colour in COLOURS}
    assert len({picture.tobytes() for picture in pictures.values()}) == 24
    types = batch.inputs["token_types"]
    assert ((types == 1) == (batch.inputs["valid"] & (batch.inputs["tokens"] == 0))).all()
    for row in range(3):
        edges = batch.inputs["edges"][row]
        source, kind, target = edges[edges[:, 1] >= 0].T
        assert batch.inputs["valid"][row][[source, target]].all()
        assert (kind == 2 * types[row][source] + types[row][target]).all()
        assert len(kind) == (8 + 2 * 45 + 24, 8, 24)[row]


def test_training_drops_modalities_at_their_rates():
    _, batch = drawn("train", drop_picture=0.3, drop_text=0.2)
    has_text = (batch.inputs["tokens"] > 0).any(axis=1)
    has_picture = (batch.inputs["features"] != 0).any(axis=(1, 2))
    assert abs(np.mean(~has_picture) - 0.3) < 0.04 and abs(np.mean(~has_text) - 0.2) < 0.04
    assert (has_text | has_picture).all()


def test_what_does_not_fit_is_named():
    for settings, message in (
        ({"objects": 10}, "data.objects=10 must be at most the 9 cells of data.grid=3"),
        ({"colours": 7}, "data.colours must be from 2 to 6, got 7"),
        ({"drop_text": 0.8, "drop_picture": 0.3}, "add up to more than 1"),
    ):
        with pytest.raises(ValueError, match=message):
            ShapesConfig(**settings)
    data = ShapesConfig()
    backbone = EncoderConfig(vocab_size=data.num_ids, features=data.features_config, heads=())
    with pytest.raises(ValueError, match=r"data\.edges=False, and the model reads edges: give True"):
        ExperimentConfig(model=HeadedConfig(backbone=backbone, head=GraphHeadConfig()), data=data)
    with pytest.raises(ValueError, match=r"data\.token_types=True, and the model has no such input"):
        ExperimentConfig(
            model=HeadedConfig(backbone=backbone, head=LabelHeadConfig()), data=ShapesConfig(token_types=True)
        )
