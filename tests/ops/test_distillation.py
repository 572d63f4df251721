"""Divergences from teachers and the distance of hidden states, by hand and against plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.ops.distillation import (
    binary_divergence,
    divergence,
    likeliest,
    likeliest_divergence,
    mean_log_probs,
    projection_errors,
    relation_divergence,
    span_sums,
)

RNG = np.random.default_rng(0)
TEACHERS, STUDENT = RNG.normal(size=(2, 3, 7)).astype(np.float32) * 3, RNG.normal(size=(3, 7)).astype(np.float32)


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_divergence_by_hand():
    """p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): KL = 1/2 ln 2 - 1/4 ln 2; at T = 2 from the squared probabilities."""
    p, q = np.log([[0.25, 0.0625, 0.0625]]).astype(np.float32), np.log([[0.0625, 0.25, 0.0625]]).astype(np.float32)
    found = jax.jit(lambda p, q: divergence(mean_log_probs([p], 2.0), q, 2.0))(p, q)
    np.testing.assert_allclose(found, [np.log(2) / 4], rtol=1e-6)
    certain = np.array([[0.0, -np.inf, -np.inf]], np.float32)  # an outcome that cannot happen counts 0
    found = jax.jit(divergence, static_argnums=2)(certain, np.zeros((1, 3), np.float32), 1.0)
    np.testing.assert_allclose(found, [np.log(3)], rtol=1e-6)


@pytest.mark.parametrize("teachers, temperature", [(1, 1.0), (1, 4.0), (2, 0.5), (2, 3.0)])
def test_divergence_and_gradient_equal_numpy(teachers, temperature):
    p = np.mean([softmax(logits / temperature) for logits in TEACHERS[:teachers]], axis=0)
    q = softmax(STUDENT / temperature)

    @jax.jit
    @jax.value_and_grad
    def total(logits, of_teachers):
        log_p = mean_log_probs(of_teachers, temperature)
        return jnp.sum(divergence(log_p, logits, temperature))

    found, gradient = total(STUDENT, [*TEACHERS[:teachers]])
    np.testing.assert_allclose(found, np.sum(p * np.log(p / q)), rtol=1e-5)
    np.testing.assert_allclose(gradient, (q - p) / temperature, atol=1e-6)


def test_the_same_distribution_has_no_divergence_and_no_gradient():
    def total(logits, same):
        return jnp.sum(divergence(mean_log_probs([same], 2.0), logits, 2.0))

    found, gradient = jax.jit(jax.value_and_grad(total))(STUDENT, STUDENT)
    assert found == 0
    np.testing.assert_allclose(gradient, 0, atol=1e-7)


def test_the_likeliest_outcomes_and_all_others_together():
    log_p, student = jax.jit(lambda logits: mean_log_probs([logits], 2.0))(TEACHERS[0]), STUDENT
    full, last = np.asarray(jax.jit(divergence, static_argnums=2)(log_p, student, 2.0)), np.zeros(3)
    p, q = softmax(TEACHERS[0] / 2), softmax(STUDENT / 2)

    @functools.partial(jax.jit, static_argnums=0)
    def kept(k, student):
        top = likeliest(log_p, k)
        gradient = jax.grad(lambda z: jnp.sum(likeliest_divergence(top, z, 2.0)))(student)
        return top, likeliest_divergence(top, student, 2.0), gradient

    for k in (1, 4, 7):
        top, each, gradient = jax.device_get(kept(k, student))
        np.testing.assert_array_equal(top.ids, np.argsort(-p, axis=-1)[:, :k])
        rest = 1 - np.sort(p, axis=-1)[:, ::-1][:, :k].sum(axis=1)
        np.testing.assert_allclose(np.exp(top.log_probs[:, -1]), rest, atol=1e-6)
        assert np.isfinite(gradient).all()
        assert (each >= last - 1e-6).all() and (each <= full + 1e-6).all()  # it grows with k
        last = each
    np.testing.assert_allclose(last, full, atol=1e-6)  # all outcomes
    best, row = p.argmax(-1), np.arange(3)
    expected = p[row, best] * np.log(p[row, best] / q[row, best])
    expected += (1 - p[row, best]) * np.log((1 - p[row, best]) / (1 - q[row, best]))
    np.testing.assert_allclose(kept(1, student)[1], expected, rtol=1e-4)


def test_the_projection_is_the_best_one():
    hidden, wanted = RNG.normal(size=(2, 9, 4)).astype(np.float32), RNG.normal(size=(2, 9, 5)).astype(np.float32)
    weights = (RNG.random((2, 9)) < 0.7).astype(np.float32)
    errors_of = jax.jit(projection_errors)
    used = weights.reshape(-1) > 0
    rows, goals = hidden.reshape(-1, 4)[used], wanted.reshape(-1, 5)[used]
    residual = rows @ np.linalg.lstsq(rows, goals, rcond=None)[0] - goals
    errors = np.asarray(errors_of(hidden, wanted, weights))
    np.testing.assert_allclose(errors.reshape(-1)[used], np.mean(residual**2, axis=1), rtol=1e-3)
    exact = (hidden @ RNG.normal(size=(4, 6))).astype(np.float32)
    np.testing.assert_allclose(np.asarray(errors_of(hidden, exact, weights))[weights > 0], 0, atol=1e-6)


@pytest.mark.parametrize("heads", [1, 2])
def test_relations_equal_loops(heads):
    """Of each token to the tokens of its document up to itself; heads of another number and size."""
    ours, theirs = RNG.normal(size=(2, 6, 2, 4)), RNG.normal(size=(2, 6, 3, 2))
    document = np.array([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 2]], np.int32)
    found = relation_divergence(*(jnp.float32(part) for part in (ours, theirs)), jnp.asarray(document), heads)
    expected = np.zeros((2, 6))
    for row, token, head in np.ndindex(2, 6, heads):
        before = [j for j in range(token + 1) if document[row, j] == document[row, token]]
        q, p = (_relations(vectors[row], token, before, head, heads) for vectors in (ours, theirs))
        expected[row, token] += np.sum(p * np.log(p / q)) / heads
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.all(np.asarray(found)[:, [0]] == 0) and found[0, 3] == 0  # a first token relates to itself alone


def _relations(vectors, token, before, head, heads):
    parts = vectors.reshape(len(vectors), heads, -1)[:, head]
    logits = parts[before] @ parts[token] / np.sqrt(parts.shape[1])
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def test_relations_of_the_teacher_have_no_gradient_and_equal_ones_no_divergence():
    x, y = (jnp.float32(RNG.normal(size=(1, 5, 2, 4))) for _ in range(2))
    document = jnp.zeros((1, 5), jnp.int32)

    @jax.jit
    def gradients(ours, theirs):
        return jax.value_and_grad(lambda *parts: relation_divergence(*parts, document, 2).sum(), (0, 1))(ours, theirs)

    value, (ours, theirs) = gradients(x, y)
    assert value > 0.1 and np.abs(ours).max() > 1e-3 and not np.any(theirs)
    value, (ours, _) = gradients(x, x)
    assert abs(value) < 1e-6 and np.abs(ours).max() < 1e-6


def test_divergence_of_two_outcomes():
    """Equal to plain NumPy; for large T, T times it is a ln(a / b) - a + b of a = -ln p and b = -ln q."""
    log_p, log_q = -RNG.exponential(4, (2, 20)).astype(np.float32)
    for temperature in (1.0, 3.0):
        p, q = (np.exp(np.float64(part) / temperature) for part in (log_p, log_q))
        expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        found = jax.jit(binary_divergence, static_argnums=2)(log_p, log_q, temperature)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    a, b = -np.float64(log_p), -np.float64(log_q)
    limit = 1000 * jax.jit(binary_divergence, static_argnums=2)(log_p, log_q, 1000.0)
    np.testing.assert_allclose(limit, a * np.log(a / b) - a + b, rtol=0.02, atol=2e-3)


def test_certain_outcomes_have_a_finite_divergence_and_gradient():
    values = jnp.array([0.0, -1e-30, -1e-7, -1.0, -200.0, -1e4])
    pair = jnp.meshgrid(values, values)
    found, gradient = jax.jit(jax.vmap(jax.value_and_grad(lambda q, p: binary_divergence(p, q, 1.0))))(
        pair[0].ravel(), pair[1].ravel()
    )
    assert np.isfinite(found).all() and np.isfinite(gradient).all() and np.all(found >= -1e-6)
    np.testing.assert_allclose(found.reshape(6, 6).diagonal(), 0, atol=1e-6)


@pytest.mark.parametrize("length", [7, 4096])
def test_sums_of_spans_equal_loops(length):
    """Also of small values beside large ones, with places in no span, and of a span that begins before the row."""
    rng = np.random.default_rng(length)
    values = np.where(rng.random((2, length)) < 0.5, 1e-4, 5.0).astype(np.float32)
    sizes = np.zeros((2, length), np.int32)
    for row in range(2):
        begin = -2 * row
        while (end := max(1, begin + int(rng.integers(1, 4)))) <= length:
            sizes[row, end - 1] = end - begin
            begin = end + int(rng.random() < 0.1)
    found = jax.jit(span_sums)(values, sizes)
    expected = np.zeros((2, length))
    for row, last in zip(*np.nonzero(sizes), strict=True):
        expected[row, last] = values[row, max(0, last + 1 - sizes[row, last]) : last + 1].sum(dtype=np.float64)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(span_sums(x, jnp.asarray(sizes)))))(values)
    inside = np.zeros((2, length))
    for row, last in zip(*np.nonzero(sizes), strict=True):
        inside[row, max(0, last + 1 - sizes[row, last]) : last + 1] = 1
    np.testing.assert_array_equal(gradient, inside)
