"""R fixed rows of one compiled decoding step: whatever is in a row does not depend on what is in the others."""

from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32

from memgpt_jax import models
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.models import ModelState, Params
from memgpt_jax.serving.sampling import Chosen, Options, RowSampling, choose

Tree = TypeVar("Tree")


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
def insert(rows: Tree, index: Int32[Array, ""], row: Tree) -> Tree:
    """Put one row, whose arrays have a leading axis of 1, into a place of others. The buffers of `rows` are donated."""
    return jax.tree.map(lambda all_rows, one: jax.lax.dynamic_update_slice_in_dim(all_rows, one, index, 0), rows, row)


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


def write_segment(config: ModelConfig, params: Params, slots: Slots, index: np.int32) -> Slots:
    """Write the segment that `step` has filled in one slot. The buffers of `slots` are donated.

    Only the slot is copied. A program that writes some of all rows copies the memories of all (`lax.cond`), and so does
    one that reads and replaces the row at once.
    """
    layers = slots.state.layers
    rows = slots.state._replace(layers=tuple(layer._replace(window=()) for layer in layers))  # they do not change
    rows = insert(rows, index, _written(config, params, extract(rows, index)))
    windows = zip(rows.layers, layers, strict=True)
    return slots._replace(state=rows._replace(layers=tuple(new._replace(window=old.window) for new, old in windows)))


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _written(config: ModelConfig, params: Params, row: ModelState) -> ModelState:
    return models.from_params(config, params).write_full(row)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def step(config: ModelConfig, params: Params, slots: Slots) -> tuple[Chosen, Slots]:
    """Read the newest token of each active row and choose the next one. The buffers of `slots` are donated.

    A row gives the same bits in every slot and beside any other rows, because the shape never changes. Before the next
    step, `write_segment` is called for each row whose segment is full.

    Args:
        config: the decoder's configuration.
        params: the decoder's parameters.
        slots: the rows.
    """
    model = models.from_params(config, params)
    logits, state = model(slots.token[:, None], slots.state, valid=slots.active[:, None], alignment="unwritten")
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
