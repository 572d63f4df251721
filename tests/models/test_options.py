"""Dropout, rematerialisation, scores, gradients, the pure interface, and errors."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig
from memgpt_jax.memory.titans import TitansMemoryConfig
from memgpt_jax.models import (
    MemGPT,
    MemoryLayer,
    blocks,
    from_params,
    functional,
    model_functions,
    model_state_bytes,
    to_params,
)
from memgpt_jax.models.layers import dropout
from memgpt_jax.ops.trees import named_leaves
from tests.laws.memories import difference
from tests.laws.models import BATCH, build, built, stream_inputs, streaming_violation, tiny
from tests.references import ops as reference

LENGTH = 12


def value_and_gradient(config, params, tokens, reset, **options):
    def loss(params):
        logits, state = functional(config).apply(params, tokens, functional(config).init_state(BATCH), reset, **options)
        return jnp.mean(jnp.sin(logits)), (logits, state)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


@pytest.fixture(scope="module")
def plain():
    """A model's config, parameters, inputs, and its value and gradient."""
    config = tiny(KVMemoryConfig(memory_size=7, num_heads=2, head_dim=4, initial_entries=2, recency_bias=True))
    tokens, reset = stream_inputs(0, config, LENGTH)
    params = built(config).params
    return config, params, tokens, reset, value_and_gradient(config, params, tokens, reset)


@pytest.mark.parametrize("remat", ["block", pytest.param("dots", marks=pytest.mark.slow)])
def test_remat_changes_neither_value_nor_gradient(plain, remat):
    config, params, tokens, reset, expected = plain
    again = value_and_gradient(dataclasses.replace(config, remat=remat), params, tokens, reset)
    assert difference(expected, again) < 1e-5


def test_remat_saves_less_for_the_backward_pass():
    config, tokens = tiny(num_layers=2, d_model=32), np.zeros((BATCH, LENGTH), np.int32)

    def saved(remat):
        changed = dataclasses.replace(config, remat=remat)
        _, backward = jax.eval_shape(
            lambda params: jax.vjp(
                lambda p: functional(changed).apply(p, tokens, functional(config).init_state(BATCH))[0], params
            ),
            functional(config).param_shapes(),
        )
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert saved("block") < saved("dots") < saved("none")


@pytest.mark.slow
@pytest.mark.parametrize("memory, remat", [(None, "block"), (NoMemoryConfig(), "none")])
def test_scanned_layers_equal_unrolled_ones(memory, remat):
    config = tiny(memory, num_layers=2, dropout=0.2)
    tokens, reset = stream_inputs(0, config, LENGTH)
    key = jax.random.key(5)
    expected = value_and_gradient(config, built(config).params, tokens, reset, dropout_key=key)
    scanned = dataclasses.replace(config, scan_layers=True, remat=remat)
    again = value_and_gradient(scanned, built(config).params, tokens, reset, dropout_key=key)
    assert difference(expected, again) < 1e-5


def test_scanned_layers_keep_the_streaming_law_and_the_layout_of_parameters():
    model = built(tiny(num_layers=2, scan_layers=True))
    tokens, reset = stream_inputs(0, model.config, LENGTH)
    logits, state = streaming_violation(model, tokens, reset, [5, 1, 1, 5])
    assert max(logits, state) < 1e-4
    shapes = [jax.tree.map(jnp.shape, built(tiny(num_layers=2, scan_layers=scan)).params) for scan in (False, True)]
    assert shapes[0] == shapes[1]


def test_scanned_layers_are_traced_once(monkeypatch):
    calls = []
    monkeypatch.setitem(blocks.CALLS, "none", lambda *arguments: calls.append(1) or blocks.Block.__call__(*arguments))
    for scan, count in ((True, 1), (False, 3)):
        config = tiny(NoMemoryConfig(), num_layers=3, scan_layers=scan)
        jax.eval_shape(
            lambda c=config: functional(c).apply(
                built(c).params, np.zeros((2, 4), np.int32), functional(c).init_state(2)
            )
        )
        assert len(calls) == count
        calls.clear()


def test_every_parameter_has_a_finite_gradient(plain):
    *_, (_, gradients) = plain
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), jax.tree_util.keystr(path)


@pytest.mark.parametrize("fusion", ["gated", pytest.param("attention", marks=pytest.mark.slow)])
def test_a_parallel_block_has_one_normalisation_and_trains_all_its_parameters(fusion):
    memory = KVMemoryConfig(memory_size=7, num_heads=2, head_dim=4)
    config = tiny(memory, norm_position="parallel", fusion=fusion)
    params = built(config).params
    assert [name for name in named_leaves(params["blocks"]["0"]) if "norm" in name] == ["attention_norm/scale"]
    tokens, reset = stream_inputs(0, config, LENGTH)
    _, gradients = value_and_gradient(config, params, tokens, reset)
    for name, leaf in named_leaves(gradients).items():
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), name


