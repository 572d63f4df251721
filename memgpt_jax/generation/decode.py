"""Decoding one token at a time with the memory live, in one compiled loop."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32

from memgpt_jax import models
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation.sampling import NOT_FINITE, Sampling
from memgpt_jax.models import ModelState

CAPACITY = 256
"""Tokens of one call of `advance`, at most: one compiled loop serves answers of all lengths."""


class Decoding(NamedTuple):
    """Rows that are being continued. A row's text depends on its prompt, its key and its own state alone."""

    token: Int32[Array, " R"]  # the newest token, which has not been read yet; NOT_FINITE: the row has failed
    count: Int32[Array, " R"]  # new tokens so far
    limit: Int32[Array, " R"]  # new tokens at most
    done: Bool[Array, " R"]  # the newest token is the last: the row reads and writes nothing any more
    key: Array  # [R] PRNG keys
    seen: Bool[Array, "R V"] | None  # tokens that a repetition penalty falls on
    state: ModelState  # every token but the newest has been read


def fork(tree: Any, copies: int) -> Any:
    """Each row `copies` times, copies side by side."""
    return jax.tree.map(lambda x: jnp.repeat(x, copies, axis=0), tree)


@partial(jax.jit, static_argnums=1)
def begin(
    sampling: Sampling, copies: int, logits: Float32[Array, "B V"], state: ModelState, limit, seen, stop, seed
) -> Decoding:
    """Fork the rows of a prefill, and choose each one's first token."""
    logits, state, limit, seen = fork((logits, state, limit, seen), copies)
    rows = jnp.arange(logits.shape[0])
    key = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(rows)
    nothing = jnp.zeros(rows.shape, jnp.int32)
    return _choose(sampling, logits, stop, Decoding(nothing, nothing, limit, limit < 1, key, seen, state))


def _choose(sampling: Sampling, logits, stop: Int32[Array, " stops"], decoding: Decoding) -> Decoding:
    """Rows that are not done get their next token; those whose logits are not finite are done."""
    key = jax.vmap(jax.random.fold_in)(decoding.key, decoding.count)
    token = jnp.where(decoding.done, decoding.token, sampling.choose(key, logits, decoding.seen))
    count = decoding.count + (~decoding.done).astype(jnp.int32)
    done = decoding.done | (count >= decoding.limit) | jnp.any(token[:, None] == stop[None, :], axis=1)
    done = done | (token == NOT_FINITE)
    seen = decoding.seen
    if seen is not None:
        seen = seen.at[jnp.arange(token.shape[0]), token].set(True)
    return decoding._replace(token=token, count=count, done=done, seen=seen)


def at_boundary(state: ModelState, rows: Bool[Array, " R"]) -> Bool[Array, ""]:
    """Whether the next token begins the stream, or fills a segment, of one of these rows."""
    streams = [layer.memory for layer in state.layers if layer.memory]
    if not streams:
        return jnp.zeros((), bool)
    stream = streams[0]  # all layers stand at the same place
    return jnp.any(rows & (stream.fresh | (stream.offset + 1 == stream.pending.shape[1])))


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def advance(
    config: ModelConfig, sampling: Sampling, params: Any, decoding: Decoding, steps, stop
) -> tuple[Int32[Array, "R CAPACITY"], Decoding]:
    """Up to `steps` (at most CAPACITY) more tokens for the rows that are not done; what is not filled is -1.

    A row whose logits are not finite ends with NOT_FINITE.
    """
    model = models.merge(config, params)

    def step(carry, alignment):
        index, tokens, before = carry
        logits, state = model(before.token[:, None], before.state, valid=~before.done[:, None], alignment=alignment)
        after = _choose(sampling, logits[:, 0], stop, before._replace(state=state))
        new = jnp.where(before.done, -1, after.token)
        return index + 1, tokens.at[:, index].set(new), after

    def goes_on(carry):
        index, _, decoding = carry
        return (index < steps) & ~jnp.all(decoding.done)

    def is_mid_segment(carry):
        return ~at_boundary(carry[2].state, ~carry[2].done)

    def steps_to_a_boundary(carry):
        """Where memories are only read, a loop leaves them in place."""
        carry = jax.lax.while_loop(
            lambda c: goes_on(c) & is_mid_segment(c), partial(step, alignment="mid_segment"), carry
        )
        return jax.lax.while_loop(lambda c: goes_on(c) & ~is_mid_segment(c), partial(step, alignment="any"), carry)

    tokens = jnp.full((decoding.token.shape[0], CAPACITY), -1, jnp.int32)
    _, tokens, decoding = jax.lax.while_loop(goes_on, steps_to_a_boundary, (jnp.int32(0), tokens, decoding))
    return tokens, decoding
