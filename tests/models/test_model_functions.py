"""`functional(config)`: the functions of one model, compiled once for equal configurations."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memgpt_jax.config.model import EncoderConfig, Seq2SeqConfig, XLNetConfig
from memgpt_jax.models import Encoder, EncoderDecoder, MemGPT, XLNet, from_params, functional, to_params
from tests.laws.models import random_params, tiny

ENCODER = EncoderConfig(vocab_size=11, d_model=8, num_layers=1, num_heads=2, segment_length=4)
CONFIGS = {
    MemGPT: tiny(),
    Encoder: ENCODER,
    EncoderDecoder: Seq2SeqConfig(
        encoder=dataclasses.replace(ENCODER, heads=()),
        decoder=tiny(vocab_size=11, d_model=8, num_heads=2, source_length=6),
    ),
    XLNet: XLNetConfig(vocab_size=11, d_model=8, num_layers=1, num_heads=2, segment_length=4),
}


def test_equal_configurations_share_one_compilation():
    config, traced = tiny(), []
    params = random_params(config)
    tokens = jnp.ones((2, 5), jnp.int32)
    for same in (config, copy.deepcopy(config)):
        apply = jax.jit(functional(same).apply)
        apply(params, tokens)
        traced.append(apply._cache_size())
    assert functional(config) is functional(copy.deepcopy(config)) and traced == [1, 1]
    assert functional(config) is not functional(dataclasses.replace(config, segment_length=3))


@pytest.mark.parametrize(("kind", "config"), CONFIGS.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_every_family_has_its_functions(kind, config):
    model_fn = functional(config)
    params = random_params(config)
    model = from_params(config, params)
    assert type(model) is kind and model.config == config
    jax.tree.map(np.testing.assert_array_equal, to_params(model), params)
    assert jax.eval_shape(lambda: params) == model_fn.param_shapes()
    jax.tree.map(np.testing.assert_array_equal, model_fn.init_state(3), model.init_state(3))
