"""Decoding one token at a time in one compiled loop, in which the memory is read and written."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32

from memgpt_jax import models
from memgpt_jax.config.memory import Alignment
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation.sampling import NOT_FINITE, Sampling
from memgpt_jax.models import ModelState

CAPACITY = 256
"""Largest number of tokens of one call of `advance`: one compiled loop decodes answers of any length."""


class Decoding(NamedTuple):
    """R rows that are being decoded. A row's text depends only on its prompt, its key and its own state."""

    token: Int32[Array, " R"]  # the newest token, which has not been read yet; NOT_FINITE: the row has failed
    count: Int32[Array, " R"]  # new tokens so far
    limit: Int32[Array, " R"]  # largest number of new tokens
    done: Bool[Array, " R"]  # the newest token is the last one: the row neither reads nor writes any more
    key: Array  # [R] PRNG keys
    penalized: Bool[Array, "R V"] | None  # ids to which the repetition penalty applies
    state: ModelState  # every token but the newest has been read
    answer: Int32[Array, "R N"] | None = None  # the new tokens so far, if the choice of the next one depends on them


class Prefilled(NamedTuple):
    """B prompts that have been read, with the limits and stop ids of their answers."""

    logits: Float32[Array, "B V"]  # of the first new token
    state: ModelState
    limit: Int32[Array, "B"]  # largest number of new tokens
    penalized: Bool[Array, "B V"] | None  # ids to which the repetition penalty applies
    stop: Int32[Array, " stops"]  # ids that end an answer
    answer: Int32[Array, "B N"] | None = None  # room for the new tokens, if the choice of the next one depends on them


def take_rows(tree: Any, rows: Sequence[int]) -> Any:
    """These rows of every array; a row may be taken several times."""
    return jax.tree.map(lambda x: x[np.asarray(rows)], tree)


def fork(tree: Any, copies: int) -> Any:
    """Each row of every array `copies` times, copies side by side."""
    return jax.tree.map(lambda x: jnp.repeat(x, copies, axis=0), tree)


@partial(jax.jit, static_argnums=1)
def begin(sampling: Sampling, copies: int, prompts: Prefilled, seed: Int32[Array, ""]) -> Decoding:
    """Copy each row `copies` times and choose the first token of each copy."""
    of_prompts = prompts.logits, prompts.state, prompts.limit, prompts.penalized, prompts.answer
    logits, state, limit, penalized, answer = fork(of_prompts, copies)
    rows = jnp.arange(logits.shape[0])
    key = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(rows)
    zeros = jnp.zeros(rows.shape, jnp.int32)
    decoding = Decoding(zeros, zeros, limit, limit < 1, key, penalized, state, answer)
    return _choose(sampling, logits, prompts.stop, decoding)


def _choose(sampling: Sampling, logits: Array, stop: Int32[Array, " stops"], decoding: Decoding) -> Decoding:
    """Choose the next token of each row that is not done. A row whose logits are not finite is then done."""
    key = jax.vmap(jax.random.fold_in)(decoding.key, decoding.count)
    forbidden = sampling.forbidden(decoding.answer, decoding.count, logits.shape[-1])
    token = sampling.choose(key, logits, decoding.penalized, forbidden)
    token = jnp.where(decoding.done, decoding.token, token)
    count = decoding.count + (~decoding.done).astype(jnp.int32)
    done = decoding.done | (count >= decoding.limit) | jnp.any(token[:, None] == stop[None, :], axis=1)
    done = done | (token == NOT_FINITE)
    penalized, answer, rows = decoding.penalized, decoding.answer, jnp.arange(token.shape[0])
    if penalized is not None:
        penalized = penalized.at[rows, token].set(True)
    if answer is not None:
        answer = answer.at[rows, decoding.count].set(token, mode="drop")
    return decoding._replace(token=token, count=count, done=done, penalized=penalized, answer=answer)


def at_boundary(state: ModelState, rows: Bool[Array, " R"]) -> Bool[Array, ""]:
    """Whether the next token begins the stream or fills a segment in one of these rows."""
    streams = [layer.stream for layer in state.layers if layer.stream]
    if not streams:
        return jnp.zeros((), bool)
    stream = streams[0]  # all layers are at the same token
    return jnp.any(rows & (stream.fresh | (stream.offset + 1 == stream.pending.shape[1])))


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def advance(
    config: ModelConfig, sampling: Sampling, params: Any, decoding: Decoding, steps: Array, stop: Array
) -> tuple[Int32[Array, "R CAPACITY"], Decoding]:
    """Decode up to `steps` (at most CAPACITY) more tokens of the rows that are not done.

    Returns the new tokens, -1 where there is none, and the rows after them. A row whose logits are not finite ends with
    NOT_FINITE. The buffers of `decoding` are donated.
    """
    model = models.from_params(config, params)

    def step(carry: tuple, alignment: Alignment):
        index, tokens, before = carry
        logits, state = model(before.token[:, None], before.state, valid=~before.done[:, None], alignment=alignment)
        after = _choose(sampling, logits[:, 0], stop, before._replace(state=state))
        new = jnp.where(before.done, -1, after.token)
        return index + 1, tokens.at[:, index].set(new), after

    def continues(carry: tuple):
        index, _, decoding = carry
        return (index < steps) & ~jnp.all(decoding.done)

    def is_mid_segment(carry: tuple):
        return ~at_boundary(carry[2].state, ~carry[2].done)

    def steps_to_a_boundary(carry: tuple):
        """Steps that only read the memories have a loop of their own, in which XLA does not copy them."""
        carry = jax.lax.while_loop(
            lambda c: continues(c) & is_mid_segment(c), partial(step, alignment="mid_segment"), carry
        )
        return jax.lax.while_loop(lambda c: continues(c) & ~is_mid_segment(c), partial(step, alignment="any"), carry)

    tokens = jnp.full((decoding.token.shape[0], CAPACITY), -1, jnp.int32)
    _, tokens, decoding = jax.lax.while_loop(continues, steps_to_a_boundary, (jnp.int32(0), tokens, decoding))
    return tokens, decoding
