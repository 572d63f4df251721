"""Gated fusion and chunked cross-entropy against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.ops import cross_entropy, gated_fusion, joint_softmax
from tests.references import ops as reference

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


@pytest.mark.parametrize("gates", [3, 8, 0])
def test_the_number_of_gates_divides_that_of_channels(gates):
    stream = jnp.zeros((1, 2, 4))
    with pytest.raises(ValueError, match=f"the number of gates must divide the 4 channels, got {gates}"):
        gated_fusion(stream, stream, jnp.zeros((1, 2, gates)))


def test_saturated_fusion_passes_one_side_exactly():
    stream, read = jnp.ones((1, 1, 4)), jnp.full((1, 1, 4), jnp.float32(7))
    np.testing.assert_array_equal(gated_fusion(stream, read, jnp.full((1, 1, 4), 100.0))[0], stream)
    np.testing.assert_array_equal(gated_fusion(stream, read, jnp.full((1, 1, 4), -200.0))[0], read)


@pytest.mark.parametrize("logit", [5.5, 6.0, 6.5, 9.0])
def test_the_share_of_the_smaller_side_is_not_rounded_away(logit):
    """In bfloat16, 1 - sigmoid(6.5) is 0."""
    zeros, ones = jnp.zeros((1, 1, 4), jnp.bfloat16), jnp.ones((1, 1, 4), jnp.bfloat16)
    smaller = jnp.asarray(reference.sigmoid(-logit), jnp.bfloat16)
    np.testing.assert_array_equal(gated_fusion(zeros, ones, jnp.full((1, 1, 4), logit))[0], smaller)
    merged, _ = joint_softmax(zeros, jnp.full((1, 1), logit), ones, jnp.zeros((1, 1)))
    np.testing.assert_array_equal(merged, smaller)
    gradient = jax.grad(lambda read: jnp.sum(gated_fusion(zeros, read, jnp.full((1, 1, 4), logit))[0]))(ones)
    np.testing.assert_array_equal(gradient, smaller)


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


@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_of_equal_logits_the_lowest_id_is_the_highest(chunk):
    targets = np.arange(22, dtype=np.int32).reshape(2, 11) % 11
    hidden, embedding = np.ones((2, 11, 1), np.float32), np.ones((11, 1), np.float32)
    flat = cross_entropy(hidden, embedding, targets, chunk_size=chunk)
    np.testing.assert_array_equal(flat.correct, targets == 0)
    two = cross_entropy(hidden, embedding, targets, bias=jnp.zeros(11).at[jnp.array([4, 7])].set(1.0), chunk_size=chunk)
    np.testing.assert_array_equal(two.correct, targets == 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_correct(value):
    hidden, embedding, targets = loss_inputs()
    embedding[3] = value
    for everywhere in (targets, np.zeros_like(targets), np.full_like(targets, 3)):
        scores = cross_entropy(hidden, embedding, everywhere)
        assert not np.any(scores.correct) and not np.any(np.isfinite(scores.losses))


@pytest.mark.parametrize("target", [-1, -100, 11, 2**31 - 1])
def test_a_target_that_is_no_id_gives_nan(target):
    hidden, embedding, targets = loss_inputs()
    targets[1, 3] = target
    scores = cross_entropy(hidden, embedding, targets)
    wrong = np.zeros(targets.shape, bool)
    wrong[1, 3] = True
    np.testing.assert_array_equal(np.isnan(scores.losses), wrong)
    assert not scores.correct[1, 3]


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
