"""Reads of all segments of a call at once: the entries in play, and which of them each segment sees."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from memgpt_jax.ops.attention.dense import FLOOR, MASKED, map_rows
from memgpt_jax.ops.attention.implementation import Implementation, choose
from memgpt_jax.ops.attention.intervals import Interval, Recency, default_blocks, interval_attention
from memgpt_jax.ops.memory.reader import ReadableEntries, Source, null_sink, read_entries, read_entries_with_lse
from memgpt_jax.ops.mesh import ENTRIES, num_entry_parts, on_each_device, row_and_head_axes
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32


class SeenEntries(NamedTuple):
    """The entries that the memory holds at the start of each segment."""

    place: Int32[Array, "B S M"]  # index among the E entries in play
    valid: Bool[Array, "B S M"]  # False: the slot is empty
    age: Int32[Array, "B S M"]  # segments since the entry was written


class SegmentReads(NamedTuple):
    """What the tokens of S segments read: the entries `seen` by their segment or, after a reset, the `initial` ones."""

    query: Float[Array, "B S T H K"]
    entries: ReadableEntries  # the E entries in play during the call
    seen: SeenEntries
    after_reset: Bool[Array, "B S T"]  # a reset precedes the token in its segment
    initial: ReadableEntries | None = None  # the entries with which a document begins
    own: ReadableEntries | None = None  # [B, S, T, ...]: written by each segment; read by the token and later ones
    own_document: Int32[Array, "B S T"] | None = None  # equal for tokens of one document; -1: no token
    knowledge: ReadableEntries | None = None  # entries of age 0 that every token reads
    null_key: Float[Array, "G K"] | None = None  # as in `read_entries`
    recency: Float32[Array, "H"] | None = None  # as in `read_entries`


def read_segments(
    reads: SegmentReads,
    *,
    bptt_segments: int | None = None,
    contiguous: bool = False,
    implementation: Implementation = "auto",
) -> Float[Array, "B S T H K"]:
    """`read_entries` for every token of S segments.

    Args:
        bptt_segments: entries older than this many segments get no gradient; None: all get it.
        contiguous: each segment sees M neighbours among the entries in play, in the order of their places.
        implementation: see `Implementation`. The kernels take neither `initial` nor `own` entries nor `knowledge`.
            They copy no entries; the portable implementation gathers M for each segment.

    Raises:
        ValueError: the implementation does not run here, or not with these entries.
    """
    kernels = ("pallas",) if reads.initial is None and reads.own is None and reads.knowledge is None else ()
    chosen = choose(implementation, kernels, reads.query.dtype, reads.query.shape[-1])
    if chosen != "portable":
        return _by_kernel(reads, bptt_segments, interpret=chosen == "interpret")

    def merged(reads: SegmentReads):
        return _read_parts(reads, bptt_segments)[0]

    return _portable(reads, read_entries, merged, bptt_segments, contiguous)


def read_segments_with_lse(
    reads: SegmentReads,
    *,
    bptt_segments: int | None = None,
    contiguous: bool = False,
    implementation: Implementation = "auto",
) -> tuple[Float[Array, "B S T H K"], Float32[Array, "B S T H"]]:
    """`read_segments`, and the log-sum-exp of each query's logits. Only the portable implementation computes it."""
    choose(implementation, (), reads.query.dtype, reads.query.shape[-1])
    merged = partial(_read_parts, bptt_segments=bptt_segments)
    return _portable(reads, read_entries_with_lse, merged, bptt_segments, contiguous)


def causal_visibility(document: Int32[Array, "B T"], place: Int32[Array, "B Q"]) -> Bool[Array, "B Q T"]:
    """True where a query sees an entry that a token of its own segment wrote.

    The query at `place` sees the tokens of its document up to and including that place; document -1 is no token.
    """
    own_document = jnp.take_along_axis(document, place, axis=1)
    earlier = jnp.arange(document.shape[1])[None, None, :] <= place[..., None]
    return (document[:, None, :] == own_document[..., None]) & (document >= 0)[:, None, :] & earlier


