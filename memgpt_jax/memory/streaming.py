"""A memory in a stream: reads and state do not depend on how the stream is divided into calls."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from memgpt_jax.config.checks import check
from memgpt_jax.config.memory import Alignment
from memgpt_jax.memory.base import Explanation, Memory, OwnSegment, Segment, State
from memgpt_jax.ops.int8_vectors import as_floats, in_form_of
from memgpt_jax.ops.trees import where_rows
from memgpt_jax.shapes import Array, Bool, Float, Int32

StreamAlignment = Alignment | Literal["detached", "detached_aligned"]
"""A guarantee of the caller, which makes a call faster. If it does not hold, every read is NaN.

- any: no guarantee.
- aligned: every row is at a segment boundary, every token is valid, and T divides L.
- mid_segment: no token is the first of a stream or document, or the last of a segment.
- unwritten: one token per row, which is not the first of a stream or document. A segment that it fills is not written:
  `write_full` does it before the next token.
- detached: no guarantee; all tokens read the memory as it was before the call (needed by XLNet), see `_detached`.
- detached_aligned: both `detached` and `aligned`.
"""
ALIGNMENTS = (*get_args(Alignment), "detached", "detached_aligned")


class StreamState(NamedTuple):
    """A memory and the tokens of the segment that is not full yet."""

    memory: State
    pending: Float[Array, "B T D"]  # tokens of the open segment at their positions, followed by zeros
    offset: Int32[Array, "B"]  # number of pending tokens, 0 <= offset < T; T only between `unwritten` and `write_full`
    start: Int32[Array, "B"]  # position of the first pending token of the open document
    fresh: Bool[Array, "B"]  # no token or entry so far; at the first token, `restarted` replaces `memory`


def init_stream_state(
    memory: Memory[Any], batch_size: int, segment_length: int, d_model: int, dtype: Any
) -> StreamState:
    """The state before the first token. It holds no parameters."""
    return StreamState(  # separate arrays, so that a state can be donated
        memory=memory.init_state(batch_size),
        pending=jnp.zeros((batch_size, segment_length, d_model), dtype),
        offset=jnp.zeros(batch_size, jnp.int32),
        start=jnp.zeros(batch_size, jnp.int32),
        fresh=jnp.ones(batch_size, bool),
    )


def stream(
    memory: Memory[Any],
    x: Float[Array, "B L D"],
    state: StreamState,
    reset: Bool[Array, "B L"],
    valid: Bool[Array, "B L"],
    alignment: str = "any",
) -> tuple[Float[Array, "B L R"], StreamState]:
    """The unprojected reads of a call (see `Memory.output`), and the state after it.

    Args:
        memory: the mechanism.
        x: the tokens.
        state: the state before the call.
        reset: True for the first token of a document.
        valid: False for padding on the right (checked by `models.arguments`).
        alignment: see `StreamAlignment`. `aligned` tokens are not moved.

    Raises:
        ValueError: the alignment is unknown, or does not fit the number of tokens.
    """
    check(alignment in ALIGNMENTS, f"alignment must be one of {', '.join(map(repr, ALIGNMENTS))}, got {alignment!r}")
    if alignment in ("detached", "detached_aligned"):
        return _detached(memory, x, state, reset, valid, "aligned" if alignment == "detached_aligned" else "any")
    if alignment == "mid_segment":
        return _mid_segment(memory, x, state, reset, valid)
    if x.shape[1] == 1 and alignment != "aligned":
        return _one_token(memory, x, state, reset, valid, reads_only=alignment == "unwritten")
    if alignment == "unwritten":
        raise ValueError(f"alignment={alignment!r} takes exactly one token per row, got {x.shape[1]}")
    # As floats, keys and values that the call stores in 8 bits get a gradient from the call's later tokens.
    floats = state._replace(memory=as_floats(state.memory, state.pending.dtype))
    floats = _begun(memory, floats, jnp.any(valid, axis=1))
    read, after = (_aligned if alignment == "aligned" else _unaligned)(memory, x, floats, reset, valid)
    return read, after._replace(memory=in_form_of(state.memory, after.memory))


def begin(memory: Memory[Any], state: StreamState) -> StreamState:
    """The state with an initial memory where there has been no token, which an `unwritten` token expects."""
    return _begun(memory, state, jnp.ones_like(state.fresh))


def write_full(memory: Memory[Any], state: StreamState) -> StreamState:
    """The state after the segments that `unwritten` tokens have filled have been written."""
    length = state.pending.shape[1]
    full, write_mask = state.offset == length, jnp.arange(length)[None, :] >= state.start[:, None]
    return state._replace(
        memory=where_rows(full, memory.write(state.pending, state.memory, write_mask), state.memory),
        pending=jnp.where(full[:, None, None], 0, state.pending),
        offset=jnp.where(full, 0, state.offset),
        start=jnp.where(full, 0, state.start),
    )


def explain(memory: Memory[Any], x: Float[Array, "B Q D"], state: StreamState) -> Explanation:
    """`Memory.explain` for the next tokens of a stream; those of the open segment are not read."""
    return memory.explain(x, memory.after(_restarted(memory, state.memory, state.fresh), state.offset))


def write_entries(
    memory: Memory[Any],
    keys: Float[Array, "B N H K"],
    values: Float[Array, "B N H K"],
    state: StreamState,
    valid: Bool[Array, "B N"] | None = None,
) -> StreamState:
    """`Memory.write_entries` for a stream. A reset removes these entries like all others."""
    before = _restarted(memory, state.memory, state.fresh)
    after = memory.write_entries(keys, values, before, valid)
    return state._replace(memory=after, fresh=jnp.zeros_like(state.fresh))


def _restarted(memory: Memory[Any], state: State, rows: Bool[Array, "B"]) -> State:
    """The state with an initial memory in the given rows."""

    def restart(state: State) -> State:
        return where_rows(rows, memory.restarted(state, rows.shape[0]), state)

    return jax.lax.cond(jnp.any(rows), restart, _unchanged, state)


def _begun(memory: Memory[Any], state: StreamState, rows: Bool[Array, "B"]) -> StreamState:
    """The state with an initial memory in those of the given rows that have none."""
    begins = state.fresh & rows
    return state._replace(memory=_restarted(memory, state.memory, begins), fresh=state.fresh & ~begins)


def _unchanged(state: Any) -> Any:
    return state


def _detached(
    memory: Memory[Any],
    x: Float[Array, "B L D"],
    state: StreamState,
    reset: Bool[Array, "B L"],
    valid: Bool[Array, "B L"],
    alignment: StreamAlignment,
) -> tuple[Float[Array, "B L R"], StreamState]:
    """All tokens read the memory as it was before the call (after a reset, an initial one); then they are written.

    XLNet needs this, because its tokens depend on each other in another order than that of their positions.
    """
    batch, length, _ = x.shape
    no_document = jnp.full((batch, length), -1, jnp.int32)  # a token reads no token of its own segment, not even itself
    position = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (batch, length))
    own_segment = OwnSegment(x, no_document, position)
    update_mask = jnp.zeros((batch, length), bool)
    before = memory.incoming(_restarted(memory, state.memory, state.fresh), jnp.zeros(batch, bool))
    x = _nan_where_bad(x, state, valid) if alignment == "aligned" else x

    @jax.checkpoint  # recomputed: [L, M] weights are large
    def read_from(x: Array, state: State) -> Array:
        return memory.read(x, state, own_segment, update_mask)[0]

    read = read_from(x, before)

    def restart(read: Array) -> Array:
        initial_read = read_from(x, memory.restarted(before, batch))
        return jnp.where((jnp.cumsum(reset, axis=1) > 0)[..., None], initial_read, read)

    read = jax.lax.cond(jnp.any(reset), restart, _unchanged, read)
    _, state = stream(memory, x, state, reset, valid, alignment)
    return jnp.where(valid[..., None], read, 0), state


def _mid_segment(
    memory: Memory[Any],
    x: Float[Array, "B L D"],
    state: StreamState,
    reset: Bool[Array, "B L"],
    valid: Bool[Array, "B L"],
) -> tuple[Float[Array, "B L R"], StreamState]:
    """Read for tokens inside the open segment of each row; no memory is replaced or written."""
    segment_length = state.pending.shape[1]
    after = state.offset + jnp.sum(valid, axis=1, dtype=jnp.int32)
    unexpected = jnp.any(valid & (reset | state.fresh[:, None] | (after >= segment_length)[:, None]))
    x = jnp.where(unexpected, jnp.nan, x)
    place = state.offset[:, None] + jnp.cumsum(valid, axis=1, dtype=jnp.int32) - 1
    here = jnp.where(valid, place, segment_length)  # out of range: dropped
    pending = state.pending.at[jnp.arange(len(x))[:, None], here].set(x.astype(state.pending.dtype), mode="drop")
    position = jnp.arange(segment_length)[None, :]
    document = jnp.where((position >= state.start[:, None]) & (position < after[:, None]), 0, -1)
    own_segment = OwnSegment(pending, document, jnp.clip(place, 0, segment_length - 1))
    before = memory.incoming(state.memory, jnp.zeros(len(x), bool))
    read, kept = memory.read(x, before, own_segment, valid)
    return jnp.where(valid[..., None], read, 0), state._replace(memory=kept, pending=pending, offset=after)


def _one_token(
    memory: Memory[Any],
    x: Float[Array, "B L D"],
    state: StreamState,
    reset: Bool[Array, "B L"],
    valid: Bool[Array, "B L"],
    reads_only: bool,
) -> tuple[Float[Array, "B L R"], StreamState]:
    """Decoding: read for one token of each row, and write the rows whose segment is full now.

    A `cond` copies the state that it returns. With `reads_only`, no state is replaced or written and there is no
    `cond`: no token is the first of a stream or document, and a segment that it fills is not written.
    """
    batch, segment_length, _ = state.pending.shape
    present, begins = valid[:, 0], reset[:, 0] & valid[:, 0]
    starts = begins | (state.fresh & present)
    full = present & (state.offset + 1 == segment_length)
    if reads_only:
        x = jnp.where(jnp.any(starts | (present & (state.offset == segment_length))), jnp.nan, x)
    before = state.memory if reads_only else _restarted(memory, state.memory, starts)
    before = memory.incoming(before, begins)
    start = jnp.where(begins, state.offset, state.start)
    position = jnp.arange(segment_length)[None, :]
    write_mask = position >= start[:, None]
    pending = state.pending if reads_only else jnp.where(begins[:, None, None], 0, state.pending)
    here = jnp.where(present, state.offset, segment_length)  # out of range: dropped
    pending = pending.at[jnp.arange(batch), here].set(x[:, 0].astype(pending.dtype), mode="drop")

    document = jnp.where(write_mask & (position <= state.offset[:, None]), 0, -1)
    read, after = memory.read(x, before, OwnSegment(pending, document, state.offset[:, None]), valid)
    offset = state.offset + 1
    if not reads_only:

        def write(kept: State) -> State:
            return where_rows(full, memory.write(pending, kept, write_mask), kept)

        after = jax.lax.cond(jnp.any(full), write, _unchanged, after)
        pending = jnp.where(full[:, None, None], 0, pending)
        start, offset = jnp.where(full, 0, start), offset % segment_length
    return jnp.where(valid[..., None], read, 0), StreamState(
        memory=after,
        pending=pending,
        offset=jnp.where(present, offset, state.offset),
        start=start,
        fresh=state.fresh & ~present,
    )


def _aligned(
    memory: Memory[Any],
    x: Float[Array, "B L D"],
    state: StreamState,
    reset: Bool[Array, "B L"],
    valid: Bool[Array, "B L"],
) -> tuple[Float[Array, "B L R"], StreamState]:
    """Whole segments: the tokens are already at their positions."""
    batch, length, width = x.shape
    segment_length = state.pending.shape[1]
    if length % segment_length:
        raise ValueError(
            f"alignment='aligned' needs a multiple of segment_length={segment_length} tokens, got {length}"
        )
    shape = (batch, length // segment_length, segment_length)
    x = _nan_where_bad(x, state, valid).reshape(*shape, width)
    everywhere = jnp.ones(shape, bool)
    segments = Segment(x, reset.reshape(shape), everywhere, everywhere, jnp.ones(shape[:2], bool))
    read, memory_state = memory.sequence(segments, state.memory)
    state = state._replace(
        memory=memory_state, pending=jnp.zeros_like(state.pending), start=jnp.zeros_like(state.start)
    )
    return read.reshape(batch, length, -1), state


def _nan_where_bad(x: Float[Array, "B L D"], state: StreamState, valid: Bool[Array, "B L"]) -> Float[Array, "B L D"]:
    """NaN unless every row is at a segment boundary and every token is valid."""
    return jnp.where(jnp.all(state.offset == 0) & jnp.all(valid), x, jnp.nan)


def _unaligned(
    memory: Memory[Any],
    x: Float[Array, "B L D"],
    state: StreamState,
    reset: Bool[Array, "B L"],
    valid: Bool[Array, "B L"],
) -> tuple[Float[Array, "B L R"], StreamState]:
    """Any offset and any number of tokens: put pending and new tokens into segments, each row at its own offset."""
    batch, length, width = x.shape
    segment_length = state.pending.shape[1]
    num_segments = (segment_length - 1 + length + segment_length - 1) // segment_length
    shape = (batch, num_segments, segment_length)
    offset, tokens = state.offset[:, None], jnp.sum(valid, axis=1, dtype=jnp.int32)[:, None]

    cell = jnp.arange(num_segments * segment_length, dtype=jnp.int32)[None, :]
    is_new = (cell >= offset) & (cell < offset + tokens)
    present = is_new | ((cell >= state.start[:, None]) & (cell < offset))
    call_index = jnp.clip(cell - offset, 0, length - 1)
    cells_reset = jnp.take_along_axis(reset, call_index, axis=1) & is_new
    source = jnp.where(cell < offset, jnp.minimum(cell, segment_length - 1), segment_length + call_index)
    both = jnp.concatenate([state.pending.astype(x.dtype), x], axis=1)
    cells = jnp.where(present[..., None], jnp.take_along_axis(both, source[..., None], axis=1), 0)
    num_full = (offset + tokens) // segment_length  # [B, 1]
    segments = Segment(
        cells.reshape(*shape, width),
        cells_reset.reshape(shape),
        present.reshape(shape),
        is_new.reshape(shape),
        jnp.arange(num_segments)[None, :] < num_full,
    )
    read, memory_state = memory.sequence(segments, state.memory)
    read = read.reshape(batch, num_segments * segment_length, -1)
    read = jnp.take_along_axis(read, (offset + jnp.arange(length)[None, :])[..., None], axis=1)

    open_segment = jnp.minimum(num_full, num_segments - 1)  # the last one if the open segment is empty; then unused
    in_open = jnp.take_along_axis(segments.reset, open_segment[..., None], axis=1)[:, 0]
    last_reset = jnp.max(jnp.where(in_open, jnp.arange(segment_length, dtype=jnp.int32)[None, :], -1), axis=1)
    last_reset = jnp.where(num_full[:, 0] < num_segments, last_reset, -1)
    start = jnp.where(last_reset >= 0, last_reset, jnp.where(num_full[:, 0] == 0, state.start, 0))
    offset = (state.offset + tokens[:, 0]) % segment_length
    pending = jnp.take_along_axis(segments.x, open_segment[..., None, None], axis=1)[:, 0]
    position = jnp.arange(segment_length)[None, :]
    taken = (position >= start[:, None]) & (position < offset[:, None])
    pending = jnp.where(taken[..., None], pending, 0).astype(state.pending.dtype)
    return jnp.where(valid[..., None], read, 0), StreamState(
        memory=memory_state,
        pending=pending,
        offset=offset,
        start=start,
        fresh=state.fresh,
    )
