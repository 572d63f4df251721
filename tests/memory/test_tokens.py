"""Recurrent state vectors: a token-by-token reference, the form with a short scan, and gates at their ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.memory import make_memory
from memgpt_jax.memory.base import whole_segment
from memgpt_jax.memory.tokens import TokensMemory, TokensMemoryConfig
from tests.laws.coverings import rows_of
from tests.laws.memories import SEGMENT, WIDTH, build, difference, random_inputs, reference_run, runner, sequence_forms
from tests.references.tokens import ReferenceTokens

OPTIONS = {
    "update": ["lstm", "fixed", "replace"],
    "writer_conv": [3, 1, 4],
    "qk_norm": [True, False],
    "memory_size": [5, 1, 0],
}
# Rows that run by default: each value with a memory that holds something.
MAIN = [
    {"update": "lstm", "writer_conv": 3, "qk_norm": True, "memory_size": 5},
    {"update": "fixed", "writer_conv": 1, "qk_norm": False, "memory_size": 5},
    {"update": "replace", "writer_conv": 4, "qk_norm": True, "memory_size": 1},
]
BATCH, LENGTH = 3, 5 * SEGMENT + 2


def config_of(row):
    return TokensMemoryConfig(**{"num_heads": 2, "head_dim": 4, "temperature": 3.0} | row)


def make(**options):
    config = config_of({"memory_size": 5} | options)
    return make_memory(config, d_model=WIDTH, segment_length=SEGMENT, dtype="float32", rngs=nnx.Rngs(0))


@pytest.mark.parametrize("row", rows_of(OPTIONS, *MAIN))
def test_stream_equals_token_by_token_reference(row):
    config = config_of(row)
    graph, params = build(config)
    run = runner(graph)
    for seed, breaks in ((0, 0.0), (1, 0.1), (2, 0.5)):
        x, reset = random_inputs(seed, BATCH, LENGTH, breaks)
        reads, state = run(params, x, reset, np.ones(reset.shape, bool), None)
        expected, memories = reference_run(x, reset, ReferenceTokens, config, params, SEGMENT)
        np.testing.assert_allclose(reads, expected, atol=5e-5)
        for b, memory in enumerate(memories):
            np.testing.assert_allclose(state.memory.states[b].reshape(-1), np.reshape(memory.states, -1), atol=5e-5)
            np.testing.assert_allclose(state.memory.conv_cache[b].reshape(-1), memory.conv_cache.reshape(-1), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["states do not see each other", "ids", "live"])
def test_the_reference_notices_faults(fault, monkeypatch):
    """A wrong memory does not pass the comparison above."""
    rewrite = TokensMemory._rewrite

    def wrong(self, states, keys, values, live):
        if fault == "ids":
            states = states[:, ::-1]
        if fault == "live":
            live = live | True
        if fault == "states do not see each other":
            alone = [rewrite(self, states[:, [i]] + 0 * states, keys, values, live)[:, i] for i in range(5)]
            return jnp.stack(alone, axis=1)
        return rewrite(self, states, keys, values, live)

    monkeypatch.setattr(TokensMemory, "_rewrite", wrong)
    config = config_of({"memory_size": 5})
    graph, params = build(config)
    x, reset = random_inputs(1, BATCH, LENGTH)
    reads, _ = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
    assert difference(reads, reference_run(x, reset, ReferenceTokens, config, params, SEGMENT)[0]) > 1e-3


FORMS = {"update": ["lstm", "replace"], "writer_conv": [3, 1], "bptt_segments": [None, 0, 1]}


@pytest.mark.parametrize("row", rows_of(FORMS))
def test_sequence_equals_scan(row):
    """In value, in state, and in the gradients of both; also where the gradient through time is cut."""
    graph, params = build(config_of(row | {"memory_size": 3}))
    x, reset = random_inputs(0, 2, 4 * SEGMENT, breaks=0.1)
    x, reset = x.reshape(2, 4, SEGMENT, WIDTH), reset.reshape(2, 4, SEGMENT)
    short, scan, _ = sequence_forms(graph)

    @jax.jit
    def both(params, x):
        def loss(form, params, x):
            read, state = form(params, x, reset)
            return jnp.sum(jnp.sin(read)) + jnp.sum(jnp.cos(state.states)), (read, state)

        return [jax.value_and_grad(loss, (1, 2), has_aux=True)(form, params, x) for form in (short, scan)]

    one, other = both(params, x)
    assert difference(one, other) < 5e-5
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(one))


@nnx.jit
def one_segment(memory, segment, state):
    return memory.segment(segment, state)


def segment_of(seed=0):
    return whole_segment(jnp.asarray(random_inputs(seed, 2, SEGMENT)[0]))


@pytest.mark.parametrize("update", ["lstm", "fixed"])
def test_a_closed_gate_keeps_the_state_bitwise(update):
    memory = make(update=update)
    if update == "fixed":
        memory.update_gate[...] = jnp.full(WIDTH, 200.0)  # g = 1
    else:
        memory.update_gate.kernel[...] = jnp.zeros_like(memory.update_gate.kernel[...])
        memory.update_gate.bias[...] = jnp.concatenate([jnp.full(WIDTH, -200.0), jnp.full(WIDTH, 200.0)])  # i 0, f 1
    state = memory.initial_state(2)
    _, after = one_segment(memory, segment_of(), state)
    assert np.array_equal(state.states, after.states)


@pytest.mark.parametrize("update", ["lstm", "fixed"])
def test_keep_bias_is_what_stays_at_the_start(update):
    """Where nothing new is found, sigmoid(keep_bias) of the state is left."""
    memory = make(update=update, keep_bias=2.0)
    for linear in (memory.update, *([memory.update_gate] if update == "lstm" else [])):
        linear.kernel[...] = jnp.zeros_like(linear.kernel[...])
    state = memory.initial_state(2)
    _, after = one_segment(memory, segment_of(), state)
    np.testing.assert_allclose(after.states, state.states / (1 + np.exp(-2.0)), rtol=1e-5)


def test_an_open_gate_replaces_the_state():
    """g = 0 is what `replace` does, with the same parameters."""
    fixed, replace = make(update="fixed"), make(update="replace")
    fixed.update_gate[...] = jnp.full(WIDTH, -200.0)
    afters = [one_segment(memory, segment_of(), memory.initial_state(2))[1] for memory in (fixed, replace)]
    assert difference(*afters) == 0
    assert difference(afters[0].states, replace.initial_state(2).states) > 0.1


def test_a_state_copies_the_token_that_its_query_matches():
    """At a high temperature, a state whose query is a token's key gets that token's value, and no other's."""
    memory = make(update="replace", temperature=1e4)
    rng = np.random.default_rng(0)
    keys, values = (jnp.asarray(rng.normal(size=(1, SEGMENT, 2, 4)), jnp.float32) for _ in range(2))
    states = memory.initial_state(1).states
    ids_query = memory._unit(memory.state_query(memory._normed(states) + memory.state_ids[...][None]))
    keys = memory._unit(keys.reshape(1, SEGMENT, 8)).at[0, 2].set(ids_query[0, 3])
    after = memory._rewrite(states, keys, values, jnp.ones((1, SEGMENT), bool))
    expected = memory.update(values[:, 2].reshape(1, 1, 8))[0, 0]
    np.testing.assert_allclose(after[0, 3], expected, atol=1e-3)
    hidden = memory._rewrite(states, keys, values, jnp.ones((1, SEGMENT), bool).at[0, 2].set(False))
    assert difference(hidden[0, 3], expected) > 0.1


