"""With `jax_enable_x64`, parameters stay float32 and calls work."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, XLNetConfig
from memgpt_jax.memory import MEMORIES
from memgpt_jax.models import MemGPT
from memgpt_jax.models.encoder import Encoder
from memgpt_jax.models.memory_layer import MemoryLayer
from memgpt_jax.models.xlnet import XLNet

WIDTH = 8
OPTIONS = {
    "memory_size": 8,
    "head_dim": 4,
    "num_heads": 2,
    "slot_width": 4,
    "initial_entries": 2,
    "select": "pool",
    "select_size": 2,
    "compression": "conv",
    "tying": "layerwise",
    "forget": True,
}


def types_of(module):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param))}


@pytest.mark.parametrize("name", MEMORIES)
def test_every_mechanism(name):
    config_class = MEMORIES[name].config
    fields = {field.name for field in dataclasses.fields(config_class)}
    config = config_class(**{key: value for key, value in OPTIONS.items() if key in fields})
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        made = nnx.eval_shape(
            lambda: MemoryLayer(config, d_model=WIDTH, segment_length=4, fusion="concat", rngs=nnx.Rngs(0))
        )
        assert types_of(made) == {"float32"}
        h, state = jax.ShapeDtypeStruct((2, 5, WIDTH), jnp.float32), jax.eval_shape(lambda: made.init_state(2))
        for length in (5, 1):
            h = jax.ShapeDtypeStruct((2, length, WIDTH), jnp.float32)
            y, after = nnx.eval_shape(lambda layer, h, state: layer(h, state), made, h, state)
            assert y.dtype == jnp.float32 and jax.tree.leaves(after) == jax.tree.leaves(state)


@pytest.mark.parametrize(
    "model, config, settings",
    [
        (MemGPT, ModelConfig, {"position": "learned", "num_positions": 16}),
        (MemGPT, ModelConfig, {"position": "relative"}),
        (Encoder, EncoderConfig, {"position": "learned", "num_positions": 16, "token_types": 2}),
        (XLNet, XLNetConfig, {}),
    ],
)
def test_models(model, config, settings):
    memory = KVMemoryConfig(memory_size=4, head_dim=4)
    config = config(
        vocab_size=16, d_model=WIDTH, num_layers=1, num_heads=2, segment_length=4, memory=memory, **settings
    )
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        made = nnx.eval_shape(lambda: model(config, rngs=nnx.Rngs(0)))
        assert types_of(made) == {"float32"}
