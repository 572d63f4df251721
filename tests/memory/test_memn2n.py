"""The end-to-end memory network: a token-by-token reference, its parallel form, and what hops can do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.memory import make_memory, memn2n
from memgpt_jax.memory.base import whole_segment
from memgpt_jax.memory.memn2n import MemN2NMemoryConfig
from memgpt_jax.ops.memory import Hops, multi_hop_read, position_encoding
from tests.laws.coverings import rows_of
from tests.laws.memories import (
    SEGMENT,
    WIDTH,
    build,
    by_segment_distance,
    difference,
    influence,
    random_inputs,
    reference_run,
    runner,
    sequence_forms,
)
from tests.references.memn2n import ReferenceMemN2N
from tests.references.ops import softmax

OPTIONS = {
    "entry": ["token", "segment"],
    "num_hops": [1, 2, 3],
    "tying": ["adjacent", "layerwise"],
    "num_ages": [2, 0, 16],
    "null_entry": [True, False],
    "writer_conv": [3, 1, 4],
    "qk_norm": [True, False],
    "memory_size": [7, 16, 3, 0],  # not dividing, dividing, smaller than a segment, nothing
}
# Rows that run by default: each value with a memory that holds something.
MAIN = [
    {
        "entry": "token",
        "num_hops": 2,
        "tying": "adjacent",
        "num_ages": 2,
        "null_entry": True,
        "writer_conv": 3,
        "qk_norm": True,
        "memory_size": 7,
    },
    {
        "entry": "segment",
        "num_hops": 3,
        "tying": "layerwise",
        "num_ages": 16,
        "null_entry": False,
        "writer_conv": 1,
        "qk_norm": False,
        "memory_size": 16,
    },
    {
        "entry": "token",
        "num_hops": 1,
        "tying": "adjacent",
        "num_ages": 0,
        "null_entry": True,
        "writer_conv": 4,
        "qk_norm": True,
        "memory_size": 3,
    },
]
BATCH, LENGTH = 3, 6 * SEGMENT + 2


def config_of(row):
    return MemN2NMemoryConfig(**row, num_heads=2, head_dim=4, temperature=3.0)


@pytest.mark.parametrize("row", rows_of(OPTIONS, *MAIN))
def test_stream_equals_token_by_token_reference(row):
    config = config_of(row)
    graph, params = build(config)
    run = runner(graph)
    for seed, breaks in ((0, 0.0), (1, 0.1), (2, 0.5)):
        x, reset = random_inputs(seed, BATCH, LENGTH, breaks)
        reads, state = run(params, x, reset, np.ones(reset.shape, bool), None)
        expected, memories = reference_run(x, reset, ReferenceMemN2N, config, params, SEGMENT)
        np.testing.assert_allclose(reads, expected, atol=5e-5)
        stored = jax.device_get(state.memory)
        for b, memory in enumerate(memories):
            there = stored.age[b] > 0
            assert list(stored.age[b, there]) == [sentence.age for sentence in memory.memory]
            assert not stored.keys[b, ~there].any() and not stored.values[b, ~there].any()
            for name in ("key", "value"):
                got, want = getattr(stored, f"{name}s")[b, there], [getattr(s, name) for s in memory.memory]
                np.testing.assert_allclose(got.reshape(-1), np.reshape(want, -1), atol=2e-5, err_msg=name)
            np.testing.assert_allclose(stored.conv_cache[b].reshape(-1), memory.conv_cache.reshape(-1), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["one hop less", "age", "order of words", "question not updated"])
def test_the_reference_notices_faults(fault, monkeypatch):
    """A wrong memory does not pass the comparison above."""
    config = config_of({"entry": "segment", "num_ages": 2, "memory_size": 7})
    read = memn2n.multi_hop_read

    def wrong(query, keys, values, age, visible, hops):
        if fault == "one hop less":
            hops = jax.tree.map(lambda x: x, hops)._replace(inputs=hops.inputs[1:], outputs=hops.outputs[1:])
            hops = hops._replace(input_ages=hops.input_ages[1:], output_ages=hops.output_ages[1:])
        if fault == "age":
            age = age + 1
        if fault == "question not updated":
            return read(query, keys, values, age, visible, hops._replace(outputs=hops.outputs.at[:-1].set(0)))
        return read(query, keys, values, age, visible, hops)

    monkeypatch.setattr(memn2n, "multi_hop_read", wrong)
    if fault == "order of words":
        monkeypatch.setattr(memn2n, "position_encoding", lambda *shape: position_encoding(*shape)[::-1])
    graph, params = build(config)
    x, reset = random_inputs(0, BATCH, LENGTH)
    reads, _ = runner(graph)(params, x, reset, np.ones(reset.shape, bool), None)
    assert difference(reads, reference_run(x, reset, ReferenceMemN2N, config, params, SEGMENT)[0]) > 1e-3


FORMS = {key: OPTIONS[key][:2] for key in ("entry", "memory_size", "writer_conv", "num_ages")}  # what could differ
MAIN_FORMS = [
    {"entry": "token", "memory_size": 7, "writer_conv": 3, "num_ages": 2},
    {"entry": "segment", "memory_size": 16, "writer_conv": 1, "num_ages": 0},
]


@pytest.mark.parametrize("row", rows_of(FORMS, *MAIN_FORMS))
def test_parallel_equals_scan(row):
    """In value, in state, and in the gradients of both."""
    graph, params = build(config_of(row | {"num_hops": 2}))
    x, reset = random_inputs(0, 2, 5 * SEGMENT, breaks=0.1)
    x, reset = x.reshape(2, 5, SEGMENT, WIDTH), reset.reshape(2, 5, SEGMENT)
    parallel, scan, _ = sequence_forms(graph)

    @jax.jit
    def both(params, x):
        def loss(form, params, x):
            read, state = form(params, x, reset)
            return jnp.sum(jnp.sin(read)) + jnp.sum(jnp.cos(state.values) + jnp.sin(state.keys)), (read, state)

        return [jax.value_and_grad(loss, (1, 2), has_aux=True)(form, params, x) for form in (parallel, scan)]

    one, other = both(params, x)
    assert difference(one, other) < 5e-5
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(one))


@pytest.mark.slow
@pytest.mark.parametrize("entry", [pytest.param("token", marks=pytest.mark.slow), "segment"])
def test_gradients_stop_with_bptt_segments(entry):
    """A token gets its gradient from that many segments, in the parallel form and in a loop over `segment`."""
    config = config_of({"entry": entry, "memory_size": 16, "bptt_segments": 1})
    graph, params = build(config)
    x, reset = random_inputs(9, 1, 3 * SEGMENT, breaks=0.0)
    parallel, _, loop = sequence_forms(graph)

    def cut(x):
        return x.reshape(1, 3, SEGMENT, *x.shape[2:])

    def run(form):
        return lambda x: form(params, cut(x), cut(jnp.asarray(reset)))[0].reshape(x.shape)

    flows = [influence(run(form), x) for form in (parallel, loop)]
    assert by_segment_distance(flows[0])[1] > 1e-4 and by_segment_distance(flows[0])[2] == 0
    assert np.abs(flows[0] - flows[1]).max() < 1e-5


def test_one_hop_of_tied_maps_is_plain_attention():
    """With A and C the identity and no ages: u + softmax(u z / sqrt K) y."""
    rng = np.random.default_rng(0)
    query, keys, values = (rng.normal(size=(1, n, 1, 4)).astype(np.float32) for n in (3, 5, 5))
    eye = jnp.eye(4)[None, None]
    none = jnp.zeros((1, 0, 1, 4))
    hops = Hops(eye / 2, eye, none, none, None, None, None)
    age, visible = jnp.ones((1, 5), jnp.int32), np.ones((1, 3, 5), bool)
    visible[0, :, 4] = False
    read = jax.jit(multi_hop_read)(query, keys, values, age, visible, hops)
    read = np.asarray(read)
    for q in range(3):
        weights = softmax(keys[0, :4, 0] @ query[0, q, 0] / 2)
        np.testing.assert_allclose(read[0, q, 0], query[0, q, 0] + weights @ values[0, :4, 0], atol=1e-6)


def hand_set(num_hops, **options):
    """A memory over one-hot tokens whose every map is the identity, and whose hops replace the question (U = 0)."""
    config = MemN2NMemoryConfig(
        memory_size=8, head_dim=8, num_hops=num_hops, tying="layerwise", temperature=40.0, num_ages=0, **options
    )

    @nnx.jit
    def make():
        memory = make_memory(config, d_model=8, segment_length=4, dtype="float32", rngs=nnx.Rngs(0))
        for linear in (memory.query, memory.entry):
            linear.kernel[...] = jnp.eye(8)
        memory.maps[...] = jnp.tile(jnp.eye(8), (2, 1, 1, 1))
        memory.update[...] = jnp.zeros((1, 8, 8))
        return memory

    return make()


@nnx.jit
def last_read(memory, tokens):
    """What the last of a few segments reads."""
    state = memory.initial_state(1)
    for segment in tokens:
        read, state = memory.segment(whole_segment(segment), state)
    return read


@pytest.mark.parametrize("num_hops", [1, 2, 3])
def test_hops_chain_facts(num_hops):
    """3 follows 1 and 5 follows 3 and 6 follows 5, in other segments: a hop finds the first, two the second, ..."""
    memory = hand_set(num_hops)
    tokens = np.eye(8, dtype=np.float32)[[[[3, 5, 6, 0]], [[7, 7, 1, 3]], [[1, 0, 0, 0]]]]
    tokens[2, :, 1:] = 0  # a question, and nothing

    read = last_read(memory, jnp.asarray(tokens))
    np.testing.assert_allclose(read[0, 0], np.eye(8)[{1: 3, 2: 5, 3: 6}[num_hops]], atol=1e-3)


def test_a_hop_that_finds_nothing_leaves_the_question():
    """The null entry takes the weight where no entry resembles the question; without it, some entry must."""
    facts = np.eye(8, dtype=np.float32)[[[3, 5, 6, 2]]]
    question = np.zeros((1, 4, 8), np.float32)
    question[0, 0, 7] = 1.0
    for null_entry in (True, False):
        memory = hand_set(1, null_entry=null_entry)
        memory.update[...] = jnp.asarray(np.eye(8)[None], jnp.float32)
        if null_entry:
            memory.null_key[...] = jnp.asarray(0.5 * np.eye(8)[7:], jnp.float32)
        read = last_read(memory, jnp.asarray([facts, question]))
        assert (difference(read[0, 0], np.eye(8)[7]) < 1e-3) == null_entry


def test_ages_tell_equal_entries_apart():
    """T_A finds the older of two entries that are otherwise the same, T_C says how old it is."""
    keys = jnp.ones((1, 2, 1, 3))
    age = jnp.array([[9, 1]], jnp.int32)
    identity, zero = jnp.eye(3)[None, None], jnp.zeros((1, 1, 3, 3))
    output_ages = jnp.zeros((1, 3, 1, 3)).at[0, :, 0, 0].set(jnp.array([1.0, 2.0, 3.0]))
    wants_old = jnp.zeros((1, 3, 1, 3)).at[0, 2].set(50.0)
    visible = jnp.ones((1, 1, 2), bool)

    @jax.jit
    def ask(ages):
        return multi_hop_read(
            jnp.ones((1, 1, 1, 3)),
            keys,
            keys,
            age,
            visible,
            Hops(identity, zero, ages, output_ages, zero[0], None, None),
        )

    np.testing.assert_allclose(ask(wants_old)[0, 0, 0], [3, 0, 0], atol=1e-5)  # the last row, for all of 3 and more
    np.testing.assert_allclose(ask(0 * wants_old)[0, 0, 0], [2, 0, 0], atol=1e-5)  # the mean of ages 1 and 3


def test_position_encoding_knows_the_order_of_words():
    """Its rows sum to about J / 2 in every channel; early channels favour early words, late ones late words."""
    weights = position_encoding(5, 8)
    assert weights.shape == (5, 8) and weights.dtype == np.float32
    np.testing.assert_allclose(weights[0, 0], (1 - 1 / 5) - (1 / 8) * (1 - 2 / 5), rtol=1e-6)
    np.testing.assert_allclose(weights[4, 7], 1.0, rtol=1e-6)
    assert np.all(np.diff(weights[:, 0]) < 0) and np.all(np.diff(weights[:, 7]) > 0)


def test_entries_are_sentences():
    """One entry a segment; the same words in another order are another entry, unless there is no order to know."""
    config = MemN2NMemoryConfig(memory_size=4, head_dim=8, entry="segment", writer_conv=1)
    memory = make_memory(config, d_model=8, segment_length=4, dtype="float32", rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 8)), jnp.float32)
    written = nnx.jit(lambda memory, words: memory.segment(whole_segment(words), memory.initial_state(1))[1])
    states = [written(memory, words) for words in (x, x[:, ::-1])]
    assert all(list(state.age[0]) == [0, 0, 0, 1] for state in states)
    assert difference(states[0].values, states[1].values) > 0.1


@pytest.mark.parametrize(
    ("field", "value", "valid"),
    [
        ("num_hops", 0, "at least 1"),
        ("num_ages", -1, "at least 0"),
        ("writer_conv", 5, "between 1 and 4"),
        ("temperature", 0.0, "positive"),
        ("tying", "paper", "adjacent"),
        ("entry", "word", "token"),
    ],
)
def test_illegal_values(field, value, valid):
    with pytest.raises(ValueError, match=rf"{field}.*{valid}"):
        MemN2NMemoryConfig(**{field: value})


def test_hops_take_no_state():
    """What the docstring says of the state's size."""
    for num_hops in (1, 3):
        config = config_of({"num_hops": num_hops, "memory_size": 7, "writer_conv": 3})
        memory = make_memory(config, d_model=WIDTH, segment_length=SEGMENT, dtype="float32", rngs=nnx.Rngs(0))
        assert sum(leaf.nbytes for leaf in memory.init_state(1)) == 7 * (2 * 2 * 4 * 4 + 4) + 2 * 2 * 4 * 4
    assert {field.name for field in dataclasses.fields(MemN2NMemoryConfig)} >= set(OPTIONS)
