"""Top-k search over a large store, with temporary memory independent of its size, and attention over the results."""

import itertools
import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from memgpt_jax.ops.attention.dense import MASKED, attend, attend_with_lse, attention_weights, masked_bias
from memgpt_jax.ops.memory.reader import ReadableEntries
from memgpt_jax.ops.memory.writer import KnowledgeCells
from memgpt_jax.ops.mesh import ENTRIES, num_entry_parts
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32

BLOCK = 4096  # entries per block of scores
SEARCHED = 2**16  # entries of cells whose keys are gathered at a time
LANES = 128  # the number of bins is just below a multiple of this, so that they fill vector registers


def find_nearest(
    query: Float[Array, "Q K"],
    keys: Float[Array, "E K"],
    first: Int32[Array, ""],
    end: Int32[Array, ""],
    *,
    top_k: int,
    bias: Float32[Array, " E"] | None = None,
    most: int | None = None,
    recall_target: float | None = None,
    block_size: int = BLOCK,
) -> tuple[Int32[Array, "Q {top_k}"], Bool[Array, "Q {top_k}"]]:
    """Places of the `top_k` entries e with the highest q . k_e + bias_e, first <= e < end, the best first.

    Of equal scores the earlier entry wins. At most Q * (block_size + top_k) scores exist at a time; blocks after the
    end of the range are not computed. With `recall_target` the search is approximate: entries are assigned to L bins in
    turn, each bin keeps its best, and the best of the L bins are returned,

        L = 1 / (1 - recall_target ^ (1 / (top_k - 1))),    so that E[share found] >= recall_target

    if entries are in random order (the partial reduction of Chern et al., "TPU-KNN", 2022; `jax.lax.approx_max_k` does
    the same on TPU, but sorts everything elsewhere). L is made a prime number of at least that size, the largest one
    below a multiple of `LANES`. Similar entries at equal distances, such as those at the same place of texts of 256
    tokens, are then in different bins.

    Args:
        query, keys: any float dtype; scores are float32. Not differentiable.
        first, end: the range of entries that is searched.
        top_k: at most `most`.
        bias: added to the scores; None: 0.
        most: upper bound of end - first; None: E.
        recall_target: expected recall of the approximate search; None: exact search.
        block_size: entries per block of scores.

    Returns:
        Places, and whether each is an entry of the range (it may hold fewer than `top_k`).
    """
    query, keys = jax.lax.stop_gradient((query, keys))
    most = keys.shape[0] if most is None else min(most, keys.shape[0])
    kept = top_k if recall_target is None else min(most, max(top_k, _num_bins(top_k, recall_target)))
    block = min(block_size, most) // kept * kept if recall_target is not None else min(block_size, most)
    block = max(block, kept)

    def scored(number: Array | int):
        start = first + number * block
        slice_start = jnp.minimum(start, keys.shape[0] - block)  # the last block of E overlaps the one before
        place = slice_start + jnp.arange(block, dtype=jnp.int32)
        searched = jax.lax.dynamic_slice_in_dim(keys, slice_start, block)
        scores = jnp.einsum("qk,ek->qe", query, searched, preferred_element_type=jnp.float32)
        if bias is not None:
            scores = scores + jax.lax.dynamic_slice_in_dim(bias, slice_start, block)[None]
        return jnp.where(((place >= start) & (place < end))[None, :], scores, -jnp.inf), place

    def body(number: Array, best: tuple[Array, Array]):
        scores, place = scored(number)
        return _merge(best, _top(scores, place, kept)) if recall_target is None else _into_bins(best, scores, place[0])

    if block >= most and recall_target is None:  # one block holds the whole range: no loop, and nothing to merge
        best = _top(*scored(0), kept)
    else:
        nothing = jnp.full((query.shape[0], kept), -jnp.inf, jnp.float32), jnp.zeros((query.shape[0], kept), jnp.int32)
        best = jax.lax.fori_loop(0, (end - first + block - 1) // block, body, nothing)
    if recall_target is not None:
        scores, place = best
        best = _best(scores, place, top_k)
    return best[1], best[0] > -jnp.inf


def _num_bins(top_k: int, recall_target: float) -> int:
    enough = 1 if top_k == 1 else 1 / (1 - recall_target ** (1 / (top_k - 1)))
    multiples = itertools.count(LANES * math.ceil(enough / LANES), LANES)
    primes = (next(number for number in range(most, 1, -1) if _is_prime(number)) for most in multiples)
    return next(number for number in primes if number >= enough)


def _is_prime(number: int) -> bool:
    return all(number % factor for factor in range(2, math.isqrt(number) + 1))


def _top(scores: Float32[Array, "Q E"], place: Int32[Array, " E"], top_k: int):
    scores, column = jax.lax.top_k(scores, top_k)
    return scores, place[column]


def _merge(best: tuple[Array, Array], new: tuple[Array, Array]):
    """The best of two lists; of equal scores, those of the first list win."""
    scores, place = (jnp.concatenate(pair, axis=1) for pair in zip(best, new, strict=True))
    return _best(scores, place, best[0].shape[1])


def _into_bins(best: tuple[Array, Array], scores: Array, start: Array):
    """Bins [Q, L] after one more block of scores; its length is a multiple of L, its first place is `start`."""
    num_bins = best[0].shape[1]
    scores = scores.reshape(scores.shape[0], -1, num_bins)
    row = jnp.argmax(scores, axis=1).astype(jnp.int32)
    scores, place = jnp.max(scores, axis=1), start + row * num_bins + jnp.arange(num_bins, dtype=jnp.int32)[None, :]
    better = scores > best[0]
    return jnp.where(better, scores, best[0]), jnp.where(better, place, best[1])


def find_nearest_in_groups(
    query: Float[Array, "Q K"],
    keys: Float[Array, "G E K"],
    number: Int32[Array, "G E"],
    first: Int32[Array, ""],
    end: Int32[Array, ""],
    *,
    top_k: int,
) -> tuple[Float32[Array, "Q found"], Int32[Array, "Q found"]]:
    """Exact search over the entries with first <= number < end, which may be in any order.

    Each group is searched on its own, then the best of all groups are chosen. If groups are split over devices, each
    device scores its own entries, and devices exchange only the top_k of each group.

    Returns:
        Scores, -inf for missing entries, and places among the G E entries; the best first, min(top_k, G E) columns.
    """
    query, keys = jax.lax.stop_gradient((query, keys))
    groups, size, _ = keys.shape
    search = partial(_best_of_each_group, top_k=min(top_k, size))
    if groups == num_entry_parts() > 1:  # the partitioner would gather the scores of all entries for the top-k
        split, whole = PartitionSpec(ENTRIES), PartitionSpec()
        specs = {"in_specs": (whole, split, split, whole, whole), "out_specs": (split, split)}
        search = jax.shard_map(search, **specs, axis_names={ENTRIES}, check_vma=False)
    scores, place = search(query, keys, number, first, end)
    place = place + size * jnp.arange(groups, dtype=jnp.int32)[:, None, None]
    scores, place = (jnp.moveaxis(x, 0, 1).reshape(query.shape[0], -1) for x in (scores, place))
    return _best(scores, place, min(top_k, scores.shape[1]))


def _best_of_each_group(query: Array, keys: Array, number: Array, first: Array, end: Array, *, top_k: int):
    """Scores, and places within their group, of the best entries of each group: [G, Q, top_k]."""
    groups, size, _ = keys.shape
    num_blocks = -(-size // BLOCK)
    block = -(-size // num_blocks)
    padding = (0, 0), (0, num_blocks * block - size)
    keys = jnp.pad(keys, (*padding, (0, 0)))
    number = jnp.pad(number, padding, constant_values=jnp.iinfo(jnp.int32).max)  # no range ends above it

    def body(best: tuple[Array, Array], start: Array):
        searched = jax.lax.dynamic_slice_in_dim(keys, start, block, axis=1)
        numbers = jax.lax.dynamic_slice_in_dim(number, start, block, axis=1)[:, None]
        scores = jnp.einsum("qk,gek->gqe", query, searched, preferred_element_type=jnp.float32)
        scores = jnp.where((numbers >= first) & (numbers < end), scores, -jnp.inf)
        place = jnp.broadcast_to(start + jnp.arange(block, dtype=jnp.int32), scores.shape)
        return _best(*(jnp.concatenate(pair, axis=2) for pair in zip(best, (scores, place), strict=True)), top_k), None

    shape = (groups, query.shape[0], top_k)
    nothing = jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32)
    return jax.lax.scan(body, nothing, block * jnp.arange(num_blocks, dtype=jnp.int32))[0]


def _best(scores: Float32[Array, "*b E"], place: Int32[Array, "*b E"], top_k: int):
    """The top_k highest scores and their places; of equal scores, the first."""
    scores, column = jax.lax.top_k(scores, top_k)
    return scores, jnp.take_along_axis(place, column, axis=-1)


def read_chosen(
    query: Float[Array, "Q K"],
    keys: Float[Array, "Q top_k K"],
    values: Float[Array, "Q top_k K"],
    found: Bool[Array, "Q top_k"],
) -> Float[Array, "Q K"]:
    """Attention of each query over its own entries: r_q = sum_j softmax_j(q . k_qj) v_qj; 0 if none is found."""
    return attend(query[:, None, None], keys, values, masked_bias(found)[:, None, None])[:, 0, 0]


def find_in_cells(
    query: Float[Array, "Q K"],
    keys: Float[Array, "E K"],
    bias: Float32[Array, " E"],
    number: Int32[Array, ""],
    cells: KnowledgeCells,
    *,
    top_k: int,
    probes: int,
) -> tuple[Int32[Array, "Q {top_k}"], Bool[Array, "Q {top_k}"]]:
    """Approximate `find_nearest` of e < number: the entries of the `probes` cells with the highest q . mean alone.

    An inverted file (Sivic and Zisserman, "Video Google", 2003; Jegou et al., 2011). With as many probes as cells it is
    exact. The time is that of C means and `probes` S entries.

    Args:
        cells: `KnowledgeCells` of one head: means [C, K], members [C, S].
        top_k: at most `probes` S.

    Returns:
        Places, the best first, and whether each is an entry.
    """
    query, keys, means = jax.lax.stop_gradient((query, keys, cells.means))
    size, probes = keys.shape[0], min(probes, cells.members.shape[0])

    def one(query: Array) -> tuple[Array, Array]:
        nearness = jnp.where(cells.members[:, 0] < number, means @ query.astype(means.dtype), -jnp.inf)
        place = cells.members[jax.lax.top_k(nearness, probes)[1]].reshape(-1)
        inside = jnp.minimum(place, size - 1)
        scores = jnp.einsum("k,ek->e", query, keys[inside], preferred_element_type=jnp.float32) + bias[inside]
        scores, column = jax.lax.top_k(jnp.where(place < number, scores, -jnp.inf), top_k)
        return inside[column], scores > -jnp.inf

    together = max(1, SEARCHED // (probes * cells.members.shape[1]))
    return jax.lax.map(one, query, batch_size=min(together, len(query)))


class NearestRead(NamedTuple):
    """A read of the nearest entries of each head."""

    out: Float[Array, "B L H K"]
    lse: Float32[Array, "B L H"]
    """The log-sum-exp of its logits; `MASKED` if there are no entries."""
    place: Int32[Array, "B L H top_k"]
    weights: Float32[Array, "B L H top_k"]


def read_nearest(
    query: Float[Array, "B L H K"],
    entries: ReadableEntries,
    number: Int32[Array, "B"],
    top_k: int,
    recall_target: float | None = None,
    cells: KnowledgeCells | None = None,
    probes: int = 1,
) -> NearestRead:
    """Attention of each head over the `top_k` of the first `number` of E entries with the highest logits.

        r = sum_{e in N} softmax_N(q . k_e + bias_e) v_e,    N = the top_k entries e < number by q . k_e + bias_e

    With `recall_target` the search is approximate, as in `find_nearest`; with `cells`, as in `find_in_cells`. It has no
    gradient; the read of the entries that it finds has.
    """
    batch, length, heads, width = query.shape
    groups, top_k = entries.keys.shape[2], min(top_k, entries.keys.shape[1])
    if cells is not None:
        top_k = min(top_k, min(probes, cells.members.shape[2]) * cells.members.shape[3])
    grouped = query.reshape(batch, length, groups, -1, width).swapaxes(1, 2).reshape(batch, groups, -1, width)

    def one_group(
        query: Array, keys: Array, values: Array, bias: Array, number: Array, cells: KnowledgeCells | None
    ) -> tuple[Array, ...]:
        if cells is not None:
            place, found = find_in_cells(query, keys, bias, number, cells, top_k=top_k, probes=probes)
        else:
            place, found = find_nearest(
                query, keys, jnp.zeros_like(number), number, top_k=top_k, bias=bias, recall_target=recall_target
            )
        biases = jnp.where(found, bias[place], jnp.float32(MASKED))[:, None, None]
        arguments = query[:, None, None], keys[place]
        out, lse = attend_with_lse(*arguments, values[place], biases)
        return out[:, 0, 0], lse[:, 0, 0], place, attention_weights(*arguments, biases)[:, 0, 0]

    over_groups = jax.vmap(one_group, in_axes=(0, 1, 1, None, None, 0))
    found = jax.vmap(over_groups)(grouped, entries.keys, entries.values, entries.bias, number, cells)

    def heads_last(x: Array) -> Array:
        return (
            x.reshape(batch, groups, length, -1, *x.shape[3:])
            .swapaxes(1, 2)
            .reshape(batch, length, heads, *x.shape[3:])
        )

    return NearestRead(*map(heads_last, found))
