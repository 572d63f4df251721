"""One step: its loss, its memory, its accumulation, and what it does with numbers that are not finite."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax import data, models
from memgpt_jax.training.metrics import fault, summary
from memgpt_jax.training.optimizer import parameter_names
from memgpt_jax.training.state import create
from memgpt_jax.training.step import train_step


def batches(config, count=1, first=0):
    """[count, B, L] arrays of the config's own task."""
    drawn = [data.recall_batch(config.data, first + i, config.training.batch_size) for i in range(count)]
    return {name: jnp.stack([batch[name] for batch in drawn]) for name in drawn[0]}


def assert_close(a, b, atol=0.0):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol, rtol=0), a, b)


def test_metrics_are_those_of_the_scores(make_config):
    config = make_config()
    state, batch = create(config), batches(config)
    batch["target_bytes"] = jnp.full_like(batch["target_bytes"], 3)
    scores, _ = models.score_tokens(
        config.model, state.params, batch["tokens"][0], batch["targets"][0], state.memory, reset=batch["reset"][0]
    )
    scored = np.asarray(batch["weights"][0]) > 0
    _, metrics = train_step(config, state, batch)
    figures = summary(jax.device_get(metrics))
    loss = np.asarray(scores.losses)[scored].mean()
    assert figures["loss"] == pytest.approx(loss, rel=1e-5)
    assert figures["bits_per_byte"] == pytest.approx(loss / np.log(2) / 3, rel=1e-5)
    assert figures["accuracy"] == pytest.approx(np.asarray(scores.correct)[scored].mean(), rel=1e-5)
    assert figures["learning_rate"] == pytest.approx(config.optimizer.learning_rate / 5)


def test_losses_are_averaged_since_the_last_logged_step(make_config):
    config = make_config(log_every=2)
    step, state, sums = jax.jit(partial(train_step, config)), create(config), []
    for i in range(4):
        state, metrics = step(state, batches(config, first=i))
        sums.append(float(metrics.totals.weight))
    assert sums[1] == 2 * sums[0] and sums[2] == sums[0] and sums[3] == 2 * sums[2]


def test_accumulated_batches_equal_one_large_batch(make_config):
    small = make_config(batch_size=2, carry_state=False, optimizer={"accumulate_steps": 3, "name": "sgd"})
    large = make_config(batch_size=6, carry_state=False, optimizer={"name": "sgd"})
    three = batches(small, count=3)
    three["weights"] = three["weights"].at[1, 0].set(0.0)  # unequal weights: a mean of means would differ
    one = {name: array.reshape(1, 6, -1) for name, array in three.items()}
    state = create(small)
    accumulated, few = train_step(small, state, three)
    at_once, many = train_step(large, state._replace(memory=create(large).memory), one)
    assert_close(accumulated.params, at_once.params, atol=1e-6)
    assert_close(few.gradient_norm, many.gradient_norm, atol=1e-5)
    with pytest.raises(AssertionError):
        assert_close(accumulated.params, state.params, atol=1e-6)


@pytest.mark.parametrize("accumulate_steps", [1, 2])
def test_memory_goes_from_batch_to_batch_in_order(make_config, accumulate_steps):
    config = make_config(optimizer={"accumulate_steps": accumulate_steps, "learning_rate": 1e-30, "weight_decay": 0.0})
    state = create(config)
    sequence = batches(config, count=2)
    sequence["reset"] = jnp.zeros_like(sequence["reset"])
    expected = state.memory
    for i in range(2):
        _, expected = models.apply(config.model, state.params, sequence["tokens"][i], expected, aligned=True)
    for i in range(0, 2, accumulate_steps):
        state, _ = train_step(config, state, {k: v[i : i + accumulate_steps] for k, v in sequence.items()})
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), state.memory, expected)


def test_without_carried_state_every_step_starts_fresh(make_config):
    config = make_config(carry_state=False)
    state = create(config)
    after, _ = train_step(config, state, batches(config))
    assert_close(after.memory, state.memory)


def test_dropout_differs_by_step_and_is_reproducible(make_config):
    config = make_config(model={"dropout": 0.5}, log_every=1)
    state, batch = create(config), batches(config)
    loss = lambda step: float(train_step(config, state._replace(step=jnp.int32(step)), batch)[1].totals.loss)  # noqa: E731
    assert loss(3) == loss(3) != loss(4)


def test_a_loss_that_is_not_finite_changes_nothing_but_the_count(make_config):
    config = make_config()
    step = jax.jit(partial(train_step, config))
    good, _ = step(create(config), batches(config))
    bad_batch = batches(config, first=1)
    bad_batch["weights"] = bad_batch["weights"].at[0, 0, -2].set(jnp.nan)
    bad_batch["reset"] = jnp.zeros_like(bad_batch["reset"]).at[0, 1, 5].set(True)
    bad, metrics = step(good, bad_batch)
    assert_close((bad.params, bad.opt_state), (good.params, good.opt_state))
    assert (int(bad.skipped), int(bad.skipped_in_a_row), int(bad.step)) == (1, 1, 2)
    assert "loss is not finite" in fault(metrics, parameter_names(good.params))

    # Memory stays too, except in the row where a document began: it would see the one before.
    fresh = create(config).memory
    for row, before in ((0, good.memory), (1, fresh), (2, good.memory)):
        jax.tree.map(lambda a, b, row=row: np.testing.assert_array_equal(a[row], b[row]), bad.memory, before)

    after, metrics = step(bad, batches(config, first=2))
    assert (int(after.skipped), int(after.skipped_in_a_row)) == (1, 0)
    assert np.isfinite(metrics.totals.loss)
    rates = [step(state, batches(config))[1].learning_rate for state in (good, bad)]
    assert rates[0] == rates[1]  # the schedule counts updates that were made


def spoilt(monkeypatch, spoil):
    """Make `score_tokens` return `spoil(params, scores, memory)`."""
    original = models.score_tokens

    def score_tokens(config, params, *args, **kwargs):
        return spoil(params, *original(config, params, *args, **kwargs))

    monkeypatch.setattr(models, "score_tokens", score_tokens)


def test_a_gradient_that_is_not_finite_is_named_by_its_parameters(make_config, monkeypatch):
    def spoil(params, scores, memory):
        kernel = params["blocks"]["1"]["feed_forward"]["input"]["kernel"]
        return scores._replace(losses=scores.losses + jnp.sqrt(0 * kernel[0, 0])), memory

    config = make_config()
    state = create(config)
    spoilt(monkeypatch, spoil)
    after, metrics = train_step(config, state, batches(config))
    assert int(after.skipped) == 1
    assert_close((after.params, after.opt_state), (state.params, state.opt_state))
    message = fault(jax.device_get(metrics), parameter_names(state.params))
    assert message == "the loss is finite, but the gradient of blocks/1/feed_forward/input is not"


def test_a_poisoned_memory_is_thrown_away(make_config, monkeypatch):
    def spoil(params, scores, memory):
        return scores, jax.tree.map(lambda x: x * jnp.nan if x.dtype == jnp.float32 else x, memory)

    config = make_config()
    state = create(config)
    spoilt(monkeypatch, spoil)
    after, metrics = train_step(config, state, batches(config))
    assert int(after.skipped) == 1
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(after.memory))
    assert "memory holds NaN" in fault(jax.device_get(metrics), parameter_names(state.params))


def test_the_step_is_static_in_its_config(make_config):
    config = make_config()
    step = jax.jit(train_step, static_argnums=0)
    state = create(config)
    state, _ = step(config, state, batches(config))
    step(dataclasses.replace(config), state, batches(config, first=1))
    assert step._cache_size() == 1