def make_source(
    entries: ReadableEntries,
    age: Int32[Array, "B E"],
    visible: Bool[Array, "B Q E"],
    bptt_segments: int | None = None,
) -> Source:
    """The `Source` of these entries. Those older than `bptt_segments` segments get no gradient."""
    if bptt_segments is not None:
        recent = age <= bptt_segments

        def cut(x: Array):
            return jnp.where(recent.reshape(*recent.shape, *(1,) * (x.ndim - 2)), x, jax.lax.stop_gradient(x))

        entries = jax.tree.map(cut, entries)
    return Source(*entries, age, visible)


def _portable(reads: SegmentReads, read: Callable, read_parts: Callable, bptt_segments: int | None, contiguous: bool):
    """Plain JAX. On a mesh each device takes its own rows and heads; `read_parts` where it also splits entries."""
    rows, heads = row_and_head_axes(reads.query.shape[0], reads.entries.keys.shape[2])
    of_row: Any = PartitionSpec(rows)  # specs in the places of the arrays
    of_heads: Any = PartitionSpec(rows, None, heads)
    by_heads: Any = PartitionSpec(heads)
    in_segments: Any = PartitionSpec(rows, None, None, heads)
    run: Callable = partial(_read_rows, read=read, bptt_segments=bptt_segments, contiguous=contiguous)
    of_place: Any = of_row
    if (parts := num_entry_parts()) > 1 and reads.seen.place.shape[2] % parts == 0:
        of_place = PartitionSpec(rows, None, ENTRIES)
        run = read_parts
    entries = ReadableEntries(of_heads, of_heads, of_row)
    specs = SegmentReads(
        query=in_segments,
        entries=entries,
        seen=of_place,
        after_reset=of_row,
        initial=None if reads.initial is None else entries,
        own=None if reads.own is None else ReadableEntries(in_segments, in_segments, of_row),
        own_document=of_row,
        knowledge=None if reads.knowledge is None else entries,
        null_key=by_heads,
        recency=by_heads,
    )
    return on_each_device(run, (reads,), (specs,), in_segments)


def _read_rows(reads: SegmentReads, *, read: Callable, bptt_segments: int | None, contiguous: bool):
    """`_read_row` for each batch row."""

    def read_row(row: SegmentReads):
        row = row._replace(null_key=reads.null_key, recency=reads.recency)
        return _read_row(row, read, bptt_segments, contiguous)

    return map_rows(read_row, reads._replace(null_key=None, recency=None), recompute=False)


def _read_parts(reads: SegmentReads, bptt_segments: int | None):
    """Read and log-sum-exp where each device sees its part of the M entries; the first one adds `initial`, `own` and
    `knowledge`.

        r = sum_i w_i r_i / sum_i w_i,  w_i = exp(lse_i)

    Two sums over devices merge the reads. The null entry joins after them.
    """
    first = jax.lax.axis_index(ENTRIES) == 0
    if reads.initial is not None:
        bias = jnp.where(first, reads.initial.bias, MASKED)
        reads = reads._replace(initial=reads.initial._replace(bias=bias))
    if reads.knowledge is not None:
        bias = jnp.where(first, reads.knowledge.bias, MASKED)
        reads = reads._replace(knowledge=reads.knowledge._replace(bias=bias))
    if reads.own_document is not None:
        reads = reads._replace(own_document=jnp.where(first, reads.own_document, -1))
    query, null_key = reads.query, reads.null_key
    reads = reads._replace(null_key=None)
    out, lse = _read_rows(reads, read=read_entries_with_lse, bptt_segments=bptt_segments, contiguous=False)
    highest = jnp.maximum(jax.lax.pmax(jax.lax.stop_gradient(lse), ENTRIES), FLOOR)
    sink = null_sink(query.reshape(query.shape[0], -1, *query.shape[3:]), null_key)
    if sink is not None:
        sink = sink.reshape(lse.shape)
        highest = jnp.maximum(highest, jax.lax.stop_gradient(sink))
    weight = jnp.exp(lse - highest)
    summed = jax.lax.psum(weight[..., None] * out.astype(jnp.float32), ENTRIES)
    total = jax.lax.psum(weight, ENTRIES)
    total = total if sink is None else total + jnp.exp(sink - highest)
    total = jnp.where(total > 0, total, 1)
    out = (summed / total[..., None]).astype(out.dtype)
    return out, jnp.where(highest > FLOOR, highest + jnp.log(total), MASKED)


