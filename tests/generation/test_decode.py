"""Generation with live memory equals reading everything again from the start for every token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax import models
from memgpt_jax.config import KVMemoryConfig, ModelConfig
from memgpt_jax.generation import decode, generate

CONFIG = ModelConfig(
    vocab_size=17,
    d_model=16,
    num_layers=1,
    num_heads=2,
    window_size=6,
    segment_length=4,
    memory=KVMemoryConfig(memory_size=10, head_dim=8),
)

TEXT_LENGTH = 32


@pytest.fixture(scope="module")
def params():
    # Larger than as initialised, so that the most probable tokens differ and greedy decoding does not repeat one token.
    return jax.tree.map(lambda leaf: leaf * jnp.float32(3.0), models.init(CONFIG, jax.random.key(0)))


def prompt(length: int, rows: int = 2) -> np.ndarray:
    return np.random.default_rng(length).integers(CONFIG.vocab_size, size=(rows, length), dtype=np.int32)


@functools.partial(jax.jit, static_argnums=1)
def read(params, rows: int, tokens):
    """Logits of whole texts, read in one call from a fresh state."""
    return models.apply(CONFIG, params, tokens, models.init_state(CONFIG, rows))[0]


def reread(params, tokens, number: int) -> np.ndarray:
    """Greedy continuation without any state: the whole text is read again for each token."""
    text = np.pad(tokens, ((0, 0), (0, TEXT_LENGTH - tokens.shape[1])))  # what stands to the right is not seen
    for end in range(tokens.shape[1], tokens.shape[1] + number):
        text[:, end] = np.asarray(read(params, len(text), text))[:, end - 1].argmax(-1)
    return text[:, tokens.shape[1] :][:, :number]


@pytest.mark.parametrize("length", [1, 4, 7, 19])
def test_greedy_equals_rereading(params, length, monkeypatch):
    monkeypatch.setattr(decode, "PREFILL_LENGTH", 8)
    tokens = prompt(length)
    result = generate(CONFIG, params, tokens, max_new_tokens=9)
    np.testing.assert_array_equal(result.tokens, reread(params, tokens, 9))
    assert len(np.unique(result.tokens)) > 2  # else the test would see little


def test_state_goes_on_and_is_not_modified(params):
    tokens = prompt(7)
    whole = generate(CONFIG, params, tokens, max_new_tokens=10)
    first = generate(CONFIG, params, tokens, max_new_tokens=4)
    for _ in range(2):  # the same state can be continued twice
        rest = generate(CONFIG, params, first.tokens[:, -1:], max_new_tokens=6, state=first.state)
        np.testing.assert_array_equal(jnp.concatenate([first.tokens, rest.tokens], axis=1), whole.tokens)


def test_seeds(params):
    tokens = prompt(5)

    def draw(seed):
        return generate(
            CONFIG, params, tokens, max_new_tokens=12, temperature=1.0, top_k=5, top_p=0.95, seed=seed
        ).tokens

    np.testing.assert_array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))
    assert draw(1).shape == (2, 12) and draw(1).dtype == jnp.int32


def test_one_token(params):
    tokens = prompt(5)
    np.testing.assert_array_equal(generate(CONFIG, params, tokens, max_new_tokens=1).tokens, reread(params, tokens, 1))


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (np.zeros((1, 0), np.int32), {}, "L >= 1"),
        (np.zeros(3, np.int32), {}, r"tokens \[B, L\]"),
        (np.full((1, 2), 17, np.int32), {}, "from 0 to 16"),
        (np.zeros((1, 2), np.int32), {"max_new_tokens": 0}, "max_new_tokens"),
        (np.zeros((1, 2), np.int32), {"temperature": -1.0}, "temperature"),
    ],
)
def test_wrong_arguments(params, tokens, options, message):
    with pytest.raises(ValueError, match=message):
        generate(CONFIG, params, tokens, **{"max_new_tokens": 2} | options)
