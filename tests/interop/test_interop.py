"""Memory in other code: a single layer, a wrapped block, Linen; and the examples of these."""

import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from hypothesis import given
from hypothesis import strategies as st

import memgpt_jax as mg
from tests.laws.memories import difference, whole_segment
from tests.laws.models import stream_inputs, tiny

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
B, L, T, D = 2, 12, 4, 6
KV = mg.KVMemoryConfig(memory_size=7, head_dim=4, initial_entries=2)
SHAPES = {"d_model": D, "segment_length": T}
RESET = np.random.default_rng(2).random((B, L)) < 0.2


@functools.cache
def memory_layer(memory=KV, **options):
    return mg.MemoryLayer(memory, **SHAPES, **options, rngs=nnx.Rngs(0))


@functools.cache
def wrapped_linear():
    return mg.wrap(nnx.Linear(D, D, rngs=nnx.Rngs(1)), memory=KV, **SHAPES, rngs=nnx.Rngs(0))


def linen_params(module, *inputs):
    """Random numbers of the shapes that `init` gives: no program is compiled for them."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(1), *inputs)["params"]
    return jax.tree.map(lambda leaf: (0.5 * rng.normal(size=leaf.shape)).astype(leaf.dtype), shapes)


def run_linen(module, *inputs):
    """Parameters of a Linen module, and its compiled call."""
    params = linen_params(module, *inputs)
    return params, jax.jit(lambda *inputs, **options: module.apply({"params": params}, *inputs, **options))


def run_nnx(module):
    """The compiled call of an NNX module."""
    graph, params = nnx.split(module)
    call = lambda *inputs, **options: nnx.merge(graph, params)(*inputs, **options)  # noqa: E731
    return jax.jit(call, static_argnames="alignment")


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(B, L, D)).astype(np.float32)


class Doubled(linen.Module):
    """A Linen block with further arguments."""

    @linen.compact
    def __call__(self, x, scale):
        return linen.Dense(D)(x) * scale


@pytest.fixture(scope="module")
def calls(x):
    """name -> (state before, call(x, state, reset)), each with a memory over a stream of width D."""
    layer = memory_layer(num_heads=2, fusion="gated_heads")
    linen_layer = mg.interop.to_linen(mg.MemoryLayer, KV, **SHAPES)
    wrapped, linen_wrapped = wrapped_linear(), mg.wrap(Doubled(), memory=KV, **SHAPES)
    call, call_doubled = run_nnx(wrapped), run_linen(linen_wrapped, x, linen_wrapped.init_state(B), 2.0)[1]
    return {
        "layer": (layer.init_state(B), run_nnx(layer)),
        "linen layer": (linen_layer.init_state(B), run_linen(linen_layer, x, linen_layer.init_state(B))[1]),
        "wrap": (wrapped.init_state(B), lambda x, state, reset: call(x, state, reset=reset)),
        "linen wrap": (
            linen_wrapped.init_state(B),
            lambda x, state, reset: call_doubled(x, state, 2.0, reset=reset),
        ),
    }


@pytest.mark.parametrize(
    "kind", ["layer", "linen wrap", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("linen layer", "wrap"))]
)
@given(cuts=st.lists(st.sampled_from([1, 3]), min_size=2, max_size=6))
def test_results_do_not_depend_on_the_division_into_calls(kind, calls, x, cuts):
    state, call = calls[kind]
    whole, after = call(x, state, RESET)
    parts, start = [], 0
    for size in [*cuts, *[1] * L]:
        part = slice(start, start + size)
        if part.stop <= L:
            y, state = call(x[:, part], state, RESET[:, part])
            parts.append(y)
            start = part.stop
    assert start == L
    assert difference(whole, np.concatenate(parts, axis=1)) < 1e-5
    assert difference(after, state) < 1e-5


def test_a_layer_reads_tokens_outside_of_every_window(calls, x):
    state, call = calls["layer"]
    nothing = np.zeros((B, L), bool)
    before, _ = call(x, state, nothing)
    changed = x.copy()
    changed[0, 0] += 1.0
    after, _ = call(changed, state, nothing)
    before, after = np.asarray(before), np.asarray(after)
    assert np.abs(after - before)[0, -1].max() > 1e-4 and np.array_equal(after[1], before[1])


@pytest.mark.slow
def test_reset_and_valid_are_optional(x):
    layer = memory_layer()
    state, call = layer.init_state(B), run_nnx(layer)
    everywhere, valid = np.ones((B, L), bool), np.tile(np.arange(L) < 8, (B, 1))
    plain = call(x, state)
    assert difference(plain, call(x, state, ~everywhere, everywhere)) == 0
    assert difference(plain, call(x, state, alignment="aligned")) < 1e-5
    # Padding neither resets nor counts.
    short = call(x[:, :8], state)
    padded = call(x, state, ~valid, valid)
    assert difference(short[1], padded[1]) < 1e-6 and difference(short[0], np.asarray(padded[0])[:, :8]) < 1e-6


@pytest.mark.slow
@jax.numpy_dtype_promotion("standard")  # Flax's norms multiply bfloat16 by float32
def test_the_compute_type_and_dropout(x):
    half = memory_layer(dtype="bfloat16")
    y, state = jax.eval_shape(half, x, half.init_state(B))
    assert y.dtype == jnp.bfloat16 == state.pending.dtype
    layer = memory_layer(dropout=0.5)
    state, call = layer.init_state(B), run_nnx(layer)
    dropped, _ = call(x, state, dropout_key=jax.random.key(0))
    assert difference(dropped, call(x, state)[0]) > 1e-3


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fusion": "sum"}, "fusion must be one of 'gated'"),
        ({"dtype": "float16"}, "dtype must be one of"),
        ({"memory": mg.KVMemoryConfig(select="pool", select_size=5)}, "select_size=5 must be at most segment_length=4"),
    ],
)
def test_invalid_settings_of_a_layer_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        memory_layer(**options)
    with pytest.raises(ValueError, match=message):  # at once, not in `init`
        mg.wrap(linen.Dense(D), **{"memory": KV} | options, **SHAPES)


def test_invalid_arguments_of_a_call_are_refused(x):
    layer = memory_layer()
    state = layer.init_state(B)
    for arguments, message in (
        ((x[..., 1:], state), r"h must be floats \[B, L, 6\] with L >= 1, got float32\[2, 12, 5\]"),
        ((x, layer.init_state(3)), "state has 3 rows, h has 2"),
        ((x, ()), r"state must be a StreamState, got tuple: use init_state"),
        ((x, state, RESET[:, 1:]), r"reset must be bool\[2, 12\] like tokens, got bool\[2, 11\]"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(*arguments)


@pytest.mark.parametrize("kind", ["nnx", "linen"])
def test_gradients_reach_every_parameter_of_block_and_memory(kind, x):
    if kind == "nnx":
        module = wrapped_linear()
        graph, params = nnx.split(module)
        call = lambda params: nnx.merge(graph, params)(x, module.init_state(B), reset=RESET)  # noqa: E731
    else:
        module = mg.wrap(linen.Dense(D), memory=KV, **SHAPES)
        params = linen_params(module, x, module.init_state(B))
        call = lambda params: module.apply({"params": params}, x, module.init_state(B), reset=RESET)  # noqa: E731
    gradients = jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(call(params)[0]))))(params)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(gradients)]
    assert any("block" in name for name in names) and any("write_gate" in name for name in names)
    for name, gradient in zip(names, jax.tree.leaves(gradients), strict=True):
        assert np.all(np.isfinite(gradient)) and np.any(np.abs(gradient) > 1e-7), name


def test_without_memory_a_block_is_unchanged(x):
    block = nnx.Linear(D, D, rngs=nnx.Rngs(1))
    wrapped = mg.wrap(block, memory=mg.NoMemoryConfig(), **SHAPES, rngs=nnx.Rngs(0))
    y, state = wrapped(x, wrapped.init_state(B))
    assert state == () and np.array_equal(y, block(jnp.asarray(x)))
    dense = mg.wrap(linen.Dense(D), memory=mg.NoMemoryConfig(), **SHAPES)
    params, call = run_linen(dense, x, dense.init_state(B))
    assert np.array_equal(call(x, ())[0], linen.Dense(D).apply({"params": params["block"]}, x))


def test_a_function_is_a_block_too(x):
    wrapped = mg.wrap(jnp.tanh, memory=KV, **SHAPES, rngs=nnx.Rngs(0))
    layer = memory_layer()
    state = layer.init_state(B)
    assert difference(run_nnx(wrapped)(x, state), run_nnx(layer)(jnp.tanh(x), state)) == 0


def test_rngs_are_required_for_nnx_and_refused_for_linen():
    with pytest.raises(ValueError, match="rngs must be given for an NNX block"):
        mg.wrap(jnp.tanh, memory=KV, **SHAPES)
    with pytest.raises(ValueError, match="rngs must not be given for a Linen block"):
        mg.wrap(linen.Dense(D), memory=KV, **SHAPES, rngs=nnx.Rngs(0))


def test_linen_equals_nnx(x):
    module = mg.interop.to_linen(mg.MemoryLayer, KV, **SHAPES)
    params, call = run_linen(module, x, module.init_state(B))
    layer = nnx.clone(memory_layer())
    nnx.update(layer, params)
    assert difference(call(x, module.init_state(B), RESET), run_nnx(layer)(x, layer.init_state(B), RESET)) < 1e-5


@pytest.mark.slow
def test_a_whole_model_in_linen():
    config = tiny(num_layers=2)
    tokens, reset = stream_inputs(0, config, L)
    module = mg.interop.to_linen(mg.MemGPT, config)
    params, call = run_linen(module, tokens, module.init_state(B))
    expected = jax.jit(mg.functional(config).apply)(params, tokens, mg.functional(config).init_state(B), reset)
    assert difference(call(tokens, module.init_state(B), reset), expected) < 1e-5


def test_a_mechanism_alone_in_linen(x):
    module = mg.interop.to_linen(mg.MEMORIES["kv"].module, KV, **SHAPES, dtype="float32")
    segment = whole_segment(x[:, :T])
    init, apply = (jax.jit(functools.partial(f, nnx_method="segment")) for f in (module.init, module.apply))
    read, state = apply(init(jax.random.key(1), segment, module.init_state(B)), segment, module.init_state(B))
    assert read.shape == (B, T, KV.num_heads * KV.head_dim) and np.all(np.sum(state.entries.valid, axis=1) == T)


def test_the_nnx_example():
    made = runpy.run_path(str(EXAMPLES / "nnx_model.py"))
    assert made["y"].shape == made["x"].shape
    assert np.all(np.sum(made["stored"].entries.valid, axis=1) == made["T"])


@pytest.mark.slow
@jax.numpy_dtype_promotion("standard")  # optax mixes integer counts with floats
def test_the_linen_example_learns():
    made = runpy.run_path(str(EXAMPLES / "linen_model.py"))
    first, second, third = made["losses"]
    assert first > second > third
