"""Runs in bfloat16 agree with runs in float32, and what must not be rounded stays float32."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.config.experiment import ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.data import Batch
from memgpt_jax.memory import MEMORIES
from memgpt_jax.models import from_params, functional
from memgpt_jax.training.state import create
from memgpt_jax.training.step import train_step
from tests.laws.models import BATCH, built, random_params, stream_inputs, tiny

LENGTH = 8
SMALL = {"memory_size": 8, "num_heads": 2, "head_dim": 4, "top_k": 4}
ROUNDED = {
    "keys",
    "values",
    "ring_keys",
    "ring_values",
    "compressed_keys",
    "compressed_values",
    "conv_cache",
    "pending",
    "controller",
}
"""What of a state follows the compute type: activations that are kept as they are; nothing is added to them."""


@pytest.fixture(autouse=True)
def standard_promotion():
    """Flax's normalisation mixes bfloat16 with its float32 parameters."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def small(name, dtype, **changes):
    config_class = MEMORIES[name].config
    fields = {field.name for field in dataclasses.fields(config_class)}
    memory = config_class(**{key: value for key, value in SMALL.items() if key in fields})
    return tiny(memory, dtype=dtype, **changes)


@functools.cache
def run(name, dtype, fusion):
    """Logits, state and gradient of a mean of squared logits."""
    config = small(name, dtype, fusion=fusion)
    tokens, reset = stream_inputs(0, config, LENGTH)

    def loss(params):
        logits, state = functional(config).apply(
            params, tokens, functional(config).init_state(BATCH), reset, alignment="aligned"
        )
        return jnp.mean(jnp.square(logits)), (logits, state)

    (_, (logits, state)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(built(config).params)
    return logits, state, gradient


def distance(one, other) -> float:
    """|one - other| / |one| over all leaves of a tree."""
    pairs = list(zip(*map(jax.tree.leaves, (one, other)), strict=True))
    squares = sum(np.sum(np.square(np.float64(a) - np.float64(b))) for a, b in pairs)
    return np.sqrt(squares / sum(np.sum(np.square(np.float64(a))) for a, _ in pairs))


QUICK = ("kv",)


@pytest.mark.parametrize(
    "name, fusion",
    [pytest.param(name, "gated", marks=() if name in QUICK else pytest.mark.slow) for name in MEMORIES]
    + [pytest.param("kv", "attention", marks=pytest.mark.slow)],
)
def test_logits_and_gradients_agree_with_float32(name, fusion):
    (logits, _, gradient), (half_logits, state, half_gradient) = (
        run(name, dtype, fusion) for dtype in ("float32", "bfloat16")
    )
    assert half_logits.dtype == jnp.float32
    assert 0 < distance(logits, half_logits) < 0.03  # bfloat16 rounds to 1 in 256
    assert 0 < distance(gradient, half_gradient) < 0.1
    assert {leaf.dtype for leaf in jax.tree.leaves(half_gradient)} == {jnp.dtype("float32")}
    for path, leaf in jax.tree.leaves_with_path(state):
        if leaf.dtype == jnp.bfloat16:
            assert jax.tree_util.keystr(path[-1:], simple=True) in ROUNDED, jax.tree_util.keystr(path)


@pytest.mark.slow
def test_training_curves_agree_with_float32():
    curves = {}
    for dtype in ("float32", "bfloat16"):
        config = experiment(small("kv", dtype, vocab_size=16, d_model=16))
        step, state = jax.jit(functools.partial(train_step, config)), jax.jit(functools.partial(create, config))()
        curves[dtype] = []
        for number in range(40):
            state, metrics = step(state, copies(number))
            curves[dtype].append(float(metrics.totals.loss / metrics.totals.weight))
    full, half = np.array(curves["float32"]), np.array(curves["bfloat16"])
    assert full[-1] < 0.75 * full[0]
    assert 0 < np.max(np.abs(full - half)) < 0.05 * full[0]


def experiment(model):
    training = TrainingConfig(steps=40, batch_size=8, sequence_length=16, log_every=1, carry_state=False)
    return ExperimentConfig(
        model=model, optimizer=OptimizerConfig(warmup_steps=5, learning_rate=1e-2), training=training
    )


def copies(seed):
    """Rows that say four tokens over and over."""
    tokens = np.tile(np.random.default_rng(seed).integers(0, 16, (1, 8, 4)), (1, 1, 5)).astype(np.int32)
    shape = (1, 8, 16)
    return Batch(
        inputs={"tokens": tokens[..., :16], "reset": np.zeros(shape, bool)},
        targets={"tokens": tokens[..., 1:17]},
        weights={"tokens": np.ones(shape, np.float32)},
        info={"target_bytes": np.ones(shape, np.int32)},
    )


@pytest.mark.parametrize("tied", [pytest.param(True, marks=pytest.mark.slow), False])
def test_logits_are_sums_in_float32(tied):
    """As the losses of `score`: sums of products of bfloat16 numbers, not rounded to bfloat16."""
    config = tiny(dtype="bfloat16", vocab_size=400, d_model=32, tie_embeddings=tied)
    params, tokens = random_params(config, 0), stream_inputs(0, config, LENGTH)[0]
    logits, _ = jax.jit(lambda params: from_params(config, params)(tokens))(params)
    scores, _ = jax.jit(lambda params: from_params(config, params).score(tokens, {"tokens": tokens}))(params)
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(scores["tokens"].losses, losses, atol=1e-4)
    assert np.any(np.asarray(logits) != np.asarray(logits.astype(jnp.bfloat16), np.float32))
