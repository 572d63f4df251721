"""R fixed rows of one compiled decoding step: whatever is in a row does not depend on what is in the others."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32

from memgpt_jax import models
from memgpt_jax.config.memory import Alignment
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.models import ModelState, Params
from memgpt_jax.serving.sampling import Chosen, Options, RowSampling, choose


class Slots(NamedTuple):
    """R rows that are decoded together. A row that is not active neither reads nor writes."""

    token: Int32[Array, " R"]  # the newest token, which has not been read yet
    active: Bool[Array, " R"]
    count: Int32[Array, " R"]  # new tokens so far
    seen: Bool[Array, "R V"]  # ids of the document
    written: Int32[Array, "R V"]  # how often each id is in the answer
    options: RowSampling
    state: ModelState


def empty(config: ModelConfig, rows: int) -> Slots:
    """Rows of which none is active."""
    options = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x), rows, axis=0), Options().row(0, config.vocab_size))
    zeros = jnp.zeros(rows, jnp.int32)
    shape = (rows, config.vocab_size)
    return Slots(
        token=zeros,
        active=jnp.zeros(rows, bool),
        count=jnp.zeros(rows, jnp.int32),
        seen=jnp.zeros(shape, bool),
        written=jnp.zeros(shape, jnp.int32),
        options=options,
        state=models.functional(config).init_state(rows),
    )


@partial(jax.jit, donate_argnums=0)
def insert(slots: Slots, index: Int32[Array, ""], row: Slots) -> Slots:
    """Put one row, whose arrays have a leading axis of 1, into a slot. The buffers of `slots` are donated."""
    return jax.tree.map(lambda all_rows, one: jax.lax.dynamic_update_slice_in_dim(all_rows, one, index, 0), slots, row)


def new_row(config: ModelConfig, state: ModelState, token: int, seen: np.ndarray, options: RowSampling) -> Slots:
    """The row of an answer that begins after `token`, for `insert`.

    Args:
        config: the decoder's.
        state: one row that has read all tokens before `token`.
        token: the last token of the prompt.
        seen: [V] ids of the document.
        options: of the row, as `Options.row` gives them.
    """
    arrays: dict[str, Any] = {
        "token": np.array([token], np.int32),
        "active": np.ones(1, bool),
        "count": np.zeros(1, np.int32),
        "seen": seen[None],
        "written": np.zeros((1, config.vocab_size), np.int32),
    }
    return Slots(options=options, state=state, **arrays)


@jax.jit
def extract(state: ModelState, index: Int32[Array, ""]) -> ModelState:
    """The state of one slot."""
    return jax.tree.map(lambda all_rows: jax.lax.dynamic_slice_in_dim(all_rows, index, 1, 0), state)


@partial(jax.jit, donate_argnums=0)
def with_active(slots: Slots, active: Bool[Array, " R"]) -> Slots:
    """The slots with other active rows."""
    return slots._replace(active=active)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def step(config: ModelConfig, alignment: Alignment, params: Params, slots: Slots) -> tuple[Chosen, Slots]:
    """Read the newest token of each active row and choose the next one. The buffers of `slots` are donated.

    A row gives the same bits in every slot and beside any other rows, because the shape never changes.

    Args:
        config: the decoder's configuration.
        alignment: `mid_segment` if no active row is at the first token of a stream or the last one of a segment, else
            `any`.
        params: the decoder's parameters.
        slots: the rows.
    """
    model = models.from_params(config, params)
    logits, state = model(slots.token[:, None], slots.state, valid=slots.active[:, None], alignment=alignment)
    chosen = choose(logits[:, 0], slots.active, slots.options, slots.count, slots.seen, slots.written)
    rows, token = jnp.arange(slots.token.shape[0]), jnp.maximum(chosen.token, 0)
    return chosen, Slots(
        token=jnp.where(slots.active, token, slots.token),
        active=slots.active,
        count=slots.count + slots.active.astype(jnp.int32),
        seen=slots.seen.at[rows, token].max(slots.active),
        written=slots.written.at[rows, token].add(slots.active.astype(jnp.int32)),
        options=slots.options,
        state=state,
    )
