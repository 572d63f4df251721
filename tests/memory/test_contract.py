"""What every mechanism of `MEMORIES` promises. A new entry of the registry is tested without an edit here."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.memory import MEMORIES, Memory, make_memory, memory_bytes_per_row
from memgpt_jax.memory.none import NoMemory
from memgpt_jax.memory.streaming import stream
from tests.laws.memories import (
    SEGMENT,
    WIDTH,
    build,
    by_segment_distance,
    difference,
    influence,
    leaks,
    random_inputs,
    relative_difference,
    runner,
    sequence_forms,
    state_after,
)

SMALL = {"memory_size": 7, "num_heads": 2, "head_dim": 4, "initial_entries": 2}
BATCH, LENGTH = 2, 4 * SEGMENT


def small(name, **changes):
    """The mechanism's default config, but small."""
    config_class = MEMORIES[name].config
    fields = {field.name for field in dataclasses.fields(config_class)}
    return config_class(**{key: value for key, value in (SMALL | changes).items() if key in fields})


def remembers(name):
    return not issubclass(MEMORIES[name].module, NoMemory)


every_memory = pytest.mark.parametrize("name", MEMORIES)
some_memories = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("kv", "associative", "ntm") else pytest.mark.slow) for name in MEMORIES],
)
every_real_memory = pytest.mark.parametrize("name", [name for name in MEMORIES if remembers(name)])


@functools.cache
def built_graph(name, dtype="float32"):
    return build(small(name), dtype)


@pytest.fixture(scope="module")
def built():
    """name -> (params, run), made once. A state None is the fresh one, so that it needs no program of its own."""

    @functools.cache
    def get(name):
        graph, params = built_graph(name)
        compiled, fresh = runner(graph), state_after(merged(name), BATCH)
        return params, lambda *call: compiled(*call[:-1], fresh if call[-1] is None else call[-1])

    return get


def merged(name):
    return nnx.merge(*built_graph(name))


@pytest.fixture(scope="module")
def by_form():
    """(name, form) -> ((loss, (reads, state)), gradients of the parameters and of x), made once.

    0 is the memory's own `sequence`, 1 the scan over segments, 2 a Python loop.
    """

    @functools.cache
    def get(name, number):
        graph, params = built_graph(name)
        form = sequence_forms(graph)[number]
        x, reset = random_inputs(5, BATCH, 3 * SEGMENT)
        x, reset = x.reshape(BATCH, 3, SEGMENT, WIDTH), reset.reshape(BATCH, 3, SEGMENT)

        def loss(params, x):
            read, state = form(params, x, reset)
            return jnp.sum(jnp.sin(read)), (read, state)

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)

    return get


@every_memory
@pytest.mark.parametrize(
    ("dtype", "length"),
    [("bfloat16", 1)]  # the other tests run calls of LENGTH in float32
    + [
        pytest.param(*row, marks=pytest.mark.slow)
        for row in [("float32", 1), ("float32", 3), ("float32", LENGTH), ("bfloat16", 3), ("bfloat16", LENGTH)]
    ],
)
def test_shapes_and_types_stay(name, dtype, length):
    graph, params = built_graph(name, dtype)
    memory = nnx.merge(graph, params)
    x, flags = jnp.zeros((BATCH, length, WIDTH), dtype), jnp.zeros((BATCH, length), bool)
    before = jax.eval_shape(lambda: state_after(memory, BATCH, dtype))
    read, after = jax.eval_shape(lambda state: stream(memory, x, state, flags, ~flags), before)
    read = jax.eval_shape(memory.project_out, read)
    assert (read.shape, read.dtype) == (x.shape, x.dtype)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert jax.tree.leaves(before) == jax.tree.leaves(after)
    assert all(leaf.shape[0] == BATCH for leaf in jax.tree.leaves(after))