def _read_row(row: SegmentReads, read: Callable, bptt_segments: int | None, contiguous: bool):
    """The reads of one batch row: its segments one after the other, each with the entries that it sees."""

    def as_batch(tree: Any):
        return jax.tree.map(lambda x: x[None], tree)

    def without_age(entries: ReadableEntries, visible: Array):
        return make_source(entries, jnp.zeros(entries.bias.shape, jnp.int32), visible)

    def read_segment(segment: tuple):
        query, seen, after_reset, own, own_document = segment
        place = seen.place

        def fetch(x: Array):
            if contiguous:  # a slice is faster than a gather
                return jax.lax.dynamic_slice_in_dim(x, place[-1] - (place.shape[0] - 1), place.shape[0])
            return x[place]

        visible = (seen.valid[None] & ~after_reset[:, None])[None]
        stored = as_batch(jax.tree.map(fetch, row.entries))
        sources = [make_source(stored, seen.age[None], visible, bptt_segments)]
        if row.initial is not None:
            entries = as_batch(row.initial)
            visible = jnp.broadcast_to(after_reset[None, :, None], (1, after_reset.size, entries.bias.shape[1]))
            sources.append(without_age(entries, visible))
        if own is not None:
            entries, document = as_batch((own, own_document))
            visible = causal_visibility(document, jnp.arange(document.shape[1], dtype=jnp.int32)[None])
            sources.append(without_age(entries, visible))
        if row.knowledge is not None:
            entries = as_batch(row.knowledge)
            visible = jnp.ones((1, after_reset.size, entries.bias.shape[1]), bool)
            sources.append(without_age(entries, visible))
        found = read(query[None], sources, row.null_key, row.recency)
        return jax.tree.map(lambda x: x[0], found)

    return map_rows(read_segment, (row.query, row.seen, row.after_reset, row.own, row.own_document))


def _by_kernel(reads: SegmentReads, bptt_segments: int | None, *, interpret: bool):
    """`interval_attention` with the segment's index as time. A token after a reset has time -1: it sees nothing."""
    query, entries, seen, after_reset, *_, null_key, recency = reads
    batch, num_segments, length, heads, width = query.shape
    number = entries.keys.shape[1]
    segment = jnp.broadcast_to(jnp.arange(num_segments, dtype=jnp.int32)[None, :, None], after_reset.shape)
    time = jnp.where(after_reset, -1, segment).reshape(batch, -1)

    # An entry is visible from the segment after its own until it leaves the memory, and does not come back.
    row = jnp.arange(batch, dtype=jnp.int32)[:, None, None]
    place = jnp.where(seen.valid, seen.place, number)  # out of range: dropped
    segment = jnp.broadcast_to(segment[:, :, :1], place.shape)
    first = jnp.full((batch, number), num_segments, jnp.int32).at[row, place].min(segment, mode="drop")
    last = jnp.full((batch, number), -1, jnp.int32).at[row, place].max(segment, mode="drop")
    written = jnp.zeros((batch, number), jnp.int32).at[row, place].set(segment - seen.age, mode="drop")

    query = query.reshape(batch, -1, heads, width)
    out = interval_attention(
        query,
        entries.keys,
        entries.values,
        time,
        Interval(first, last, None if bptt_segments is None else written + bptt_segments),
        default_blocks(query.dtype, interpret),
        bias=entries.bias,
        sink=null_sink(query, null_key),
        recency=None if recency is None else Recency(recency, written),
    )
    return out.reshape(batch, num_segments, length, heads, width)
