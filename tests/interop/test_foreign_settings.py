"""Settings of foreign models: all keys are known; invalid, missing and contradictory settings are named."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memgpt_jax as mg
from memgpt_jax.interop.families import FAMILIES, bert, gpt2, llama, t5, xlnet
from memgpt_jax.interop.families.harmless import HARMLESS
from memgpt_jax.interop.families.rope import INSIDE, PLACE
from memgpt_jax.interop.families.settings import REQUIRED
from memgpt_jax.ops.attention.positions import scale_frequencies
from tests.references import foreign

TABLES = llama.SETTINGS | {
    "gpt2": gpt2.SETTINGS,
    "bert": bert.SETTINGS,
    "roberta": bert.ROBERTA,
    "t5": t5.SETTINGS,
    "xlnet": xlnet.SETTINGS,
}
CASES = {"mistral": "mistral", "qwen2": "qwen2", "llama": "llama_yarn"} | {
    kind: kind for kind in ("gpt2", "bert", "roberta", "t5", "xlnet")
}
PLAIN = {kind: foreign.CASES[case] | {"model_type": kind} for kind, case in CASES.items()}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just("12"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("0", "factor")), inner, max_size=2),
    max_leaves=3,
)


def read(kind, changes=None, without=()):
    values = PLAIN[kind] | (changes or {})
    (family,) = (family for _, family in FAMILIES.values() if kind in family.architectures)
    return family.from_hf({key: value for key, value in values.items() if key not in without})


def library_keys(kind):
    """All keys of the library's config of a kind, and all keys that its models read."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.AutoConfig.for_model(kind)
    generation = transformers.GenerationConfig._get_default_generation_params()
    source = Path(transformers.__file__).parent / "models" / kind / f"modeling_{kind}.py"
    used = set(re.findall(r"\bconfig\.([a-z]\w*)", source.read_text()))
    return {*vars(config), *config.to_dict(), *config.attribute_map, *generation, *used}


@pytest.mark.parametrize("kind", TABLES)
def test_every_key_of_the_library_is_known(kind):
    names = {name for key, setting in TABLES[kind].items() for name in (key, *setting.also)}
    of_versions = {"n_layers", "pad_to_multiple_of"}  # in comments and messages alone
    assert not library_keys(kind) - names - HARMLESS - of_versions


@pytest.mark.parametrize("kind", TABLES)
def test_every_family_declares_the_keys_that_it_reads(kind):
    (family,) = (family for _, family in FAMILIES.values() if kind in family.architectures)
    assert set(TABLES[kind]) - {"pad_token_id"} <= family.read_keys
    assert {"model_type", "architectures"} <= family.read_keys
    assert not family.read_keys & {"bos_token_id", "eos_token_id", "pad_token_id", "id2label", "torch_dtype"}
    written = set(family.to_hf(read(kind))) - {"pad_token_id"}
    assert written <= family.read_keys | {"decoder_start_token_id", "eos_token_id"}


@pytest.mark.parametrize("kind", TABLES)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_is_read_or_refused_by_name(kind, data, unknown_keys):
    key = data.draw(st.sampled_from(sorted({*TABLES[kind], "architectures"})))
    value = data.draw(JSON)
    try:
        read(kind, {key: value})
    except ValueError as error:
        assert key.removesuffix("s") in str(error)
    assert all(key.removesuffix("s") in message for message in unknown_keys)
    unknown_keys.clear()


@settings(max_examples=200)
@given(data=st.data(), rope=st.sampled_from(sorted(INSIDE)))
def test_any_value_in_a_rope_dictionary_is_read_or_refused_by_name(data, rope):
    key = data.draw(st.sampled_from(sorted({*PLACE, *INSIDE[rope]})))
    good = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    good = {name: value for name, value in good.items() if name in INSIDE[rope] and rope != "default"}
    try:
        read("qwen2", {"rope_parameters": {"rope_type": rope} | good | {key: data.draw(JSON)}})
    except ValueError as error:
        assert key in str(error) and "rope_parameters" in str(error)