def test_gradients_are_finite_where_nothing_is_visible():
    memory = KVMemoryConfig(memory_size=7, num_heads=2, head_dim=4, null_entry=False)
    config = tiny(memory)
    tokens, reset = stream_inputs(0, config, LENGTH, breaks=0.4)
    _, gradients = value_and_gradient(config, built(config).params, tokens, reset)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


def test_dropout_acts_only_with_a_key(plain):
    config, params, tokens, reset, (expected, _) = plain
    config = dataclasses.replace(config, dropout=0.5)
    call = jax.jit(
        lambda key: functional(config).apply(
            params, tokens, functional(config).init_state(BATCH), reset, dropout_key=key
        )[0]
    )
    logits = expected[1][0]
    assert difference(call(None), logits) < 1e-5
    one, same, other = (call(jax.random.key(seed)) for seed in (1, 1, 2))
    assert difference(one, same) == 0
    assert difference(one, other) > 1e-2 and difference(one, logits) > 1e-2


def test_dropout_keeps_the_mean():
    x = dropout(jnp.ones(100_000), 0.3, jax.random.key(0))
    assert np.mean(x) == pytest.approx(1, abs=0.01) and np.mean(x == 0) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_scores_are_log_softmax_in_value_and_gradient(tied):
    config = tiny(tie_embeddings=tied)
    params = built(config).params
    tokens, reset = stream_inputs(0, config, LENGTH)
    targets = np.roll(tokens, -1, axis=1)
    weights = np.random.default_rng(0).random(tokens.shape).astype(np.float32)
    state = built(config).fresh()

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def by_scores(params):
        scores, after = functional(config).score(params, tokens, {"tokens": targets}, state, reset=reset)
        return jnp.sum(scores["tokens"].losses * weights), (scores["tokens"], after)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def by_logits(params):
        logits, after = functional(config).apply(params, tokens, state, reset)
        losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=2)[..., 0]
        return jnp.sum(losses * weights), (losses, after, logits)

    (value, (scores, after)), gradients = by_scores(params)
    (expected, (losses, expected_after, logits)), expected_gradients = by_logits(params)
    assert difference((value, scores.losses, gradients), (expected, losses, expected_gradients)) < 1e-4
    assert difference(after, expected_after) < 1e-5
    np.testing.assert_array_equal(scores.correct, np.argmax(logits, axis=-1) == targets)
    logits = np.asarray(logits)
    slow = [[reference.cross_entropy(logits[b, t], targets[b, t]) for t in range(LENGTH)] for b in range(BATCH)]
    np.testing.assert_allclose(scores.losses, slow, atol=1e-5)


def test_pure_functions_equal_the_module():
    config = tiny(num_layers=2)
    model = MemGPT(config, rngs=nnx.Rngs(3))
    params = to_params(model)
    tokens, reset = stream_inputs(0, config, LENGTH)
    expected = jax.jit(lambda: model(tokens, model.init_state(BATCH), reset))()
    pure = jax.jit(
        lambda params: functional(config).apply(params, tokens, functional(config).init_state(BATCH), reset)
    )(params)
    assert difference(expected, pure) < 1e-5
    assert difference(to_params(from_params(config, params)), params) == 0
    shapes = jax.eval_shape(functional(config).init, jax.random.key(0))
    assert jax.tree.structure(shapes) == jax.tree.structure(params)
    assert shapes == functional(config).param_shapes()


def test_a_state_is_made_without_making_the_model_again():
    config = tiny(num_layers=2, window_size=5)
    functional(config).init_state(1)
    made = model_functions.abstract_model.cache_info().misses
    state = functional(dataclasses.replace(config)).init_state(3)
    assert difference(state, MemGPT(config, rngs=nnx.Rngs(0)).init_state(3)) == 0
    assert made == model_functions.abstract_model.cache_info().misses


def test_init_is_a_function_of_the_key_and_float32():
    make = jax.jit(functional(tiny(dtype="bfloat16", tie_embeddings=False)).init)
    one, same, other = make(jax.random.key(0)), make(jax.random.key(0)), make(jax.random.key(1))
    assert difference(one, same) == 0 and difference(one, other) > 0
    assert {leaf.dtype for leaf in jax.tree.leaves(one)} == {jnp.dtype("float32")}
    names = {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(one)}
    assert "blocks/0/memory_layer/memory/write_gate/kernel" in names
    assert "blocks/0/memory_layer/fusion/gate/bias" in names


def test_diagnostics_have_a_row_for_each_memory():
    config = tiny(num_layers=3, memory_layers=(0, 2))
    model = built(config)
    tokens, reset = stream_inputs(0, config, LENGTH)
    stats = jax.jit(functional(config).diagnostics)(model.params, tokens, model.fresh(), reset)
    assert {"fusion_gate", "occupancy", "write_gate_histogram", "age_mean", "bytes"} == set(stats)
    assert all(len(value) == 2 and np.all(np.isfinite(value)) for value in stats.values())
    np.testing.assert_allclose(np.sum(stats["write_gate_histogram"], axis=1), 1, atol=1e-6)
    assert np.all((stats["fusion_gate"] > 0) & (stats["fusion_gate"] < 1))
    none = tiny(NoMemoryConfig())
    assert jax.jit(functional(none).diagnostics)(built(none).params, tokens, built(none).fresh()) == {}


