"""The head for numbers: its loss against NumPy, its unit, and its checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.models import functional
from memgpt_jax.models.heads import ScalarHeadConfig
from memgpt_jax.models.heads.scalars import number_scores
from tests.laws.models import random_params

BATCH, LENGTH = 2, 12
BACKBONE = ModelConfig(
    vocab_size=32,
    d_model=8,
    num_layers=1,
    num_heads=2,
    d_ff=12,
    segment_length=4,
    window_size=6,
    memory=KVMemoryConfig(memory_size=6, num_heads=2, head_dim=4),
)


def model_of(**settings):
    return functional(HeadedConfig(backbone=BACKBONE, head=ScalarHeadConfig(**settings)))


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(32, size=(BATCH, LENGTH)).astype(np.int32)


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_the_loss_equals_numpy(loss):
    rng = np.random.default_rng(1)
    outputs, targets = (rng.normal(3, 2, size=(BATCH, LENGTH)).astype(np.float32) for _ in range(2))
    targets[0, :3] = outputs[0, :3] + np.float32([0.5, -0.5, 0.51])
    found = number_scores(jnp.asarray(outputs), jnp.asarray(targets), loss=loss, std=2.0)
    for row in range(BATCH):
        for place in range(LENGTH):
            d = (float(outputs[row, place]) - float(targets[row, place])) / 2
            assert found.losses[row, place] == pytest.approx(d * d if loss == "mse" else abs(d), rel=1e-4)
            assert found.correct[row, place] == (abs(outputs[row, place] - targets[row, place]) <= 0.5)


def test_outputs_are_standardised_numbers_times_std_plus_mean_in_any_cut(tokens):
    plain, scaled = model_of(pool="mean"), model_of(pool="mean", mean=70.0, std=12.0)
    apply = jax.jit(scaled.apply)
    params = random_params(plain.config)
    whole, _ = jax.jit(plain.apply)(params, tokens, plain.init_state(BATCH))
    other, _ = apply(params, tokens, scaled.init_state(BATCH))
    assert whole.shape == (BATCH, LENGTH, 1) and whole.dtype == jnp.float32
    np.testing.assert_allclose(other, 70 + 12 * np.asarray(whole), rtol=1e-5)
    state, parts = scaled.init_state(BATCH), []
    for part in (slice(0, 6), slice(6, 12)):
        outputs, state = apply(params, tokens[:, part], state)
        parts.append(outputs)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), other, atol=1e-3)


@pytest.mark.slow
def test_a_score_of_the_model_is_that_of_its_outputs(tokens):
    model = model_of(mean=3.0, std=1.5, loss="mae")
    params = random_params(model.config)
    outputs, _ = jax.jit(model.apply)(params, tokens, model.init_state(BATCH))
    numbers = np.random.default_rng(2).normal(3, 1, size=tokens.shape).astype(np.float32)
    scores, _ = jax.jit(model.score)(params, tokens, {"numbers": numbers}, model.init_state(BATCH))
    np.testing.assert_allclose(scores["numbers"].losses, np.abs(outputs[..., 0] - numbers) / 1.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros((BATCH, LENGTH), np.int32), "must be floats"),
        (np.zeros((BATCH, LENGTH - 1), np.float32), "must be floats"),
        (np.full((BATCH, LENGTH), np.nan, np.float32), "must be finite"),
        ([1.0], "got a list"),
    ],
)
def test_bad_targets_are_named(tokens, targets, message):
    model = model_of()
    params = random_params(model.config)
    with pytest.raises(ValueError, match=message):
        model.score(params, tokens, {"numbers": targets}, model.init_state(BATCH))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_outputs": 2}, "head.num_outputs must be 1"),
        ({"std": 0.0}, "head.std positive"),
        ({"mean": float("nan")}, "^mean must be finite, got nan$"),
        ({"loss": "huber"}, "loss"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ScalarHeadConfig(**settings)
