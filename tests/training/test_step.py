"""One step: its loss, its memory, its accumulation, and what it does with numbers that are not finite."""

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax import data, models
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.memory.knn import KNNMemoryConfig
from memgpt_jax.training.loop import stack
from memgpt_jax.training.metrics import fault, summary
from memgpt_jax.training.optimizer import parameter_names
from memgpt_jax.training.state import state_of
from memgpt_jax.training.step import batch_gradients, has_nan_or_inf, train_step
from tests.laws.models import random_params

ROOT = Path(__file__).parents[2]
PLAIN = {"memory": NoMemoryConfig()}


@functools.cache
def compiled(config):
    return jax.jit(functools.partial(train_step, config)), state_of(config, random_params(config.model))


def batches(config, count=1, first=0):
    """[count, B, L] arrays of the config's own task."""
    return stack([data.recall_batch(config.data, first + i, config.training.batch_size) for i in range(count)])


def assert_close(a, b, atol=0.0, rtol=0.0):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol, rtol=rtol), *jax.device_get((a, b)))


def test_metrics_are_those_of_the_scores(make_config):
    config = make_config()
    (step, state), batch = compiled(config), batches(config)
    batch.info["target_bytes"][:] = 3
    one = jax.tree.map(lambda array: array[0], batch)
    score = jax.jit(models.functional(config.model).score)
    scores = score(state.params, targets=one.targets, state=state.model_state, **one.inputs)[0]["tokens"]
    scored = one.weights["tokens"] > 0
    figures = summary(jax.device_get(step(state, batch)[1]))
    loss = np.asarray(scores.losses)[scored].mean()
    assert figures["loss"] == pytest.approx(loss, rel=1e-5)
    assert figures["bits_per_byte"] == pytest.approx(loss / np.log(2) / 3, rel=1e-5)
    assert figures["accuracy"] == pytest.approx(np.asarray(scores.correct)[scored].mean(), rel=1e-5)
    assert figures["learning_rate"] == pytest.approx(config.optimizer.learning_rate / 5)


def test_losses_are_summed_since_the_last_logged_step(make_config):
    """Steps that are evaluated are logged, too."""
    config = make_config()  # log_every=2
    evaluation = dataclasses.replace(config.evaluation, every=5)
    step, state = compiled(dataclasses.replace(config, evaluation=evaluation))
    weights = []
    for i in range(7):
        state, metrics = step(state, batches(config, first=i))
        weights.append(float(metrics.totals.weight))
    assert np.array_equal(np.divide(weights, weights[0]), [1, 2, 1, 2, 1, 1, 1])  # logged: 2, 4, 5, 6


def test_accumulated_batches_equal_one_large_batch(make_config):
    settings = {"model": PLAIN, "carry_state": False}
    small = make_config(**settings, batch_size=2, optimizer={"accumulate_steps": 3, "name": "sgd"})
    large = make_config(**settings, batch_size=6, optimizer={"name": "sgd"})
    three = batches(small, count=3)
    three.weights["tokens"][1, 0] = 0.0  # unequal weights: a mean of means would differ
    one = jax.tree.map(lambda array: array.reshape(1, 6, -1), three)
    step, state = compiled(small)
    accumulated, few = step(state, three)
    step, large_state = compiled(large)
    at_once, many = step(large_state._replace(params=state.params), one)
    assert_close(accumulated.params, at_once.params, atol=1e-6)
    assert_close((few.gradient_norm, few.totals), (many.gradient_norm, many.totals), rtol=1e-5)
    moved = max(
        np.abs(a - b).max()
        for a, b in zip(*map(jax.tree.leaves, jax.device_get((accumulated.params, state.params))), strict=True)
    )
    assert moved > 1e-5
    assert_close(accumulated.model_state, state.model_state)  # carry_state=False: it stays fresh


def test_no_gradient_is_computed_of_a_batch_without_targets(make_config):
    both = make_config(model=PLAIN, optimizer={"accumulate_steps": 2})
    some = dataclasses.replace(both, training=dataclasses.replace(both.training, skip_backward=True))
    two = batches(both, count=2)
    two.weights["tokens"][1] = 0.0
    (step, state), (skipping, _) = compiled(both), compiled(some)
    (expected, metrics), (found, few) = step(state, two), skipping(state, two)
    assert_close(found.params, expected.params, atol=1e-7)
    assert_close(found.model_state, expected.model_state, atol=1e-6)
    assert_close((few.gradient_norm, few.totals), (metrics.gradient_norm, metrics.totals), rtol=1e-6)

    batch = jax.tree.map(lambda array: array[1], two)
    gradients = functools.partial(batch_gradients, some, memory=state.model_state, batch=batch, key=state.key)
    (conditional,) = (e for e in jax.make_jaxpr(gradients)(state.params).eqns if e.primitive.name == "cond")
    forward, backward = (str(branch).count("dot_general") for branch in conditional.params["branches"])
    assert 0 < forward < backward / 2