def test_one_compilation_serves_every_prefill_of_a_length_and_every_step():
    model = build(tiny())
    tokens, _ = stream_inputs(0, model.config, 5)
    _, state = model(tokens)
    for t in range(5):
        _, state = model(tokens[:, [t]], state)
    model(tokens, state)
    assert model.call._cache_size() == 2


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tokens": np.zeros((2, 0), np.int32)}, r"tokens must be integers \[B, L\] with L >= 1, got int32\[2, 0\]"),
        ({"tokens": np.zeros(3, np.int32)}, r"tokens must be integers .* got int32\[3\]"),
        ({"tokens": np.zeros((2, 3), np.float32)}, r"tokens must be integers .* got float32\[2, 3\]"),
        ({"reset": np.zeros((2, 4), bool)}, r"reset must be bool\[2, 3\] like tokens, got bool\[2, 4\]"),
        ({"valid": np.zeros((2, 3), np.int32)}, r"valid must be bool\[2, 3\] like tokens, got int32\[2, 3\]"),
        ({"state": ()}, r"state must be a ModelState of 1 layers: use init_state\(batch_size\)"),
        ({"state": functional(tiny(num_layers=2)).init_state(2)}, r"state must be a ModelState of 1 layers"),
        ({"state": functional(tiny()).init_state(3)}, r"state has 3 rows, tokens have 2"),
    ],
)
def test_calls_that_do_not_fit_are_refused_by_name(change, message):
    config = tiny()
    arguments = {
        "tokens": np.zeros((2, 3), np.int32),
        "state": functional(config).init_state(2),
        "reset": None,
        "valid": None,
    }
    with pytest.raises(ValueError, match=message):
        functional(config).apply(built(config).params, **arguments | change)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ModelConfig(d_model=10, num_heads=4), "num_heads=4 must divide d_model=10"),
        (lambda: ModelConfig(num_heads=4, num_kv_heads=3), "num_kv_heads=3 must divide num_heads=4"),
        (lambda: ModelConfig(d_model=6, num_heads=2), "rotary positions need an even head width, got 3"),
        (lambda: ModelConfig(window_size=0), "window_size must be at least 1, got 0"),
        (lambda: ModelConfig(dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
        (lambda: ModelConfig(memory_layers=(9,)), "memory_layers must be between 0 and 3, got 9"),
        (
            lambda: ModelConfig(memory_layers=(0,), scan_layers=True),
            r"scan_layers needs identical layers.* memory_layers=\(0,\)",
        ),
        (
            lambda: ModelConfig(fusion="attention", attention_implementation="pallas"),
            "attention_implementation='pallas' does not support fusion='attention'",
        ),
        (
            lambda: ModelConfig(fusion="attention", memory=KVMemoryConfig(read_implementation="pallas")),
            "memory.read_implementation='pallas' does not support fusion='attention'",
        ),
        (lambda: ModelConfig(fusion="attention", memory=TitansMemoryConfig()), "needs a KVMemoryConfig, got Titans"),
        (lambda: EncoderConfig(fusion="attention"), "fusion='attention' needs causal self-attention"),
        (
            lambda: MemoryLayer(KVMemoryConfig(), d_model=8, segment_length=4, fusion="attention", rngs=nnx.Rngs(0)),
            "fusion='attention' needs the self-attention of a model's layer",
        ),
        (lambda: ModelConfig(remat=True), "remat must be one of 'none', 'block', 'dots', got True"),
        (lambda: ModelConfig(dtype=jnp.float16), "dtype must be one of 'float32', 'bfloat16', got 'float16'"),
        (lambda: ModelConfig(dtype=None), "dtype must be one of 'float32', 'bfloat16', got None"),
        (lambda: KVMemoryConfig(read_implementation="cudnn"), "'cudnn' has no kernel for memory reads"),
        (lambda: ModelConfig(fusion="blend"), "fusion must be one of 'gated'.*got 'blend'"),
        (lambda: ModelConfig(segment_length=8, memory=KVMemoryConfig(select="pool")), "select_size=16 must be at most"),
        (lambda: KVMemoryConfig(memory_size=-1), "memory_size must be at least 0, got -1"),
        (
            lambda: KVMemoryConfig(initial_entries=5, memory_size=4),
            "initial_entries must be between 0 and memory_size=4",
        ),
        (lambda: KVMemoryConfig(gate="wide"), "gate must be one of 'log_bias'.*got 'wide'"),
        (lambda: KVMemoryConfig(bptt_segments=-1), "bptt_segments must be None or at least 0, got -1"),
    ],
)
def test_illegal_configs_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bytes_of_the_model_state_are_those_of_its_arrays():
    config = tiny(KVMemoryConfig(memory_size=7, num_heads=2, head_dim=4))
    arrays = jax.tree.leaves(functional(config).init_state(3))
    assert 3 * model_state_bytes(config) == sum(array.nbytes for array in arrays) > 0
