"""Fewer entries in place of many: the ones with the highest gates, or near duplicates merged."""

import jax
import jax.numpy as jnp

from memgpt_jax.ops.memory.writer import Entries, clean_entries, gather_entries, places_of_highest
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32

CANDIDATES = 512
"""Entries that are compared with all others at a time, which bounds the memory that `merge_entries` needs."""
LEAST = 1e-30
"""The least weight of an entry."""


def newest_entries(entries: Entries, num: int) -> Entries:
    """The `num` last entries."""
    return jax.tree.map(lambda x: x[:, x.shape[1] - num :], entries)


def highest_gates(entries: Entries, num: int) -> Entries:
    """The `num` valid entries with the highest gates (of equal ones, the newer), in order of time."""
    score = jnp.where(entries.valid, entries.log_gate, -jnp.inf)
    return gather_entries(entries, places_of_highest(score, num))


def merge_entries(entries: Entries, num: int) -> Entries:
    """`num` entries in order of time, made by merging pairs whose keys are closest for the weight that they have.

    Entries a and b of gates g become one of gate g_a + g_b, whose key and value are their means weighted by g. Reads
    with the bias log g, and without `recency_bias`, are the same as before if the keys are equal. Each round pairs
    every second entry with the one of the others that costs least, and merges the pairs of the lowest cost

        g_a g_b / (g_a + g_b) |k_a - k_b|^2,

    by which the weighted variance of the keys grows (Ward, 1963). Pairs by halves: Bolya et al., "Token Merging: Your
    ViT But Faster" (2023). A merged entry has the place and the age of the one that had an odd place, and the read mass
    of both. Empty places go first; no valid entry is dropped, and none is merged if all fit.

    Args:
        entries: M entries, invalid ones anywhere. `log_gate` is the weight of an entry.
        num: at most M.
    """
    entries = clean_entries(entries)
    while (size := entries.valid.shape[1]) > num:
        entries = _merged_once(entries, min(size - num, size // 2))
    return entries


def merge_older_entries(entries: Entries, num: int) -> Entries:
    """`num` entries in order of time: the newest `num // 2` as they are, and `merge_entries` of all others."""
    start = entries.valid.shape[1] - num // 2
    older, newest = (
        jax.tree.map(lambda x, part=part: x[:, part], entries) for part in (slice(start), slice(start, None))
    )
    merged = merge_entries(older, num - num // 2)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), merged, newest)


def _merged_once(entries: Entries, fewer: int) -> Entries:
    """Entries in `fewer` places less: empty places go, and where they are too few, even places merge into odd ones."""
    size = entries.valid.shape[1]
    first, second = (jax.tree.map(lambda x, start=start: x[:, start::2], entries) for start in (0, 1))
    cost, partner = jax.vmap(_closest)(_vectors(first), _mass(first), _vectors(second), _mass(second))
    too_many = jnp.sum(entries.valid, axis=1, dtype=jnp.int32)[:, None] - (size - fewer)
    rank = jnp.argsort(jnp.argsort(jnp.where(first.valid, cost, jnp.inf), axis=1), axis=1)
    merged = first.valid & (rank < too_many)
    second = jax.vmap(_with_merged)(second, first._replace(valid=merged), partner)
    both = jax.tree.map(lambda old, new: old.at[:, 1::2].set(new), entries, second)
    gone = jnp.zeros_like(entries.valid).at[:, 0::2].set(merged)
    order = jnp.argsort(both.valid.astype(jnp.int32) - 2 * gone.astype(jnp.int32), axis=1, stable=True)
    return gather_entries(both, jnp.sort(order[:, fewer:], axis=1).astype(jnp.int32))


def _mass(entries: Entries) -> Float32[Array, "*b M"]:
    """The weight of each entry, above 0; 0: there is none."""
    return jnp.where(entries.valid, jnp.maximum(jnp.exp(entries.log_gate), LEAST), 0)


def _vectors(entries: Entries) -> Float32[Array, "B M GK"]:
    return entries.keys.astype(jnp.float32).reshape(*entries.valid.shape, -1)


def _closest(
    ours: Float32[Array, "A D"],
    mass: Float32[Array, " A"],
    others: Float32[Array, "C D"],
    others_mass: Float32[Array, " C"],
) -> tuple[Float32[Array, " A"], Int32[Array, " A"]]:
    """For each entry the lowest cost of a merge with one of the others, and which one that is."""
    square = jnp.sum(jnp.square(others), axis=1)

    def one(x: Array, weight: Array) -> tuple[Array, Array]:
        distance = jnp.maximum(jnp.sum(jnp.square(x)) - 2 * (others @ x) + square, 0)
        total = weight + others_mass
        cost = weight * others_mass / jnp.where(total > 0, total, 1) * distance
        cost = jnp.where(others_mass > 0, cost, jnp.inf)  # an entry does not move to an empty place
        best = jnp.argmin(cost)
        return cost[best], best.astype(jnp.int32)

    return jax.lax.map(lambda pair: one(*pair), (ours, mass), batch_size=CANDIDATES)


def _with_merged(entries: Entries, added: Entries, place: Int32[Array, " N"]) -> Entries:
    """The entries of one row [C, ...] with others [N, ...] merged into those at some places."""

    def total(own: Array, new: Array) -> Array:
        return own + jax.ops.segment_sum(new, place, len(own))

    masses = [_mass(part) for part in (entries, added)]
    mass = total(*masses)
    changed: Bool[Array, " C"] = mass > masses[0]

    def mean(own: Float[Array, "C G K"], new: Float[Array, "N G K"]) -> Array:
        parts = [m[:, None, None] * x.astype(jnp.float32) for m, x in zip(masses, (own, new), strict=True)]
        found = total(*parts) / jnp.where(mass > 0, mass, 1)[:, None, None]
        return jnp.where(changed[:, None, None], found, own).astype(own.dtype)

    log_mass = jnp.log(jnp.where(mass > 0, mass, 1))
    read = None
    if entries.read_mass is not None and added.read_mass is not None:
        read = total(entries.read_mass, jnp.where(added.valid, added.read_mass, 0))
    return entries._replace(
        keys=mean(entries.keys, added.keys),
        values=mean(entries.values, added.values),
        log_gate=jnp.where(changed, log_mass, entries.log_gate),
        read_mass=read,
    )
