"""Prefill a prompt through the memory, then decode one token at a time with the memory live."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from memgpt_jax import models
from memgpt_jax.config import ModelConfig
from memgpt_jax.generation.sampling import check_sampling, sample

PREFILL_LENGTH = 512
"""Prompts are read in pieces of about this many tokens, so that a long one never holds its logits [B, L, V] at once."""


class Generated(NamedTuple):
    """What `generate` returns."""

    tokens: Int[Array, "B N"]
    """The new tokens, without the prompt."""
    state: Any
    """The state after the prompt and all new tokens but the last, which has not been read yet: to go on, pass the state
    back with that token as the prompt."""


def generate(
    config: ModelConfig,
    params: Any,
    tokens: Int[Array, "B L"],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    state: Any = None,
) -> Generated:
    """Continue prompts `tokens` [B, L] (int, L >= 1, any length: longer than window and memory too).

    The prompt streams through window and memory into `state` (default: fresh; it is not modified, so one state can be
    continued many times), then each new token is read, remembered and followed by the next, all in one compiled scan.
    The same arguments and seed give the same tokens. Token ids out of the vocabulary, an empty prompt and sampling
    values out of range raise `ValueError`.
    """
    check_sampling(temperature, top_k, top_p)
    tokens = np.asarray(tokens, np.int32)
    if tokens.ndim != 2 or tokens.shape[1] == 0:
        raise ValueError(f"a prompt must be tokens [B, L] with L >= 1, got shape {tokens.shape}")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if tokens.min() < 0 or tokens.max() >= config.vocab_size:
        raise ValueError(f"token ids must be from 0 to {config.vocab_size - 1}, got {tokens.min()} to {tokens.max()}")
    logits, state = prefill(config, params, tokens, state)
    decode = compiled_decode(config, max_new_tokens, temperature, top_k, top_p)
    return Generated(*decode(params, logits, state, jax.random.key(seed)))


def prefill(config: ModelConfig, params: Any, tokens: np.ndarray, state: Any = None) -> tuple[Array, Any]:
    """Read prompts `tokens` [B, L] into the state; returns the logits [B, V] after the last token, and the state.

    A fresh state meets whole pieces first, on the fast aligned path; what is left is padded to whole segments and
    masked, so that prompts of all lengths share a few compiled shapes.
    """
    batch, length = tokens.shape
    fresh = state is None
    if fresh:
        state = models.init_state(config, batch)
    segment = config.segment_length
    size = segment * max(1, PREFILL_LENGTH // segment)
    for start in range(0, length, size):
        piece = tokens[:, start : start + size]
        last = piece.shape[1] - 1
        valid = None
        if piece.shape[1] < size:
            piece = np.pad(piece, ((0, 0), (0, -piece.shape[1] % segment)))
            valid = np.broadcast_to(np.arange(piece.shape[1]) <= last, piece.shape)
        read = compiled_prefill(config, aligned=fresh and valid is None)
        logits, state = read(params, piece, state, valid, last)
    return logits, state


# A config decides what is compiled and is hashable, so the compiled functions are kept by it, as jit keeps its own by
# shape: the second call with the same settings starts at once.
@functools.lru_cache(maxsize=16)
def compiled_prefill(config: ModelConfig, aligned: bool):
    """Compiled reading of one piece of a prompt: (params, tokens, state, valid, last) -> (logits [B, V], state)."""

    @jax.jit
    def read(params, tokens, state, valid, last):
        logits, state = models.apply(config, params, tokens, state, valid=valid, aligned=aligned)
        return jax.lax.dynamic_index_in_dim(logits, last, axis=1, keepdims=False), state

    return read


@functools.lru_cache(maxsize=16)
def compiled_decode(
    config: ModelConfig, max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None
):
    """Compiled decoding: (params, logits [B, V], state, key) -> (tokens [B, max_new_tokens], state)."""

    def draw(key, logits, position):
        return sample(jax.random.fold_in(key, position), logits, temperature, top_k, top_p)

    @functools.partial(jax.jit, donate_argnums=2)
    def decode(params, logits, state, key):
        def step(carry, position):
            token, state = carry
            logits, state = models.apply(config, params, token[:, None], state)
            following = draw(key, logits[:, 0], position)
            return (following, state), token

        first = draw(key, logits, 0)
        (last, state), tokens = jax.lax.scan(step, (first, state), jnp.arange(1, max_new_tokens, dtype=jnp.int32))
        return jnp.concatenate([tokens.T, last[:, None]], axis=1), state

    return decode