@every_memory
def test_the_parameters_are_float32_whatever_the_compute_type(name):
    _, params = built_graph(name, "bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} <= {jnp.dtype("float32")}


@every_memory
def test_a_new_state_holds_no_parameters(name):
    def make(seed):
        return make_memory(
            small(name), d_model=WIDTH, segment_length=SEGMENT, dtype="float32", rngs=nnx.Rngs(seed)
        ).init_state(BATCH)

    assert difference(make(0), make(1)) == 0
    rows = jax.tree.leaves(make(0))
    assert len(set(map(id, rows))) == len(rows), "a state that holds an array twice cannot be donated"
    assert all(not np.any(np.asarray(leaf)) for leaf in rows)


@some_memories
def test_bfloat16_reads_are_close_to_float32(name, built):
    params, run = built(name)
    x, reset = random_inputs(0, BATCH, LENGTH)
    exact, _ = run(params, x, reset, np.ones(reset.shape, bool), None)
    graph, _ = built_graph(name, "bfloat16")
    half, state = runner(graph, dtype="bfloat16")(
        params, jnp.asarray(x, jnp.bfloat16), reset, np.ones(reset.shape, bool), None
    )
    assert difference(exact, half) < 0.1 * max(1.0, np.abs(exact).max())
    assert all(leaf.dtype != jnp.float16 for leaf in jax.tree.leaves(state))


@some_memories  # the next test looks for leaks of the others, and their own tests for what they remember
def test_nothing_leaks_by_gradient(name, built):
    params, run = built(name)
    x, _ = random_inputs(0, BATCH, LENGTH)
    reset = np.zeros((BATCH, LENGTH), bool)
    reset[0, [6, 8]] = reset[1, 13] = True  # inside a segment, at a boundary, late
    flow = influence(lambda x: run(params, x, reset, jnp.ones(reset.shape, bool), None)[0], x)
    assert leaks(flow, reset) == {"causality": 0.0, "rows": 0.0, "documents": 0.0}
    if remembers(name):
        distance = by_segment_distance(flow)
        assert np.all(distance[1:3] > 1e-4), "a token must depend on earlier segments"
        assert np.all(np.isfinite(flow))
    else:
        assert not flow.any()


@every_memory
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), row=st.integers(0, BATCH - 1), place=st.integers(0, LENGTH - 1))
def test_nothing_leaks_by_perturbation(name, built, seed, row, place):
    params, run = built(name)
    x, reset = random_inputs(seed, BATCH, LENGTH)
    valid = np.ones(reset.shape, bool)
    before, _ = run(params, x, reset, valid, None)
    x[row, place] += 10
    after, _ = run(params, x, reset, valid, None)
    document = np.cumsum(reset[row])
    allowed = np.zeros(reset.shape, bool)
    allowed[row] = (np.arange(LENGTH) >= place) & (document == document[place])
    assert np.array_equal(np.asarray(before)[~allowed], np.asarray(after)[~allowed])


@every_memory
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.sampled_from([1, 1, 6]), min_size=3, max_size=9))
def test_streaming_equals_whole(name, built, seed, cuts):
    params, run = built(name)
    x, reset = random_inputs(seed, BATCH, LENGTH)
    valid = np.ones(reset.shape, bool)
    whole, whole_state = run(params, x, reset, valid, None)
    state, reads, start = None, [], 0
    for size in [*cuts, *[1] * LENGTH]:
        part = slice(start, start + size)
        if part.stop <= LENGTH:
            read, state = run(params, x[:, part], reset[:, part], valid[:, part], state)
            reads.append(read)
            start = part.stop
    assert start == LENGTH
    assert difference(whole, np.concatenate(reads, axis=1)) < 1e-5
    assert difference(whole_state, state) < 1e-5


@every_memory
@given(seed=st.integers(0, 2**32 - 1), lengths=st.lists(st.integers(0, 6), min_size=2, max_size=2))
def test_rows_of_different_lengths(name, built, seed, lengths):
    """Rows that stand at different places of their segments do what each would do alone."""
    params, run = built(name)
    x, reset = random_inputs(seed, BATCH, LENGTH)
    valid = np.ones(reset.shape, bool)
    whole, _ = run(params, x, reset, valid, None)
    some = np.arange(6)[None] < np.array(lengths)[:, None]
    first, state = run(params, x[:, :6], reset[:, :6], some, None)

    def rest(a):
        return np.stack([np.roll(row, -n, axis=0) for row, n in zip(a, lengths, strict=True)])

    second, _ = run(params, rest(x), rest(reset), np.arange(LENGTH)[None] < LENGTH - np.array(lengths)[:, None], state)
    for b, n in enumerate(lengths):
        got = np.concatenate([np.asarray(first)[b, :n], np.asarray(second)[b, : LENGTH - n]])
        assert difference(np.asarray(whole)[b], got) < 1e-5


