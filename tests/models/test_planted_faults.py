"""Each law checker of models is seen to fail on a model with a fault planted in it."""

import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.models import attention, decoder, memory_layer
from tests.laws.memories import difference, leaks
from tests.laws.models import (
    BATCH,
    build,
    built,
    perturbation_violation,
    ragged_violation,
    stream_inputs,
    streaming_violation,
    tiny,
    token_influence,
)
from tests.references.model import ReferenceDecoder

pytestmark = pytest.mark.slow  # tests of the tests
LENGTH = 12
UNTIED = {"vocab_size": BATCH * LENGTH, "tie_embeddings": False}


def plant(monkeypatch, fault):
    """Replace one function of the model by a wrong one."""
    window, stream, cache = attention.window_attention, memory_layer.stream, attention.last_window
    embed, positions = decoder.MemGPT.embed, decoder.document_positions

    def sees_the_next_token(query, keys, values, *documents, **options):
        shifted = [jnp.roll(x, -1, axis=1) for x in (keys, values)]
        return window(query, *shifted, *documents, **options)

    def window_too_long(*arrays, window_size, **options):
        return window(*arrays, window_size=window_size + 1, **options)

    def documents_joined(query, keys, values, own, others, **options):
        return window(query, keys, values, own * 0, jnp.where(others < 0, -1, 0), **options)

    def deaf_memory(memory, x, state, reset, valid, alignment):
        return stream(memory, x, state, reset & False, valid, alignment)

    def mixed_rows(self, tokens, positions, valid):
        x = embed(self, tokens, positions, valid)
        return x + 0.1 * jnp.roll(x, 1, axis=0)

    def forgetful_window(*arrays):
        new = cache(*arrays)
        return new._replace(valid=new.valid & (jnp.arange(new.valid.shape[1]) > 0)[None])

    def padding_moves(keys, values, documents, before, valid):
        return cache(keys, values, documents, before, valid | True)

    def frozen_positions(start, reset):
        return positions(start * 0, reset)

    where, name, wrong = {
        "sees the next token": (attention, "window_attention", sees_the_next_token),
        "window too long": (attention, "window_attention", window_too_long),
        "documents joined": (attention, "window_attention", documents_joined),
        "deaf memory": (memory_layer, "stream", deaf_memory),
        "mixed rows": (decoder.MemGPT, "embed", mixed_rows),
        "forgetful window": (attention, "last_window", forgetful_window),
        "padding moves": (attention, "last_window", padding_moves),
        "frozen positions": (decoder, "document_positions", frozen_positions),
    }[fault]
    monkeypatch.setattr(where, name, wrong)


@pytest.mark.parametrize(
    "fault, law, memory",
    [
        ("sees the next token", "causality", True),
        ("documents joined", "documents", True),
        ("deaf memory", "documents", True),
        ("mixed rows", "rows", True),
    ],
)
def test_leaks_are_seen_by_gradient_and_by_perturbation(fault, law, memory, monkeypatch):
    reset = np.zeros((BATCH, LENGTH), bool)
    reset[0, 6] = reset[1, 3] = True
    tokens = np.arange(BATCH * LENGTH, dtype=np.int32).reshape(BATCH, LENGTH)
    plant(monkeypatch, fault)
    model = build(tiny(**UNTIED))
    assert leaks(token_influence(model, reset), reset)[law] > 1e-4
    # Two layers' worth of places: the token before a reset, and one that stands in an earlier, written segment.
    assert max(perturbation_violation(model, tokens, reset, 0, place) for place in (3, 5, 11)) > 1e-4


@pytest.mark.parametrize("fault", ["window too long", "forgetful window", "frozen positions"])
def test_streaming_violations_are_seen(fault, monkeypatch):
    config = tiny(position="sinusoidal")
    tokens, reset = stream_inputs(0, config, LENGTH, breaks=0.0)
    assert max(streaming_violation(built(config), tokens, reset, [5, 1, 1, 5])) < 1e-4
    plant(monkeypatch, fault)
    assert streaming_violation(build(config), tokens, reset, [5, 1, 1, 5])[0] > 1e-4


def test_padding_that_moves_is_seen(monkeypatch):
    config = tiny()
    tokens, reset = stream_inputs(0, config, LENGTH)
    lengths = np.array([[5, 3], [5, 5], [2, 4]])
    assert max(ragged_violation(built(config), tokens, reset, lengths, 5)) < 1e-4
    plant(monkeypatch, "padding moves")
    assert max(ragged_violation(build(config), tokens, reset, lengths, 5)) > 1e-4


@pytest.mark.parametrize("fault", ["sees the next token", "window too long", "frozen positions"])
def test_the_numpy_model_notices(fault, monkeypatch):
    config = tiny(NoMemoryConfig(), position="sinusoidal", window_size=3)
    tokens, reset = stream_inputs(0, config, 6, breaks=0.0)

    def violation(model):
        _, state = model(tokens[:, :3])
        rest, _ = model(tokens[:, 3:], state)
        row = ReferenceDecoder(config, model.params)
        expected = [row.step(tokens[0, t], reset[0, t]) for t in range(6)][3:]
        return difference(rest[0], np.array(expected))

    assert violation(built(config)) < 1e-4
    plant(monkeypatch, fault)
    assert violation(build(config)) > 1e-3
