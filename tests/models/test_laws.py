"""Streaming, documents, rows, padding and counters of whole models, with cuts and resets that hypothesis chooses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.models import from_params, functional
from tests.laws.memories import difference, leaks
from tests.laws.models import (
    BATCH,
    Built,
    build,
    built,
    perturbation_violation,
    ragged_violation,
    state_difference,
    stream_inputs,
    streaming_violation,
    tiny,
    token_influence,
)

# Everything that stands in the way of a law: own-segment reads, initial entries, statistics of reads, a long
# convolution, two layers, a window shorter than a segment.
HARD = tiny(
    KVMemoryConfig(
        memory_size=6,
        num_heads=2,
        head_dim=4,
        visibility="token",
        initial_entries=2,
        evict="least_read",
        select="highest_gate",
        select_size=3,
        writer_conv=4,
        recency_bias=True,
    ),
    num_layers=2,
    window_size=3,
    segment_length=5,
    position="learned",
    num_positions=64,
)
LENGTH = 25  # five segments of HARD: one compiled call of this length serves most tests, others have 1, 5 or 7 tokens
seeds, breaks = st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.05, 0.3])
# The reference test streams the plain model, too, and models with every other option.
both = pytest.mark.parametrize("config", [pytest.param(tiny(), marks=pytest.mark.slow), HARD], ids=["plain", "hard"])


@st.composite
def cuts(draw):
    """Lengths of calls, of a few kinds, that add up to LENGTH."""
    sizes = []
    while sum(sizes) < LENGTH:
        sizes.append(draw(st.sampled_from([size for size in (1, 7) if size <= LENGTH - sum(sizes)])))
    return sizes


@st.composite
def ragged(draw):
    """How many of 7 places each row uses in each call, [calls, B]; every row uses LENGTH in all."""
    rows = [draw(st.lists(st.integers(0, 7), min_size=6, max_size=6)) for _ in range(BATCH)]
    for row in rows:
        row[:] = np.diff(np.minimum(np.cumsum([0, *row, 7, 7, 7, 7]), LENGTH))
    return np.array(rows).T


@both
@given(seed=seeds, breaks=breaks, cuts=cuts())
def test_any_cut_gives_the_logits_and_the_state_of_one_call(config, seed, breaks, cuts):
    tokens, reset = stream_inputs(seed, config, LENGTH, breaks=breaks)
    assert max(streaming_violation(built(config), tokens, reset, cuts)) < 1e-4


@both
@given(seed=seeds, breaks=breaks, lengths=ragged())
def test_rows_may_have_different_lengths_in_every_call(config, seed, breaks, lengths):
    tokens, reset = stream_inputs(seed, config, LENGTH, breaks=breaks)
    assert max(ragged_violation(built(config), tokens, reset, lengths, 7)) < 1e-4


@both
@given(seed=seeds, breaks=breaks, row=st.integers(0, BATCH - 1), place=st.integers(0, LENGTH - 1))
def test_nothing_leaks_by_perturbation(config, seed, breaks, row, place):
    tokens, reset = stream_inputs(seed, config, LENGTH, breaks=breaks)
    assert perturbation_violation(built(config), tokens, reset, row, place) == 0


@pytest.mark.parametrize("memory", [KVMemoryConfig(memory_size=12, num_heads=2, head_dim=4), NoMemoryConfig()])
def test_nothing_leaks_by_gradient_and_only_memory_reaches_far(memory):
    config = tiny(memory, num_layers=2, window_size=3, vocab_size=2 * 14, tie_embeddings=False)
    reset = np.zeros((BATCH, 14), bool)
    reset[0, 10] = True
    flow = token_influence(build(config), reset)
    assert leaks(flow, reset) == {"causality": 0.0, "rows": 0.0, "documents": 0.0}
    far = flow[1, 13, 1, :8]  # beyond what two windows of three tokens reach
    assert np.all(far > 0) if isinstance(memory, KVMemoryConfig) else np.all(far == 0)


@both
@given(seed=seeds, used=st.integers(0, 9))
def test_tokens_that_are_not_valid_move_nothing(config, seed, used):
    model = built(config)
    tokens, reset = stream_inputs(seed, config, 7 + 5, breaks=0.3)
    _, state = model(tokens[:, :7], reset=reset[:, :7])
    for before in (model.fresh(), state):
        for size in (1, 5):
            part = slice(7, 7 + size)
            _, after = model(tokens[:, part], before, reset[:, part], np.zeros((BATCH, size), bool))
            assert difference(before, after) == 0


@both
@given(seed=seeds, segments=st.sampled_from([1, 3]))
def test_reset_at_a_boundary_equals_a_fresh_state(config, seed, segments):
    model, begin = built(config), segments * config.segment_length
    tokens, _ = stream_inputs(seed, config, begin + 7)
    reset = np.zeros((BATCH, 7), bool)
    reset[:, 0] = True
    state = None
    for start in range(0, begin, config.segment_length):
        _, state = model(tokens[:, start : start + config.segment_length], state)
    after_reset = model(tokens[:, begin:], state, reset)
    alone = model(tokens[:, begin:])
    assert difference(after_reset[0], alone[0]) < 1e-5
    memories = [[layer.stream for layer in state.layers] for _, state in (after_reset, alone)]
    assert difference(*memories) < 1e-5
    assert np.array_equal(after_reset[1].position, alone[1].position)


@both
def test_aligned_equals_unaligned(config):
    model = built(config)
    tokens, reset = stream_inputs(0, config, LENGTH // config.segment_length * config.segment_length)
    _, state = model(tokens[:, : config.segment_length], reset=reset[:, : config.segment_length])
    for before in (None, state):
        one, other = (model(tokens, before, reset, alignment=alignment) for alignment in ("any", "aligned"))
        assert difference(one[0], other[0]) < 1e-5 and state_difference(one[1], other[1]) < 1e-5


def test_a_call_that_is_not_aligned_as_given_is_nan():
    model = built(tiny())
    tokens, reset = stream_inputs(0, model.config, 16)
    _, state = model(tokens[:, :1])
    assert np.all(np.isnan(model(tokens, state, alignment="aligned")[0]))
    valid = np.ones(tokens.shape, bool)
    valid[1, -1] = False
    assert np.all(np.isnan(model(tokens, valid=valid, alignment="aligned")[0]))
    with pytest.raises(ValueError, match="alignment='aligned' needs a multiple of segment_length=4 tokens, got 5"):
        model(tokens[:, :5], alignment="aligned")
    with pytest.raises(ValueError, match=r"alignment must be one of 'any', 'aligned', .* got 'inside'"):
        model(tokens, alignment="inside")


@both
def test_mid_segment_tokens(config):
    model, steps = built(config), jax.jit(functional(config).apply, static_argnames="alignment")
    tokens, _ = stream_inputs(0, config, LENGTH)
    whole, _ = model(tokens)
    state, logits = model.fresh(), []
    for i in range(tokens.shape[1]):
        inside = i > 0 and (i + 1) % config.segment_length != 0
        alignment = "mid_segment" if inside else "any"
        step, state = steps(model.params, tokens[:, i : i + 1], state, alignment=alignment)
        logits.append(step)
    assert difference(whole, np.concatenate(logits, axis=1)) < 1e-4

    size, state, logits = config.segment_length, model.fresh(), []
    parts = ((0, 1, "any"), (1, size - 1, "mid_segment"), (size - 1, size, "any"))  # of a segment
    for start in range(0, tokens.shape[1] - size + 1, size):
        for begin, stop, alignment in parts:
            step, state = steps(model.params, tokens[:, start + begin : start + stop], state, alignment=alignment)
            logits.append(step)
    found = np.concatenate(logits, axis=1)
    assert difference(whole[:, : found.shape[1]], found) < 1e-4

    first, end = model.fresh(), model(tokens[:, : config.segment_length - 1])[1]
    for broken in (first, end):
        assert np.all(np.isnan(steps(model.params, tokens[:, :1], broken, alignment="mid_segment")[0]))
    with pytest.raises(ValueError, match="alignment='unwritten' takes exactly one token per row, got 2"):
        steps(model.params, tokens[:, :2], first, alignment="unwritten")


@pytest.mark.slow
@both
def test_segments_that_are_written_after_their_last_token(config):
    """Each row is written by itself, as soon as its segment is full; without that, the next token is refused."""
    model_fn = functional(config)
    steps = jax.jit(model_fn.apply, static_argnames="alignment")
    change = jax.jit(lambda params, state, name: getattr(from_params(config, params), name)(state), static_argnums=2)
    model, (tokens, _) = built(config), stream_inputs(0, config, LENGTH)
    (whole, after), logits = model(tokens), []
    state = change(model.params, model.fresh(), "begin")
    for i in range(tokens.shape[1]):
        step, state = steps(model.params, tokens[:, i : i + 1], state, alignment="unwritten")
        logits.append(step)
        if (i + 1) % config.segment_length == 0:
            refused, _ = steps(model.params, tokens[:, :1], state, alignment="unwritten")
            assert np.all(np.isnan(refused))
            state = change(model.params, state, "write_full")
    assert difference(whole, np.concatenate(logits, axis=1)) < 1e-4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), state, after)
    assert np.all(np.isnan(steps(model.params, tokens[:, :1], model.fresh(), alignment="unwritten")[0]))
    with pytest.raises(ValueError, match="alignment='unwritten' takes exactly one token per row, got 2"):
        steps(model.params, tokens[:, :2], state, alignment="unwritten")


@pytest.mark.parametrize(
    ("position", "start"),
    [("rotary", 2**31 - 9)]
    + [
        pytest.param(position, start, marks=pytest.mark.slow)
        for position in ("rotary", "sinusoidal")
        for start in (2**31 - 9, 2**31 - 1, 10**9)
        if (position, start) != ("rotary", 2**31 - 9)
    ],
)
def test_positions_far_out(position, start):
    """Any cut still gives the same logits where counters wrap; rotary logits depend on distances alone."""
    model = built(tiny(position=position))
    tokens, reset = stream_inputs(0, model.config, LENGTH, breaks=0.0)

    def at(state):
        return state._replace(position=np.full(BATCH, start, np.int32))

    shifted = Built(model.config, model.params, model.call)
    object.__setattr__(shifted, "fresh", lambda batch=BATCH: at(model.fresh(batch)))
    assert max(streaming_violation(shifted, tokens, reset, [7, 1, 7, 1, 1, 1, 7])) < 1e-4
    near, far = model(tokens)[0], shifted(tokens)[0]
    assert np.all(np.isfinite(far))
    assert (difference(near, far) < 1e-4) == (position == "rotary")


def test_ages_and_statistics_far_out():
    """A row at the ends of its counters goes on reading and writing."""
    model = built(HARD)
    tokens, reset = stream_inputs(0, HARD, LENGTH)
    _, state = model(tokens, reset=reset)

    def old(path, x):
        return np.full_like(x, 2**30) if "age" in jax.tree_util.keystr(path) else x

    logits, after = model(tokens, jax.tree.map_with_path(old, state), reset)
    assert np.all(np.isfinite(logits))
    assert all(np.all(np.asarray(layer.stream.memory.entries.age) >= 0) for layer in after.layers)


def test_a_state_holds_no_parameters_and_can_be_forked():
    model = built(HARD)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves([layer.window for layer in model.fresh().layers]))
    tokens, reset = stream_inputs(0, HARD, LENGTH)
    _, state = model(tokens[:, :7], reset=reset[:, :7])

    def pick(rows):
        return jax.tree.map(lambda x: x[np.array(rows)], state)

    expected, _ = model(tokens[:, 7:12], state)
    forked, _ = model(tokens[::-1, 7:12], pick([1, 0]))
    assert difference(expected, np.asarray(forked)[::-1]) < 1e-5


@pytest.mark.slow
@jax.numpy_dtype_promotion("standard")  # Flax's norms multiply bfloat16 by float32
def test_bfloat16_model_streams():
    model = build(tiny(dtype="bfloat16"))
    tokens, reset = stream_inputs(0, model.config, 15)
    logits, state = model(tokens, reset=reset)
    assert logits.dtype == jnp.float32
    assert state.layers[0].window.keys.dtype == state.layers[0].stream.memory.entries.keys.dtype == jnp.bfloat16
    assert state.layers[0].stream.memory.entries.log_gate.dtype == jnp.float32
    assert max(streaming_violation(model, tokens, reset, [5] + [1] * 5 + [5])) < 0.1
    exact = built(tiny())(tokens, reset=reset)[0]
    assert difference(logits, exact) < 0.15 * np.abs(exact).max()
