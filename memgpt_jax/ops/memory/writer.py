"""The Writer: from the activations of a segment to entries, and from entries to the next memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memgpt_jax.config.memory import Evict
from memgpt_jax.ops.attention.dense import attention_weights, masked_bias
from memgpt_jax.ops.mesh import ENTRIES, HEADS, declare_axes
from memgpt_jax.ops.trees import where_rows
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32


class Entries(NamedTuple):
    """M entries of a memory. If `valid` is False, the other fields have no meaning."""

    keys: Any  # Float[Array, "B M G K"], or its `Int8Vectors`
    values: Any  # Float[Array, "B M G K"], or its `Int8Vectors`
    log_gate: Float32[Array, "B M"]  # log of the write gate g in (0, 1]; of a merged entry, of the sum of gates
    valid: Bool[Array, "B M"]
    age: Int32[Array, "B M"]  # segments since it was written; 1 for the segment right after
    read_mass: Float32[Array, "B M"] | None  # attention weight received, summed over tokens, mean over heads

    mesh_axes = declare_axes(
        keys=(ENTRIES, HEADS),
        values=(ENTRIES, HEADS),
        log_gate=(ENTRIES,),
        valid=(ENTRIES,),
        age=(ENTRIES,),
        read_mass=(ENTRIES,),
    )


class KnowledgeCells(NamedTuple):
    """An index of N entries: for each head, C cells of entries whose keys are similar."""

    means: Float32[Array, "B G C K"]  # the mean key of the cell
    members: Int32[Array, "B G C S"]  # places of its entries, in order, followed by N

    mesh_axes = declare_axes(means=(HEADS,), members=(HEADS,))


class KnowledgeEntries(NamedTuple):
    """N entries that were written before the stream, in the order of writing from place 0 on, followed by zeros."""

    keys: Float[Array, "B N G K"]
    values: Float[Array, "B N G K"]
    log_gate: Float32[Array, "B N"]
    source: Int32[Array, "B N"]  # at least 1: number of the text that the entry comes from; 0: no entry
    cells: KnowledgeCells | None = None  # with `knowledge_cells`

    mesh_axes = declare_axes(keys=(None, HEADS), values=(None, HEADS))


OLDEST_AGE = 2**30  # maximum age, so that ages cannot overflow
READ_HORIZON = 4096  # read rates are means over about this many segments, so that the sums stay exact


def causal_conv(
    x: Float[Array, "B E D"],
    document: Int32[Array, "B E"],
    kernel: Float[Array, "W D"],
    stop_every: int | None = None,
) -> Float[Array, "B E-W+1 D"]:
    """Causal depthwise convolution c_t = sum_j kernel_j * x_{t-j} over the taps of the token's own document.

    E = W - 1 + L: the first W - 1 inputs precede the L tokens.

    stop_every: no gradient flows from a token to taps in an earlier block of `stop_every` tokens; None: all do.
    """
    width, length = kernel.shape[0], x.shape[1] - kernel.shape[0] + 1

    def tap(j: int):
        shifted, its_document = (a[:, width - 1 - j : width - 1 - j + length] for a in (x, document))
        if stop_every is not None:
            inside = (jnp.arange(length) % stop_every >= j)[None, :, None]
            shifted = jnp.where(inside, shifted, jax.lax.stop_gradient(shifted))
        same = its_document == document[:, width - 1 :]
        return shifted * same[..., None].astype(x.dtype) * kernel[j][None, None]

    return sum((tap(j) for j in range(1, width)), start=tap(0))


def select_highest_gate(entries: Entries, num: int) -> Entries:
    """The `num` valid entries with the highest gates (of equal ones, the earlier), in order of time."""
    score = jnp.where(entries.valid, entries.log_gate, -jnp.inf)
    chosen = jnp.sort(jax.lax.top_k(score, num)[1], axis=1)
    return gather_entries(entries, chosen)


def pool_entries(entries: Entries, queries: Float[Array, "N G K"]) -> Entries:
    """N entries, pooled from the T of a segment by attention of learned queries p_j, weighted by the write gates.

        a_jt = softmax_t(p_j . k_t + log g_t),    k_j = sum_t a_jt k_t,   v_j = sum_t a_jt v_t,   g_j = sum_t a_jt g_t

    Each head has its own weights; the gate uses their mean over heads.
    """
    bias = jnp.where(entries.valid, entries.log_gate, masked_bias(jnp.zeros((), bool)))[:, None, None, None, :]
    keys, values = entries.keys.swapaxes(1, 2), entries.values.swapaxes(1, 2)  # [B, G, T, K]
    batch, length = entries.valid.shape
    num, kv_heads, head_dim = queries.shape
    query = jnp.broadcast_to(queries.swapaxes(0, 1)[None, :, None], (batch, kv_heads, 1, num, head_dim))
    weights = attention_weights(query.astype(keys.dtype), keys, bias)[:, :, 0]  # [B, G, N, T]

    def pool(x: Array):
        return jnp.einsum("bgnt,bgtk->bngk", weights.astype(x.dtype), x)

    gate = jnp.einsum("bgnt,bt->bn", weights, jnp.exp(entries.log_gate)) / kv_heads
    some = jnp.broadcast_to(jnp.any(entries.valid, axis=1, keepdims=True), (batch, num))
    tiny = jnp.finfo(jnp.float32).tiny
    return Entries(
        keys=pool(keys),
        values=pool(values),
        log_gate=jnp.log(jnp.maximum(gate, tiny)),
        valid=some,
        age=jnp.zeros((batch, num), jnp.int32),
        read_mass=None if entries.read_mass is None else jnp.zeros((batch, num), jnp.float32),
    )


def places_to_keep(memory: Entries, new: Entries, evict: Evict) -> Int32[Array, "B M"]:
    """Which M of the M + N entries of [memory, new] stay, as increasing places among them.

    The invalid entries of `new` come before its valid ones and take no place. Those of `memory` come first, too, except
    for entries that have been deleted: their places are between the others.
    - `oldest`: the last M stay.
    - `lowest_gate`: the M with the highest gates stay, invalid ones last; the newer of two equal ones stays.
    - `least_read`: new entries stay; of the old ones those with the highest read mass per segment of age.
    """
    size = memory.valid.shape[1]
    if evict == "oldest":
        place = jnp.arange(size, dtype=jnp.int32)[None, :] + jnp.sum(new.valid, axis=1, dtype=jnp.int32)[:, None]
        skipped = jnp.sum(~new.valid, axis=1, dtype=jnp.int32)[:, None]
        return jnp.where(place < size, place, place + skipped)
    if evict == "lowest_gate":
        score = jnp.concatenate([memory.log_gate, new.log_gate], axis=1)
    elif evict == "least_read":
        assert memory.read_mass is not None
        rate = memory.read_mass / jnp.clip(memory.age, 1, READ_HORIZON).astype(jnp.float32)
        score = jnp.concatenate([rate, jnp.full(new.valid.shape, jnp.inf, jnp.float32)], axis=1)
    else:
        raise ValueError(f"evict must be 'oldest', 'lowest_gate' or 'least_read', got {evict!r}")
    score = jnp.where(jnp.concatenate([memory.valid, new.valid], axis=1), score, -jnp.inf)
    return places_of_highest(score, size)


def places_of_highest(score: Float32[Array, "B E"], num: int) -> Int32[Array, "B N"]:
    """The places of the `num` highest scores of each row (of equal ones, the later), in increasing order."""
    last_first = jax.lax.top_k(jnp.flip(score, axis=1), num)[1]
    return jnp.sort(score.shape[1] - 1 - last_first, axis=1)


def append_entries(memory: Entries, new: Entries, evict: Evict, places: Int32[Array, "B M"] | None = None) -> Entries:
    """The memory after a segment: M of the M + N entries stay, in order of time, and all grow one segment older.

    With `least_read`, the read mass of entries older than READ_HORIZON segments loses 1 / READ_HORIZON in each segment.

    places: the result of `places_to_keep`, if the caller has it; None: computed here.
    """
    places = places_to_keep(memory, new, evict) if places is None else places
    both = jax.tree.map(lambda old, new: jnp.concatenate([old, new.astype(old.dtype)], axis=1), memory, new)
    kept = gather_entries(both, places)
    if evict == "least_read":
        fading = jnp.where(kept.age >= READ_HORIZON, jnp.float32(1 - 1 / READ_HORIZON), jnp.float32(1))
        kept = kept._replace(read_mass=kept.read_mass * fading)
    return kept._replace(age=jnp.where(kept.valid, jnp.minimum(kept.age + 1, OLDEST_AGE), 0))


def clean_entries(entries: Entries) -> Entries:
    """Entries with zeros where they are not valid, so that equal memories are equal arrays."""
    return where_rows(entries.valid, entries, jax.tree.map(jnp.zeros_like, entries))


def gather_entries(entries: Any, index: Int32[Array, "B N"]) -> Any:
    """Entries (any pytree of [B, E, ...] arrays) at the places `index` of each row: [B, N, ...]."""

    def one(x: Array):
        places = index.reshape(*index.shape, *(1,) * (x.ndim - 2))
        return jnp.take_along_axis(x, places, axis=1)

    return jax.tree.map(one, entries)