@some_memories
def test_tokens_inside_a_segment(name, built):
    """`mid_segment` gives what any alignment gives, for any number of tokens of each row; NaN if one more fills it."""
    (params, run), graph = built(name), built_graph(name)[0]
    inside = jax.jit(lambda params, *call: stream(nnx.merge(graph, params), *call, alignment="mid_segment"))
    x, reset = random_inputs(2, BATCH, 12, breaks=0.0)
    before = np.arange(6)[None] < 1 + np.arange(BATCH)[:, None] % 2  # one or two tokens
    more = np.arange(6)[None] < SEGMENT - 2 - np.arange(BATCH)[:, None] % 2  # all but the last of the segment
    _, state = run(params, x[:, :6], reset[:, :6], before, None)
    expected, after = run(params, x[:, 6:], reset[:, 6:], more, state)
    read, found = inside(params, x[:, 6:], state, reset[:, 6:], more)
    assert difference(expected, merged(name).project_out(read)) < 1e-5 and difference(after, found) < 1e-5
    more[1] = np.arange(6) < SEGMENT - before[1].sum()
    assert np.isnan(np.asarray(inside(params, x[:, 6:], state, reset[:, 6:], more)[1].pending)).any()


@every_memory
def test_a_token_that_is_not_valid_moves_nothing(name, built):
    params, run = built(name)
    x, reset = random_inputs(3, BATCH, 6, breaks=0.5)
    none = np.zeros(reset.shape, bool)
    fresh = state_after(merged(name), BATCH)
    _, used = run(params, x, reset, ~none, fresh)
    for state in (fresh, used):
        for length in (1, 6):
            part = slice(0, length)
            read, after = run(params, x[:, part], reset[:, part], none[:, part], state)
            assert difference(state, after) == 0
            assert not np.any(np.asarray(read))


@every_memory
@pytest.mark.parametrize("begin", [SEGMENT, 2 * SEGMENT])
def test_reset_at_a_boundary_equals_a_fresh_state(name, built, begin):
    params, run = built(name)
    x, reset = random_inputs(4, BATCH, LENGTH, breaks=0.0)
    reset[:, begin] = True
    valid = np.ones(reset.shape, bool)
    whole, state = run(params, x, reset, valid, None)
    rest = np.arange(LENGTH)[None] < np.full((BATCH, 1), LENGTH - begin)  # the same length of a call: one program
    alone, fresh = run(params, np.roll(x, -begin, axis=1), np.zeros_like(reset), rest, None)
    rounding = 1e-6 * max(1, np.abs(alone).max())
    assert difference(whole[:, begin:], alone[:, :-begin]) < rounding
    assert difference(state, fresh) < 1e-6


@pytest.mark.parametrize(
    "name",  # the tests of the others compare their own `sequence` with the scan; dnc has that of ntm
    [pytest.param(name, marks=() if name == "compressive" else pytest.mark.slow) for name in MEMORIES],
)
def test_sequence_equals_a_loop_over_segments_in_value_and_gradient(name, by_form):
    assert relative_difference(by_form(name, 2), by_form(name, 0)) < 2e-5


@pytest.mark.slow  # a memory with a `sequence` of its own has a test that compares it with the scan
@pytest.mark.parametrize("name", [name for name in MEMORIES if MEMORIES[name].module.sequence is not Memory.sequence])
def test_the_scan_over_segments_equals_a_loop_in_value_and_gradient(name, by_form):
    assert relative_difference(by_form(name, 2), by_form(name, 1)) < 2e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kv", "ntm"])  # one of each recurrence: by segments and by tokens
def test_jit_equals_no_jit(name, built):
    params, run = built(name)
    x, reset = random_inputs(6, BATCH, 6)
    valid = np.ones(reset.shape, bool)
    memory = merged(name)
    read, state = stream(memory, jnp.asarray(x), state_after(memory, BATCH), jnp.asarray(reset), jnp.asarray(valid))
    assert difference(run(params, x, reset, valid, None), (memory.project_out(read), state)) < 1e-5


@every_real_memory
def test_gradients_reach_every_parameter(name, by_form):
    _, (gradients, _) = by_form(name, 0)
    for path, gradient in jax.tree.leaves_with_path(gradients):
        assert np.all(np.isfinite(gradient)) and np.any(np.abs(gradient) > 1e-7), jax.tree_util.keystr(path)


@every_memory
def test_stats_are_finite_numbers(name, built):
    params, run = built(name)
    x, reset = random_inputs(8, BATCH, LENGTH)
    memory = merged(name)
    for state in (state_after(memory, BATCH), run(params, x, reset, np.ones(reset.shape, bool), None)[1]):
        stats = jax.jit(memory.stats)(state.memory)
        assert all(np.all(np.isfinite(np.asarray(value))) for value in stats.values())


