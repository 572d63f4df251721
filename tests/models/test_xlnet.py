"""XLNet: its attention against loops, and who depends on whom: by order, by document, and through memory alone."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import memgpt_jax as mg
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import XLNetConfig
from memgpt_jax.memory import MEMORIES
from memgpt_jax.memory.recurrent import RecurrentMemoryConfig
from memgpt_jax.models import from_params, functional, to_params
from memgpt_jax.models.attention import Relations, call_inputs
from memgpt_jax.models.memory_layer import MemoryLayer
from memgpt_jax.models.xlnet import RelativeAttention
from tests.laws.memories import difference
from tests.laws.models import build, random_params
from tests.references.xlnet import relative_attention

BATCH, LENGTH = 2, 8
KV = KVMemoryConfig(memory_size=12, num_heads=2, head_dim=4)
PARALLEL = {n: entry.config for n, entry in MEMORIES.items() if not issubclass(entry.config, RecurrentMemoryConfig)}
QUICK = ("kv",)
"""One mechanism with entries and one without; the others are slow."""
ALONE = {"evict": "lowest_gate", "initial_entries": 2}


def tiny(memory=KV, **changes):
    defaults = {"vocab_size": 31, "d_model": 8, "num_layers": 2, "num_heads": 2, "d_ff": 12}
    return XLNetConfig(memory=memory, **defaults | {"segment_length": 4} | changes)


def params_of(config):
    """Parameters moved by noise, as training would."""
    return jax.tree.map(jnp.asarray, build(config).params)


def inputs(seed, *shape):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape).astype(np.float32), rng


@pytest.mark.parametrize("block", [3, 128])
@pytest.mark.parametrize("max_distance", [None, 2])
def test_attention_of_both_streams_equals_loops(block, max_distance, monkeypatch):
    monkeypatch.setattr(importlib.import_module("memgpt_jax.ops.attention.full"), "BLOCK", block)
    config = tiny(max_distance=max_distance)
    h, rng = inputs(0, BATCH, LENGTH, config.d_model)
    g, types = inputs(1, *h.shape)[0], rng.integers(0, 3, (BATCH, LENGTH)).astype(np.int32)
    order = np.array([rng.permutation(LENGTH) for _ in range(BATCH)]).astype(np.int32) // 2  # some ranks are equal
    reset, valid = np.zeros((BATCH, LENGTH), bool), np.ones((BATCH, LENGTH), bool)
    reset[0, 3], valid[1, -2:] = True, False
    attention = RelativeAttention(config, nnx.Rngs(0))
    for name in ("content_bias", "position_bias", "type_bias"):
        getattr(attention, name)[...] = rng.normal(size=(2, 4)).astype(np.float32)
    graph, params = nnx.split(attention)
    call = jax.jit(lambda params, *arguments: nnx.merge(graph, params)(*arguments))
    arrays = {"/".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(params)}

    def expected(asking, sees):
        return relative_attention(config, arrays, asking, h, np.cumsum(reset, axis=1), valid, types, sees)

    of_h, of_g = call(params, h, g, call_inputs(reset, valid, relations=Relations(order, types)))
    np.testing.assert_allclose(of_h, expected(h, lambda b, i, j: order[b, j] <= order[b, i]), atol=1e-5)
    np.testing.assert_allclose(of_g, expected(g, lambda b, i, j: order[b, j] < order[b, i]), atol=1e-5)
    types[:] = 0
    alone, nothing = call(params, h, None, call_inputs(reset, valid, relations=Relations(None, None)))
    np.testing.assert_allclose(alone, expected(h, lambda b, i, j: True), atol=1e-5)
    assert nothing is None


def influence(config, orders, resets):
    """[2, B, L, 2, B, L]: how far the hidden states of two calls change with each of their tokens."""
    shape = 2, BATCH, LENGTH
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, config.vocab_size, shape).astype(np.int32)
    params = params_of(config)

    read = jax.jit(lambda *inputs, order: from_params(config, params).hidden(*inputs, order=order)[:2])
    fresh = functional(config).init_state(BATCH)

    def run(tokens):
        first, state = read(tokens[0], fresh, resets[0], order=None if orders is None else orders[0])
        second, _ = read(tokens[1], state, resets[1], order=None if orders is None else orders[1])
        return np.stack([first, second])

    before, flow = run(tokens), np.zeros(shape * 2)
    for place in np.ndindex(*shape):
        other = tokens.copy()
        other[place] = (other[place] + 7) % config.vocab_size
        flow[(..., *place)] = np.abs(run(other) - before).max(axis=-1)
    return flow


def may_flow(orders, resets):
    """Which of these influences there may be, within a call; and which from the first call to the second."""
    within, across = np.zeros((2, *(2, BATCH, LENGTH) * 2), bool)
    document = np.cumsum(resets, axis=2)
    for b, i, j in np.ndindex(BATCH, LENGTH, LENGTH):
        for call in range(2):
            sees = orders is None or orders[call][b, j] < orders[call][b, i]
            within[call, b, i, call, b, j] = sees and document[call, b, i] == document[call, b, j]
        open_before = document[0, b, j] == document[0, b, -1]
        across[1, b, i, 0, b, j] = open_before and document[1, b, i] == 0
    return within, across


def drawn_orders():
    rng = np.random.default_rng(4)
    return [np.array([rng.permutation(LENGTH) for _ in range(BATCH)], np.int32) for _ in range(2)]


@pytest.mark.parametrize(
    "name, two_streams",
    [("kv", False)]
    + [(name, True) if name == "none" else pytest.param(name, True, marks=pytest.mark.slow) for name in PARALLEL],
)
def test_who_depends_on_whom(name, two_streams):
    """A prediction depends on no token of its own or of a higher rank, on no other row and document; and on all others.

    The first call reaches the second through memory alone.
    """
    resets = np.zeros((2, BATCH, LENGTH), bool)
    resets[0, 0, 2] = resets[1, 1, 5] = True
    orders = drawn_orders() if two_streams else None
    flow, (within, across) = influence(tiny(PARALLEL[name]()), orders, resets), may_flow(orders, resets)
    assert np.all(flow[~(within | across)] == 0)
    assert np.all(flow[within] > 0)
    reached = flow[across] > 0
    assert not np.any(reached) if name == "none" else np.mean(reached) > 0.3


@pytest.mark.slow
def test_one_memory_carries_all_tokens_of_the_first_call():
    orders, resets = drawn_orders(), np.zeros((2, BATCH, LENGTH), bool)
    flow = influence(tiny(memory_layers=[1]), orders, resets)
    assert np.all(flow[may_flow(orders, resets)[1]] > 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        ALONE,
        *(pytest.param({name: value}, marks=pytest.mark.slow) for name, value in ALONE.items()),
    ],
)
def test_no_leak_with_other_ways_to_read(changes):
    orders, resets = drawn_orders(), np.zeros((2, BATCH, LENGTH), bool)
    resets[0, 0, 2] = resets[1, 1, 5] = True
    flow = influence(tiny(dataclasses.replace(KV, **changes)), orders, resets)
    within, across = may_flow(orders, resets)
    assert np.all(flow[~(within | across)] == 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in PARALLEL
        if name not in ("none", "knn")
    ],
)
def test_a_detached_read_of_one_segment_is_the_same(name):
    """Where no token reads its own segment, a detached call of a whole segment gives the same reads."""
    layer = MemoryLayer(PARALLEL[name](), d_model=8, segment_length=6, rngs=nnx.Rngs(0))
    graph, params = nnx.split(layer)
    x, reset = inputs(0, 3, BATCH, 6, 8)[0], np.zeros((3, BATCH, 6), bool)
    reset[1, 0, 2] = reset[2, 1, 0] = True
    valid = np.ones((BATCH, 6), bool)

    def run(alignment):
        @jax.jit
        def calls(params):
            layer, state, found = nnx.merge(graph, params), MemoryLayer.init_state(nnx.merge(graph, params), BATCH), []
            for part, begins in zip(x, reset, strict=True):
                y, state, _ = layer.with_gate(part, state, jnp.asarray(begins), jnp.asarray(valid), alignment)
                found.append(y)
            return found, state

        return calls(params)

    assert difference(run("any"), run("detached")) < 1e-5


@pytest.mark.slow
def test_aligned_calls_give_the_same():
    config = tiny(num_layers=1)
    tokens, order = drawn_tokens(config), drawn_orders()[0]

    def two_calls(alignment):
        def run(params):
            model, state = from_params(config, params), functional(config).init_state(BATCH)
            targets = {"tokens": tokens}
            _, state = model.score(tokens, targets, state, order=order, alignment=alignment)
            return model.score(tokens, targets, state, order=order, alignment=alignment)

        return jax.jit(run)(params_of(config))

    assert difference(two_calls("any"), two_calls("aligned")) < 1e-5
    with pytest.raises(ValueError, match="alignment must be 'any' or 'aligned', got 'mid_segment'"):
        two_calls("mid_segment")

    @jax.jit
    def after_two_tokens(params):
        model, state = from_params(config, params), functional(config).init_state(BATCH)
        part, shown = tokens[:, : config.segment_length], order[:, : config.segment_length]
        _, state = model.hidden(part[:, :2], state, order=shown[:, :2])[:2]
        return model.hidden(part, state, order=shown, alignment="aligned")[0]

    assert np.isnan(after_two_tokens(params_of(config))).all()  # the guarantee does not hold


def compiled(config, method="__call__"):
    """A method of a model with parameters moved by noise."""
    params = params_of(config)
    return jax.jit(lambda *arguments, **options: getattr(from_params(config, params), method)(*arguments, **options))


def drawn_tokens(config):
    return np.random.default_rng(0).integers(0, config.vocab_size, (BATCH, LENGTH)).astype(np.int32)


@pytest.mark.parametrize("two_streams", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_padding_does_not_change_other_tokens(two_streams):
    config = tiny(num_layers=1)
    tokens, order, state = drawn_tokens(config), drawn_orders()[0], functional(config).init_state(BATCH)
    valid = np.ones(tokens.shape, bool)
    valid[:, -2:] = False
    call = compiled(config)
    whole, after = call(tokens, state, None, valid, order=order if two_streams else None)
    expected, after_short = call(tokens[:, :-2], state, order=order[:, :-2] if two_streams else None)
    assert difference(whole[:, :-2], expected) < 1e-5
    assert difference(after, after_short) < 1e-5


def test_scores_are_those_of_the_logits():
    config = tiny(num_layers=1)
    tokens, state, call = drawn_tokens(config), functional(config).init_state(BATCH), compiled(config)
    options = {"order": drawn_orders()[0], "token_types": tokens % 2}
    logits, _ = call(tokens, state, **options)
    scores, _ = compiled(config, "score")(tokens, {"tokens": tokens}, state, **options)
    expected = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), tokens[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(scores["tokens"].losses, expected, atol=1e-5)
    assert np.array_equal(scores["tokens"].correct, np.argmax(logits, axis=-1) == tokens)
    assert difference(logits, call(tokens, state, order=options["order"])[0]) > 1e-3  # types matter


def value_and_gradient(config, calls):
    """Mean loss of calls that follow each other, and its gradient."""
    tokens, order = drawn_tokens(config), drawn_orders()[0]

    def loss(params):
        state, total = functional(config).init_state(BATCH), jnp.float32(0)
        for _ in range(calls):
            model, options = from_params(config, params), {"order": order, "token_types": tokens % 2}
            scores, state = model.score(tokens, {"tokens": tokens}, state, **options)
            total = total + jnp.mean(scores["tokens"].losses)
        return total

    return jax.jit(jax.value_and_grad(loss))(params_of(config))


@pytest.mark.slow
def test_ways_to_run_give_the_same_gradient():
    config = tiny(NoMemoryConfig())
    plain = value_and_gradient(config, 1)
    for changes in ({"remat": "dots"}, {"remat": "block", "scan_layers": True}):
        assert difference(plain, value_and_gradient(dataclasses.replace(config, **changes), 1)) < 1e-5


@pytest.mark.slow
def test_gradient_reaches_all_of_it_in_two_calls():
    _, gradient = value_and_gradient(tiny(num_layers=1), 2)
    missed = [jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(gradient) if not np.any(leaf)]
    assert not missed


def test_memory_is_linear_in_the_length():
    config = tiny(NoMemoryConfig(), num_layers=1, vocab_size=8, d_ff=8)

    def peak(length):
        def loss(params, tokens):
            scores, _ = from_params(config, params).score(
                tokens, {"tokens": tokens}, functional(config).init_state(1), order=tokens
            )
            return jnp.mean(scores["tokens"].losses)

        tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)
        compiled = jax.jit(jax.grad(loss)).lower(functional(config).param_shapes(), tokens).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert peak(2**16) < 2.1 * peak(2**15)


def test_dropout_acts_where_a_key_is_given():
    config = tiny(dropout=0.5, num_layers=1)
    tokens, state, call = drawn_tokens(config), functional(config).init_state(BATCH), compiled(config)

    def run(key):
        return np.asarray(call(tokens, state, order=drawn_orders()[0], dropout_key=key)[0])

    one, again, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    assert difference(one, other) > 1e-3
    assert difference(one, again) == 0


def test_a_call_may_have_one_token():
    config = tiny(num_layers=1)
    logits, _ = compiled(config)(np.zeros((BATCH, 1), np.int32), functional(config).init_state(BATCH))
    assert logits.shape == (BATCH, 1, config.vocab_size) and np.all(np.isfinite(logits))


@pytest.mark.slow
@jax.numpy_dtype_promotion("standard")  # Flax's norms multiply bfloat16 by float32
def test_bfloat16():
    config = tiny(num_layers=1)
    tokens, options = drawn_tokens(config), {"order": drawn_orders()[0], "token_types": drawn_tokens(config) % 2}
    rounded = dataclasses.replace(config, dtype="bfloat16")
    exact, _ = compiled(config)(tokens, functional(config).init_state(BATCH), **options)
    logits, _ = compiled(rounded)(tokens, functional(rounded).init_state(BATCH), **options)
    assert logits.dtype == jnp.float32
    assert difference(logits, exact) < 0.1 * np.abs(exact).max()


def test_add_memory_changes_nothing_and_is_saved(tmp_path):
    config = tiny(NoMemoryConfig(), num_layers=1, embedding_scale=1.0, norm_epsilon=1e-5, num_kv_heads=2, head_dim=4)
    base = from_params(config, random_params(config))
    model = mg.add_memory(base, KV, segment_length=4)
    tokens, state = drawn_tokens(config), model.init_state(BATCH)
    call, expected = jax.jit(model.__call__), jax.jit(base.__call__)(tokens, base.init_state(BATCH))[0]
    for _ in range(2):
        logits, state = call(tokens, state)
        assert difference(logits, expected) < 1e-5
    mg.save_pretrained(model, tmp_path)
    again = mg.from_pretrained(tmp_path)
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, to_params(again), to_params(model))


def test_what_does_not_fit_is_named():
    config = tiny()
    model, state = from_params(config, params_of(config)), functional(config).init_state(BATCH)
    tokens = drawn_tokens(config)
    with pytest.raises(ValueError, match=r"order must be integers\[2, 8\] like tokens, got float32\[2, 8\]"):
        model(tokens, state, order=np.zeros((BATCH, LENGTH), np.float32))
    with pytest.raises(ValueError, match=r"token_types must be integers\[2, 8\] like tokens, got int32\[8\]"):
        model(tokens, state, token_types=np.zeros(LENGTH, np.int32))
    for name, value in (("visibility", "token"), ("evict", "least_read")):
        with pytest.raises(ValueError, match=f"memory.{name}='{value}' cannot be used in XLNet"):
            tiny(dataclasses.replace(KV, **{name: value}))
    with pytest.raises(ValueError, match="memory=NTMMemoryConfig cannot be used in XLNet"):
        tiny(mg.NTMMemoryConfig())
    with pytest.raises(TypeError, match="norm_position"):
        tiny(norm_position="pre")
    with pytest.raises(ValueError, match="even d_model, got 9"):
        tiny(d_model=9, num_heads=3)
