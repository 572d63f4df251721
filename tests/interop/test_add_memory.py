"""Adding a memory does not change a model's outputs until the memory is trained; training changes only the memory."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax import models
from memgpt_jax.config.rotary import RotaryScalingConfig
from memgpt_jax.memory import MEMORIES
from memgpt_jax.models.entry_reads import trace_call
from memgpt_jax.training.optimizer import check_patterns, is_trained, make_optimizer, parameter_groups
from tests.references import foreign

MECHANISMS = [name for name in MEMORIES if name != "none"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return mg.from_pretrained(foreign.write("llama", tmp_path_factory.mktemp("base")), window_size=6)


@pytest.fixture(scope="module")
def logits_of_llama(llama):
    return logits_of(llama, TOKENS)


def small(name):
    config = MEMORIES[name].config
    fields = {field.name for field in dataclasses.fields(config)}
    wanted = {"memory_size": 5, "head_dim": 4, "slot_width": 4}
    return config(**{key: value for key, value in wanted.items() if key in fields})


def logits_of(model, tokens):
    call = jax.jit(lambda params: models.functional(model.config).apply(params, tokens)[0])
    return np.asarray(call(models.to_params(model)))


TOKENS = np.asarray(foreign.tokens_of("llama", 24), np.int32)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "kv" else pytest.mark.slow) for name in MECHANISMS],
)
def test_an_untrained_memory_does_not_change_the_outputs(name, llama, logits_of_llama):
    layers = {} if name == "kv" else {"layers": [0]}
    model = mg.add_memory(llama, small(name), segment_length=4, **layers)
    np.testing.assert_array_equal(logits_of(model, TOKENS), logits_of_llama)


@pytest.mark.parametrize("fusion", [pytest.param("gated_add", marks=pytest.mark.slow), "add", "concat"])
def test_every_allowed_fusion_initially_keeps_the_outputs(fusion, llama, logits_of_llama):
    """`gated_add` is the default, which the test before has."""
    options = {"layers": [1], "segment_length": 3, "fusion": fusion, "adapter_rank": 2}
    model = mg.add_memory(llama, small("kv"), **options)
    np.testing.assert_array_equal(logits_of(model, TOKENS), logits_of_llama)


IN_ATTENTION = mg.KVMemoryConfig(memory_size=24, qk_norm=False, null_entry=False, gate_bias=20.0)  # g = 1


@pytest.mark.parametrize(
    "family", ["llama", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2", "qwen2"))]
)
def test_a_shared_softmax_can_initially_keep_the_outputs(family, tmp_path):
    base = mg.from_pretrained(foreign.write(family, tmp_path), window_size=6)
    model = mg.add_memory(base, segment_length=4, fusion="attention", fusion_bias=20.0)
    np.testing.assert_allclose(logits_of(model, TOKENS), logits_of(base, TOKENS), atol=1e-5)


@pytest.fixture(scope="module")
def narrow_and_full(tmp_path_factory):
    """GPT-2, whose keys do not turn with distance, with a window of one token; and the logits of full attention."""
    folder = foreign.write("gpt2", tmp_path_factory.mktemp("gpt2"))
    base, full = (mg.from_pretrained(folder, window_size=size) for size in (1, 24))
    logits = logits_of(full, TOKENS)
    assert np.max(np.abs(logits_of(base, TOKENS) - logits)) > 0.1
    return base, logits


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, pytest.param({"gate": "none", "writer_conv": 1}, marks=pytest.mark.slow)])
def test_a_window_of_one_token_with_a_full_memory_is_full_attention(changes, narrow_and_full):
    base, full = narrow_and_full
    model = mg.add_memory(base, dataclasses.replace(IN_ATTENTION, **changes), fusion="attention")
    np.testing.assert_allclose(logits_of(model, TOKENS), full, atol=1e-5)


def test_entries_are_read_at_the_distance_of_the_window(tmp_path):
    """Two tokens and a window of one token: the first is read from memory as by attention to the previous token."""
    full = mg.from_pretrained(foreign.write("llama", tmp_path), window_size=2)
    model = mg.add_memory(mg.from_pretrained(tmp_path, window_size=1), IN_ATTENTION, fusion="attention")
    np.testing.assert_allclose(logits_of(model, TOKENS[:, :2]), logits_of(full, TOKENS[:, :2]), atol=1e-5)


CONTINUING = mg.KVMemoryConfig(
    memory_size=24, qk_norm=False, null_entry=False, gate="none", writer_conv=1, continues_window=True
)
YARN = RotaryScalingConfig(kind="yarn", factor=4.0, original_positions=16, attention_factor=1.2)


SLOW = [
    pytest.param("llama", {"rotary_scaling": YARN}, marks=pytest.mark.slow),
    pytest.param("gpt2", {}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("family, changes", [("llama", {}), *SLOW])
def test_a_memory_of_all_tokens_that_continues_the_window_is_full_attention(family, changes, tmp_path):
    """The logits, and the attention weights: those of the entries, in order, then those of the open segment."""
    full = mg.from_pretrained(foreign.write(family, tmp_path), window_size=24)
    full = models.from_params(dataclasses.replace(full.config, **changes), models.to_params(full))
    model = mg.add_memory(full, CONTINUING, window_size=7, segment_length=5, fusion="attention")
    expected = logits_of(full, TOKENS)
    np.testing.assert_allclose(logits_of(model, TOKENS), expected, atol=1e-5)

    read, rest = TOKENS[:, :17], TOKENS[:, 17:19]  # 15 entries, two tokens of the open segment, and two more
    valid = np.ones(rest.shape, bool)

    def weights_of(model):
        layer = trace_call(model, rest, model(read)[1], valid).layers[-1]
        return layer.explanation.weights, layer.window

    (of_entries, window), (_, whole) = (
        jax.device_get(jax.jit(lambda m=m: weights_of(m))()) for m in (model, with_no_effect(full))
    )
    entries = np.moveaxis(of_entries[..., -15:], 1, 2)
    np.testing.assert_allclose(entries, whole[..., 24 - 17 : 24 - 2], atol=1e-5)
    np.testing.assert_allclose(window[..., -4:], whole[..., -4:], atol=1e-5)
    assert np.abs(window[..., :-4]).max() == 0


def with_no_effect(model):
    """The model with a memory that adds nothing, so that its attention can be traced."""
    return mg.add_memory(model, small("kv"), segment_length=5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fusion": "gated"}, "fusion='gated' changes the stream even if the read is 0; valid: 'gated_add'"),
        ({"fusion": "attention", "memory": mg.KVMemoryConfig()}, "needs memory.qk_norm=False"),
        ({"fusion": "attention", "memory": mg.TitansMemoryConfig()}, "needs a KVMemoryConfig, got TitansMemoryConfig"),
    ],
)
def test_invalid_arguments_are_refused(options, message, llama):
    with pytest.raises(ValueError, match=message):
        mg.add_memory(llama, **options)


def test_a_second_memory_is_refused(llama):
    model = mg.add_memory(llama, small("kv"))
    with pytest.raises(ValueError, match="has a memory"):
        mg.add_memory(model, small("kv"))


@pytest.mark.parametrize(
    "trainable",
    [
        ("memory_layer", "lora", "blocks/1/"),
        pytest.param(("memory_layer",), marks=pytest.mark.slow),
        pytest.param(("memory_layer", "lora"), marks=pytest.mark.slow),
        pytest.param(("memory_layer", "blocks/1/"), marks=pytest.mark.slow),
    ],
)
def test_training_changes_only_trainable_parameters_and_lowers_the_loss(trainable, llama):
    model = mg.add_memory(llama, small("kv"), layers=[0], segment_length=4, adapter_rank=2)
    config, params = model.config, models.to_params(model)
    optimizer_config = mg.OptimizerConfig(learning_rate=0.03, warmup_steps=0, trainable=trainable)
    optimizer = make_optimizer(optimizer_config, 40, parameter_groups(config))
    targets = np.roll(TOKENS, -1, axis=1)

    @jax.jit
    def step(params, opt_state):
        def loss(params):
            scores, _ = models.functional(config).score(params, TOKENS, {"tokens": targets})
            return jnp.mean(scores["tokens"].losses)

        value, gradients = jax.value_and_grad(loss)(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(gradients, opt_state, params)
        return jax.tree.map(jnp.add, params, updates), opt_state, value

    start, opt_state, losses = params, jax.jit(optimizer.init)(params), []
    for _ in range(40):
        params, opt_state, value = step(params, opt_state)
        losses.append(float(value))
    assert losses[-1] < losses[0] - 0.3
    trained = is_trained(optimizer_config, start)
    moved = jax.tree.map(lambda old, new: not np.array_equal(old, new), start, params)
    assert jax.tree.leaves(moved) == jax.tree.leaves(trained)
    frozen = sum(
        leaf.size for leaf, kept in zip(jax.tree.leaves(start), jax.tree.leaves(trained), strict=True) if not kept
    )
    assert frozen > 0
    state_size = sum(leaf.size for leaf in jax.tree.leaves(opt_state))
    assert state_size < 2.5 * (sum(leaf.size for leaf in jax.tree.leaves(start)) - frozen)


def test_a_pattern_that_matches_no_parameter_is_refused(llama):
    with pytest.raises(ValueError, match=r"optimizer.trainable: 'memory' is in no parameter's path"):
        check_patterns(mg.OptimizerConfig(trainable=("memory",)), models.to_params(llama))
    with pytest.raises(ValueError, match=r"trainable: '\(' is not a regular expression"):
        mg.OptimizerConfig(trainable=("(",))


@pytest.mark.parametrize("state_bits", [None, pytest.param(8, marks=pytest.mark.slow)])
def test_the_memory_is_saved_with_the_base_model(state_bits, llama, tmp_path):
    """In the form of the model's family, which other programs read, whatever the bits of a state."""
    model = mg.add_memory(llama, small("kv"), layers=[1], segment_length=4, adapter_rank=2)
    if state_bits:
        model = mg.quantize(model, None, state_bits=state_bits)
    mg.save_pretrained(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "mistral"  # a Llama with a window
    again = mg.from_pretrained(tmp_path)
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, models.to_params(again), models.to_params(model))
