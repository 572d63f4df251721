"""The Reader over all segments of a call at once: entries in play, and which of them each segment sees."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from memgpt_jax.ops.attention.dense import FLOOR, MASKED, map_rows
from memgpt_jax.ops.attention.implementation import Implementation, choose
from memgpt_jax.ops.attention.intervals import Interval, Recency, default_blocks, interval_attention
from memgpt_jax.ops.memory.reader import Source, read_entries, read_entries_with_lse
from memgpt_jax.ops.mesh import num_entry_parts, on_each_device, row_and_head_axes
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32


class ReadableEntries(NamedTuple):
    """Entries, with what is added to their logits."""

    keys: Float[Array, "B E G K"]
    values: Float[Array, "B E G K"]
    bias: Float32[Array, "B E"]  # log g, or 0


class Visibility(NamedTuple):
    """The memory at the start of each segment: which of the stored entries it holds."""

    place: Int32[Array, "B S M"]
    valid: Bool[Array, "B S M"]
    age: Int32[Array, "B S M"]  # in segments


class OwnEntries(NamedTuple):
    """What the tokens of each segment have written themselves: visible to later ones of their document at once."""

    stored: ReadableEntries  # [B, S, T, ...]
    document: Int32[Array, "B S T"]  # equal for tokens of one document; -1: no token


def read_segments(
    query: Float[Array, "B S T H K"],
    stored: ReadableEntries,
    seen: Visibility,
    after_reset: Bool[Array, "B S T"],
    *,
    initial: ReadableEntries | None = None,
    own: OwnEntries | None = None,
    null_key: Float[Array, "G K"] | None = None,
    recency: Float32[Array, "H"] | None = None,
    bptt_segments: int | None = None,
    contiguous: bool = False,
    implementation: Implementation = "auto",
    with_lse: bool = False,
) -> Float[Array, "B S T H K"] | tuple[Float[Array, "B S T H K"], Float32[Array, "B S T H"]]:
    """`read_entries` for every token of S segments.

    A token reads the entries that were stored before its segment; after a reset in its segment, the `initial` ones.

    Arguments:
        bptt_segments: no gradient flows into entries older than so many segments.
        contiguous: what a segment sees are M neighbours among the stored entries, valid ones last.
        implementation: see `Implementation`. Kernels know neither `initial` nor `own` entries; they copy no entries,
            while the portable form gathers M for each segment.
        with_lse: `read_entries_with_lse` in the place of `read_entries`; only the portable form does.

    Raises:
        ValueError: the implementation does not work here, or does not know these entries.
    """
    kernels = ("pallas",) if initial is None and own is None and not with_lse else ()
    chosen = choose(implementation, kernels, query.dtype, query.shape[-1])
    if chosen == "portable":
        arrays = (query, stored, seen, after_reset, initial, own, null_key, recency)
        options = {"bptt_segments": bptt_segments, "with_lse": with_lse}
        run = partial(_read_rows, contiguous=contiguous, **options)
        rows, heads = row_and_head_axes(query.shape[0], stored.keys.shape[2])
        of_row, of_heads, by_heads = PartitionSpec(rows), PartitionSpec(rows, None, heads), PartitionSpec(heads)
        in_segments = PartitionSpec(rows, None, None, heads)
        entries, of_place = ReadableEntries(of_heads, of_heads, of_row), of_row
        if (parts := num_entry_parts()) > 1 and seen.place.shape[2] % parts == 0:
            run, of_place = partial(_read_parts, **options), PartitionSpec(rows, None, "sequence")
        specs = (
            in_segments,
            entries,
            of_place,
            of_row,
            None if initial is None else entries,
            None if own is None else OwnEntries(ReadableEntries(in_segments, in_segments, of_row), of_row),
            by_heads,
            by_heads,
        )
        return on_each_device(run, arrays, specs, in_segments)
    return _by_kernel(query, stored, seen, after_reset, null_key, recency, bptt_segments, chosen == "interpret")


def causal_visibility(document: Int32[Array, "B T"], place: Int32[Array, "B Q"]) -> Bool[Array, "B Q T"]:
    """A token, at its place in the segment, sees the earlier tokens of its document in it, itself included."""
    own_document = jnp.take_along_axis(document, place, axis=1)
    earlier = jnp.arange(document.shape[1])[None, None, :] <= place[..., None]
    return (document[:, None, :] == own_document[..., None]) & (document >= 0)[:, None, :] & earlier


def source(
    stored: ReadableEntries, age: Int32[Array, "B E"], visible: Bool[Array, "B Q E"], bptt_segments=None
) -> Source:
    """Entries as the Reader takes them: no gradient into those older than `bptt_segments`."""
    if bptt_segments is not None:
        recent = age <= bptt_segments

        def cut(x):
            return jnp.where(recent.reshape(*recent.shape, *(1,) * (x.ndim - 2)), x, jax.lax.stop_gradient(x))

        stored = jax.tree.map(cut, stored)
    return Source(*stored, age, visible)


def _read_rows(query, stored, seen, after_reset, initial, own, null_key, recency, **options):
    """The portable form. On a mesh each device takes its own rows and heads."""

    def read_row(row):
        return _read_row(*row, null_key, recency, **options)

    return map_rows(read_row, (query, stored, seen, after_reset, initial, own), recompute=False)


def _read_parts(query, stored, seen, after_reset, initial, own, null_key, recency, *, bptt_segments, with_lse):
    """`_read_rows` where each device sees its part of M; `initial` and `own` entries are of the first one.

    r = sum_i w_i r_i / sum_i w_i,  w_i = exp(lse_i): reads merge with two sums over devices. The null entry comes last.
    """
    first = jax.lax.axis_index("sequence") == 0
    if initial is not None:
        initial = initial._replace(bias=jnp.where(first, initial.bias, MASKED))
    if own is not None:
        own = own._replace(document=jnp.where(first, own.document, -1))
    options = {"bptt_segments": bptt_segments, "contiguous": False, "with_lse": True}
    out, lse = _read_rows(query, stored, seen, after_reset, initial, own, None, recency, **options)
    highest = jnp.maximum(jax.lax.pmax(jax.lax.stop_gradient(lse), "sequence"), FLOOR)
    sink = None
    if null_key is not None:
        groups = query.reshape(*query.shape[:3], null_key.shape[0], -1, query.shape[-1])
        sink = jnp.einsum("bstgrk,gk->bstgr", groups, null_key.astype(query.dtype), preferred_element_type=jnp.float32)
        sink = sink.reshape(lse.shape)
        highest = jnp.maximum(highest, jax.lax.stop_gradient(sink))
    weight = jnp.exp(lse - highest)
    summed = jax.lax.psum(weight[..., None] * out.astype(jnp.float32), "sequence")
    total = jax.lax.psum(weight, "sequence")
    total = total if sink is None else total + jnp.exp(sink - highest)
    total = jnp.where(total > 0, total, 1)
    out = (summed / total[..., None]).astype(out.dtype)
    return (out, jnp.where(highest > FLOOR, highest + jnp.log(total), MASKED)) if with_lse else out


def _read_row(query, stored, seen, after_reset, initial, own, null_key, recency, bptt_segments, contiguous, with_lse):
    """The portable form, for one batch row: one segment after the other, with the entries that it sees."""
    as_row = lambda tree: jax.tree.map(lambda x: x[None], tree)  # noqa: E731
    no_age = lambda entries: jnp.zeros(entries.bias.shape, jnp.int32)  # noqa: E731

    def read_segment(segment):
        query, seen, after_reset, own = segment
        if contiguous:  # a slice is faster than a gather
            size = seen.place.shape[0]
            fetch = lambda x: jax.lax.dynamic_slice_in_dim(x, seen.place[-1] - (size - 1), size)  # noqa: E731
        else:
            fetch = lambda x: x[seen.place]  # noqa: E731
        visible = (seen.valid[None] & ~after_reset[:, None])[None]
        sources = [source(as_row(jax.tree.map(fetch, stored)), seen.age[None], visible, bptt_segments)]
        if initial is not None:
            entries = as_row(initial)
            visible = jnp.broadcast_to(after_reset[None, :, None], (1, after_reset.size, entries.bias.shape[1]))
            sources.append(source(entries, no_age(entries), visible))
        if own is not None:
            entries, document = as_row(own)
            visible = causal_visibility(document, jnp.arange(document.shape[1])[None])
            sources.append(source(entries, no_age(entries), visible))
        found = (read_entries_with_lse if with_lse else read_entries)(query[None], sources, null_key, recency)
        return jax.tree.map(lambda x: x[0], found)

    return map_rows(read_segment, (query, seen, after_reset, own))


def _by_kernel(query, stored, seen, after_reset, null_key, recency, bptt_segments, interpret):
    """Time counts segments; a token after a reset stands outside of time, and sees nothing."""
    batch, num_segments, length, heads, width = query.shape
    number, kv_heads = stored.keys.shape[1:3]
    segment = jnp.broadcast_to(jnp.arange(num_segments, dtype=jnp.int32)[None, :, None], after_reset.shape)
    time = jnp.where(after_reset, -1, segment).reshape(batch, -1)

    # An entry is seen from the segment after its own until it leaves the memory, and does not come back.
    row = jnp.arange(batch, dtype=jnp.int32)[:, None, None]
    place = jnp.where(seen.valid, seen.place, number)  # there is no such place: dropped
    segment = jnp.broadcast_to(segment[:, :, :1], place.shape)
    first = jnp.full((batch, number), num_segments, jnp.int32).at[row, place].min(segment, mode="drop")
    last = jnp.full((batch, number), -1, jnp.int32).at[row, place].max(segment, mode="drop")
    written = jnp.zeros((batch, number), jnp.int32).at[row, place].set(segment - seen.age, mode="drop")

    query = query.reshape(batch, -1, heads, width)
    sink = None
    if null_key is not None:
        groups = query.reshape(batch, -1, kv_heads, heads // kv_heads, width)
        sink = jnp.einsum("blgrk,gk->blgr", groups, null_key.astype(query.dtype), preferred_element_type=jnp.float32)
        sink = sink.reshape(query.shape[:3])
    out = interval_attention(
        query,
        stored.keys,
        stored.values,
        time,
        Interval(first, last, None if bptt_segments is None else written + bptt_segments),
        default_blocks(query.dtype, interpret),
        bias=stored.bias,
        sink=sink,
        recency=None if recency is None else Recency(recency, written),
    )
    return out.reshape(batch, num_segments, length, heads, width)
