"""Window attention against plain loops: documents, grouped heads, a cached past, block sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.ops.attention import (
    attend,
    attend_one_query,
    attend_with_lse,
    attention_weights,
    dense,
    masked_bias,
    read_visible,
    window_attention,
    window_weights,
)
from memgpt_jax.ops.attention.window import _by_library, _Tokens
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


def in_blocks(query, keys, values, bias):
    """`read_visible` of [B, E, G, K] entries by [B, G, R, Q, K] queries."""

    def read(entries, bias):
        return attend_with_lse(query, *(x.swapaxes(1, 2) for x in entries), bias)

    return read_visible(read, (keys, values), bias)


def blocked(seed=0):
    """Two rows of three blocks of four entries: the last block is hidden from both, the second from the first row."""
    rng = np.random.default_rng(seed)
    query, *entries = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in [(2, 2, 2, 1, 4), (2, 12, 2, 4), (2, 12, 2, 4)]
    )
    visible = np.array([[1, 0, 1, 1] + [0] * 8, [1, 1, 0, 1, 0, 1, 1, 0] + [0] * 4], bool)
    return query, *entries, masked_bias(jnp.asarray(visible))[:, None, None, None]


def test_reads_of_blocks_are_merged_and_hidden_blocks_are_not_read(monkeypatch):
    query, keys, values, bias = blocked()
    expected = in_blocks(query, keys, values, bias)
    monkeypatch.setattr(dense, "BLOCK", 4)
    for found, whole in zip(in_blocks(query, keys, values, bias), expected, strict=True):
        np.testing.assert_allclose(found, whole, atol=1e-6)
    keys, values = (x.at[:, 8:].set(jnp.nan) for x in (keys, values))
    for found, whole in zip(in_blocks(query, keys, values, bias), expected, strict=True):
        np.testing.assert_allclose(found, whole, atol=1e-6)
    alone = in_blocks(query[:1], keys[:1], values[:1], bias[:1])  # without the row that needs the second block
    together = in_blocks(query, keys, values, bias)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(alone, together, strict=True))
    nothing = in_blocks(query, keys, values, jnp.full_like(bias, dense.MASKED))
    assert not np.any(nothing[0]) and np.all(nothing[1] == dense.MASKED)


def test_gradients_through_blocks_are_those_of_one_read(monkeypatch):
    *arrays, bias = blocked()
    gradients = jax.grad(lambda arrays: sum(jnp.sum(jnp.sin(x)) for x in in_blocks(*arrays, bias)))
    expected = gradients(arrays)
    monkeypatch.setattr(dense, "BLOCK", 4)
    for found, whole in zip(gradients(arrays), expected, strict=True):
        np.testing.assert_allclose(found, whole, atol=1e-5)


@pytest.mark.parametrize("groups, heads", [(3, 2), (2, 1), (1, 4)])
def test_one_query_with_widened_heads_equals_one_for_each_head(groups, heads):
    """With biases of all heads or of each, a sink or none; a row that sees nothing reads 0."""
    rng, batch, width, entries = np.random.default_rng(groups), 3, 4, 7
    shape = (batch, groups, heads, 1)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    query, keys, values = normal(*shape, width), *normal(2, batch, entries, groups, width)
    shared = masked_bias(jnp.asarray(rng.random((batch, 1, 1, 1, entries)) < 0.5).at[1].set(False))
    for bias in (shared, shared + normal(*shape, entries)):
        for sink in (None, normal(*shape)):
            arguments = query, keys.swapaxes(1, 2), values.swapaxes(1, 2), bias, sink
            one, other = attend_one_query(*arguments), attend_with_lse(*arguments)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), one, other)
            assert np.all(np.asarray(one[0])[1] == 0)
