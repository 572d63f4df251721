"""Each key of each family's config set to another value: refused by its name, or the outputs of the library itself.

A key that leaves our config as it is must leave the library's outputs as they are, too.
"""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import memgpt_jax as mg
from memgpt_jax import models
from memgpt_jax.interop.families import FAMILIES
from tests.references import foreign

transformers = pytest.importorskip("transformers", reason="transformers and torch are not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

LLAMA = {
    "vocab_size": 31,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
BERT = LLAMA | {"type_vocab_size": 2, "architectures": ["BertForMaskedLM"]}
del BERT["num_key_value_heads"]
PLAIN = {
    "gpt2": {"vocab_size": 31, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "n_inner": 24},
    "llama": LLAMA,
    "mistral": LLAMA | {"sliding_window": 5},
    "qwen2": LLAMA,
    "bert": BERT,
    "roberta": BERT | {"architectures": ["RobertaForMaskedLM"], "type_vocab_size": 1},
    "t5": {"vocab_size": 31, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
    | {"n_positions": 32, "is_encoder_decoder": True, "relative_attention_num_buckets": 8}
    | {"relative_attention_max_distance": 12},
    "xlnet": {"vocab_size": 31, "d_model": 16, "n_layer": 2, "n_head": 4, "d_inner": 24}
    | {"architectures": ["XLNetLMHeadModel"]},
}
CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "bert": "BertForMaskedLM",
    "roberta": "RobertaForMaskedLM",
    "t5": "T5ForConditionalGeneration",
    "xlnet": "XLNetLMHeadModel",
}
TOKENS = np.random.default_rng(1).integers(3, 31, (2, 20))  # RoBERTa takes 0 to 2 for padding here
SOURCE = np.random.default_rng(2).integers(2, 31, (2, 15))
ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python", "relu", "silu", "swish", "tanh")
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
ROPES = (
    {"type": "linear", "factor": 2},
    {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0},
    {"rope_type": "linear"},
    {"factor": 2.0},
    {"rope_type": "default", "rope_theta": 500.0},
    {"rope_type": "default", "partial_rotary_factor": 0.5},
    {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "proportional", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
    {"rope_type": "longrope", "short_factor": [1.0, 2.0], "long_factor": [2.0, 3.0], "factor": 2.0},
    {"full_attention": {"rope_type": "default", "rope_theta": 500.0}},
    LLAMA3,
    LLAMA3 | {"original_max_position_embeddings": 8},
    {key: LLAMA3[key] for key in ("rope_type", "factor")},
    YARN,
    {"rope_type": "yarn", "factor": 4.0},
    {"rope_type": "yarn", "original_max_position_embeddings": 8},
    YARN | {"factor": None},
    YARN | {"attention_factor": 0.5},
    YARN | {"mscale": 0.7, "mscale_all_dim": 1.3},
    YARN | {"mscale": 0.7},
    YARN | {"beta_fast": 2.0, "beta_slow": 0.3},
    YARN | {"beta_fast": None, "beta_slow": None},
    YARN | {"truncate": False},
    YARN | {"original_max_position_embeddings": 4},
    YARN | {"rope_theta": 500.0, "finetuned": True},
)
ROTARY = [{place: rope} for rope in ROPES for place in ("rope_scaling", "rope_parameters")] + [
    {"rope_theta": 500.0},
    {"rope_theta": 500.0, "rope_scaling": {"rope_type": "default", "rope_theta": 70.0}},
    {"rope_theta": 500.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "linear", "factor": 3.0}},
    {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 500.0}},
    {"rope_scaling": {}, "rope_parameters": None},
    {"original_max_position_embeddings": 8, "rope_scaling": LLAMA3},
    {"original_max_position_embeddings": 8, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}},
    {"original_max_position_embeddings": 16, "rope_parameters": YARN},
    {"original_max_position_embeddings": 8},
    {"partial_rotary_factor": 0.5},
    {"partial_rotary_factor": 0.5, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    {"layer_types": ["full_attention"] * 2},
    {"layer_types": ["sliding_attention"] * 2},
    {"layer_types": ["full_attention", "sliding_attention"]},
    {"is_causal": False},
    {"attention_bias": True},
    {"mlp_bias": True},
    {"head_dim": 8},
    {"num_key_value_heads": None},
    {"hidden_act": "swish"},
]
SLIDING = {"use_sliding_window": True, "sliding_window": 4}
MORE = {
    "gpt2": [
        {"hidden_size": 32},
        {"num_attention_heads": 2},
        {"num_hidden_layers": 1},
        {"max_position_embeddings": 24},
        {"n_inner": None},
        {"is_causal": False},
        *({"activation_function": name} for name in ACTIVATIONS),
    ],
    "llama": [*ROTARY, {"sliding_window": 4}],
    "mistral": [
        *ROTARY,
        {"sliding_window": None},
        {"sliding_window": None, "layer_types": ["full_attention"] * 2},
        {"sliding_window": 40},
    ],
    "qwen2": [
        *ROTARY,
        {"sliding_window": 4},
        SLIDING,
        SLIDING | {"max_window_layers": 0},
        SLIDING | {"max_window_layers": 1},
        SLIDING | {"max_window_layers": 2},
        SLIDING | {"layer_types": ["sliding_attention"] * 2},
        SLIDING | {"layer_types": ["full_attention"] * 2, "max_window_layers": 0},
        SLIDING | {"layer_types": ["full_attention", "sliding_attention"]},
        {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
        {"attention_bias": False},
    ],
    "bert": [{"position_embedding_type": "relative_key"}, *({"hidden_act": name} for name in ACTIVATIONS)],
    "roberta": [{"pad_token_id": None}, {"pad_token_id": 0}, *({"hidden_act": name} for name in ACTIVATIONS)],
    "t5": [
        {"hidden_size": 32},
        {"head_dim": 8},
        {"num_hidden_layers": 3, "num_decoder_layers": 2},
        {"num_attention_heads": 2},
        {"num_decoder_layers": 1},
        {"relative_attention_num_buckets": 7},
        {"tie_word_embeddings": False},
        {"tie_word_embeddings": None},
        {"tie_word_embeddings": False, "scale_decoder_outputs": True},
        {"tie_word_embeddings": True, "scale_decoder_outputs": False},
        *({"feed_forward_proj": name} for name in ("gelu", "gated-gelu", "gated-gelu_new", "gated-relu", "gated-silu")),
        {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True},
        {"feed_forward_proj": "gated-gelu", "dense_act_fn": "relu"},
        {"dense_act_fn": "gelu_new"},
    ],
    "xlnet": [
        {"hidden_size": 32},
        {"num_attention_heads": 2},
        {"num_hidden_layers": 1},
        {"n_token": 29},
        {"clamp_len": 4},
        {"clamp_len": 0},
        {"attn_type": "uni"},
        {"d_head": 4},
        *({"ff_activation": name} for name in ACTIVATIONS),
    ],
}
NOT_SETTINGS = {"model_type", "architectures", "transformers_version", "dtype"}
EVERYWHERE = [
    {"per_layer_config": {"0": {"hidden_act": "relu", "layer_norm_eps": 0.5, "n_inner": 8}}},
    {"pruned_heads": {"0": [1]}},
    {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    {"add_cross_attention": True},
    {"is_decoder": True},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False},
    {"temperature": 0.5},
    {"num_labels": 5},
    {"torch_dtype": "bfloat16"},
]


def of_library(kind):
    """The library's config for a small model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoConfig.for_model(kind, **PLAIN[kind])


def others(value):
    """Alternative values of the same type, and null."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 2 * value, None]
    if isinstance(value, float):
        return [value * 8 + 0.25, None]
    if isinstance(value, str):
        return ["tanh", None]
    return [3, True, "relu"] if value is None else []


def near_misses(kind):
    """Changes of a config: each key of the library's own, and those above."""
    config = of_library(kind)
    names = sorted({name for name in vars(config) if not name.startswith("_")} - NOT_SETTINGS)
    found = [{name: other} for name in names for other in others(getattr(config, name))]
    return found + MORE[kind] + EVERYWHERE


def library_logits(kind, values, file=None):
    """The library's logits, or None if it refuses the values. Its tensors are written to the given file."""
    values = {name: value for name, value in values.items() if name != "model_type"}
    try:
        config = transformers.AutoConfig.for_model(kind, **json.loads(json.dumps(values)))
        config._attn_implementation = "eager"
        model = getattr(transformers, CLASSES[kind])(config).eval().float()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.from_numpy(foreign.tensor(name, parameter.shape)))
            inputs = {"input_ids": SOURCE, "decoder_input_ids": TOKENS} if kind == "t5" else {"input_ids": TOKENS}
            logits = model(**{name: torch.from_numpy(ids) for name, ids in inputs.items()}).logits.numpy()
    except Exception:
        return None
    if file is not None:
        save_file({name: parameter.detach().numpy() for name, parameter in model.named_parameters()}, file)
    return logits


def our_logits(folder):
    model = mg.from_pretrained(folder)

    def call(params):
        merged = models.from_params(model.config, params)
        state = merged.init_state(2)
        if isinstance(merged, models.EncoderDecoder):
            state = merged.read_source(jnp.asarray(SOURCE, jnp.int32), state)
        return merged(jnp.asarray(TOKENS, jnp.int32), state)[0]

    return np.asarray(jax.jit(call)(models.to_params(model)))


def read(kind, change):
    """Our config; or the error, which must name a key that was changed."""
    (family,) = (family for _, family in FAMILIES.values() if kind in family.architectures)
    try:
        return family.from_hf(PLAIN[kind] | {"model_type": kind} | change), None
    except ValueError as error:
        inner = [key for value in change.values() if isinstance(value, dict) for key in value]
        names = [*change, *inner, "factor", "low_freq_factor", "num_attention_heads"]
        assert any(name in str(error) for name in names), f"{change}: {error}"
        return None, error


@pytest.mark.parametrize(
    "kind", [kind if kind in ("bert", "llama") else pytest.param(kind, marks=pytest.mark.slow) for kind in PLAIN]
)  # a decoder and an encoder; tests/interop/test_pretrained.py compares the outputs of all
def test_keys_that_do_not_change_our_config_do_not_change_the_model(kind, unknown_keys):
    plain, _ = read(kind, {})
    expected, compared, refused = library_logits(kind, PLAIN[kind]), 0, 0
    assert np.abs(expected).max() > 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for change in near_misses(kind):
            config, error = read(kind, change)
            refused += error is not None
            if config == plain:
                logits = library_logits(kind, PLAIN[kind] | change)
                compared += logits is not None
                assert logits is None or np.abs(logits - expected).max() < 1e-4, change
    unknown_keys.clear()
    assert compared > 10 and refused > 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLAIN)
def test_keys_that_change_our_config_change_the_model(kind, tmp_path, unknown_keys):
    plain, _ = read(kind, {})
    compared = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for change in [{}, *near_misses(kind)]:
            config, error = read(kind, change)
            if error is not None or (change and config == plain):
                continue
            values = PLAIN[kind] | {"model_type": kind} | change
            expected = library_logits(kind, values, tmp_path / "model.safetensors")
            if expected is None:
                continue
            (tmp_path / "config.json").write_text(json.dumps(values))
            np.testing.assert_allclose(our_logits(tmp_path), expected, atol=1e-4, err_msg=str(change))
            compared += 1
    unknown_keys.clear()
    assert compared > 5
