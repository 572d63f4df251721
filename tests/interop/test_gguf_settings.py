"""Settings of GGUF files are read as by llama.cpp, or refused with their name and the file."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memgpt_jax as mg
from memgpt_jax.interop.gguf import ARCHITECTURES, read_gguf
from tests.references import foreign

gguf = pytest.importorskip("gguf")
SIZES = {"context_length": 64, "embedding_length": 16, "block_count": 1, "feed_forward_length": 24}
LLAMA = SIZES | {"attention.head_count": 4, "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-6}
GPT2 = SIZES | {"attention.head_count": 4, "attention.layer_norm_epsilon": 1e-5}
SHAPES = {"token_embd": (31, 16), "output_norm": (16,), "blk.0.attn_norm": (16,), "blk.0.ffn_norm": (16,)} | {
    **{"blk.0.attn_q": (16, 16), "blk.0.attn_k": (8, 16), "blk.0.attn_v": (8, 16), "blk.0.attn_output": (16, 16)},
    **{"blk.0.ffn_gate": (24, 16), "blk.0.ffn_up": (24, 16), "blk.0.ffn_down": (16, 24)},
}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16}
YARN_LENGTH = 1 + 0.1 * np.log(4)


def write(path, changes=None, kind="llama", without=(), tensors=(), general=None):
    """A small file; each value is written with its Python type."""
    writer = gguf.GGUFWriter(path, kind)
    plain = GPT2 if kind == "gpt2" else LLAMA
    values = {f"{kind}.{name}": value for name, value in (plain | (changes or {})).items() if name not in without}
    for name, value in (values | (general or {})).items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add.get(type(value), writer.add_array)(name, value)
    for name, shape in SHAPES.items():
        if name not in without:
            writer.add_tensor(f"{name}.weight", foreign.tensor(f"{name}.weight", shape))
    for name, array in tensors:
        writer.add_tensor(name, array)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    return path


def config_of(path, *arguments, **options):
    return mg.from_pretrained(write(path, *arguments, **options)).config


@pytest.mark.parametrize(
    "changes, kind, factor, length",
    [
        ({}, "none", 1, 1),
        ({"rope.scaling.factor": 4.0}, "linear", 4, 1),
        ({"rope.scale_linear": 4.0}, "linear", 4, 1),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, "none", 1, 1),
        ({"rope.scaling.type": "linear"}, "none", 1, 1),
        (YARN, "yarn", 4, YARN_LENGTH),
        (YARN | {"rope.scaling.attn_factor": 0.5}, "yarn", 4, 0.5 * YARN_LENGTH),
        (YARN | {"rope.scaling.yarn_ext_factor": 1.0, "rope.scaling.finetuned": True}, "yarn", 4, YARN_LENGTH),
    ],
)
def test_scaling_is_that_of_llama_cpp(changes, kind, factor, length, tmp_path):
    found = config_of(tmp_path / "model.gguf", changes).rotary_scaling
    assert (found.kind, found.factor) == (kind, factor) and found.attention_factor == pytest.approx(length)


def test_turns_and_original_length_of_yarn(tmp_path):
    betas = {"rope.scaling.yarn_beta_fast": 8.0, "rope.scaling.yarn_beta_slow": 2.0}
    found = config_of(tmp_path / "model.gguf", YARN | betas).rotary_scaling
    assert (found.original_positions, found.slow_turns, found.fast_turns) == (16, 2.0, 8.0)
    del (without := dict(YARN))["rope.scaling.original_context_length"]
    found = config_of(tmp_path / "other.gguf", without).rotary_scaling
    assert (found.original_positions, found.slow_turns, found.fast_turns) == (64, 1.0, 32.0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"attention.sliding_window": 8}, "llama: attention.sliding_window=8 is not supported; valid: null, 0"),
        ({"attention.clamp_kqv": 3.0}, "attention.clamp_kqv=3.0"),
        ({"attention.scale": 0.5}, "attention.scale=0.5"),
        ({"attention.causal": False}, "attention.causal=False"),
        ({"attention.value_length": 8}, "attention.value_length=8 is not supported; valid: 4"),
        ({"attention.key_length": 6, "attention.value_length": 4}, "attention.value_length=4"),
        ({"rope.dimension_count": 2}, "rope.dimension_count=2 is not supported; valid: 4"),
        ({"rope.scaling.type": "longrope"}, "rope.scaling.type='longrope' is not supported; valid: none, linear, yarn"),
        ({"rope.scaling.factor": 0.5}, "rope.scaling.factor=0.5"),
        ({"rope.scaling.factor": 2.0, "rope.scale_linear": 4.0}, "contradict"),
        ({"rope.scaling.attn_factor": 0.5}, "rope.scaling.attn_factor=0.5 is not supported without"),
        ({"rope.scaling.yarn_ext_factor": 1.0}, "rope.scaling.yarn_ext_factor=1.0 is not supported without"),
        (YARN | {"rope.scaling.yarn_attn_factor": 2.0}, "rope.scaling.yarn_attn_factor=2.0"),
        (YARN | {"rope.scaling.yarn_log_multiplier": 0.1}, "rope.scaling.yarn_log_multiplier=0.1"),
        (YARN | {"rope.scaling.yarn_beta_slow": 64.0}, "beta_slow=64.0 must be below beta_fast=32.0"),
        ({"rope.freq_base": -1.0}, "rope.freq_base=-1.0"),
        ({"rope.freq_base_swa": 5.0}, "rope.freq_base_swa=5.0: unknown, so it"),
        ({"expert_count": 4}, "expert_count=4"),
        ({"logit_scale": 2.0}, "logit_scale=2.0"),
        ({"attn_logit_softcapping": 30.0}, "attn_logit_softcapping=30.0"),
        ({"attention.head_count": [4, 2]}, "attention.head_count=[4, 2] is not supported; valid: a whole number"),
        ({"attention.head_count": 3}, "attention.head_count=3 must divide embedding_length=16"),
        ({"attention.head_count_kv": 3}, "num_key_value_heads=3 must divide"),
        ({"context_length": "64"}, "context_length='64'"),
        ({"attention.layer_norm_rms_epsilon": float("nan")}, "attention.layer_norm_rms_epsilon=nan"),
        ({"new": 1}, "llama: new=1: unknown, so it may change the outputs of the model"),
    ],
)
def test_unsupported_settings_are_named_with_the_file(changes, message, tmp_path):
    path = write(tmp_path / "model.gguf", changes)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        mg.from_pretrained(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_missing_settings_are_named_with_the_file(kind, tmp_path):
    needed = set(GPT2 if kind == "gpt2" else LLAMA) - {"attention.head_count_kv"}
    for number, name in enumerate([*sorted(needed), "token_embd"]):
        path = write(tmp_path / f"{number}.gguf", kind=kind, without=[name])
        with pytest.raises(ValueError, match=rf"{number}\.gguf.* {re.escape(name)}.* ?(is missing)?"):
            read_gguf(path)


@pytest.mark.parametrize(
    "general, message",
    [
        ({"general.type": "adapter"}, "general.type='adapter' is not supported; valid: 'model'"),
        ({"split.no": 0, "split.count": 3}, "split.count=3 is not supported"),
    ],
)
def test_incomplete_models_are_refused(general, message, tmp_path):
    path = write(tmp_path / "model.gguf", general=general)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        read_gguf(path)


def test_factors_together_with_a_scaling_are_refused(tmp_path):
    factors = ("rope_freqs.weight", np.ones(2, np.float32))
    path = write(tmp_path / "model.gguf", {"rope.scaling.factor": 4.0}, tensors=[factors])
    with pytest.raises(ValueError, match=r"rope_freqs.weight together with rope.scaling.factor is not supported"):
        read_gguf(path)
    for factors in (np.ones(3, np.float32), np.full(2, np.nan, np.float32), np.zeros(2, np.float32)):
        path = write(tmp_path / "other.gguf", tensors=[("rope_freqs.weight", factors)])
        with pytest.raises(ValueError, match=r"other.gguf: rope_freqs.weight is not the scaling"):
            read_gguf(path)


def test_harmless_settings_are_ignored(tmp_path):
    harmless = {"vocab_size": 31, "tensor_data_layout": "Meta AI original pth", "expert_count": 0}
    harmless |= {"attention.key_length": 4, "attention.value_length": 4, "rope.dimension_count": 4}
    assert config_of(tmp_path / "a.gguf", harmless) == config_of(tmp_path / "b.gguf")
    assert set(ARCHITECTURES) == {"llama", "qwen2", "gpt2"}


@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_with_its_name(data, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    whole = write(folder / "whole.gguf", YARN | {"attention.key_length": 4}).read_bytes()
    place = data.draw(st.integers(0, 1400))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    end = data.draw(st.sampled_from((len(whole), place)))
    (folder / "damaged.gguf").write_bytes(damaged[:end])
    try:
        read_gguf(folder / "damaged.gguf")
    except ValueError as error:
        assert "damaged.gguf" in str(error)
