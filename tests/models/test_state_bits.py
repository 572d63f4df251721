"""States of 8 bits per key and value: what is stored, the laws, gradients, and the calls that change a state."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import memgpt_jax as mg
from memgpt_jax.config.experiment import ParallelConfig
from memgpt_jax.data import ByteTokenizer
from memgpt_jax.inspector.entries import edit_entry
from memgpt_jax.memory import resolved
from memgpt_jax.models.quantization import with_state_bits
from memgpt_jax.ops.int8_vectors import Int8Vectors, as_floats, round_vectors, rounded
from memgpt_jax.ops.trees import named_leaves, tree_bytes
from memgpt_jax.parallel import make_mesh, state_shardings
from memgpt_jax.training.pretrained import pretrained_start
from memgpt_jax.training.step import has_nan_or_inf
from tests.laws.models import build, built, random_params, stream_inputs, tiny

MEMORY = mg.KVMemoryConfig(memory_size=7, num_heads=2, head_dim=4, temperature=3.0)
FORMS = {
    "kv": {},
    "least read": {"evict": "least_read", "initial_entries": 2, "select": "highest_gate", "select_size": 3},
    "own tokens": {"visibility": "token", "gate": "scale", "evict": "lowest_gate", "initial_entries": 2},
    "pooled": {"select": "pool", "select_size": 2, "gate": "scale_value", "null_entry": False},
}
LENGTH = 24
some_forms = pytest.mark.parametrize(
    "form", [pytest.param(form, marks=[pytest.mark.slow] * (form != "kv")) for form in FORMS]
)


def config_of(form: str, **changes) -> mg.ModelConfig:
    return tiny(dataclasses.replace(MEMORY, **FORMS[form]), **changes)


def vectors_of(state) -> list[Int8Vectors]:
    """The stored vectors of a state: two of each window, two of each memory."""
    is_stored = lambda leaf: isinstance(leaf, Int8Vectors)  # noqa: E731
    return [leaf for leaf in jax.tree.leaves(state, is_leaf=is_stored) if is_stored(leaf)]


@some_forms
def test_a_state_holds_the_rounded_keys_and_values_bitwise(form):
    """Of the first layer: its window does not depend on what is stored, nor does its memory if only entries are."""
    config = config_of(form)
    if config.memory.evict == "least_read":  # what is kept depends on reads
        config = dataclasses.replace(config, memory=dataclasses.replace(config.memory, memory_size=LENGTH))
    entries_alone = dataclasses.replace(config, memory=dataclasses.replace(config.memory, entry_bits=8))
    params = random_params(config)
    tokens, _ = stream_inputs(0, config, LENGTH)
    plain, window, entries = (
        jax.jit(lambda tokens, c=c: mg.functional(c).apply(params, tokens))(tokens)[1].layers[0]
        for c in (config, dataclasses.replace(config, window_bits=8), entries_alone)
    )
    pairs = (window.window, plain.window), (entries.stream.memory.entries, plain.stream.memory.entries)
    for found, expected in pairs:
        assert isinstance(found.keys, Int8Vectors) and isinstance(found.values, Int8Vectors)
        found, valid = as_floats(found, jnp.float32), np.asarray(expected.valid)
        np.testing.assert_array_equal(found.valid, valid)
        for name in ("keys", "values"):
            np.testing.assert_array_equal(getattr(found, name)[valid], rounded(getattr(expected, name))[valid])


@cache
def models_of(form: str):
    return built(config_of(form)), built(with_state_bits(config_of(form), 8))


def cut_difference(model, seed: int, cuts: list[int]) -> float:
    tokens, reset = stream_inputs(seed, model.config, LENGTH)
    whole, _ = model(tokens, reset=reset)
    state, parts, start = model.fresh(), [], 0
    for size in cuts:
        part, state = model(tokens[:, start : start + size], state, reset[:, start : start + size])
        parts, start = [*parts, part], start + size
    return float(np.abs(np.concatenate(parts, axis=1) - whole).max())


CUTS = ([1] * LENGTH, [7, 1, 7, 1, 7, 1], [1, 7, 7, 7, 1, 1], [7, 7, 7, 1, 1, 1])


@some_forms
def test_any_cut_gives_the_same_logits(form):
    """Up to rounding, but for the rare value at the border of two integers, which may be rounded to the other side."""
    _, model = models_of(form)
    found = [cut_difference(model, seed, cuts) for seed, cuts in enumerate(CUTS * 2)]
    assert np.median(found) < 1e-5 and max(found) < 0.05, found


@pytest.mark.slow
def test_a_call_that_reads_its_own_tokens_unrounded_breaks_this_law(monkeypatch):
    """What the test above looks for."""
    monkeypatch.setattr("memgpt_jax.models.attention.rounded", lambda x: x)
    model = build(with_state_bits(config_of("kv"), 8))
    assert np.median([cut_difference(model, seed, cuts) for seed, cuts in enumerate(CUTS)]) > 1e-3


def test_rounding_changes_little_and_takes_a_quarter_of_the_bytes():
    plain, model = models_of("kv")
    tokens, reset = stream_inputs(0, plain.config, LENGTH)
    (before, _), (after, state) = plain(tokens, reset=reset), model(tokens, reset=reset)
    assert 1e-4 < np.std(after - before) < 0.02 * np.std(before)
    assert [leaf.values.dtype for leaf in vectors_of(state)] == [jnp.int8] * 4
    assert np.all(np.abs(np.concatenate([np.ravel(leaf.values) for leaf in vectors_of(state)])) <= 127)

    config = mg.ModelConfig(
        vocab_size=9, d_model=64, num_layers=1, num_heads=1, memory=mg.KVMemoryConfig(writer_conv=1, memory_size=256)
    )
    plain_bytes, bytes_ = (
        tree_bytes(jax.eval_shape(lambda c=c: mg.functional(c).init_state(1)).layers[0])
        - 4 * config.segment_length * config.d_model  # the open segment, which is not rounded
        for c in (config, with_state_bits(config, 8))
    )
    assert bytes_ < 0.29 * plain_bytes


@pytest.mark.slow
@pytest.mark.parametrize("form", ["kv", "least read"])
def test_what_an_earlier_call_has_stored_gets_its_gradient(form):
    """Where the calls of a training step follow each other, and in the scan over segments: as without rounding."""

    def gradient(config):
        config = mg.HeadedConfig(backbone=config, head=mg.LabelHeadConfig(num_outputs=3), call_length=8)
        params = random_params(config)
        tokens, _ = stream_inputs(1, config.backbone, LENGTH)

        def loss(params):
            outputs, _ = mg.functional(config).apply(params, tokens)
            return jnp.sum(jnp.sin(outputs[:, -8:]))  # the last call alone: values are stored by the calls before it

        found = named_leaves(jax.jit(jax.grad(loss))(params))
        names = (
            "value/kernel",
            *(("initial_keys", "initial_values") if config.backbone.memory.initial_entries else ()),
        )
        return [np.ravel(found[f"backbone/blocks/0/memory_layer/memory/{name}"]) for name in names]

    config = config_of(form, window_size=4, segment_length=4)
    for expected, found in zip(*(gradient(c) for c in (config, with_state_bits(config, 8))), strict=True):
        assert found @ expected > 0.95 * np.linalg.norm(found) * np.linalg.norm(expected) > 0


@pytest.mark.slow
@pytest.mark.parametrize("form", ["own tokens", "least read"])
def test_every_parameter_has_its_gradient_in_one_call(form):
    """Initial entries too, which are stored before they are read."""

    def gradients(config):
        params = random_params(config)
        tokens, _ = stream_inputs(1, config, LENGTH)
        loss = lambda params: jnp.sum(jnp.sin(mg.functional(config).apply(params, tokens)[0]))  # noqa: E731
        return named_leaves(jax.jit(jax.grad(loss))(params))

    config = config_of(form)
    found, expected = gradients(with_state_bits(config, 8)), gradients(config)
    for name, one in expected.items():
        one, other = np.ravel(one), np.ravel(found[name])
        assert one @ other > 0.9 * np.linalg.norm(one) * np.linalg.norm(other), name
        assert np.any(one) == np.any(other), name


def test_nan_in_a_state_is_found():
    """A training step whose state holds NaN is skipped."""
    config = with_state_bits(config_of("kv"), 8)
    state = mg.functional(config).init_state(2)
    layer = state.layers[0]
    window = layer.window._replace(values=round_vectors(jnp.full(layer.window.values.shape, jnp.nan)))
    assert not has_nan_or_inf(state, 8) and has_nan_or_inf(state._replace(layers=(layer._replace(window=window),)), 8)


@pytest.mark.slow
def test_sessions_files_and_changes_of_a_state(tmp_path):
    """A session is saved and goes on bitwise; entries are merged, edited and forgotten in 8 bits."""
    config = tiny(mg.KVMemoryConfig(memory_size=16, num_heads=2, head_dim=4), vocab_size=257)
    model = mg.quantize(mg.from_params(config, random_params(config)), None, state_bits=8)
    assert model.config.window_bits == model.config.memory.entry_bits == 8
    mg.save_pretrained(model, tmp_path / "model", tokenizer=ByteTokenizer())
    assert mg.from_pretrained(tmp_path / "model").config == model.config

    session = mg.Session(model, ByteTokenizer())
    session.feed("an entry of a memory")
    session.save(tmp_path / "session.safetensors")
    again = mg.Session.load(tmp_path / "session.safetensors", model, ByteTokenizer())
    jax.tree.map(np.testing.assert_array_equal, again.state, session.state)
    assert again.generate(max_new_tokens=4) == session.generate(max_new_tokens=4)

    state, pair = session.state, (model.config, mg.to_params(model))
    small, merged = mg.compress_memory(model, state, 8)
    session = session.compressed(8)
    jax.tree.map(np.testing.assert_array_equal, session.state, merged)
    assert session.config == small.config
    session.feed(", and so on")
    session.generate(max_new_tokens=2)
    for changed in (merged, edit_entry(pair, state, 0, 15, gate=0.5), mg.forget(pair, state, 0, 8)):
        assert jax.tree.structure(changed) == jax.tree.structure(state)
        assert len(vectors_of(changed)) == 4


def test_an_experiment_rounds_the_states_of_a_pretrained_model(tmp_path):
    plain = tiny(MEMORY, vocab_size=257)
    mg.save_pretrained(mg.from_params(plain, random_params(plain)), tmp_path, tokenizer=ByteTokenizer())
    for config in (plain, with_state_bits(plain, 8)):
        found = pretrained_start(mg.ExperimentConfig(model=config, pretrained=str(tmp_path))).config.model
        assert (found.window_bits, found.memory.entry_bits) == (config.window_bits, config.memory.entry_bits)


def test_heads_and_entries_are_split_over_a_mesh():
    mesh = make_mesh(ParallelConfig())
    state = mg.functional(with_state_bits(config_of("kv"), 8)).init_state(2)
    split = state_shardings(state, mesh).layers[0]
    rows = ("data", "fsdp")
    for part in split.window.keys:
        assert part.spec == PartitionSpec(rows, None, "tensor")
    for part in split.stream.memory.entries.values:
        assert part.spec == PartitionSpec(rows, "sequence", "tensor")


@pytest.mark.slow
def test_knowledge_is_that_of_the_rounded_entries():
    """As it is stored in a memory: also of the last, open segment."""
    memory = dataclasses.replace(MEMORY, knowledge_size=16, entry_bits=8)
    config = tiny(memory, vocab_size=257)
    model = mg.from_params(config, random_params(config))
    (entries,) = mg.knowledge.encode(model, ["nine tokens"], ByteTokenizer()).layers
    np.testing.assert_array_equal(rounded(jnp.asarray(entries.keys)), entries.keys)


def test_a_memory_keeps_its_size():
    """Where the size follows from a number of bytes, rounding makes the state smaller, not the memory larger."""
    memory = mg.KVMemoryConfig(match_state_bytes=4000, num_heads=2, head_dim=4)
    assert with_state_bits(tiny(memory), 8).memory.memory_size == resolved(tiny(memory)).memory.memory_size < 1024


def test_what_has_no_bits_is_refused():
    config = config_of("kv")
    model = mg.from_params(config, random_params(config))
    with pytest.raises(ValueError, match="state_bits must be 8, got 4"):
        mg.quantize(model, state_bits=4)
    with pytest.raises(ValueError, match="nothing to quantize: give bits, state_bits or both"):
        mg.quantize(model, None)
    with pytest.raises(ValueError, match="only states of decoders have 8 bits, got a EncoderConfig"):
        with_state_bits(mg.EncoderConfig(vocab_size=9), 8)
    with pytest.raises(ValueError, match="entry_bits"):
        mg.KVMemoryConfig(entry_bits=4)
    with pytest.raises(ValueError, match="window_bits"):
        tiny(window_bits=16)
