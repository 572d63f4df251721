"""The top-k search against brute force, and what it costs."""

import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.knowledge.cells import cells_of
from memgpt_jax.ops.memory import (
    KnowledgeCells,
    ReadableEntries,
    find_nearest,
    find_nearest_in_groups,
    read_chosen,
    read_nearest,
)
from memgpt_jax.ops.memory.nearest import find_in_cells


def brute_force(query, keys, first, end, top_k):
    """Places of the best, the best first; of equal scores the earlier one."""
    scores = query.astype(np.float64) @ keys.astype(np.float64).T
    return [sorted(range(first, end), key=lambda e: (-row[e], e))[:top_k] for row in scores]


search = jax.jit(find_nearest, static_argnames=("top_k", "recall_target", "most", "block_size"))
search_in_groups = jax.jit(find_nearest_in_groups, static_argnames="top_k")


def found_places(query, keys, first, end, **options):
    index, found = search(query, keys, np.int32(first), np.int32(end), **options)
    assert index.shape == found.shape == (len(query), options["top_k"])
    return [list(row[there]) for row, there in zip(np.asarray(index), np.asarray(found), strict=True)]


@given(
    seed=st.integers(0, 2**32 - 1),
    bounds=st.tuples(st.integers(0, 23), st.integers(0, 23)).map(sorted),
    top_k=st.sampled_from([1, 3, 23]),
    block_size=st.sampled_from([1, 5, 100]),
    ties=st.booleans(),
)
def test_exact_search_equals_brute_force(seed, bounds, top_k, block_size, ties):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.integers(-1, 2, shape).astype(np.float32) if ties else rng.normal(size=shape)  # noqa: E731
    query, keys = (draw(*shape).astype(np.float32) for shape in ((4, 3), (23, 3)))
    got = found_places(query, keys, *bounds, top_k=top_k, block_size=block_size)
    assert got == brute_force(query, keys, *bounds, top_k)


@given(seed=st.integers(0, 2**32 - 1), groups=st.sampled_from([1, 2, 4]), top_k=st.sampled_from([1, 5, 30]))
def test_the_search_of_groups_takes_entries_in_any_order(seed, groups, top_k):
    rng = np.random.default_rng(seed)
    query, keys = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(24, 3)).astype(np.float32)
    number, (first, end) = rng.permutation(24), sorted(rng.integers(0, 25, size=2))
    parts = (x.reshape(groups, -1, *x.shape[1:]) for x in (keys, number.astype(np.int32)))
    with mock.patch.object(sys.modules["memgpt_jax.ops.memory.nearest"], "BLOCK", 5):  # does not divide the entries
        scores, place = search_in_groups(query, *parts, np.int32(first), np.int32(end), top_k=top_k)
    scores, place = np.asarray(scores), np.asarray(place)
    expected = brute_force(query, keys[np.argsort(number)], first, end, top_k)
    for q in range(4):
        there = scores[q] > -np.inf
        assert number[place[q][there]].tolist() == expected[q]
        np.testing.assert_allclose(scores[q][there], keys[place[q][there]] @ query[q], rtol=1e-5)


@pytest.mark.parametrize("end", [1, 3, 300])
def test_a_range_may_hold_fewer_or_move(end):
    """`most` bounds the range, not the array: blocks follow the range wherever it is."""
    rng = np.random.default_rng(0)
    query, keys = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(300, 4)).astype(np.float32)
    first = max(0, end - 7)
    got = found_places(query, keys, first, end, top_k=4, most=7, block_size=3)
    assert got == brute_force(query, keys, first, end, 4)


@pytest.mark.parametrize("target", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("size", [3000, 9000])
def test_approximate_search_finds_what_it_promises(target, size):
    rng = np.random.default_rng(0)
    query, keys = rng.normal(size=(32, 16)).astype(np.float32), rng.normal(size=(size, 16)).astype(np.float32)
    best = brute_force(query, keys, 0, size, 32)
    got = found_places(query, keys, 0, size, top_k=32, recall_target=target)
    assert all(len(set(row)) == 32 for row in got)
    recall = np.mean([len(set(a) & set(b)) / 32 for a, b in zip(got, best, strict=True)])
    assert recall >= target
    assert recall < 1  # or there would be nothing approximate about it


@pytest.mark.parametrize("end", [0, 5, 40])
def test_approximate_search_of_few_entries_finds_all(end):
    rng = np.random.default_rng(0)
    query, keys = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(5000, 4)).astype(np.float32)
    got = found_places(query, keys, 0, end, top_k=40, recall_target=0.9)
    assert [sorted(row) for row in got] == [list(range(end))] * 3