@pytest.mark.parametrize("accumulate_steps", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_memory_goes_through_the_batches_of_a_step_in_order(make_config, accumulate_steps):
    config = make_config(optimizer={"accumulate_steps": accumulate_steps} if accumulate_steps > 1 else {})
    step, state = compiled(config)
    sequence = batches(config, count=accumulate_steps)
    sequence.inputs["reset"][:, 1:] = False  # new documents begin in row 0 alone
    apply = jax.jit(models.functional(config.model).apply)
    expected = state.model_state
    for tokens, reset in zip(sequence.inputs["tokens"], sequence.inputs["reset"], strict=True):
        _, expected = apply(state.params, tokens, expected, reset)
    assert_close(step(state, sequence)[0].model_state, expected, atol=1e-4)


def test_dropout_differs_by_step_and_is_reproducible(make_config):
    config = make_config(model=PLAIN | {"dropout": 0.5}, log_every=1)
    (step, state), batch = compiled(config), batches(config)
    losses = [float(step(state._replace(step=np.int32(n)), batch)[1].totals.loss) for n in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]


def test_a_loss_that_is_not_finite_changes_nothing_but_the_count(make_config):
    config = make_config()
    step, start = compiled(config)
    good, _ = step(start, batches(config))
    bad_batch = batches(config, first=1)
    bad_batch.weights["tokens"][0, 0, -2] = np.nan
    bad_batch.inputs["reset"][:] = False
    bad_batch.inputs["reset"][0, 1, 5] = True
    bad, metrics = step(good, bad_batch)
    assert_close((bad.params, bad.opt_state), (good.params, good.opt_state))
    assert (int(bad.skipped), int(bad.skipped_in_a_row), int(bad.step)) == (1, 1, 2)
    assert "loss is not finite" in fault(metrics, parameter_names(good.params))

    # Memory stays too, except in the row where a document began: it would see the one before.
    for row, before in ((0, good.model_state), (1, start.model_state), (2, good.model_state)):
        states = jax.device_get((bad.model_state, before))
        jax.tree.map(lambda a, b, row=row: np.testing.assert_array_equal(a[row], b[row]), *states)

    after, metrics = step(bad, batches(config, first=2))
    assert (int(after.skipped), int(after.skipped_in_a_row)) == (1, 0)
    assert np.isfinite(metrics.totals.loss)
    rates = [step(state, batches(config))[1].learning_rate for state in (good, bad)]
    assert rates[0] == rates[1]  # the schedule counts the updates that were made


def spoilt_step(config, monkeypatch, spoil):
    """One step where `score` returns `spoil(params, scores, memory)`: the state after it, and its fault."""
    original = models.MemGPT.score

    def score(self, *args, **kwargs):
        return spoil(models.to_params(self), *original(self, *args, **kwargs))

    monkeypatch.setattr(models.MemGPT, "score", score)
    state = compiled(config)[1]
    after, metrics = jax.jit(functools.partial(train_step, config))(state, batches(config))
    assert int(after.skipped) == 1
    assert_close((after.params, after.opt_state), (state.params, state.opt_state))
    return after, fault(jax.device_get(metrics), parameter_names(state.params))


def test_a_gradient_that_is_not_finite_is_named_by_its_parameters(make_config, monkeypatch):
    def spoil(params, scores, memory):
        kernel = params["blocks"]["0"]["feed_forward"]["input"]["kernel"]
        scores = scores["tokens"]
        return {"tokens": scores._replace(losses=scores.losses + jnp.sqrt(0 * kernel[0, 0]))}, memory

    _, message = spoilt_step(make_config(model=PLAIN), monkeypatch, spoil)
    assert message == "the loss is finite, but the gradient of blocks/0/feed_forward/input is not"


def test_a_poisoned_memory_is_thrown_away(make_config, monkeypatch):
    def spoil(params, scores, memory):
        return scores, jax.tree.map(lambda x: x * jnp.nan if x.dtype == jnp.float32 else x, memory)

    after, message = spoilt_step(make_config(model=PLAIN), monkeypatch, spoil)
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(after.model_state))
    assert "memory holds NaN" in message


def test_of_a_large_store_the_new_entries_are_scanned():
    config = ModelConfig(vocab_size=9, d_model=8, num_layers=1, num_heads=1, window_size=4, segment_length=4)
    config = dataclasses.replace(config, memory=KNNMemoryConfig(memory_size=32, top_k=2, num_heads=1, head_dim=4))

    @jax.jit
    def state_after_40_tokens():
        params = random_params(config)
        return models.functional(config).apply(params, jnp.ones((2, 40), jnp.int32))[1]

    state = state_after_40_tokens()  # its ring has wrapped
    check = jax.jit(has_nan_or_inf, static_argnums=1)
    store = state.layers[0].stream.memory
    newest, oldest = (np.asarray(store.next) - 1) % 32, np.asarray(store.next) % 32
    for place, value, expected in ((newest, np.nan, True), (newest - 7, np.inf, True), (oldest, np.nan, False)):
        keys = np.array(store.ring_keys)
        keys[1, 0, place[1], 0] = value
        stream = state.layers[0].stream._replace(memory=store._replace(ring_keys=keys))
        broken = state._replace(layers=(state.layers[0]._replace(stream=stream),))
        assert bool(check(broken, 8)) == expected, place
        assert bool(check(broken, 64))  # all of it
    assert not check(state, 8)


@pytest.mark.slow
def test_a_call_of_several_steps_of_many_arrays(tmp_path):
    """In a process of its own: where the choice of a batch was fused into its readers, jaxlib 0.10.2 crashed on CPU."""
    sizes = ["--training.steps", "10", "--training.checkpoint_every", "10", "--training.batch_size", "8"]
    command = [sys.executable, "experiments/train.py", "shapes_concat", "--workdir", str(tmp_path / "run"), *sizes]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr[-2000:]
