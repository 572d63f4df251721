"""Quantised decoders: what is rounded, the law of streaming, no float copy of the weights, and folders."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.data import ByteTokenizer
from memgpt_jax.generation.decode import Decoding, advance
from memgpt_jax.generation.sampling import Sampling
from memgpt_jax.interop.pretrained import describe
from memgpt_jax.models.quantization import laid_out, loadable, quantize_params, quantized_bits
from memgpt_jax.ops.trees import named_leaves, tree_bytes
from memgpt_jax.training.pretrained import pretrained_start

CONFIG = mg.ModelConfig(
    vocab_size=257,
    d_model=64,
    num_layers=1,
    num_heads=4,
    window_size=6,
    segment_length=4,
    memory=mg.KVMemoryConfig(memory_size=10, head_dim=16),
    adapter_rank=2,
    tie_embeddings=False,
)
TOKENS = np.random.default_rng(0).integers(257, size=(2, 8))


@pytest.fixture(scope="module")
def model() -> mg.MemGPT:
    return mg.from_params(CONFIG, jax.jit(mg.functional(CONFIG).init)(jax.random.key(0)))


@pytest.fixture(scope="module", params=[8, "q8_0", pytest.param(4, marks=pytest.mark.slow)])
def quantized(request, model) -> mg.MemGPT:
    return mg.quantize(model, request.param)


@partial(jax.jit, static_argnums=0)
def call(config, params, tokens, state):
    return mg.functional(config).apply(params, tokens, state)


def read(model, *lengths):
    """Logits and state of the tokens, in calls of these lengths."""
    state, found, start = model.init_state(2), [], 0
    for length in lengths:
        logits, state = call(CONFIG, mg.to_params(model), TOKENS[:, start : start + length], state)
        found, start = [*found, logits], start + length
    return jnp.concatenate(found, axis=1), state


def test_what_is_rounded(model):
    """Gates, norms, biases, adapters, the convolution and the null entry are not."""
    kept = {name for name, leaf in named_leaves(mg.to_params(mg.quantize(model))).items() if leaf.dtype == jnp.float32}
    kept = {name for name in kept if not name.endswith(("kernel/scale", "embedding/scale"))}
    assert {name.removeprefix("blocks/0/") for name in kept} == {
        "attention_norm/scale",
        "attention/output/lora/lora_a",
        "attention/output/lora/lora_b",
        "attention/query_key_value/lora/lora_a",
        "attention/query_key_value/lora/lora_b",
        "feed_forward_norm/scale",
        "feed_forward/input/lora/lora_a",
        "feed_forward/input/lora/lora_b",
        "feed_forward/output/lora/lora_a",
        "feed_forward/output/lora/lora_b",
        "final_norm/scale",
        "memory_layer/fusion/gate/bias",
        "memory_layer/fusion/gate/kernel",
        "memory_layer/memory/conv/kernel",
        "memory_layer/memory/key/bias",
        "memory_layer/memory/log_temperature",
        "memory_layer/memory/null_key",
        "memory_layer/memory/value/bias",
        "memory_layer/memory/write_gate/bias",
        "memory_layer/memory/write_gate/kernel",
        "memory_layer/norm/scale",
    }


def test_any_cut_gives_the_same_logits_and_state(quantized, model):
    """Up to activations that are rounded to the other side; one row of a product does not depend on the others."""
    whole, cut, before = read(quantized, 8), read(quantized, *[1] * 8), read(model, 8)
    error = np.std(whole[0] - before[0])
    assert 0 < error < (0.02 if quantized_bits(mg.to_params(quantized)) == "q8_0" else 0.3) * np.std(before[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.02), cut, whole)


def loop_bytes(params, config):
    """Bytes of temporary arrays of the compiled decoding loop of 8 rows."""
    state = jax.eval_shape(lambda: mg.functional(config).init_state(8))
    rows, key = jax.ShapeDtypeStruct((8,), jnp.int32), jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 8))
    decoding = Decoding(rows, rows, rows, jax.ShapeDtypeStruct((8,), bool), key, None, state)
    steps, stop = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((0,), jnp.int32)
    lowered = advance.lower(config, Sampling(), params, decoding, steps, stop)
    return lowered.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("bits", [8, *(pytest.param(bits, marks=pytest.mark.slow) for bits in ("q8_0", 4))])
def test_the_decoding_loop_holds_no_float_copy_of_the_weights(bits):
    config = mg.ModelConfig(
        vocab_size=257, d_model=256, num_layers=2, num_heads=4, window_size=4, memory=mg.NoMemoryConfig()
    )
    shapes = mg.functional(config).param_shapes()
    params = jax.eval_shape(lambda params: quantize_params(config, params, bits), shapes)
    assert tree_bytes(params) < 0.29 * tree_bytes(shapes)
    whole = tree_bytes(params if bits == 8 else shapes)  # groups restore 64 rows at a time, much in so small a model
    assert loop_bytes(params, config) < 0.1 * whole


def test_a_loop_that_converts_weights_holds_a_copy():
    """What the test above looks for."""
    weights, x = jax.ShapeDtypeStruct((512, 512), jnp.int8), jax.ShapeDtypeStruct((8, 512), jnp.float32)

    def loop(weights, x):
        return jax.lax.fori_loop(0, 9, lambda _, x: jnp.tanh(x @ weights.astype(jnp.float32)), x)

    assert jax.jit(loop).lower(weights, x).compile().memory_analysis().temp_size_in_bytes >= 4 * 512 * 512


def test_it_is_saved_and_read(quantized, tmp_path):
    mg.save_pretrained(quantized, tmp_path, tokenizer=ByteTokenizer())
    again = mg.from_pretrained(tmp_path, window_size=5)
    assert again.config.window_size == 5
    want = mg.to_params(quantized)
    assert jax.tree.structure(mg.to_params(again)) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, mg.to_params(again), want)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert mg.parameter_bytes(quantized) < size < 1.1 * mg.parameter_bytes(quantized) + 10_000

    with pytest.raises(ValueError, match="is quantised and cannot be trained"):
        pretrained_start(mg.ExperimentConfig(model=CONFIG, pretrained=str(tmp_path)))
    with pytest.raises(ValueError, match="has been quantised already"):
        mg.quantize(again)
    (tmp_path / "SHA256SUMS").unlink()
    values = json.loads((tmp_path / "config.json").read_text())
    values["quantization_config"]["bits"] = 8 if values["quantization_config"]["bits"] == 4 else 4
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"do not fit their config:\n  .*kernel"):
        describe(tmp_path).params()


def test_what_cannot_be_quantised(model):
    with pytest.raises(ValueError, match="bits must be 8, 4 or 'q8_0', got 16"):
        mg.quantize(model, 16)
    with pytest.raises(ValueError, match="only decoders can be quantised, got a EncoderConfig"):
        quantize_params(mg.EncoderConfig(vocab_size=9), {}, 8)
    plain = mg.ModelConfig(vocab_size=9, d_model=8, num_layers=1, num_heads=1, memory=mg.NoMemoryConfig())
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), mg.functional(plain).param_shapes())
    with pytest.raises(ValueError, match="add the memory first"):
        mg.add_memory(mg.quantize(mg.from_params(plain, params)))


@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_matrices_by_output_change_nothing_but_rounding(tied):
    """For any number of rows in a product, with tied embeddings or not; one row keeps its parameters."""
    config = dataclasses.replace(CONFIG, tie_embeddings=tied)
    params = jax.jit(mg.functional(config).init)(jax.random.key(1))
    stored = laid_out(config, params, 2)
    assert quantized_bits(stored) is None and laid_out(config, params, 1) is params
    assert laid_out(config, stored, 2) is stored
    for length in (1, 40):  # 2 and 80 vectors
        tokens = np.random.default_rng(length).integers(257, size=(2, length))
        (expected, _), (found, _) = (call(config, tree, tokens, None) for tree in (params, stored))
        np.testing.assert_allclose(found, expected, atol=2e-5)
    jax.tree.map(np.testing.assert_array_equal, loadable(stored), params)
    jax.tree.map(np.testing.assert_array_equal, quantize_params(config, stored, 8), quantize_params(config, params, 8))
    assert laid_out(config, params, 65) is params
    small = quantize_params(config, params, 8)
    assert laid_out(config, small, 8) is small
    encoder = mg.EncoderConfig(vocab_size=20, d_model=16, num_layers=1, num_heads=2)
    assert laid_out(encoder, params, 8) is params


@pytest.mark.slow
def test_logits_by_output_are_float32_in_a_bfloat16_model(model, tmp_path):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    params = mg.to_params(model)
    targets = {"tokens": TOKENS}
    with jax.numpy_dtype_promotion("standard"):
        trees = (params, laid_out(config, params, 2))
        scores = [mg.from_params(config, tree).score(TOKENS, targets)[0]["tokens"].losses for tree in trees]
    np.testing.assert_allclose(*scores, atol=2e-2)
    losses = np.asarray(scores[1])
    assert np.any(losses != losses.astype(jnp.bfloat16).astype(np.float32))
    stored = mg.from_params(CONFIG, laid_out(CONFIG, params, 2))
    mg.save_pretrained(stored, tmp_path / "model")  # the folder is that of the model itself
    jax.tree.map(np.testing.assert_array_equal, mg.to_params(mg.from_pretrained(tmp_path / "model")), params)