def test_stats_see_states_that_collapse():
    memory = make()
    state = memory.initial_state(2)
    same = state._replace(states=jnp.broadcast_to(state.states[:, :1], state.states.shape))
    orthogonal = state._replace(states=3 * jnp.broadcast_to(jnp.eye(5, WIDTH)[None], state.states.shape))
    assert float(memory.stats(same)["similarity"]) == pytest.approx(1, abs=1e-4)
    assert float(memory.stats(orthogonal)["similarity"]) == pytest.approx(0, abs=1e-4)
    assert float(memory.stats(orthogonal)["state_rms"]) == pytest.approx(3 / WIDTH**0.5, rel=1e-5)
    assert float(memory.stats(state)["bytes"]) == 4 * 5 * WIDTH + 2 * WIDTH * 4  # as the state's docstring has it


@pytest.mark.parametrize(
    ("field", "value", "valid"),
    [
        ("num_heads", 0, "at least 1"),
        ("head_dim", 0, "at least 1"),
        ("writer_conv", 0, "between 1 and 4"),
        ("temperature", -1.0, "positive"),
        ("update", "gru", "lstm"),
    ],
)
def test_illegal_values(field, value, valid):
    with pytest.raises(ValueError, match=rf"{field}.*{valid}"):
        TokensMemoryConfig(**{field: value})
