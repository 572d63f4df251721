"""Message passing: against loops, any order of edges and nodes, masked nodes, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.ops import messages
from tests.references import graph as reference

ROWS, NODES, EDGES, KINDS, WIDTH = 2, 6, 24, 3, 4
receive = jax.jit(messages, static_argnums=2)


@pytest.fixture(scope="module")
def arguments():
    """Whole numbers as nodes, so that sums are exact in any order; loops, repeated and missing edges."""
    rng = np.random.default_rng(0)
    x = rng.integers(-8, 8, size=(ROWS, NODES, WIDTH)).astype(np.float32)
    columns = [rng.integers(least, most, size=(ROWS, EDGES)) for least, most in ((0, NODES), (-1, KINDS), (0, NODES))]
    edges = np.stack(columns, axis=-1).astype(np.int32)
    edges[:, 1] = edges[:, 0]
    edges[0, 5], edges[1, 5] = (0, 0, NODES), (-1, 0, 0)  # no such nodes
    group = np.array([[0, 0, 0, 1, 1, 0], [0, 0, -1, 0, 0, 0]], np.int32)
    return x, edges, group


def test_messages_equal_loops(arguments):
    x, edges, group = arguments
    for numbers in (group, None):
        found = receive(x, edges, KINDS, numbers)
        for row in range(ROWS):
            of_row = np.zeros(NODES) if numbers is None else numbers[row]
            expected = reference.messages(x[row].astype(np.float64), edges[row].tolist(), KINDS, of_row)
            np.testing.assert_allclose(found[row], expected, atol=1e-6)
    assert np.any(found)


def test_the_order_of_edges_does_not_matter_and_that_of_nodes_is_that_of_the_messages(arguments):
    x, edges, group = arguments
    rng = np.random.default_rng(1)
    found = np.asarray(receive(x, edges, KINDS, group))
    np.testing.assert_array_equal(receive(x, rng.permutation(edges, axis=1), KINDS, group), found)
    order = rng.permutation(NODES)
    place = np.argsort(order)  # node order[i] is now node i
    ends = edges[..., ::2]
    moved = edges.copy()
    moved[..., ::2] = np.where((ends >= 0) & (ends < NODES), place[np.clip(ends, 0, NODES - 1)], ends)
    np.testing.assert_array_equal(receive(x[:, order], moved, KINDS, group[:, order]), found[:, order])


def test_a_masked_node_sends_and_receives_nothing_and_gradients_are_finite(arguments):
    x, edges, group = arguments
    found = np.asarray(receive(x, edges, KINDS, group))
    unknown = x.copy()
    unknown[1, 2] = np.nan
    np.testing.assert_array_equal(receive(unknown, edges, KINDS, group), found)
    assert not found[1, 2].any()
    without = edges.copy()
    without[1, (edges[1, :, ::2] == 2).any(axis=-1), 1] = -1
    np.testing.assert_array_equal(receive(x, without, KINDS, np.zeros_like(group))[1, :2], found[1, :2])

    gradient = jax.jit(jax.grad(lambda x: jnp.sum(receive(x, edges, KINDS, group) ** 2)))(x)
    assert np.isfinite(gradient).all() and not gradient[1, 2].any() and gradient[1, 0].any()


def test_sums_of_bfloat16_are_float32():
    """Of 1,000 neighbours: neither the sum nor their number, of which bfloat16 has 8 bits, is rounded on the way."""
    x = jnp.asarray(np.random.default_rng(0).random((1, 1000, 1)) + 1, jnp.bfloat16)
    edges = np.stack([np.arange(1000), np.zeros(1000), np.zeros(1000)], axis=1).astype(np.int32)[None]
    found = receive(x, edges, 1)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(float(found[0, 0, 0, 0]), np.asarray(x, np.float64).mean(), rtol=4e-3)