def test_scores_exist_a_block_at_a_time():
    """65,536 entries: an exact search of 512 queries never holds the 134 MB of all their scores."""
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((512, 64), (65536, 64))]
    arguments += [jax.ShapeDtypeStruct((), jnp.int32)] * 2
    for recall_target in (None, 0.95):
        compiled = search.lower(*arguments, top_k=32, recall_target=recall_target).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < 40e6


def test_read_chosen_equals_its_equation():
    rng = np.random.default_rng(0)
    query, keys, values = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 4), (3, 5, 4), (3, 5, 4)))
    found = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)
    got = jax.jit(read_chosen)(query, keys, values, found)
    logits = np.einsum("qk,qek->qe", query, keys)
    weights = np.exp(logits) * found
    expected = np.einsum("qe,qek->qk", weights / np.maximum(weights.sum(1, keepdims=True), 1e-30), values)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("number", [[7, 2], [0, 9]])
def test_read_nearest_equals_loops(number):
    """Four heads on two keys, three of nine entries, and fewer than three."""
    rng, top_k = np.random.default_rng(0), 3
    query, keys, values, bias = (
        rng.normal(size=shape).astype(np.float32) for shape in ((2, 5, 4, 6), (2, 9, 2, 6), (2, 9, 2, 6), (2, 9))
    )
    entries = ReadableEntries(keys, values, bias)
    read = jax.jit(read_nearest, static_argnums=3)
    found = jax.device_get(read(query, entries, np.array(number, np.int32), top_k))
    for b, q, h in np.ndindex(2, 5, 4):
        scores = keys[b, : number[b], h // 2] @ query[b, q, h] + bias[b, : number[b]]
        best = np.argsort(-scores)[:top_k]
        logits = scores[best]
        weights = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(found.out[b, q, h], weights @ values[b, best, h // 2], atol=1e-5)
        assert found.place[b, q, h, : len(best)].tolist() == best.tolist()
        np.testing.assert_allclose(found.weights[b, q, h], np.pad(weights, (0, top_k - len(best))), atol=1e-5)
        lse = np.log(np.exp(logits).sum()) if len(best) else -1e30
        np.testing.assert_allclose(found.lse[b, q, h], lse, rtol=1e-4, atol=1e-5)


def test_an_approximate_read_finds_its_share_and_reads_what_it_found():
    rng, top_k, size = np.random.default_rng(0), 16, 10_000
    query, keys, values = (
        rng.normal(size=shape).astype(np.float32) for shape in ((1, 8, 2, 8), (1, size, 1, 8), (1, size, 1, 8))
    )
    entries = ReadableEntries(keys, values, np.zeros((1, size), np.float32))
    read, number = jax.jit(read_nearest, static_argnums=(3, 4)), np.array([size - 1000], np.int32)
    exact, found = (jax.device_get(read(query, entries, number, top_k, recall)) for recall in (None, 0.8))
    shares = [len(np.intersect1d(exact.place[0, q, h], found.place[0, q, h])) / top_k for q, h in np.ndindex(8, 2)]
    assert 0.75 < np.mean(shares) < 1 and found.place.max() < size - 1000
    for q, h in np.ndindex(8, 2):
        logits = keys[0, found.place[0, q, h], 0] @ query[0, q, h]
        weights = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(found.out[0, q, h], weights @ values[0, found.place[0, q, h], 0], atol=1e-5)


@pytest.mark.parametrize("length", [100, 128, 256, 384, 512, 640])
@pytest.mark.parametrize(("top_k", "recall"), [(8, 0.9), (32, 0.95)])
def test_an_approximate_search_of_texts_of_equal_length_finds_its_share(length, top_k, recall):
    """Entries at the same place of all texts are similar, and the best ones of a query."""
    rng = np.random.default_rng(length)
    places = rng.normal(size=(length, 8)).astype(np.float32)
    keys = np.tile(places, (20_000 // length, 1)) + 0.1 * rng.normal(size=(20_000 // length * length, 8))
    search = jax.jit(find_nearest, static_argnames=("top_k", "recall_target"))
    arguments = places[:16], keys.astype(np.float32), np.int32(0), np.int32(len(keys))
    exact, found = (np.asarray(search(*arguments, top_k=top_k, recall_target=each)[0]) for each in (None, recall))
    shares = [len(np.intersect1d(*pair)) / top_k for pair in zip(exact, found, strict=True)]
    assert np.mean(shares) > recall - 0.08


@pytest.mark.parametrize(("number", "cells", "size"), [(37, 8, 5), (64, 4, 20), (3, 8, 2), (0, 2, 3), (9, 1, 9)])
def test_cells_hold_every_entry_once(number, cells, size):
    keys = np.random.default_rng(0).normal(size=(number, 2, 3)).astype(np.float32)
    means, members = cells_of(keys, (cells, size), 1000)
    assert means.shape == (2, cells, 3) and members.shape == (2, cells, size)
    for head in range(2):
        parts = [cell[cell < 1000] for cell in members[head]]
        assert sorted(np.concatenate(parts).tolist()) == list(range(number))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        for part, mean in zip(parts, means[head], strict=True):
            np.testing.assert_allclose(mean, keys[part, head].mean(axis=0) if len(part) else 0, atol=1e-6)


@pytest.mark.parametrize(("probes", "top_k"), [(1, 4), (3, 1), (3, 12), (8, 6), (20, 6)])
def test_a_search_of_cells_equals_loops(probes, top_k):
    """The entries of the cells whose means are nearest, some cells and places being empty."""
    rng, number, size = np.random.default_rng(1), 50, 64
    keys = np.zeros((size, 3), np.float32)
    keys[:number] = rng.normal(size=(number, 3))
    query, bias = rng.normal(size=(7, 3)).astype(np.float32), rng.normal(size=size).astype(np.float32)
    means, members = (part[0] for part in cells_of(keys[:number, None], (8, 8), size))
    arrays = jax.tree.map(jnp.asarray, (query, keys, bias, np.int32(size), KnowledgeCells(means, members)))
    place, found = find_in_cells(*arrays, top_k=top_k, probes=probes)
    for row in range(7):
        cells = np.argsort(-(means @ query[row]))[:probes]
        inside = [entry for cell in cells for entry in members[cell] if entry < size]
        best = sorted(inside, key=lambda entry: -(keys[entry] @ query[row] + bias[entry]))[:top_k]
        assert np.asarray(place)[row][np.asarray(found)[row]].tolist() == best


def test_similar_keys_share_a_cell():
    """Of keys in clusters, one cell of 16 finds most of the nearest; one of cells without order, few."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(16, 8))
    keys = (np.repeat(centres, 64, axis=0) + 0.05 * rng.normal(size=(1024, 8))).astype(np.float32)
    keys = keys[rng.permutation(1024), None]
    means, members = cells_of(keys, (16, 64), 1024)
    query = jnp.asarray(centres + 0.05 * rng.normal(size=(16, 8)), jnp.float32)[None, :, None]
    entries = ReadableEntries(jnp.asarray(keys)[None], jnp.asarray(keys)[None], jnp.zeros((1, 1024)))
    number, index = jnp.array([1024], jnp.int32), KnowledgeCells(jnp.asarray(means)[None], jnp.asarray(members)[None])

    def recall(members):
        cells = index._replace(members=members)
        some = read_nearest(query, entries, number, 16, cells=cells, probes=1).place
        exact = read_nearest(query, entries, number, 16).place
        return np.mean([np.isin(a, b).mean() for a, b in zip(exact[0, :, 0], some[0, :, 0], strict=True)])

    assert recall(index.members) > 0.7
    mixed = rng.permutation(1024).astype(np.int32).reshape(index.members.shape)
    assert recall(jnp.asarray(mixed)) < 0.2
