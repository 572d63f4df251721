"""Memories that have been read into, made smaller."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax import models
from tests.laws.models import random_params

LAYERS = mg.ModelConfig(
    vocab_size=20,
    d_model=16,
    num_layers=1,
    num_heads=2,
    window_size=4,
    segment_length=4,
    memory=mg.KVMemoryConfig(memory_size=16, num_heads=2, head_dim=8),
)
TOKENS = np.random.default_rng(0).integers(0, 20, (2, 30)).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def call(config, params, tokens, state):
    return models.functional(config).apply(params, tokens, state)


def read(**memory):
    """A model, and the state after 30 tokens."""
    config = dataclasses.replace(LAYERS, memory=dataclasses.replace(LAYERS.memory, **memory))
    params = random_params(config)
    model = models.from_params(config, params)
    return model, call(config, params, TOKENS, None)[1]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["merge", "gate", "oldest"])
def test_the_smaller_model_goes_on(by):
    """State and calls are those of a model of this size; windows, open segments and the old state stay."""
    model, state = read()
    before = jax.tree.map(np.array, state)
    small, after = mg.compress_memory(model, state, 6, by)
    pair, again = mg.compress_memory((model.config, mg.to_params(model)), state, 6, by)
    assert pair.config == small.config
    jax.tree.map(np.testing.assert_array_equal, again, after)
    jax.tree.map(np.testing.assert_array_equal, before, state)
    empty = small.init_state(2)
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, empty) and small.config.memory.memory_size == 6
    jax.tree.map(np.testing.assert_array_equal, models.to_params(small), models.to_params(model))
    (old,), (new,) = state.layers, after.layers
    rest = lambda layer: layer._replace(stream=layer.stream._replace(memory=()))  # noqa: E731
    jax.tree.map(np.testing.assert_array_equal, rest(old), rest(new))
    assert new.stream.memory.entries.valid.all()
    params = models.to_params(model)
    (logits, _), (whole, _) = (call(m.config, params, TOKENS[:, :9], s) for m, s in ((small, after), (model, state)))
    assert np.isfinite(logits).all() and np.abs(logits - whole).max() > 1e-4
    twice, least = mg.compress_memory(small, after, 2, by)
    assert least.layers[0].stream.memory.entries.valid.shape == (2, 2) and twice.config.memory.compressed == (
        None if by == "oldest" else by
    )


def test_without_the_oldest_it_is_a_smaller_memory_from_the_start():
    """Of one layer, whose entries do not depend on what was read."""
    model, state = read()
    small, after = mg.compress_memory(model, state, 6, "oldest")
    _, expected = call(small.config, models.to_params(model), TOKENS, None)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), after, expected)


def test_merged_entries_have_the_origin_of_a_segment():
    model, state = read()
    small, after = mg.compress_memory(model, state, 6)
    memory = small.blocks[0].memory_layer.memory
    origins, entries = memory.origins(after.layers[0].stream.memory), after.layers[0].stream.memory.entries
    np.testing.assert_array_equal(origins.start, 4 * np.asarray(entries.age))
    assert (np.asarray(origins.length) == 4).all()
    _, newest = call(small.config, models.to_params(model), TOKENS[:, :8], after)
    assert (np.asarray(memory.origins(newest.layers[0].stream.memory).length) == 4).all()


@pytest.mark.slow
def test_a_memory_that_fits_is_not_changed():
    """Empty places go first: eight entries of 16 tokens fit in 8 places."""
    model, _ = read()
    params = models.to_params(model)
    _, state = call(model.config, params, TOKENS[:, :9], None)
    small, after = mg.compress_memory(model, state, 8)
    (expected, _), (found, _) = (
        call(m.config, params, TOKENS[:, 9:12], s) for m, s in ((model, state), (small, after))
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_merged_entries_cannot_be_forgotten():
    model, state = read()
    for by in ("gate", "oldest", "merge"):
        small, after = mg.compress_memory(model, state, 6, by)
        pair = (small.config, models.to_params(small))
        if by == "merge":
            with pytest.raises(ValueError, match="merged entries hold several tokens"):
                mg.forget(pair, after, 8, 12)
        else:
            assert not jax.tree.all(jax.tree.map(np.array_equal, mg.forget(pair, after, 0, 28), after))


def encoder():
    config = mg.EncoderConfig(vocab_size=20, d_model=16, num_layers=1, num_heads=2, memory=LAYERS.memory)
    return models.from_params(config, random_params(config)), None


@pytest.mark.parametrize(
    ("made", "arguments", "message"),
    [
        (read, (16,), "memory_size=16 must be below the 16 entries of the state"),
        (read, (0,), "memory_size must be a whole number from 1"),
        (read, (4, "size"), "by must be one of 'merge', 'gate', 'oldest', got 'size'"),
        (lambda: read(gate="none"), (4,), "by='merge' needs memory.gate 'log_bias', got 'none'"),
        (lambda: read(gate="none"), (4, "gate"), "by='gate' needs memory.gate 'log_bias' or 'scale'"),
        (lambda: read(gate="scale"), (4,), "by='merge' needs memory.gate 'log_bias', got 'scale'"),
        (lambda: read(initial_entries=8), (4,), "initial_entries must be between 0 and memory_size=4"),
        (encoder, (4,), "only memories of decoders can be compressed, got a Encoder"),
    ],
)
def test_what_is_refused(made, arguments, message):
    model, state = made()
    with pytest.raises(ValueError, match=message):
        mg.compress_memory(model, state, *arguments)


def test_other_mechanisms_are_refused():
    config = dataclasses.replace(LAYERS, memory=mg.NoMemoryConfig())
    model = models.from_params(config, random_params(config))
    with pytest.raises(ValueError, match="only `kv` memories can be compressed, got a NoMemoryConfig"):
        mg.compress_memory(model, model.init_state(1), 4)
