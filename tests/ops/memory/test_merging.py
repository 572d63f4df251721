"""Fewer entries in place of many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.ops.memory import Entries, highest_gates, make_source, merge_entries, merge_older_entries, read_entries
from memgpt_jax.ops.memory.reader import ReadableEntries

RNG = np.random.default_rng(0)
merged_to = jax.jit(merge_entries, static_argnums=1)


def drawn(rows=2, size=9, valid=1.0, read=False):
    shape = (rows, size)
    return Entries(
        keys=jnp.float32(RNG.normal(size=(*shape, 2, 3))),
        values=jnp.float32(RNG.normal(size=(*shape, 2, 3))),
        log_gate=jnp.float32(np.log(RNG.uniform(0.05, 1, shape))),
        valid=jnp.asarray(RNG.random(shape) < valid),
        age=jnp.asarray(np.tile(np.arange(size, 0, -1, dtype=np.int32), (rows, 1))),
        read_mass=jnp.float32(RNG.random(shape)) if read else None,
    )


def of_row(entries, row):
    """(place, key, value, mass, age) of each valid entry."""
    parts = [
        np.asarray(x[row], np.float64) for x in (entries.keys, entries.values, np.exp(entries.log_gate), entries.age)
    ]
    return [(place, *(x[place] for x in parts)) for place in np.flatnonzero(entries.valid[row])]


def by_loops(entries, row, num):
    """`merge_entries` of one row without empty places, pair by pair."""
    found = [entry[1:] for entry in of_row(entries, row)]
    while len(found) > num:
        fewer = min(len(found) - num, len(found) // 2)
        pairs = []
        for a in range(0, len(found), 2):
            costs = {
                b: found[a][2] * found[b][2] / (found[a][2] + found[b][2]) * np.sum((found[a][0] - found[b][0]) ** 2)
                for b in range(1, len(found), 2)
            }
            best = min(costs, key=costs.__getitem__)
            pairs.append((costs[best], a, best))
        gone = set()
        merged = {b: [found[b]] for b in range(1, len(found), 2)}
        for _, a, b in sorted(pairs)[:fewer]:
            merged[b].append(found[a])
            gone.add(a)
        for b, parts in merged.items():
            mass = sum(part[2] for part in parts)
            means = [sum(part[2] * part[which] for part in parts) / mass for which in (0, 1)]
            found[b] = (*means, mass, parts[0][3])
        found = [entry for place, entry in enumerate(found) if place not in gone]
    return found


@pytest.mark.parametrize("num", [8, 5, 3, 1])
def test_merging_equals_loops(num):
    entries = drawn()
    merged = merged_to(entries, num)
    assert merged.valid.shape == (2, num) and merged.valid.all()
    for row in range(2):
        for (_, *ours), expected in zip(of_row(merged, row), by_loops(entries, row, num), strict=True):
            for part, wanted in zip(ours, expected, strict=True):
                np.testing.assert_allclose(part, wanted, rtol=1e-5)


@pytest.mark.parametrize("valid", [0.0, 0.2, 0.6])
@pytest.mark.parametrize("num", [1, 2, 4, 9])
def test_no_entry_is_lost(valid, num):
    """Whatever places are empty: the sums of weights, of weighted keys and values, and of reads stay."""
    entries = drawn(rows=40, valid=valid, read=True)
    merged = merged_to(entries, num)
    for row in range(40):
        before, after = of_row(entries, row), of_row(merged, row)
        assert len(after) == min(len(before), num)
        for which in (1, 2):
            sums = [sum((e[3] * e[which] for e in every), np.zeros((2, 3))) for every in (before, after)]
            np.testing.assert_allclose(*sums, atol=1e-5)
        np.testing.assert_allclose(sum(e[3] for e in before), sum(e[3] for e in after), rtol=1e-5)
        reads = [np.sum(np.where(e.valid[row], e.read_mass[row], 0)) for e in (entries, merged)]
        np.testing.assert_allclose(*reads, atol=1e-5)


@pytest.mark.slow
def test_entries_that_fit_stay_as_they_are():
    """Wherever the empty places are: nothing is merged, by halves of the newest entries neither."""
    entries = drawn(rows=40, size=16, valid=0.4)
    number = int(entries.valid.sum(axis=1).max())
    assert number < 16
    for found in (merged_to(entries, number), jax.jit(merge_older_entries, static_argnums=1)(entries, 15)):
        for row in range(40):
            for (_, *ours), (_, *before) in zip(of_row(found, row), of_row(entries, row), strict=True):
                for part, wanted in zip(ours, before, strict=True):
                    np.testing.assert_array_equal(part, wanted)
    least = entries._replace(log_gate=jnp.full_like(entries.log_gate, -200.0))
    np.testing.assert_array_equal(merged_to(least, 3).valid.sum(axis=1), np.minimum(3, entries.valid.sum(axis=1)))


def test_reads_of_merged_duplicates_stay():
    """Entries of the same key, with different values and gates: half of them merge, and no read changes."""
    entries = drawn(size=8)
    order = np.array([0, 0, 2, 2, 4, 4, 6, 6])
    entries = entries._replace(keys=entries.keys[:, order])
    merged = merged_to(entries, 4)
    query = jnp.float32(RNG.normal(size=(2, 5, 2, 3)))

    def read(part):
        visible = jnp.broadcast_to(part.valid[:, None], (2, 5, part.valid.shape[1]))
        stored = ReadableEntries(part.keys, part.values, part.log_gate)
        return read_entries(query, [make_source(stored, part.age, visible, None)], None, None)

    np.testing.assert_allclose(read(merged), read(entries), atol=1e-6)
    assert np.abs(read(merged_to(entries, 3)) - read(entries)).max() > 1e-3


@pytest.mark.slow
def test_only_older_entries_are_merged():
    entries = drawn()
    found = merge_older_entries(entries, 5)
    older = merge_entries(jax.tree.map(lambda x: x[:, :7], entries), 3)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x: x[:, :3], found), older)
    newest = [jax.tree.map(lambda x: x[:, -2:], part) for part in (found, entries)]
    jax.tree.map(np.testing.assert_array_equal, *newest)


def test_the_highest_gates_stay_in_order_of_time():
    entries = drawn(valid=0.7)
    kept = highest_gates(entries, 4)
    for row in range(2):
        every = sorted(of_row(entries, row), key=lambda entry: -entry[3])[:4]
        expected = [entry[4] for entry in sorted(every, key=lambda entry: entry[0])]
        assert [entry[4] for entry in of_row(kept, row)] == expected
    equal = entries._replace(log_gate=jnp.zeros_like(entries.log_gate), valid=jnp.ones_like(entries.valid))
    assert np.asarray(highest_gates(equal, 3).age).tolist() == [[3, 2, 1]] * 2  # the newest of equal ones
