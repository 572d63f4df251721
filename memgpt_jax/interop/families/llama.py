"""Llama and its relatives: rotary positions, RMS norms, SwiGLU, grouped key-value heads.

`llama` (Llama, SmolLM, ...), `mistral` (a sliding window), `qwen2` (biases on queries, keys and values).

Source: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models" (2023).
"""

import math

from memgpt_jax.config import ModelConfig
from memgpt_jax.config_memory import NoMemoryConfig
from memgpt_jax.config_positions import RotaryScalingConfig
from memgpt_jax.interop.families.base import Family, Weight, linear, required

SCALING_FIELDS = {
    "linear": {},
    "llama3": {
        "original_max_position_embeddings": "original_positions",
        "low_freq_factor": "slow_turns",
        "high_freq_factor": "fast_turns",
    },
    "yarn": {
        "original_max_position_embeddings": "original_positions",
        "beta_slow": "slow_turns",
        "beta_fast": "fast_turns",
        "attention_factor": "attention_factor",
    },
}
"""Their names of the fields of `RotaryScalingConfig`, by kind."""


def config(values):
    """See `Family`."""
    kind = values["model_type"]
    required(values, hidden_act="silu", mlp_bias=False, pretraining_tp=1)
    positions = values.get("max_position_embeddings", 32768 if kind in ("mistral", "qwen2") else 2048)
    window = positions
    if kind == "mistral" and values.get("sliding_window", 4096) is not None:
        window = values.get("sliding_window", 4096)
    if kind == "qwen2" and values.get("use_sliding_window"):
        required(values, max_window_layers=0)
        window = values.get("sliding_window", 4096)
    bias = "query_key_value" if kind == "qwen2" else "all" if values.get("attention_bias") else "none"
    heads = values["num_attention_heads"]
    rotary = values.get("rope_parameters") or {}  # of transformers 5; before: rope_theta and rope_scaling
    return ModelConfig(
        vocab_size=values["vocab_size"],
        d_model=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=values.get("num_key_value_heads") or (8 if kind == "mistral" else heads),
        head_dim=values.get("head_dim") or values["hidden_size"] // heads,
        d_ff=values["intermediate_size"],
        window_size=window,
        num_positions=positions,
        context_length=positions if window == positions else None,
        memory=NoMemoryConfig(),
        position="rotary",
        rotary_base=float(rotary.get("rope_theta", values.get("rope_theta", 10000.0))),
        rotary_scaling=_scaling(values.get("rope_scaling") or rotary, positions),
        embedding_scale=1.0,
        norm="rmsnorm",
        norm_epsilon=values.get("rms_norm_eps", 1e-6),
        activation="swiglu",
        attention_bias=bias,
        tie_embeddings=values.get("tie_word_embeddings", False),
    )


def _scaling(rope, positions):
    kind = rope.get("rope_type", rope.get("type", "default"))
    factor = float(rope.get("factor") or 1.0)
    if kind == "default":
        return RotaryScalingConfig()
    if kind not in SCALING_FIELDS:
        raise ValueError(
            f"config.json: rope_type={kind!r} is not supported; valid: {', '.join(SCALING_FIELDS)}, default"
        )
    defaults = {"original_positions": positions}
    if kind == "yarn":
        required(rope, mscale=None, mscale_all_dim=None, truncate=True)
        defaults |= {"slow_turns": 1.0, "fast_turns": 32.0, "attention_factor": 0.1 * math.log(factor) + 1}
    given = {ours: rope[theirs] for theirs, ours in SCALING_FIELDS[kind].items() if rope.get(theirs) is not None}
    fields = {ours: (defaults | given)[ours] for ours in SCALING_FIELDS[kind].values()}
    return RotaryScalingConfig(kind=kind, factor=factor, **fields)


def values(config):
    """See `Family`. A window smaller than the positions makes it a Mistral, or a Qwen2 that uses its window."""
    slides = config.window_size < config.num_positions
    kind = "qwen2" if config.attention_bias == "query_key_value" else "mistral" if slides else "llama"
    found = {
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.attention_head_dim,
        "intermediate_size": config.feed_forward_dim,
        "max_position_embeddings": config.num_positions,
        "rope_theta": config.rotary_base,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tie_embeddings,
    }
    if kind == "llama":
        found["attention_bias"] = config.attention_bias == "all"
    else:
        found["sliding_window"] = config.window_size
    if kind == "qwen2":
        found |= {"use_sliding_window": slides, "max_window_layers": 0}
    scaling = config.rotary_scaling
    if scaling.kind != "none":
        found["rope_scaling"] = {
            "rope_type": scaling.kind,
            "factor": scaling.factor,
            **{theirs: getattr(scaling, ours) for theirs, ours in SCALING_FIELDS[scaling.kind].items()},
        }
    return found


def weights(config):
    """See `Family`."""
    heads = [count * config.attention_head_dim for count in (config.num_heads, config.kv_heads, config.kv_heads)]
    found = [Weight("embedding", ("model.embed_tokens.weight",))]
    for i in range(config.num_layers):
        ours, theirs = f"blocks/{i}", f"model.layers.{i}"
        found.append(Weight(f"{ours}/attention_norm/scale", (f"{theirs}.input_layernorm.weight",)))
        found.append(Weight(f"{ours}/feed_forward_norm/scale", (f"{theirs}.post_attention_layernorm.weight",)))
        projections = (f"{theirs}.self_attn.{name}_proj" for name in "qkv")
        found += linear(
            f"{ours}/attention/query_key_value", *projections, widths=heads, bias=config.attention_bias != "none"
        )
        found += linear(f"{ours}/attention/output", f"{theirs}.self_attn.o_proj", bias=config.attention_bias == "all")
        gate_and_value = f"{theirs}.mlp.gate_proj", f"{theirs}.mlp.up_proj"
        found += linear(f"{ours}/feed_forward/input", *gate_and_value, widths=(config.feed_forward_dim,) * 2)
        found += linear(f"{ours}/feed_forward/output", f"{theirs}.mlp.down_proj")
    found.append(Weight("final_norm/scale", ("model.norm.weight",)))
    if not config.tie_embeddings:
        found += linear("output", "lm_head")
    return found


LLAMA = Family(
    architectures={"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"},
    config=config,
    values=values,
    weights=weights,
    ignored=r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
)
