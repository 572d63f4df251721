"""Window attention against plain loops: documents, grouped heads, a cached past, block sizes."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memgpt_jax.ops.attention import (
    attend,
    attend_one_query,
    attend_with_lse,
    attention_weights,
    dense,
    masked_bias,
    window_attention,
    window_weights,
)
from memgpt_jax.ops.attention.window import _by_library, _Tokens
from memgpt_jax.ops.int8_vectors import round_vectors, rounded
from tests.references import ops as reference

run_fixed_shape = jax.jit(lambda *arrays: window_attention(*arrays, window_size=6, block_size=4))


def in_jax(arrays):
    return [jnp.asarray(x) for x in arrays]


def inputs(rng, batch, length, past, heads, kv_heads, width=4, breaks=0.2):
    query = rng.normal(size=(batch, length, heads, width)).astype(np.float32)
    keys, values = rng.normal(size=(2, batch, past + length, kv_heads, width)).astype(np.float32)
    document = np.cumsum(rng.random((batch, past + length)) < breaks, axis=1).astype(np.int32)
    return query, keys, values, document[:, past:], document


@pytest.mark.parametrize(
    "length, past, heads, kv_heads, window, block",
    [
        (13, 0, 2, 2, 5, None),  # no past, one block of queries
        (13, 6, 4, 2, 6, 4),  # grouped heads, a padded last block, a past as long as the window
        (7, 9, 4, 1, 3, 2),  # a past longer than any query can see
        (9, 2, 2, 2, 64, 3),  # a window longer than all there is
        (5, 4, 2, 1, 1, 2),  # a token sees itself only
        (1, 5, 2, 2, 4, None),  # decoding
        (40, 3, 2, 1, 17, None),  # more than one default block
    ],
)
def test_window_attention_equals_loops(length, past, heads, kv_heads, window, block):
    arrays = inputs(np.random.default_rng(length), 2, length, past, heads, kv_heads)
    run = jax.jit(lambda *arrays: window_attention(*arrays, window_size=window, block_size=block))
    np.testing.assert_allclose(run(*arrays), reference.window_attention(*arrays, window), atol=2e-6)


@pytest.mark.parametrize("heads, kv_heads, window", [(4, 2, 5), (2, 2, 64)])
def test_the_sum_of_values_by_the_weights_is_window_attention(heads, kv_heads, window):
    rng = np.random.default_rng(window)
    query, keys, values, *documents = in_jax(inputs(rng, 2, 9, 4, heads, kv_heads))
    bias = jnp.asarray(rng.normal(size=(heads, window)), jnp.float32)
    options = {"window_size": window, "distance_bias": bias}
    weights = window_weights(query, keys, *documents, **options)
    out = np.einsum("bhle,behk->blhk", weights, np.repeat(values, heads // kv_heads, axis=2))
    np.testing.assert_allclose(out, window_attention(query, keys, values, *documents, **options), atol=2e-6)


@given(seed=st.integers(0, 2**32 - 1), breaks=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_window_attention_keeps_documents_apart(seed, breaks):
    arrays = inputs(np.random.default_rng(seed), 2, 11, 4, 2, 1, breaks=breaks)
    np.testing.assert_allclose(run_fixed_shape(*arrays), reference.window_attention(*arrays, 6), atol=2e-6)


def test_invalid_past_is_invisible():
    query, keys, values, document, everything = inputs(np.random.default_rng(0), 2, 11, 4, 2, 1, breaks=0.0)
    everything[:, :4] = -1
    without = reference.window_attention(query, keys[:, 4:], values[:, 4:], document, document, 6)
    np.testing.assert_allclose(run_fixed_shape(query, keys, values, document, everything), without, atol=2e-6)


def test_blocks_do_not_change_gradients():
    arrays = inputs(np.random.default_rng(3), 1, 9, 3, 2, 1)

    def loss(arrays, block):
        out = window_attention(*arrays, *arrays_document, window_size=4, block_size=block)
        return jnp.sum(jnp.sin(out))

    arrays, arrays_document = in_jax(arrays[:3]), in_jax(arrays[3:])
    one, two = (jax.jit(jax.grad(loss), static_argnums=1)(arrays, block) for block in (2, 9))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, two)


@pytest.mark.parametrize("length, past, heads, kv_heads, window", [(13, 6, 4, 2, 6), (9, 2, 2, 2, 64)])
def test_the_kernel_and_the_library_form_equal_loops(length, past, heads, kv_heads, window):
    """cuDNN's form through XLA's implementation of the same function, and the kernel step by step."""
    arrays = inputs(np.random.default_rng(length), 2, length, past, heads, kv_heads)
    arrays[4][0, : past // 2] = -1
    expected = reference.window_attention(*arrays, window)
    by_library = jax.jit(
        lambda block, *arrays: _by_library(_Tokens(*arrays, None), window, block, "xla"), static_argnums=0
    )
    for block in (4, 128):
        out = by_library(block, *arrays)
        np.testing.assert_allclose(out, expected, atol=2e-6)
    run = jax.jit(lambda *arrays: window_attention(*arrays, window_size=window, implementation="interpret"))
    np.testing.assert_allclose(run(*arrays), expected, atol=2e-6)


def test_the_kernels_gradients_are_those_of_the_portable_form():
    arrays = inputs(np.random.default_rng(4), 2, 11, 4, 2, 1)

    @functools.partial(jax.jit, static_argnums=1)
    def gradients(arrays, implementation):
        def loss(arrays):
            options = {"window_size": 5, "implementation": implementation}
            return jnp.sum(jnp.sin(window_attention(*arrays, *documents, **options)))

        return jax.grad(loss)(arrays)

    arrays, documents = in_jax(arrays[:3]), in_jax(arrays[3:])
    ours, portable = gradients(arrays, "interpret"), gradients(arrays, "portable")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, portable)


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")  # from JAX 0.12 on
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="needs a GPU or a TPU")
@pytest.mark.parametrize("implementation", ["cudnn", "pallas"])
def test_on_an_accelerator(implementation):
    """As they run there: outputs and gradients of ordinary sizes, in bfloat16."""
    if implementation == "cudnn" and jax.default_backend() != "gpu":
        pytest.skip("needs a GPU")
    *arrays, query_document, key_document = inputs(np.random.default_rng(6), 2, 700, 256, 4, 2, width=64, breaks=0.01)
    query_document, key_document = in_jax((query_document, key_document))
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in arrays]

    def loss(arrays, implementation):
        options = {"window_size": 256, "implementation": implementation}
        out = window_attention(*arrays, query_document, key_document, **options)
        return jnp.sum(out.astype(jnp.float32) ** 2), out

    run = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    for a, b in zip(*(jax.tree.leaves(run(arrays, name)) for name in (implementation, "portable")), strict=True):
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        np.testing.assert_allclose(a, b, atol=0.05 * float(jnp.max(jnp.abs(b))))


def test_weights_of_a_hidden_row_are_zero_and_its_gradient_is_finite():
    query, keys = jnp.ones((1, 2, 4)), jnp.ones((3, 4))
    hidden = masked_bias(jnp.zeros((1, 2, 3), bool))
    assert np.all(np.asarray(attention_weights(query, keys, hidden)) == 0)
    gradient = jax.grad(lambda query: jnp.sum(attend(query, keys, keys, hidden)))(query)
    assert np.all(np.asarray(gradient) == 0)


def test_extreme_logits_stay_finite():
    query = jnp.full((1, 1, 1), 1e4)
    keys = jnp.asarray([[1e4], [-1e4], [1e4]])
    weights = attention_weights(query, keys, jnp.zeros((1, 1, 3)), sink=jnp.full((1, 1), -1e8))
    np.testing.assert_allclose(weights[0, 0], [0.5, 0, 0.5])


def test_bfloat16_keeps_its_type_and_a_float32_softmax():
    query, keys, values, *documents = inputs(np.random.default_rng(5), 1, 6, 0, 2, 2)
    half = [jnp.asarray(x, jnp.bfloat16) for x in (query, keys, values)]
    out = jax.jit(lambda *arrays: window_attention(*arrays, window_size=4))(*half, *documents)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        out.astype(jnp.float32), reference.window_attention(query, keys, values, *documents, 4), atol=0.05
    )
    assert attention_weights(half[0], half[1][:, :, 0], jnp.zeros((1, 1, 1, 6))).dtype == jnp.float32


@pytest.fixture
def small_parts(monkeypatch):
    """`attend_one_query` reads 2, 4 or 8 of 8 entries, or 3, 6 or 12 of 12."""
    monkeypatch.setattr(dense, "FEWEST", 2)


def one_query(seed, groups, heads, size):
    """Queries, keys and values of three rows, as `attend_one_query` takes them."""
    rng = np.random.default_rng(seed)
    shapes = [(3, groups, heads, 1, 4), *[(3, size, groups, 4)] * 2]
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes], rng


def heads_first(query, keys, values, bias, sink=None):
    """`attend_with_lse` of the arguments of `attend_one_query`."""
    return attend_with_lse(query, keys.swapaxes(1, 2), values.swapaxes(1, 2), bias, sink)


@pytest.mark.parametrize("groups, heads", [(3, 2), (2, 1), (1, 4), (4, 4)])
@pytest.mark.parametrize("size", [7, 8])
def test_one_query_reads_what_it_sees(groups, heads, size, small_parts):
    """With biases of all heads or of each, a sink or none; a row that sees nothing reads 0."""
    arrays, rng = one_query(groups, groups, heads, size)
    shared = masked_bias(jnp.asarray(rng.random((3, 1, 1, 1, size)) < 0.5).at[1].set(False))
    for bias in (shared, shared + rng.normal(size=(3, groups, heads, 1, size)).astype(np.float32)):
        for sink in (None, jnp.asarray(rng.normal(size=(3, groups, heads, 1)), jnp.float32)):
            one, other = attend_one_query(*arrays, bias, sink), heads_first(*arrays, bias, sink)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), one, other)
            assert np.all(np.asarray(one[0])[1] == 0)


@given(visible=st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=3, max_size=3))
@settings(max_examples=30)
def test_places_outside_of_what_a_row_sees_are_not_read(visible):
    """They hold NaN here; and a row is bitwise the same alone and among others."""
    arrays, _ = one_query(0, 2, 2, 12)
    visible = np.array(visible)
    spans = [np.flatnonzero(row) for row in visible]
    unread = np.ones_like(visible)
    for row, span in enumerate(spans):
        number = next(size for size in (3, 6, 12) if not len(span) or span[-1] - span[0] < size)
        start = min(span[0], 12 - number) if len(span) else 0
        unread[row, start : start + number] = False
    query, *entries = arrays
    entries = [jnp.where(unread[:, :, None, None], jnp.nan, x) for x in entries]
    bias = masked_bias(jnp.asarray(visible))[:, None, None, None]
    with mock.patch.object(dense, "FEWEST", 2):
        found = jax.jit(attend_one_query)(query, *entries, bias)
        alone = [jax.jit(attend_one_query)(*(x[row : row + 1] for x in (query, *entries, bias))) for row in range(3)]
    for x, expected in zip(found, heads_first(*arrays, bias), strict=True):
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda x, *rows: np.testing.assert_array_equal(x, np.concatenate(rows)), found, *alone)


def test_one_query_reads_vectors_of_8_bits(small_parts):
    (query, *entries), rng = one_query(1, 2, 2, 8)
    bias = masked_bias(jnp.asarray(rng.random((3, 1, 1, 1, 8)) < 0.3))
    found = attend_one_query(query, *map(round_vectors, entries), bias)
    expected = attend_one_query(query, *map(rounded, entries), bias)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_gradients_of_one_query_are_those_of_a_read_of_everything(small_parts):
    arrays, rng = one_query(2, 2, 2, 8)
    bias = masked_bias(jnp.asarray(rng.random((3, 1, 1, 1, 8)) < 0.3))

    def gradients(read):
        return jax.grad(lambda arrays: sum(jnp.sum(jnp.sin(x)) for x in read(*arrays, bias)))(arrays)

    for found, whole in zip(gradients(attend_one_query), gradients(heads_first), strict=True):
        np.testing.assert_allclose(found, whole, atol=1e-5)
