"""The head for links: any cut, shallow models against the reference, its loss, and what is refused."""

import jax
import numpy as np
import pytest

from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig
from memgpt_jax.models import functional
from memgpt_jax.models.heads import LinkHeadConfig
from tests.laws.models import random_params
from tests.references.links import link_score

BATCH, LENGTH, ENTITIES = 2, 12, 5
SIZES = {"vocab_size": 11, "d_model": 8, "num_heads": 2, "d_ff": 12, "segment_length": 3}
MEMORY = KVMemoryConfig(memory_size=6, num_heads=2, head_dim=4)


def model_of(num_layers=1, memory=MEMORY, scorer="complex", **settings):
    backbone = ModelConfig(**SIZES, num_layers=num_layers, window_size=2, memory=memory)
    return functional(
        HeadedConfig(backbone=backbone, head=LinkHeadConfig(num_outputs=ENTITIES, scorer=scorer, **settings))
    )


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(11, size=(BATCH, LENGTH)).astype(np.int32)


@pytest.mark.parametrize("num_layers", [0, 1])
def test_any_cut_and_any_padding_give_the_same_scores(num_layers, tokens):
    model = model_of(num_layers)
    params, apply = random_params(model.config), jax.jit(model.apply)
    reset = np.zeros(tokens.shape, bool)
    reset[:, 0] = reset[1, 6] = True  # a boundary of segments
    whole, after = apply(params, tokens, model.init_state(BATCH), reset, np.ones_like(reset))
    state, parts = model.init_state(BATCH), []
    for part in map(slice, (0, 4, 5, 6, 7, 9), (4, 5, 6, 7, 9, 12)):  # each padded to four tokens
        used = part.stop - part.start
        here = np.minimum(part.start + np.arange(4), LENGTH - 1)
        valid = np.broadcast_to(np.arange(4) < used, (BATCH, 4))
        outputs, state = apply(params, tokens[:, here], state, reset[:, here], valid)
        parts.append(outputs[:, :used])
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), after, state)
    alone, _ = apply(params, tokens[1:, 6:10], model.init_state(1), reset[1:, 6:10], np.ones((1, 4), bool))
    np.testing.assert_allclose(alone[0], whole[1, 6:10], atol=1e-5)


@pytest.mark.parametrize("scorer", ["transe", "distmult", "complex", "rotate"])
def test_without_blocks_the_scores_are_those_of_embeddings(scorer, tokens):
    model = model_of(0, NoMemoryConfig(), scorer, label_smoothing=0.3)
    params = random_params(model.config)
    assert list(params) == ["backbone"] and list(params["backbone"]) == ["embedding"]  # a shallow model has no others
    table = np.asarray(params["backbone"]["embedding"]) * 8**0.5
    outputs, _ = jax.jit(model.apply)(params, tokens, model.init_state(BATCH))
    assert outputs.shape == (BATCH, LENGTH, ENTITIES)
    heads = np.concatenate([np.zeros((BATCH, 1, 8)), table[tokens[:, :-1]]], axis=1)
    expected = [
        [[link_score(scorer, heads[b, i], table[tokens[b, i]], e) for e in table[:ENTITIES]] for i in range(LENGTH)]
        for b in range(BATCH)
    ]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)

    targets = np.random.default_rng(1).integers(-1, ENTITIES, size=tokens.shape).astype(np.int32)
    scores, _ = jax.jit(model.score)(params, tokens, {"links": targets}, model.init_state(BATCH))
    log_p = np.asarray(jax.nn.log_softmax(outputs))
    own = np.take_along_axis(log_p, np.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    smoothed = np.where(targets >= 0, -0.7 * own - 0.3 * log_p.mean(axis=-1), 0)
    np.testing.assert_allclose(scores["links"].losses, smoothed, rtol=1e-4, atol=1e-5)


def test_facts_reach_a_query_through_the_memory_alone(tokens):
    """Beyond the window, a fact changes the scores of a model with a memory, and of none without entries."""
    other = tokens.copy()
    other[:, 2] = (other[:, 2] + 1) % 11
    for size, reaches in ((6, True), (0, False)):
        model = model_of(memory=KVMemoryConfig(memory_size=size, num_heads=2, head_dim=4))
        params, apply = random_params(model.config), jax.jit(model.apply)
        one, two = (apply(params, each, model.init_state(BATCH))[0][:, 6:] for each in (tokens, other))
        assert (np.abs(np.asarray(one) - np.asarray(two)).max() > 1e-4) == reaches


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scorer": "hole"}, "scorer must be one of 'transe', 'distmult', 'complex', 'rotate', got 'hole'"),
        ({"pool": "mean"}, "head.pool must be 'none'"),
        ({"layers": "mlp"}, "head.layers must be 'linear'"),
        ({"label_smoothing": 1.0}, r"head.label_smoothing must be in \[0, 1\)"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        LinkHeadConfig(**settings)


def test_a_model_that_does_not_fit_is_refused(tokens):
    head = LinkHeadConfig(num_outputs=ENTITIES)
    for backbone, message in (
        (EncoderConfig(**SIZES, memory=MEMORY, heads=()), "needs a decoder, a ModelConfig, got EncoderConfig"),
        (ModelConfig(**SIZES | {"d_model": 9, "num_heads": 1, "head_dim": 4}, memory=MEMORY), "needs an even d_model"),
        (ModelConfig(**SIZES | {"vocab_size": 4}, memory=MEMORY), "num_outputs=5 entities must be at most"),
    ):
        with pytest.raises(ValueError, match=message):
            functional(HeadedConfig(backbone=backbone, head=head)).param_shapes()
    model = model_of()
    with pytest.raises(ValueError, match=r"targets\['links'\] must be from -1 to 4"):
        model.score(random_params(model.config), tokens, {"links": np.full(tokens.shape, 5)}, model.init_state(BATCH))