@every_real_memory
def test_the_size_follows_from_state_bytes(name):
    def sized(**sizes):
        return memory_bytes_per_row(small(name, **sizes), d_model=WIDTH, segment_length=SEGMENT)

    state = merged(name).init_state(3)
    assert 3 * sized() == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    exact = sized(memory_size=20)
    assert sized(match_state_bytes=exact) == exact
    assert sized(match_state_bytes=exact + 1) == exact
    assert sized(match_state_bytes=exact - 1) < exact
    with pytest.raises(ValueError, match=r"match_state_bytes=0: the smallest state of \w+ has \d+ bytes"):
        sized(match_state_bytes=0)


@pytest.mark.parametrize(
    "name, segments",
    [("kv", 1), ("associative", 2), ("ntm", 1)]  # cut between segments read together, in a scan, between tokens
    + [
        pytest.param(name, 1, marks=pytest.mark.slow)
        for name in MEMORIES
        if hasattr(MEMORIES[name].config(), "bptt_segments") and name not in ("kv", "ntm")
    ]
    + [pytest.param(*row, marks=pytest.mark.slow) for row in [("kv", 0), ("kv", 2), ("associative", 0)]],
)
def test_bptt_segments_cuts_exactly(name, segments):
    graph, params = build(small(name, bptt_segments=segments, memory_size=4 * SEGMENT, visibility="token"))
    x, _ = random_inputs(9, 1, (segments + 2) * SEGMENT)
    nothing = jnp.zeros(x.shape[:2], bool)
    distance = by_segment_distance(influence(lambda x: runner(graph)(params, x, nothing, ~nothing, None)[0], x))
    assert np.all(distance[1 : segments + 1] > 1e-4)
    assert np.all(distance[segments + 1 :] == 0)


@pytest.mark.parametrize(
    "name, segments",
    [("ntm", 0), pytest.param("knn", None, marks=pytest.mark.slow)]
    + [
        pytest.param(name, segments, marks=pytest.mark.slow)
        for name in MEMORIES
        for segments in (0, 1)
        if hasattr(MEMORIES[name].config(), "bptt_segments") and (name, segments) != ("ntm", 0)
    ],
)
def test_the_gradient_into_the_state_does_not_depend_on_the_length_of_the_call(name, segments):
    """One token, the first of two, and the first of two inside a segment pass the same gradient into the state."""
    graph, params = build(small(name, bptt_segments=segments, memory_size=2 * SEGMENT))
    memory = nnx.merge(graph, params)
    x, reset = random_inputs(10, BATCH, SEGMENT + 3, breaks=0.0)
    _, state = runner(graph)(params, x[:, :-2], reset[:, :-2], ~reset[:, :-2], state_after(memory, BATCH))
    x, never = jnp.asarray(x[:, -2:]), jnp.zeros((BATCH, 2), bool)

    @functools.partial(jax.jit, static_argnums=(4, 5))
    def gradient(params, state, reset, fresh, length, alignment):
        def loss(params, memory_state):
            given, part = state._replace(memory=memory_state, fresh=fresh), slice(length)
            read, _ = stream(nnx.merge(graph, params), x[:, part], given, reset[:, part], ~never[:, part], alignment)
            return jnp.sum(jnp.sin(read[:, 0]))

        of_params, of_state = jax.grad(loss, (0, 1), allow_int=True)(params, state.memory)
        return of_params, [leaf for leaf in jax.tree.leaves(of_state) if leaf.dtype != jax.dtypes.float0]

    one, two = (gradient(params, state, never, never[:, 0], length, "any") for length in (1, 2))
    inside = gradient(params, state, never, never[:, 0], 2, "mid_segment")
    assert difference(one, two) < 1e-5 and difference(inside, two) < 1e-5
    reset = never.at[0, 0].set(True)  # one document begins, and the stream of the other row
    one, two = (gradient(params, state, reset, ~reset[:, 0], length, "any") for length in (1, 2))
    assert difference(one, two) < 1e-5


def test_an_unknown_config_is_refused_by_name():
    class UnknownConfig(NoMemoryConfig):
        pass

    with pytest.raises(ValueError, match="UnknownConfig is the configuration of no memory mechanism; valid: NoMemoryC"):
        make_memory(UnknownConfig(), d_model=WIDTH, segment_length=SEGMENT, dtype="float32", rngs=nnx.Rngs(0))
