"""Fewer entries in the place of many: the ones with the highest gates, or near duplicates merged."""

import jax
import jax.numpy as jnp

from memgpt_jax.ops.memory.writer import Entries, clean_entries, gather_entries
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32

CANDIDATES = 512
"""Entries that are compared with all others at a time, which bounds the memory that `merge_entries` needs."""


def newest_entries(entries: Entries, num: int) -> Entries:
    """The `num` last entries."""
    return jax.tree.map(lambda x: x[:, x.shape[1] - num :], entries)


def highest_gates(entries: Entries, num: int) -> Entries:
    """The `num` valid entries with the highest gates (of equal ones, the newer), in order of time."""
    score = jnp.where(entries.valid, entries.log_gate, -jnp.inf)
    newest_first = jax.lax.top_k(jnp.flip(score, axis=1), num)[1]
    return gather_entries(entries, jnp.sort(score.shape[1] - 1 - newest_first, axis=1))


def merge_entries(entries: Entries, num: int) -> Entries:
    """`num` entries in order of time, made by merging pairs whose keys are closest for the weight that they have.

    Entries a and b of gates g become one of gate g_a + g_b, whose key and value are their means weighted by g. Reads
    with the bias log g are the same as before if the keys are equal. Each round pairs every second entry with the one
    of the others that costs least, and merges the pairs of the lowest cost

        g_a g_b / (g_a + g_b) |k_a - k_b|^2,

    by which the weighted variance of the keys grows (Ward, 1963). Pairs by halves: Bolya et al., "Token Merging: Your
    ViT But Faster" (2023). A merged entry has the place and the age of the one that had an odd place, and the read mass
    of both. No valid entry is dropped.

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
    """Entries with `fewer` of their even places merged into odd ones."""
    size = entries.valid.shape[1]
    first, second = (jax.tree.map(lambda x, start=start: x[:, start::2], entries) for start in (0, 1))
    cost, partner = jax.vmap(_closest)(_vectors(first), _mass(first), _vectors(second), _mass(second))
    merged = jnp.argsort(cost, axis=1)[:, :fewer].astype(jnp.int32)  # places in `first`; those without an entry cost 0
    target = jnp.take_along_axis(partner, merged, axis=1)
    second = jax.vmap(_with_merged)(second, gather_entries(first, merged), target)
    gone = jax.vmap(lambda places: jnp.zeros(cost.shape[1], bool).at[places].set(True))(merged)
    both = jax.tree.map(lambda old, new: old.at[:, 1::2].set(new), entries, second)
    stays = jnp.ones((len(gone), size), bool).at[:, 0::2].set(~gone)
    return gather_entries(both, jnp.argsort(~stays, axis=1, stable=True).astype(jnp.int32)[:, : size - fewer])


def _mass(entries: Entries) -> Float32[Array, "B M"]:
    """The weight of each entry; 0: there is none."""
    return jnp.where(entries.valid, jnp.exp(entries.log_gate), 0)


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
        cost = jnp.where((others_mass > 0) | (weight == 0), cost, jnp.inf)  # an entry does not move to an empty place
        best = jnp.argmin(cost)
        return cost[best], best.astype(jnp.int32)

    return jax.lax.map(lambda pair: one(*pair), (ours, mass), batch_size=CANDIDATES)


def _with_merged(entries: Entries, added: Entries, place: Int32[Array, " N"]) -> Entries:
    """The entries of one row [C, ...] with others [N, ...] merged into those at some places."""

    def total(own: Array, new: Array) -> Array:
        return own + jax.ops.segment_sum(new, place, len(own))

    masses = [jnp.where(part.valid, jnp.exp(part.log_gate), 0) for part in (entries, added)]
    mass = total(*masses)
    changed: Bool[Array, " C"] = mass > masses[0]

    def mean(own: Float[Array, "C G K"], new: Float[Array, "N G K"]) -> Array:
        parts = [m[:, None, None] * x.astype(jnp.float32) for m, x in zip(masses, (own, new), strict=True)]
        found = total(*parts) / jnp.where(mass > 0, mass, 1)[:, None, None]
        return jnp.where(changed[:, None, None], found, own).astype(own.dtype)

    log_mass = jnp.log(jnp.where(mass > 0, mass, 1))
    read = None
    if entries.read_mass is not None and added.read_mass is not None:
        read = total(entries.read_mass, added.read_mass)
    return entries._replace(
        keys=mean(entries.keys, added.keys),
        values=mean(entries.values, added.values),
        log_gate=jnp.where(changed, log_mass, entries.log_gate),
        valid=mass > 0,
        age=jnp.where(entries.valid, entries.age, jax.ops.segment_max(added.age, place, len(mass))),
        read_mass=read,
    )
