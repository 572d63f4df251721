"""Configurations of models: nothing that a user wrote is changed, and what is derived is derived once."""

import dataclasses

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import (
    EncoderConfig,
    MemoryLayerConfig,
    ModelConfig,
    Seq2SeqConfig,
    StackConfig,
    XLNetConfig,
)
from memgpt_jax.data.objectives.span_corruption import SpanCorruptionConfig
from memgpt_jax.memory import resolved
from memgpt_jax.memory.knn import KNNMemoryConfig
from memgpt_jax.models import MemGPT, MemoryLayer

SIZES = {"vocab_size": 32, "d_model": 8, "num_layers": 1, "num_heads": 2, "segment_length": 4}


@pytest.mark.parametrize("dtype", ["bfloat16", jnp.bfloat16, np.dtype(ml_dtypes.bfloat16), ml_dtypes.bfloat16])
def test_every_spelling_of_a_type_is_one_config(dtype):
    assert ModelConfig(dtype=dtype) == ModelConfig(dtype="bfloat16")
    assert hash(EncoderConfig(dtype=dtype)) == hash(EncoderConfig(dtype="bfloat16"))
    layer = MemoryLayer(KVMemoryConfig(memory_size=2), d_model=8, segment_length=4, dtype=dtype, rngs=nnx.Rngs(0))
    assert layer.init_state(1).pending.dtype == jnp.bfloat16


def test_a_shared_softmax_leaves_the_config_as_it_was_written():
    memory = KVMemoryConfig(memory_size=7, num_heads=1, head_dim=64)
    config = ModelConfig(memory=memory, fusion="attention", num_kv_heads=1, **SIZES)
    assert config.memory == memory and dataclasses.replace(config, fusion="gated").memory == memory
    assert config.effective_memory == dataclasses.replace(memory, num_heads=2, num_kv_heads=1, head_dim=4)
    assert MemGPT(config, rngs=nnx.Rngs(0)).init_state(1).layers[0].stream.memory.entries.keys.shape == (1, 7, 1, 4)
    plain = dataclasses.replace(config, memory=NoMemoryConfig())
    assert not plain.shares_softmax and plain.effective_memory == NoMemoryConfig()


@pytest.mark.parametrize("fusion", ["gated", "attention"])
def test_a_built_model_has_the_memory_size_of_its_config(fusion):
    config = ModelConfig(
        memory=KVMemoryConfig(match_state_bytes=2048, num_heads=1, head_dim=64), fusion=fusion, **SIZES
    )
    model = MemGPT(config, rngs=nnx.Rngs(0))
    assert model.config == resolved(config) and model.config.memory.match_state_bytes is None
    assert resolved(model.config) == model.config
    size = model.init_state(1).layers[0].stream.memory.entries.keys.shape[1]
    assert model.config.memory.memory_size == model.blocks[0].memory_layer.memory.config.memory_size == size
    assert model.config.memory.num_heads == 1


def test_a_memory_layer_has_the_memory_size_of_its_config():
    layer = MemoryLayer(KVMemoryConfig(match_state_bytes=2048), d_model=8, segment_length=4, rngs=nnx.Rngs(0))
    assert layer.config.memory == layer.memory.config and layer.memory.config.match_state_bytes is None


def test_stacks_have_names_in_a_model_and_paths_in_an_experiment():
    encoder, decoder = EncoderConfig(**SIZES, heads=()), ModelConfig(**SIZES, source_length=1024)
    pair = Seq2SeqConfig(encoder=encoder, decoder=decoder)
    assert pair.stacks == {"encoder": encoder, "decoder": decoder} and decoder.stacks == {"model": decoder}
    assert list(ExperimentConfig(model=decoder).stacks) == ["model"]
    text = dataclasses.replace(ExperimentConfig().data, objective=SpanCorruptionConfig())
    experiment = ExperimentConfig(model=pair, data=text)
    assert experiment.stacks == {"model.encoder": encoder, "model.decoder": decoder}
    changed = pair.with_stacks({name: dataclasses.replace(stack, dropout=0.5) for name, stack in pair.stacks.items()})
    assert changed.encoder.dropout == changed.decoder.dropout == 0.5


def test_execution_options_are_taken_from_another_config():
    fast = ModelConfig(remat="dots", attention_implementation="portable", context_length=7, dropout=0.5)
    base = ModelConfig(**SIZES)
    assert base.with_execution_of(fast) == dataclasses.replace(
        base, remat="dots", attention_implementation="portable", context_length=7
    )
    assert XLNetConfig(**SIZES).with_execution_of(fast) == XLNetConfig(**SIZES, remat="dots")
    memory = KVMemoryConfig(read_implementation="portable")
    assert base.with_kernels("portable") == ModelConfig(**SIZES, memory=memory, attention_implementation="portable")
    other = EncoderConfig(**SIZES, memory=KNNMemoryConfig())
    assert other.with_kernels("portable") == other


@pytest.mark.parametrize("kind", [EncoderConfig, XLNetConfig])
def test_encoders_have_no_fields_of_the_decoder(kind):
    names = {field.name for field in dataclasses.fields(kind)}
    only = {
        "window_size",
        "context_length",
        "source_length",
        "tie_embeddings",
        "logit_scale",
        "attention_implementation",
    }
    assert only <= {field.name for field in dataclasses.fields(ModelConfig)} and not only & names
    assert (
        {field.name for field in dataclasses.fields(MemoryLayerConfig)}
        < {field.name for field in dataclasses.fields(StackConfig)}
        < names
    )
