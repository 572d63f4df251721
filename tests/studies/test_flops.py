"""Matmuls are counted as often as they run."""

import jax
import jax.numpy as jnp
import pytest

from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import batch_shapes
from memgpt_jax.studies.benchmark.flops import matmul_flops
from memgpt_jax.studies.benchmark.training import forward_flops

x, w = jnp.ones((3, 5)), jnp.ones((5, 5))
ONE = 2 * 3 * 5 * 5


@pytest.mark.parametrize(
    ("function", "times"),
    [
        (lambda: x @ w, 1),
        (lambda: jnp.einsum("ij,jk->ki", x, w), 1),
        (lambda: jax.jit(lambda x: jax.checkpoint(jnp.dot)(x, w) + 1)(x), 1),
        (lambda: jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=7), 7),
        (lambda: jax.lax.cond(x[0, 0] > 0, lambda x: x @ w @ w, lambda x: x @ w, x), 2),
        (lambda: jax.vmap(lambda w: x @ w)(jnp.stack([w, w, w])), 3),
        (lambda: jnp.sum(x * x), 0),
    ],
)
def test_matmuls_are_counted(function, times):
    assert matmul_flops(jax.make_jaxpr(function)()) == times * ONE


def test_a_model_costs_two_operations_a_weight_and_its_attention():
    config = ModelConfig(
        vocab_size=64, d_model=16, num_layers=2, num_heads=2, window_size=16, segment_length=16, memory=NoMemoryConfig()
    )
    weights = 2 * (4 * 16 * 16 + 2 * 16 * 64) + 65 * 16  # two layers; the output, and the target's logit
    attention = 2 * (2 * 32) * 16  # two layers: logits and sums over two blocks of 16 keys, at all heads' widths
    assert (
        forward_flops(config, batch_shapes(TextConfig(), TrainingConfig(batch_size=3, sequence_length=32)))
        == 2 * (weights + attention) * 3 * 32
    )


def test_memory_costs_more_the_larger_it_is():
    def flops(memory):
        batch = batch_shapes(TextConfig(), TrainingConfig(batch_size=1, sequence_length=128))
        return forward_flops(ModelConfig(vocab_size=64, d_model=16, num_layers=1, memory=memory), batch)

    none, small, large = flops(NoMemoryConfig()), *(flops(KVMemoryConfig(memory_size=size)) for size in (64, 128))
    reads = 2 * 2 * 64 * 64 * 128  # logits and sums: 64 more entries of a head of width 64, read by 128 tokens
    assert none < small and large - small == reads
