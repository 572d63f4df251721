"""Explanations of reads by entries, and entries that are written directly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.memory import MEMORIES, Memory
from memgpt_jax.memory.base import OwnSegment
from memgpt_jax.memory.knn import KNNMemoryConfig
from memgpt_jax.models import MemoryLayer
from tests.laws.memories import SEGMENT, WIDTH, build, random_inputs, runner

BATCH, QUERIES = 2, 3
SMALL = {"memory_size": 7, "num_heads": 2, "head_dim": 4, "slot_width": 6, "num_read_heads": 2, "top_k": 4}
OPTIONS = {
    "kv": [
        {"num_heads": 4, "num_kv_heads": 2},
        {"gate": "scale", "recency_bias": True, "initial_entries": 2},
        {"qk_norm": False, "null_entry": False},
    ],
    "knn": [{}, {"memory_size": 0}],
    "ntm": [{}, {"order": "write_read"}, {"controller": "lstm", "controller_size": 5}],
    "dnc": [{}, {"order": "write_read"}, {"controller": "lstm", "controller_size": 5}],
    "memn2n": [{}, {"tying": "layerwise", "entry": "segment"}, {"num_ages": 0, "qk_norm": False}],
    "compressive": [{}, {"compression": "most_used", "ratio": 3}],
}


def overrides(name, method):
    return getattr(MEMORIES[name].module, method) is not getattr(Memory, method)


EXPLAINED = [name for name in MEMORIES if overrides(name, "explain")]
WRITTEN = [name for name in MEMORIES if overrides(name, "write_entries")]
CASES = [
    pytest.param(name, options, marks=[pytest.mark.slow] * (number > 0), id=f"{name}-{options}")
    for name in EXPLAINED
    for number, options in enumerate(OPTIONS.get(name, [{}]))
]


def small(name, **changes):
    config_class = MEMORIES[name].config
    fields = {field.name for field in dataclasses.fields(config_class)}
    return config_class(**{key: value for key, value in (SMALL | changes).items() if key in fields})


def test_which_mechanisms_have_entries():
    assert set(EXPLAINED) >= {"kv", "knn", "ntm", "dnc", "memn2n", "tokens", "compressive"}
    assert set(WRITTEN) >= {"kv", "knn"}


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_explained_read_is_the_read(name, options):
    """Weights are at most 1 together, 0 where there is no entry, and the weighted values are the read."""
    graph, params = build(small(name, **options))
    x, reset = random_inputs(0, BATCH, 3 * SEGMENT, breaks=0.1)
    queries = jnp.asarray(random_inputs(1, BATCH, QUERIES)[0])

    @jax.jit
    def both(params):
        _, (state, *_) = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
        memory = nnx.merge(graph, params)
        position = jnp.broadcast_to(jnp.arange(QUERIES, dtype=jnp.int32), (BATCH, QUERIES))
        nothing = OwnSegment(jnp.zeros((BATCH, SEGMENT, WIDTH)), jnp.full((BATCH, SEGMENT), -1, jnp.int32), position)
        read, _ = memory.read(queries, state, nothing, jnp.ones((BATCH, QUERIES), bool))
        explanation = memory.explain(queries, state)
        return read, explanation, explanation.read()

    read, explanation, explained = both(params)
    weights = np.asarray(explanation.weights)
    assert weights.shape[:2] == (BATCH, QUERIES) and weights.shape[3] == explanation.valid.shape[1]
    assert np.all(weights >= 0) and np.all(weights.sum(axis=3) < 1 + 1e-5)
    assert not np.any(np.moveaxis(weights, 3, 1)[~np.asarray(explanation.valid)])
    np.testing.assert_allclose(np.asarray(read)[..., -explained.shape[-1] :], explained, atol=2e-5)
    assert np.abs(explained).max() > 1e-3 or small(name, **options).memory_size == 0


@pytest.mark.parametrize("name", ["ntm", "dnc"])
def test_the_explained_writes_are_those_of_the_state(name):
    """The state holds where its last token wrote: `ntm` as positions of its write heads, `dnc` after one token as
    precedence."""
    memory = nnx.merge(*build(small(name)))
    x = jnp.asarray(random_inputs(0, BATCH, 3)[0])
    number = 1 if name == "dnc" else 3
    state, queries = memory.initial_state(BATCH), x[:, :number]
    writes = memory.explain(queries, state).writes[:, -1]
    position = jnp.broadcast_to(jnp.arange(number, dtype=jnp.int32), (BATCH, number))
    own = OwnSegment(jnp.zeros((BATCH, SEGMENT, WIDTH)), jnp.full((BATCH, SEGMENT), -1, jnp.int32), position)
    _, after = memory.read(queries, state, own, jnp.ones((BATCH, number), bool))
    slots = after.slots
    want = slots.precedence[:, None] if name == "dnc" else slots.weights[:, memory.config.num_read_heads :]
    np.testing.assert_allclose(writes, want, atol=1e-6)
    assert (np.asarray(writes).sum(axis=2) > 0.3).all()


@pytest.mark.parametrize("method", ["explain", "write_entries"])
def test_mechanisms_without_entries_name_those_that_have_them(method):
    entries = jnp.zeros((1, 2, 1, 4))
    for name in MEMORIES:
        if not overrides(name, method):
            memory = nnx.merge(*build(small(name)))
            given = (jnp.zeros((1, 2, WIDTH)),) if method == "explain" else (entries, entries)
            with pytest.raises(NotImplementedError, match=f"does not implement `{method}`; .* KNNMemory, .*KVMemory"):
                getattr(memory, method)(*given, memory.init_state(1))


def sharp(config):
    """A layer with so high a temperature that each head reads the one entry that fits best."""

    @nnx.jit
    def make():
        layer = MemoryLayer(config, d_model=WIDTH, segment_length=SEGMENT, rngs=nnx.Rngs(0))
        layer.memory.log_temperature[...] = jnp.full(config.num_heads, jnp.log(jnp.float32(500.0)))
        return layer

    return make()


@nnx.jit
def explained(layer, h, keys, values, valid=None, tokens=None):
    """The explanation of h, its read, and the state, after entries were written and, if given, tokens followed."""
    state = layer.write_entries(keys, values, layer.init_state(1), valid)
    if tokens is not None:
        _, state = layer(tokens, state)
    explanation = layer.explain(h, state)
    return explanation, explanation.read(), state


@nnx.jit
def keys_of(layer, h):
    return layer.memory.heads(layer.memory.query(layer.norm(h)))


@pytest.mark.parametrize("config", [KVMemoryConfig, KNNMemoryConfig])
def test_entries_that_are_written_directly_are_read(config):
    layer = sharp(config(memory_size=4, num_heads=2, head_dim=8))
    h = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, WIDTH)), jnp.float32)
    keys = keys_of(layer, h)
    values = jnp.asarray(np.random.default_rng(1).normal(size=keys.shape), jnp.float32)
    valid = jnp.array([[True, True, False, True, True, True]])
    explanation, read, state = explained(layer, h, keys, values, valid)
    assert np.all(np.asarray(explanation.valid))  # five entries into a memory of four: the first has left
    share = 1.0 if config is KVMemoryConfig else 0.5  # of the store's gate
    heaviest = np.asarray(explanation.weights).max(axis=3)[0]
    np.testing.assert_allclose(heaviest[[1, 3, 4, 5]], share, atol=1e-3)
    expected = share * np.asarray(values)[0, [1, 3, 4, 5]].reshape(4, -1)
    np.testing.assert_allclose(np.asarray(read)[0, [1, 3, 4, 5]], expected, atol=1e-2)
    away = np.linalg.norm(np.asarray(read)[0] - share * np.asarray(values)[0].reshape(6, -1), axis=1)
    assert np.all(away[[0, 2]] > 0.1)  # the one that has left, and the one that was not valid

    @jax.jit
    def call(h, state, reset):
        return layer(h, state, reset)[0]

    nothing = jnp.zeros((1, 6), bool)
    empty = layer.init_state(1)
    with_entries, without = call(h, state, nothing), call(h, empty, nothing)
    assert np.abs(with_entries - without).max() > 0.01
    begins = nothing.at[:, 0].set(True)
    np.testing.assert_allclose(call(h, state, begins), call(h, empty, begins), atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        KVMemoryConfig(memory_size=9, num_heads=1, head_dim=8),
        pytest.param(
            KVMemoryConfig(memory_size=9, num_heads=1, head_dim=8, select="highest_gate", select_size=3),
            marks=pytest.mark.slow,
        ),
        pytest.param(KNNMemoryConfig(memory_size=9, num_heads=1, head_dim=8), marks=pytest.mark.slow),
    ],
    ids=["kv", "kv, selected", "knn"],
)
def test_entries_written_into_a_segment_in_which_a_document_began(config):
    """One call reads what token by token reads. The other row's document began with its segment."""
    layer, cut, rng = sharp(config), SEGMENT - 1, np.random.default_rng(0)
    h = jnp.asarray(rng.normal(size=(2, 4 * SEGMENT, WIDTH)), jnp.float32)
    reset = jnp.zeros(h.shape[:2], bool).at[0, cut - 1].set(True).at[1, 0].set(True)
    keys, values = jnp.asarray(rng.normal(size=(2, 2, 5, 1, 8)), jnp.float32)
    call = nnx.jit(lambda layer, h, state, reset: layer(h, state, reset))
    _, state = call(layer, h[:, :cut], layer.init_state(2), reset[:, :cut])
    state = layer.write_entries(keys, values, state)
    whole, _ = call(layer, h[:, cut:], state, reset[:, cut:])
    for place in range(cut, h.shape[1]):
        one, state = call(layer, h[:, place : place + 1], state, reset[:, place : place + 1])
        np.testing.assert_allclose(whole[:, place - cut], one[:, 0], atol=1e-5)


@pytest.mark.parametrize("config", [KVMemoryConfig, KNNMemoryConfig])
def test_the_tokens_that_follow_evict_written_entries_in_order(config):
    layer = sharp(config(memory_size=SEGMENT + 1, num_heads=1, head_dim=8))
    h = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, WIDTH)), jnp.float32)
    keys = keys_of(layer, h)
    explanation, _, _ = explained(layer, h, keys, keys, tokens=jnp.ones((1, SEGMENT, WIDTH)))
    weights = np.asarray(explanation.weights)[0, :, 0]
    share = 1.0 if config is KVMemoryConfig else 0.5
    assert weights[1].max() > 0.99 * share  # the newer of the two is there
    assert not np.isclose(np.asarray(explanation.values), np.asarray(keys)[:, :1]).all(axis=-1).any()
