"""Gated fusion and chunked cross-entropy against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_ops as reference

from memgpt_jax.ops import cross_entropy, gated_fusion

cross_entropy = jax.jit(cross_entropy, static_argnames="chunk_size")
gated_fusion = jax.jit(gated_fusion)


@pytest.mark.parametrize("gates", [8, 4, 2, 1])
def test_gated_fusion_equals_numpy(gates):
    rng = np.random.default_rng(gates)
    stream, read = rng.normal(size=(2, 2, 3, 8)).astype(np.float32)
    logit = rng.normal(size=(2, 3, gates)).astype(np.float32)
    fused, gate = gated_fusion(stream, read, logit)
    np.testing.assert_allclose(fused, reference.gated_fusion(stream, read, logit), atol=1e-6)
    np.testing.assert_allclose(gate, reference.sigmoid(logit), atol=1e-6)


def test_saturated_fusion_passes_one_side_exactly():
    stream, read = jnp.ones((1, 1, 4)), jnp.full((1, 1, 4), jnp.float32(7))
    np.testing.assert_array_equal(gated_fusion(stream, read, jnp.full((1, 1, 4), 100.0))[0], stream)
    np.testing.assert_array_equal(gated_fusion(stream, read, jnp.full((1, 1, 4), -200.0))[0], read)


def loss_inputs():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(2, 7, 5)).astype(np.float32)
    embedding = rng.normal(size=(11, 5)).astype(np.float32)
    return hidden, embedding, rng.integers(0, 11, (2, 7)).astype(np.int32)


@pytest.mark.parametrize("chunk", [1, 3, 5, 14, 1024])
def test_cross_entropy_equals_numpy(chunk):
    hidden, embedding, targets = loss_inputs()
    scores = cross_entropy(hidden, embedding, targets, chunk_size=chunk)
    logits = reference.f64(hidden) @ reference.f64(embedding).T
    expected = [[reference.cross_entropy(logits[b, t], targets[b, t]) for t in range(7)] for b in range(2)]
    np.testing.assert_allclose(scores.losses, expected, atol=1e-5)
    np.testing.assert_array_equal(scores.correct, logits.argmax(-1) == targets)


def test_cross_entropy_gradient_equals_numpy():
    hidden, embedding, targets = loss_inputs()
    by_hidden, by_embedding = jax.grad(lambda *x: jnp.sum(cross_entropy(*x, targets, chunk_size=4).losses), (0, 1))(
        hidden, embedding
    )
    logits = reference.f64(hidden) @ reference.f64(embedding).T
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    error = probability - np.eye(11)[targets]
    np.testing.assert_allclose(by_hidden, error @ embedding, atol=1e-5)
    np.testing.assert_allclose(by_embedding, np.einsum("blv,bld->vd", error, hidden), atol=1e-5)


def test_huge_logits_give_finite_losses():
    hidden, embedding = jnp.full((1, 1, 1), 1e4), jnp.asarray([[1.0], [-1.0]])
    losses = cross_entropy(hidden, embedding, jnp.asarray([[1]], jnp.int32)).losses
    np.testing.assert_allclose(losses, [[2e4]])
