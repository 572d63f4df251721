"""The head that reads triples: its memory between calls, numbers of entities, its loss, and what is refused."""

import jax
import numpy as np
import pytest

from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.models import functional
from memgpt_jax.models.heads import WalkHeadConfig
from tests.laws.models import random_params, tiny

BATCH, LENGTH, SIZE = 2, 8, 6
BACKBONE = tiny(NoMemoryConfig(), num_layers=0)
MODEL = functional(HeadedConfig(backbone=BACKBONE, head=WalkHeadConfig(num_outputs=4, hops=2, graph_size=SIZE)))
TRIPLES = np.array([[0, 0, 1], [0, 1, 2], [1, 0, 3], [2, 2, 3], [2, 1, 0]], np.int32)


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(32, size=(BATCH, LENGTH)).astype(np.int32)


@pytest.fixture(scope="module")
def apply():
    return jax.jit(MODEL.apply)


PARAMS = random_params(MODEL.config)
GRAPHS = np.stack([TRIPLES, TRIPLES[::-1]])


def test_the_memory_stays_between_calls_and_through_a_reset(tokens, apply):
    reset = np.zeros(tokens.shape, bool)
    reset[:, 0] = reset[1, 5] = True
    whole, after = apply(PARAMS, tokens, MODEL.init_state(BATCH), reset, triples=GRAPHS)
    other_order, _ = apply(PARAMS, tokens, MODEL.init_state(BATCH), reset, triples=GRAPHS[::-1])
    assert whole.shape == (BATCH, LENGTH, len(TRIPLES) + 1)
    np.testing.assert_allclose(
        whole[0], apply(PARAMS, tokens[::-1], None, triples=GRAPHS)[0][1], atol=1e-5
    )  # any order
    state, parts = MODEL.init_state(BATCH), []
    for first in range(0, LENGTH, 4):
        graphs = {"triples": GRAPHS} if first == 0 else {}
        outputs, state = apply(PARAMS, tokens[:, first : first + 4], state, reset[:, first : first + 4], **graphs)
        parts.append(outputs[..., : len(TRIPLES) + 1])
    assert outputs.shape[-1] == SIZE + 1  # without triples of its own, a call reads all that the memory can hold
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
    np.testing.assert_array_equal(state.head.triples, after.head.triples)
    np.testing.assert_array_equal(state.head.triples[:, :-1], GRAPHS)
    nothing, _ = apply(PARAMS, tokens[:, :4], MODEL.init_state(BATCH), reset[:, :4])
    np.testing.assert_allclose(nothing, np.log(1e-6), rtol=1e-5)


def test_entities_are_numbers_alone(tokens, apply):
    """Other numbers give the same scores in another order: nothing is learned about an entity."""
    order = np.array([0, 4, 3, 1, 2, 5], np.int32)
    other = np.stack([order[TRIPLES[:, 0]], TRIPLES[:, 1], order[TRIPLES[:, 2]]], axis=1)
    graphs = np.stack([TRIPLES, other])
    same, reset = np.stack([tokens[0], tokens[0]]), np.zeros(tokens.shape, bool)
    outputs, _ = apply(PARAMS, same, MODEL.init_state(BATCH), reset, triples=graphs)
    np.testing.assert_allclose(outputs[0], outputs[1][:, order], atol=1e-5)
    assert np.ptp(outputs[0, -1, :4]) > 0.1


def test_the_loss_is_that_of_all_answers_together(tokens, apply):
    targets = np.zeros((BATCH, LENGTH, len(TRIPLES) + 1), np.int32)
    targets[0, 3, [2, 3]] = targets[1, 7, 0] = 1
    outputs, _ = apply(PARAMS, tokens, MODEL.init_state(BATCH), np.zeros(tokens.shape, bool), triples=GRAPHS)
    score = jax.jit(MODEL.score)
    scores, _ = score(PARAMS, tokens, {"entities": targets}, MODEL.init_state(BATCH), triples=GRAPHS)
    found, p = scores["entities"], np.exp(np.asarray(outputs, np.float64))
    assert found.losses[0, 3] == pytest.approx(-np.log(p[0, 3, 2] + p[0, 3, 3]), rel=1e-5)
    assert found.losses[1, 7] == pytest.approx(-np.log(p[1, 7, 0]), rel=1e-5) and np.count_nonzero(found.losses) == 2
    assert found.correct[0, 3] == (p[0, 3].argmax() in (2, 3)) and not found.correct[0, 0]
    with pytest.raises(ValueError, match=r"targets\['entities'\] must be \[B, L, 6\], one number for each entity"):
        score(PARAMS, tokens, {"entities": targets[..., 1:]}, MODEL.init_state(BATCH), triples=GRAPHS)


def test_bad_triples_are_named_and_give_nan_inside_jit(tokens, apply):
    for place, value, message in (
        ((0, 1, 1), 4, r"relations below head.num_outputs=4 and entities from 0 to 5"),
        ((1, 0, 2), 6, "entities from 0 to 5"),
        ((1, 0, 0), -1, "entities from 0 to 5"),
    ):
        wrong = GRAPHS.copy()
        wrong[place] = value
        with pytest.raises(ValueError, match=message):
            MODEL.apply(PARAMS, tokens, None, triples=wrong)
        outputs, _ = apply(PARAMS, tokens, MODEL.init_state(BATCH), np.zeros(tokens.shape, bool), triples=wrong)
        assert np.isnan(outputs[place[0]]).all() and np.isfinite(outputs[1 - place[0]]).all()
    for shape in ((BATCH, SIZE + 1, 3), (BATCH, 2, 2), (1, 2, 3), (3,)):
        with pytest.raises(ValueError, match=r"triples must be integers \[2, E, 3\] with 1 <= E <= head.graph_size=6"):
            MODEL.apply(PARAMS, tokens, None, triples=np.zeros(shape, np.int32))
    with pytest.raises(ValueError, match="call_length=4 divides a call by its tokens; the input triples of the head"):
        HeadedConfig(backbone=BACKBONE, head=WalkHeadConfig(), call_length=4)
