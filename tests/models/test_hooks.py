"""Embeddings and states of one's own: `embed`, `run`, and calls without a state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.models import functional
from memgpt_jax.models.memory_layer import make_memory_layer
from memgpt_jax.models.model_functions import from_params
from memgpt_jax.ops.attention.positions import document_positions
from tests.laws.memories import difference
from tests.laws.models import BATCH, built, random_params, stream_inputs, tiny
from tests.models.test_arguments import CONFIGS

LENGTH = 10


@pytest.mark.parametrize(
    "position", ["learned", *(pytest.param(p, marks=pytest.mark.slow) for p in ("rotary", "sinusoidal"))]
)
def test_running_embeddings_is_reading_tokens(position):
    """In a new stream with the positions of a fresh document, and in its continuation with those of the state."""
    config = tiny(position=position, logit_scale=0.5)
    params = built(config).params
    tokens, reset = map(jnp.asarray, stream_inputs(0, config, 2 * LENGTH))

    @jax.jit
    def both(params):
        model = from_params(config, params)
        first, second = tokens[:, :LENGTH], tokens[:, LENGTH:]
        expected = model.hidden(first)
        found = model.run(model.embed(first))
        positions = document_positions(found.state.position, reset[:, LENGTH:])
        more = model.run(model.embed(second, positions), found.state, reset[:, LENGTH:])
        return (expected, model.hidden(second, expected.state, reset[:, LENGTH:])), (found, more)

    expected, found = both(params)
    assert difference(expected, found) == 0


def test_embeddings_that_do_not_fit_are_refused():
    config = tiny()
    model = from_params(config, random_params(config))
    for wrong in (jnp.zeros((2, 3)), jnp.zeros((2, 3, 9)), jnp.zeros((2, 3, 8), jnp.int32), [[0.0]]):
        with pytest.raises(ValueError, match=r"x must be floats \[B, L, 8\] with L >= 1, got"):
            model.run(wrong)
    with pytest.raises(ValueError, match="state has 3 rows, tokens have 2"):
        model.run(jnp.zeros((2, 3, 8)), model.init_state(3))
    leading = np.array([[False, True, True], [True, True, False]])
    with pytest.raises(ValueError, match=r"rows \[0\] have padding in front of tokens"):
        model.run(jnp.zeros((2, 3, 8)), valid=leading)
    stream = jax.jit(lambda valid: model.run(jnp.ones((2, 3, 8)), valid=valid).stream)(leading)
    assert np.isnan(stream[0]).all() and np.isfinite(stream[1]).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_without_a_state_a_stream_begins(name):
    model_fn = functional(CONFIGS[name])
    params, tokens = random_params(model_fn.config), np.arange(12, dtype=np.int32).reshape(BATCH, 6)

    @jax.jit
    def calls(params):
        model = from_params(CONFIGS[name], params)
        return model(tokens), model(tokens, model.init_state(BATCH))

    without, given = calls(params)
    assert difference(without, given) == 0


@pytest.mark.parametrize("memory", [KVMemoryConfig(memory_size=3), NoMemoryConfig()])
def test_a_memory_layer_without_a_state(memory):
    layer = make_memory_layer(memory, d_model=8, segment_length=4, rngs=nnx.Rngs(0))
    h = jax.random.normal(jax.random.key(0), (BATCH, 9, 8))
    without, given = jax.jit(lambda layer, h: (layer(h), layer(h, layer.init_state(BATCH))))(layer, h)
    assert difference(without, given) == 0
