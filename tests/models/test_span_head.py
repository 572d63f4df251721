"""The head for spans: its loss against a loop, packing, padding, gradients and bad targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.models.heads.spans import span_scores
from tests.laws.models import random_params

SIZES = {"vocab_size": 32, "d_model": 8, "num_layers": 1, "num_heads": 2, "d_ff": 12, "segment_length": 4}
LENGTHS = [(5, 3, 4), (12,)]  # documents of each row
ROWS, LENGTH = len(LENGTHS), 12


def example(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(ROWS, LENGTH, 2)).astype(np.float32)
    targets, reset = np.full((ROWS, LENGTH, 2), -1, np.int32), np.zeros((ROWS, LENGTH), bool)
    for row, sizes in enumerate(LENGTHS):
        for end in np.cumsum(sizes):
            reset[row, end - sizes[list(np.cumsum(sizes)).index(end)]] = True
        for size, end in zip(sizes, np.cumsum(sizes), strict=True):
            targets[row, end - size + 1 : end] = 0  # the first token is no candidate
            targets[row, [end - size + 1, end - 1], [0, 1]] = 1
    targets[1, 8, 0] = 1  # a second right start
    return logits, targets, reset


def reference(logits, targets):
    """The loss and correctness of one document [L, 2]."""
    losses, right = [], []
    for s, t in zip(logits.T.astype(np.float64), targets.T, strict=True):
        p = np.exp(s[t >= 0]) / np.exp(s[t >= 0]).sum()
        losses.append(-np.log(p[t[t >= 0] == 1]).mean())
        right.append(t[t >= 0][p.argmax()] == 1)
    return np.mean(losses), all(right)


def test_the_loss_of_each_packed_document_is_that_of_the_lone_one():
    score = jax.jit(span_scores)
    for seed in range(4):
        logits, targets, reset = example(seed)
        losses, correct = score(logits, targets, reset)
        for row, sizes in enumerate(LENGTHS):
            for size, end in zip(sizes, np.cumsum(sizes), strict=True):
                here = slice(end - size, end)
                loss, right = reference(logits[row, here], targets[row, here])
                np.testing.assert_allclose(losses[row, here], loss, rtol=1e-5)
                assert (np.asarray(correct[row, here]) == right).all()
                alone = score(logits[row, None, here], targets[row, None, here], reset[row, None, here])
                np.testing.assert_allclose(alone.losses[0], losses[row, here], rtol=1e-6)


def test_extreme_logits_and_documents_without_an_answer_have_finite_losses_and_gradients():
    logits, targets, reset = example()
    targets[0, :5] = -1  # no candidate
    targets[0, 5:8] = 0  # candidates, none of them right

    @jax.jit
    def loss(logits):
        return jnp.sum(span_scores(logits, jnp.asarray(targets), reset).losses)

    gradient = np.asarray(jax.grad(loss)(jnp.asarray(logits * 1e4)))
    assert np.isfinite(gradient).all() and np.isfinite(loss(logits * 1e4))
    gradient = np.asarray(jax.grad(loss)(jnp.asarray(logits)))
    assert not gradient[0, :8].any() and not gradient[targets == -1].any() and gradient[targets >= 0][12:].all()
    scores = jax.jit(span_scores)(jnp.asarray(logits), jnp.asarray(targets), reset)
    assert not np.any(scores.losses[0, :8]) and not np.any(scores.correct[0, :8])


def test_a_model_scores_spans_and_padding_does_not_matter():
    backbone = mg.EncoderConfig(**SIZES, memory=mg.NoMemoryConfig(), heads=())
    model = mg.functional(mg.HeadedConfig(backbone=backbone, head=mg.SpanHeadConfig()))
    params = random_params(model.config)
    _, targets, reset = example()
    tokens = np.random.default_rng(0).integers(32, size=(ROWS, LENGTH), dtype=np.int32)
    valid = np.ones((ROWS, LENGTH), bool)
    valid[:, 11:] = False
    targets[:, 10, 1] = 1

    @jax.jit
    def losses(params, tokens, targets):
        return model.score(params, tokens, {"spans": targets}, reset=reset, valid=valid)[0]["spans"].losses

    before = losses(params, tokens, targets)
    tokens[:, 11], targets[:, 11] = 7, 1
    np.testing.assert_array_equal(before[:, :11], losses(params, tokens, targets)[:, :11])
    gradients = jax.grad(lambda params: jnp.sum(losses(params, tokens, targets)))(params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients["head"]))
    outputs, _ = jax.eval_shape(model.apply, params, tokens, reset=reset, valid=valid)
    assert outputs.shape == (ROWS, LENGTH, 2)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros((1, 4), np.int32), r"integers\[1, 4, 2\] like tokens, got int32\[1, 4\]"),
        (np.zeros((1, 4, 2), np.float32), r"like tokens, got float32\[1, 4, 2\]"),
        (np.full((1, 4, 2), 2), r"must be -1 \(no candidate\), 0 \(candidate\) or 1 \(the right one\), got 2 to 2"),
    ],
)
def test_targets_that_are_refused(targets, message):
    backbone = mg.EncoderConfig(**SIZES, memory=mg.NoMemoryConfig(), heads=())
    model = mg.from_params(
        config := mg.HeadedConfig(backbone=backbone, head=mg.SpanHeadConfig()),
        random_params(config),
    )
    with pytest.raises(ValueError, match=message):
        model.score(np.zeros((1, 4), np.int32), {"spans": targets})


def test_targets_that_are_wrong_inside_jit_give_nan():
    logits, targets, reset = example()
    targets[0, 1] = 5
    losses, _ = jax.jit(span_scores)(logits, targets, reset)
    assert np.isnan(losses[0, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "mean"}, "head.pool must be 'none'"),
        ({"num_outputs": 3, "output_names": ()}, "must be 2, start and end"),
    ],
)
def test_settings_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        mg.SpanHeadConfig(**options)