@pytest.mark.parametrize("value", [None, "12", 0, -1, 1.5, True, [], {}, 10**12, float("nan")])
@pytest.mark.parametrize("kind", TABLES)
def test_invalid_sizes_are_named(kind, value):
    needed = [key for key, setting in TABLES[kind].items() if setting.default is REQUIRED]
    assert len(needed) in (4, 5)
    for key in needed:
        with pytest.raises(
            ValueError, match=re.escape(f"config.json: {key}={value!r} is not supported; valid: a whole")
        ):
            read(kind, {key: value})
        with pytest.raises(ValueError, match=f"config.json: missing {key} "):
            read(kind, without=[key])


LINEAR = {"rope_type": "linear", "factor": 2.0}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SLIDING = {"use_sliding_window": True, "sliding_window": 4}


@pytest.mark.parametrize(
    "kind, changes, message",
    [
        ("gpt2", {"num_attention_heads": 4}, "n_head=5 and num_attention_heads=4 contradict"),
        ("gpt2", {"max_position_embeddings": 95}, "n_positions=96 and max_position_embeddings=95 contradict"),
        ("gpt2", {"n_head": 3}, "n_head=3 must divide n_embd=20"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights=False is not supported; valid: True"),
        ("t5", {"num_hidden_layers": 7}, "num_layers=3 and num_hidden_layers=7 contradict"),
        ("t5", {"dense_act_fn": "gelu_new"}, "dense_act_fn='gelu_new' contradicts feed_forward_proj"),
        ("t5", {"relative_attention_max_distance": 5}, "relative_attention_num_buckets=10 must be below twice"),
        ("xlnet", {"n_token": 7}, "vocab_size=39 and n_token=7 contradict"),
        ("xlnet", {"d_head": 5}, "d_head=5 must be d_model / n_head = 4"),
        ("bert", {"is_decoder": True}, "is_decoder=True is not supported; valid: False"),
        ("bert", {"pruned_heads": {"0": [1]}}, "pruned_heads={'0': [1]} is not supported; valid: null, {}"),
        ("bert", {"architectures": "BertForTea"}, "architecture 'BertForTea' is not supported"),
        ("bert", {"architectures": [["a"]]}, "architecture ['a'] is not supported"),
        ("roberta", {"pad_token_id": None}, "pad_token_id=None is not supported"),
        ("roberta", {"pad_token_id": 31}, "max_position_embeddings=32 must be above 32"),
        ("roberta", {"hidden_act": "relu"}, "hidden_act='relu' is not supported; valid: 'gelu', which the head of"),
        ("llama", {"num_key_value_heads": 4}, "num_key_value_heads=4 must divide num_attention_heads=6"),
        ("llama", {"head_dim": 5}, "head_dim=5 must be even"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config={'bits': 4} is not supported"),
        ("llama", {"is_causal": False}, "is_causal=False is not supported; valid: True"),
        ("llama", {"sliding_window": 4}, "sliding_window=4 is not supported; valid: null"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 is not supported"),
        ("llama", {"rope_theta": None}, "rope_theta=None is not supported"),
        ("llama", {"rope_scaling": "linear"}, "rope_scaling='linear' is not supported; valid: a dictionary"),
        (
            "mistral",
            {"layer_types": ["full_attention"] * 2},
            "layer_types=['full_attention', 'full_attention'] con",
        ),
        ("qwen2", SLIDING | {"max_window_layers": 1}, "max_window_layers=1: of the 2 layers 1 have"),
        ("qwen2", SLIDING | {"layer_types": ["full_attention"]}, "layer_types=['full_attention'] contradicts num_hidd"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 2}, "or sliding_window=None"),
        ("qwen2", {"rope_scaling": LINEAR, "rope_parameters": LLAMA3}, "rope_scaling={'rope_type': 'linear', 'factor"),
        ("qwen2", {"rope_theta": 50.0, "rope_scaling": LINEAR | {"rope_theta": 5.0}}, "rope_theta=5.0 contradicts"),
        (
            "qwen2",
            {"original_max_position_embeddings": 8, "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 9}},
            "original_max_position_embeddings=9 contradicts original_max_position_embeddings=8",
        ),
        ("qwen2", {"rope_scaling": LINEAR | {"type": "yarn"}}, "rope_type='linear' and type='yarn' contradict"),
        ("qwen2", {"rope_scaling": {"rope_type": "linear"}}, "rope_scaling: missing factor"),
        ("qwen2", {"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling: missing factor"),
        ("qwen2", {"rope_scaling": {"factor": 2.0}}, "rope_scaling: factor=2.0 is not supported"),
        (
            "qwen2",
            {"rope_scaling": {"rope_type": "linear", "factor": 0.5}},
            "factor=0.5 is not supported; valid: a",
        ),
        ("qwen2", {"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "low_freq_factor=4.0 must be below high_freq_"),
        ("qwen2", {"rope_scaling": {"full_attention": LINEAR}}, "full_attention={'rope_type': 'linear'"),
        ("qwen2", {"rope_scaling": {"rope_type": "dynamic", "factor": 2}}, "rope_type='dynamic' is not supported; val"),
        ("qwen2", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, "truncate=False is not"),
    ],
)
def test_contradictory_and_unsupported_settings_are_named(kind, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(kind, changes, without=["rope_scaling"] if kind == "llama" and "rope_scaling" not in changes else ())


@pytest.mark.parametrize(
    "kind, changes, without, expected",
    [
        ("llama", {"num_key_value_heads": None}, (), {"num_kv_heads": 6}),
        ("llama", {}, ["num_key_value_heads"], {"num_kv_heads": 6}),
        ("mistral", {"num_key_value_heads": None}, (), {"num_kv_heads": 6}),
        ("mistral", {"num_attention_heads": 24, "head_dim": 2}, ["num_key_value_heads"], {"num_kv_heads": 8}),
        ("mistral", {"sliding_window": None}, (), {"window_size": 96, "num_positions": 96}),
        ("mistral", {}, ["sliding_window", "max_position_embeddings"], {"window_size": 4096, "num_positions": 131072}),
        ("qwen2", {"num_attention_heads": 64, "head_dim": 2}, ["num_key_value_heads"], {"num_kv_heads": 32}),
        ("qwen2", SLIDING, (), {"window_size": 96}),
        ("qwen2", SLIDING | {"max_window_layers": 0}, (), {"window_size": 4, "num_positions": 96}),
        ("qwen2", SLIDING | {"layer_types": ["sliding_attention"] * 2}, (), {"window_size": 4}),
        ("qwen2", SLIDING | {"max_window_layers": 0, "layer_types": ["full_attention"] * 2}, (), {"window_size": 96}),
        ("qwen2", {"sliding_window": 4, "max_window_layers": 0}, (), {"window_size": 96}),
        ("qwen2", {}, ["max_position_embeddings"], {"num_positions": 32768}),
        ("qwen2", {"rope_scaling": {"rope_type": "default", "rope_theta": 500.0}}, (), {"rotary_base": 500.0}),
        ("qwen2", {"rope_theta": 500, "rope_parameters": {"rope_type": "default"}}, (), {"rotary_base": 500.0}),
        ("gpt2", {"n_inner": None}, (), {"d_ff": 80}),
        ("gpt2", {"hidden_size": 20, "num_hidden_layers": 3}, ["n_embd", "n_layer"], {"d_model": 20, "num_layers": 3}),
        ("gpt2", {}, ["n_positions"], {"num_positions": 1024}),
        ("roberta", {"pad_token_id": 0}, (), {"position_offset": 1, "num_positions": 31}),
        ("xlnet", {"clamp_len": 0}, (), {"max_distance": None}),
    ],
)
def test_absent_and_null_values_have_the_meaning_of_the_library(kind, changes, without, expected):
    config = read(kind, changes, without)
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    "tie, scale, tied, scaled",
    [
        (True, None, True, True),
        (None, None, True, True),
        (False, None, False, False),
        (True, False, False, False),  # as transformers 5 writes version 1.1
        (True, True, True, True),
        (False, True, False, True),
    ],
)
def test_the_outputs_of_t5(tie, scale, tied, scaled):
    changes = {"tie_word_embeddings": tie} | ({} if scale is None else {"scale_decoder_outputs": scale})
    decoder = read("t5", changes).decoder
    assert (decoder.tie_embeddings, decoder.logit_scale != 1) == (tied, scaled)


@pytest.mark.parametrize("place", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("name", ["yarn", "llama3"])
def test_the_original_length_may_be_beside_the_dictionary(place, name):
    inside = LLAMA3 if name == "llama3" else {"rope_type": "yarn", "factor": 4.0}
    original = {"original_max_position_embeddings": 8}
    beside, within = (read("qwen2", changes) for changes in (original | {place: inside}, {place: inside | original}))
    assert beside == within and beside.rotary_scaling.original_positions == 8
    assert read("qwen2", {place: inside}).rotary_scaling.original_positions == 96
    assert read("qwen2", original | {place: inside | original}) == beside


@settings(max_examples=200)
@given(
    rope=st.fixed_dictionaries(
        {
            "rope_type": st.sampled_from(("linear", "llama3", "yarn")),
            "factor": st.floats(1, 64),
            "rope_theta": st.floats(1.5, 1e6),
            "low_freq_factor": st.floats(0.01, 3),
            "high_freq_factor": st.floats(3.5, 50),
            "beta_slow": st.floats(0.01, 3),
            "beta_fast": st.floats(3.5, 50),
            "original_max_position_embeddings": st.integers(1, 5000),
        },
        optional={name: st.floats(0.1, 2) for name in ("attention_factor", "mscale", "mscale_all_dim")},
    ),
    head_dim=st.sampled_from((2, 4, 6, 16, 64)),
)
def test_wavelengths_are_those_of_the_library(rope, head_dim):
    transformers = pytest.importorskip("transformers", reason="transformers and torch are not installed")
    rope = {name: value for name, value in rope.items() if name in PLACE | INSIDE[rope["rope_type"]] | {"rope_type": 0}}
    config = read("qwen2", {"rope_parameters": rope, "head_dim": head_dim})
    values = {"head_dim": head_dim, "rope_parameters": rope, "max_position_embeddings": 96}
    theirs = transformers.LlamaConfig(**values)
    expected, length = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[rope["rope_type"]](theirs)
    turns = config.rotary_base ** (-np.arange(head_dim // 2) / (head_dim // 2))
    scaling = dataclasses.asdict(config.rotary_scaling)
    del scaling["attention_factor"]
    got = scale_frequencies(turns / (2 * np.pi), config.rotary_base, **scaling) * 2 * np.pi
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4)
    assert config.rotary_scaling.attention_factor == pytest.approx(length)


@pytest.mark.parametrize("kind", TABLES)
def test_unknown_keys_are_reported(kind, unknown_keys):
    changed = read(kind, {"attention_twist": 3, "new_scale": False, "bos_token_id": 7, "nothing": None})
    (message,) = unknown_keys
    assert message.startswith("config.json: attention_twist=3, new_scale=False: unknown and ignored")
    unknown_keys.clear()
    assert changed == read(kind)


@pytest.mark.parametrize("case", foreign.CASES)
def test_what_is_written_is_read_back(case):
    values = foreign.CASES[case]
    (family,) = (family for _, family in FAMILIES.values() if values["model_type"] in family.architectures)
    config = family.from_hf(values)
    assert family.from_hf(json.loads(json.dumps(family.to_hf(config)))) == config


def test_a_mistral_with_a_window_wider_than_all_positions():
    config = read("mistral", {"sliding_window": 4096})
    assert config.window_size == 4096
    values = llama.LLAMA.to_hf(config)
    assert values["model_type"] == "mistral" and values["sliding_window"] == 4096


def test_a_missing_key_is_named_with_its_file(tmp_path):
    foreign.write("llama", tmp_path)
    values = {key: value for key, value in PLAIN["llama"].items() if key != "hidden_size"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"config.json: missing hidden_size"):
        mg.from_pretrained(tmp_path)
