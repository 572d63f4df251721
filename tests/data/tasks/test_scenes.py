"""Statements about scenes: what they mean, their balance, the rows, and models that read them."""

import json
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig
from memgpt_jax.data import make_task
from memgpt_jax.data import statements as of
from memgpt_jax.data.drawn_statements import LONGEST, WORDS, drawn_rows
from memgpt_jax.data.examples.nlvr import read_nlvr
from memgpt_jax.data.scenes import BOXES, COLOURS, EDGES, scattered_scenes, tower_scenes
from memgpt_jax.data.tasks.scenes import ScenesConfig, read_split
from memgpt_jax.models import from_params
from memgpt_jax.models.heads import GraphHeadConfig
from tests.laws.models import random_params
from tests.laws.real_data import DATA

REAL = DATA / "image" / "nlvr_dev.jsonl.gz"
YELLOW, BLACK, BLUE = range(3)
NAMES = ("Yellow", "Black", "#0099ff")


def item(colour, shape="square", size=20, x=40, y=40):
    return {"color": NAMES[colour], "type": shape, "size": size, "x_loc": x, "y_loc": y}


def tower(*colours):
    return [item(colour, y=80 - 21 * level) for level, colour in enumerate(colours)]


def written(path, *scenes, sentence="there is a tower", label="true"):
    """A file of scenes, two for each sentence: the given one, then longer ones; identifiers differ."""
    rows = [
        {
            "sentence": f"{sentence} {'x' * (i // 2)}",
            "label": label,
            "identifier": str(i),
            "structured_rep": list(boxes),
        }
        for i, boxes in enumerate(scenes)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


TOWERS = [
    (tower(BLACK, BLUE), tower(BLUE), tower(YELLOW, YELLOW, BLUE)),
    (tower(BLACK), tower(BLACK), tower(YELLOW, BLACK, BLUE, BLACK)),
]
SCATTERED = [
    (
        [item(BLUE, "circle", 10, x=0, y=50), item(BLACK)],
        [item(BLUE, "circle", 30, x=70, y=70), item(BLUE, "triangle")],
        [item(BLUE, "circle")],
    ),
    ([item(YELLOW, "square", y=80), item(YELLOW)], [item(YELLOW, "square", 10)], [item(BLACK, "triangle")]),
]
BLOCK = of.objects(noun="block")


def some(number=1, kind="plain"):
    return of.amount(kind, number)


@pytest.mark.parametrize(
    ("scenes", "statement", "text", "holds"),
    [
        (
            TOWERS,
            of.there_are(some(2, "exactly"), of.level(BLUE, "top", "tower{s} with a blue block at the top")),
            "there are exactly two towers with a blue block at the top",
            (False, False),  # three, none
        ),
        (TOWERS, of.there_are(some(2), of.level(BLACK, "base", "black base{s}")), "there are two black bases", (0, 1)),
        (TOWERS, of.there_are(some(1), of.level(YELLOW, "second", "second{s}")), "there is one second", (1, 0)),
        (TOWERS, of.there_are(some(1, "no"), of.objects(YELLOW)), "there is no yellow item", (0, 0)),
        (
            TOWERS,
            of.there_are(some(3, "more than"), of.objects(BLACK)),
            "there are more than three black items",
            (0, 1),
        ),
        (
            TOWERS,
            of.there_are(some(), of.relation(BLUE, BLACK, "block", "over")),
            "there is one a blue block over a black block",
            (1, 1),
        ),
        (
            TOWERS,
            of.there_are(some(), of.relation(YELLOW, YELLOW, "block", "on")),
            "there is one a yellow block on a yellow block",
            (1, 0),
        ),
        (
            TOWERS,
            of.there_are(some(), of.relation(BLACK, BLUE, "block", "below")),
            "there is one a blue block below a black block",
            (0, 1),
        ),
        (
            TOWERS,
            of.all_boxes("each tower has", of.holding(some(), of.objects(BLUE), "")),
            "each tower has one blue item",
            (1, 0),
        ),
        (
            TOWERS,
            of.of_those("all with one", of.holding(some(1, "exactly"), BLOCK), of.level(BLACK, "top", "")),
            "all with one",
            (False, True),
        ),
        (TOWERS, of.same("equal heights", lambda scenes: scenes.present.sum(axis=2)), "equal heights", (0, 1)),
        (TOWERS, of.there_are(some(), of.only_colours((BLACK, BLUE), "only")), "there is one only", (1, 0)),
        (TOWERS, of.there_are(some(), of.of_colours(3, "three")), "there is one three", (0, 1)),
        (
            SCATTERED,
            of.there_are(some(1, "exactly"), of.objects(BLUE, 0, place="touching the edge")),
            "there is exactly one blue circle touching the edge",
            (False, False),  # two, none
        ),
        (
            SCATTERED,
            of.there_are(some(), of.objects(place="touching the corner")),
            "there is one item touching the corner",
            (1, 0),
        ),
        (SCATTERED, of.there_are(some(), of.objects(None, 0, 0)), "there is one small circle", (1, 0)),
        (SCATTERED, of.in_the_same_box(of.objects(BLUE, 2)), "all blue triangles are in the same box", (1, 0)),
        (SCATTERED, of.in_the_same_box(of.objects(BLUE, 0)), "all blue circles are in the same box", (0, 0)),
        (
            SCATTERED,
            of.all_objects(of.objects(None, 2), "not touching any edge"),
            "triangles are not touching any edge",
            (1, 1),
        ),
        (
            SCATTERED,
            of.none_of(of.objects(YELLOW), "touching the wall"),
            "none of the yellow items are touching the wall",
            (1, 0),
        ),
        (SCATTERED, of.colours_there(1, "touching the wall", "one color"), "one color", (1, 1)),
        (
            SCATTERED,
            of.there_are(some(1, "no"), of.holding(some(2), of.objects(BLUE))._replace(text="box{es} with two")),
            "there is no box with two",
            (False, True),
        ),
    ],
)
def test_what_statements_mean(tmp_path, scenes, statement, text, holds):
    assert statement.text == text
    _, read = read_nlvr(Path(written(tmp_path / "scenes.jsonl", *scenes)))
    np.testing.assert_array_equal(statement.holds(read), np.array(holds, bool))


def test_every_statement_and_every_scene_is_as_often_true_as_false():
    rows = drawn_rows(np.random.default_rng(0), 400)
    assert {word for statement in rows.statements for word in statement.text.split()} <= {*WORDS}
    truth = [statement.holds(rows.scenes.at(np.array([i])))[0] for i, statement in enumerate(rows.statements)]
    np.testing.assert_array_equal(rows.labels, truth)
    scenes = [b"".join(array[i].tobytes() for array in rows.scenes) for i in range(400)]
    for names in (scenes, [statement.text for statement in rows.statements]):
        true = Counter(name for name, label in zip(names, rows.labels, strict=True) if label)
        assert true == Counter(name for name, label in zip(names, rows.labels, strict=True) if not label)


@pytest.mark.parametrize("draw", [tower_scenes, scattered_scenes])
def test_drawn_objects_are_in_their_boxes_and_apart(draw):
    scenes = draw(np.random.default_rng(1), 200)
    size, present = 10 * (scenes.size + 1), scenes.present
    for place in (scenes.x, scenes.y):
        assert ((place >= 0) & (place + size <= 100))[present].all()
    low, high = (np.stack([scenes.x + part, scenes.y + part], axis=-1) for part in (0, size))
    meet = ((low[..., :, None, :] < high[..., None, :, :]) & (low[..., None, :, :] < high[..., :, None, :])).all(
        axis=-1
    )
    both = present[..., :, None] & present[..., None, :] & ~np.eye(8, dtype=bool)
    assert not (meet & both).any()
    bottoms = np.where(present, scenes.y + size, -1)
    assert (np.diff(bottoms, axis=2) <= 0).all() and present.any(axis=2).all()


def test_rows_hold_words_boxes_and_objects_with_their_edges(tmp_path):
    path = written(tmp_path / "scenes.jsonl", *(TOWERS * 20), sentence="There is a YELLOW blob on 2 blocks")
    config = ScenesConfig(path=path, token_types=True, edges=True, generated=0.0)
    task = make_task(config, "test")
    (batch,) = task.held_out(0, 64, 0, 1)
    assert batch.weights["labels"].sum() == 8  # four sentences of twenty, two scenes each
    inputs, words = batch.inputs, task.config.vocabulary
    tokens, types, valid = (inputs[name][0] for name in ("tokens", "token_types", "valid"))
    assert [words[i - 2] for i in tokens[:7]] == ["there", "is", "a", "yellow", "blob", "on", "two"]
    assert valid.sum() == 8 + BOXES + 6 and tokens[8:].sum() == 0 and types[8:17].all() and types.sum() == 9
    features = inputs["features"][0]
    assert (features[~valid] == 0).all() and (features[8:11, 18] == 1).all() and (features[11:, 18:] == 0).all()
    np.testing.assert_array_equal(features[11:17, :3].argmax(axis=1), [BLACK, BLUE, BLUE, YELLOW, YELLOW, BLUE])
    counts = features[8, 19:].reshape(4, 4, 8)  # any colour, yellow, black, blue; any shape, circle, square, triangle
    np.testing.assert_array_equal(counts.sum(axis=2), [[2, 0, 2, 0], [0] * 4, [1, 0, 1, 0], [1, 0, 1, 0]])
    np.testing.assert_array_equal(counts[0, 0, :3], [1, 1, 0])  # at least one, at least two, not three
    np.testing.assert_array_equal(batch.targets["labels"][0, 16], 1)
    edges = inputs["edges"][0]
    named = {name: edges[edges[:, 1] == kind][:, ::2].tolist() for kind, name in enumerate(EDGES)}
    assert sorted(named["word to object"]) == [[3, 14], [3, 15]]
    assert sorted(named["object to the next above"]) == [[11, 12], [14, 15], [15, 16]]
    boxes = Counter(map(tuple, named["object to box"]))
    assert boxes[8, 8] == 6 and boxes[11, 8] == 1 and boxes[16, 10] == 1  # loops fill up to eight
    assert sorted(named["box to object"]) == [[8, 11], [8, 12], [9, 13], [10, 14], [10, 15], [10, 16]]
    assert [0, 1] in named["word to the next"] and len(named["word to the next"]) == 7
    assert len(named["word to box"]) == 24 == len(named["box to word"])


def test_training_rows_change_colours_in_sentence_and_scene_alike(tmp_path):
    path = written(tmp_path / "scenes.jsonl", *(TOWERS[:1] * 30), sentence="there is a yellow block on a yellow block")
    task = make_task(ScenesConfig(path=path, generated=0.0), "train")
    batch = task.batch(0, 60, 0)
    seen = set()
    for tokens, features, valid in zip(*(batch.inputs[name] for name in ("tokens", "features", "valid")), strict=True):
        name = task.config.vocabulary[tokens[3] - 2]
        objects = features[valid][-6:, :3].argmax(axis=1)
        seen.add(name)
        counts = np.bincount(objects, minlength=3)
        assert counts[COLOURS.index(name)] == 2 and sorted(counts) == [1, 2, 3]
    assert seen == {*COLOURS}


def test_held_out_rows_are_sentences_of_the_split_as_they_are(tmp_path):
    path = written(tmp_path / "scenes.jsonl", *(TOWERS * 20))
    task = make_task(ScenesConfig(path=path), "test")
    (known,) = task.held_out(0, 8, 0, 1)
    sentences = {row.tobytes() for row in known.inputs["features"]}
    assert {row.tobytes() for row in task.batch(0, 20, 0).inputs["features"]} <= sentences


def test_splits_are_disjoint_in_sentences_and_folds_cover_them(tmp_path):
    path = written(tmp_path / "scenes.jsonl", *(TOWERS * 33))
    tests = []
    for fold in range(5):
        parts = [
            {s.words for s in read_split(ScenesConfig(path=path, fold=fold), name)[0]}
            for name in ("train", "valid", "test")
        ]
        assert sum(map(len, parts)) == 33 == len(set.union(*parts))
        tests += parts[2]
    assert len(tests) == 33 == len({*tests})


def test_what_does_not_fit_is_named(tmp_path):
    for settings, message in (
        ({"fold": 5}, "data.fold must be from 0 to 4, got 5"),
        ({"generated": 1.5}, "data.generated must be from 0 to 1, got 1.5"),
        ({"most_words": 20}, "data.most_words must be at least 21, the longest statement, got 20"),
        ({"length": 38}, "data.length must be at least 39, got 38"),
        ({"words": ("red",)}, "data.words must have the words of generated statements"),
    ):
        with pytest.raises(ValueError, match=message):
            ScenesConfig(**settings)
    path = written(tmp_path / "scenes.jsonl", *(TOWERS * 10), sentence="there " * 22)
    with pytest.raises(ValueError, match=r"line 1: the sentence has 22 words, data\.most_words is 21"):
        make_task(ScenesConfig(path=path, most_words=21), "train")


def test_no_generated_statement_is_longer_than_the_longest():
    statements = drawn_rows(np.random.default_rng(0), 2_000).statements
    assert max(len(statement.text.split()) for statement in statements) <= LONGEST


def test_neither_the_order_of_edges_nor_what_is_masked_changes_the_answer():
    data = ScenesConfig(token_types=True, edges=True)
    backbone = EncoderConfig(
        vocab_size=data.num_ids,
        d_model=16,
        num_layers=1,
        num_heads=2,
        segment_length=40,
        memory=NoMemoryConfig(),
        heads=(),
        features=data.features_config,
        token_types=2,
        separate_types=True,
    )
    config = HeadedConfig(backbone=backbone, head=GraphHeadConfig(edge_kinds=len(EDGES), pool="attention"))
    inputs = make_task(data, "valid").batch(0, 4, 0).inputs
    params = random_params(config)
    call = jax.jit(lambda inputs: from_params(config, params)(**inputs)[0])
    expected, valid = np.asarray(call(inputs)), inputs["valid"]
    noise = np.where(valid[..., None], inputs["features"], np.float32(9))
    np.testing.assert_array_equal(np.asarray(call(inputs | {"features": noise}))[valid], expected[valid])
    order = np.random.default_rng(0).permutation(inputs["edges"].shape[1])
    np.testing.assert_allclose(call(inputs | {"edges": inputs["edges"][:, order]})[valid], expected[valid], atol=1e-5)
    fewer = np.where(inputs["edges"][..., 1:2] == EDGES.index("word to object"), np.int32(-1), inputs["edges"])
    fewer[..., ::2] = np.maximum(fewer[..., ::2], 0)
    assert np.abs(np.asarray(call(inputs | {"edges": fewer}))[valid] - expected[valid]).max() > 1e-3


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there: MEMGPT_DATA names the folder of real data")
def test_the_sentences_of_nlvr_are_read():
    sentences, scenes = read_nlvr(REAL)
    assert (len(sentences), sum(sentence.label for sentence in sentences)) == (989, 547)
    assert len({sentence.words for sentence in sentences}) == 245
    np.testing.assert_array_equal(np.bincount(scenes.colour[scenes.present]), [2871, 2959, 3046])
    parts = [read_split(ScenesConfig(path=str(REAL), fold=fold), "test")[0] for fold in range(5)]
    words = [{sentence.words for sentence in part} for part in parts]
    assert sum(map(len, words)) == 245 == len(set.union(*words))
    assert sum(map(len, parts)) == 989 and min(map(len, parts)) == 180
