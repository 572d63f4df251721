"""Llama and its relatives: rotary positions, RMS norms, SwiGLU, grouped key-value heads.

`llama` (Llama, SmolLM, ...), `mistral` (a sliding window), `qwen2` (biases on queries, keys and values).

Source: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models" (2023).
"""

from typing import Any

from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import AttentionBias, ModelConfig
from memgpt_jax.interop.families import rope, settings
from memgpt_jax.interop.families.base import Family, Weight, linear_weights, untied

ALL = (
    settings.UNSUPPORTED
    | rope.SETTINGS
    | {
        "vocab_size": settings.size(),
        "hidden_size": settings.size(),
        "num_hidden_layers": settings.layers(),
        "num_attention_heads": settings.size(),
        "num_key_value_heads": settings.size(None, null=True),
        "head_dim": settings.size(None, null=True),
        "intermediate_size": settings.size(),
        "max_position_embeddings": settings.size(2048),
        "hidden_act": settings.only("silu", "swish"),
        "rms_norm_eps": settings.number(1e-6),
        "tie_word_embeddings": settings.flag(False),
        "attention_bias": settings.only(False, None),
        "mlp_bias": settings.only(False, None),
        "is_causal": settings.only(True),
        "layer_types": settings.words("full_attention", "sliding_attention", "attention"),
    }
)
SETTINGS = {
    "llama": ALL | {"attention_bias": settings.flag(False)},
    "mistral": ALL
    | {
        "num_key_value_heads": settings.size(8, null=True),
        "max_position_embeddings": settings.size(131072),
        "sliding_window": settings.size(4096, null=True),
    },
    "qwen2": ALL
    | {
        "num_key_value_heads": settings.size(32, null=True),
        "max_position_embeddings": settings.size(32768),
        "attention_bias": settings.only(True),
        "use_sliding_window": settings.flag(False),
        "sliding_window": settings.size(4096, null=True),
        "max_window_layers": settings.size(28, low=0),
    },
}


def from_hf(values: dict[str, Any]) -> ModelConfig:
    """The config for the values of a config.json."""
    kind = values["model_type"]
    found = settings.read(SETTINGS[kind], values)
    heads, positions = found["num_attention_heads"], found["max_position_embeddings"]
    if found["head_dim"] is None:
        settings.check_divides(found, "num_attention_heads", "hidden_size")
    head_dim = found["head_dim"] or found["hidden_size"] // heads
    if head_dim % 2:
        raise ValueError(f"config.json: head_dim={head_dim} must be even (default: hidden_size / num_attention_heads)")
    found["num_key_value_heads"] = found["num_key_value_heads"] or heads
    settings.check_divides(found, "num_key_value_heads", "num_attention_heads")
    window = _window(kind, found) or positions
    rotary = rope.rotary(found, positions)
    biases: dict[str, AttentionBias]
    biases = {"llama": "all" if found["attention_bias"] else "none", "mistral": "none", "qwen2": "query_key_value"}
    return ModelConfig(
        vocab_size=found["vocab_size"],
        d_model=found["hidden_size"],
        num_layers=found["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=found["num_key_value_heads"],
        head_dim=head_dim,
        d_ff=found["intermediate_size"],
        window_size=window,
        num_positions=positions,
        context_length=positions if window == positions else None,
        memory=NoMemoryConfig(),
        position="rotary",
        rotary_base=rotary.base,
        rotary_scaling=rotary.scaling,
        embedding_scale=1.0,
        norm="rmsnorm",
        norm_epsilon=found["rms_norm_eps"],
        activation="swiglu",
        attention_bias=biases[kind],
        tie_embeddings=found["tie_word_embeddings"],
    )


def _window(kind: str, found: dict[str, Any]) -> int | None:
    """The sliding window of all layers; None: no layer has one. Raises `ValueError` if only some layers have one."""
    window, count = found["sliding_window"], found["num_hidden_layers"]
    first = 0  # the first layer with a sliding window
    if kind == "qwen2":
        window = window if found["use_sliding_window"] else None
        first = found["max_window_layers"]
    slides = [window is not None and i >= first for i in range(count)]
    types = found["layer_types"]
    if types is not None:
        given = [one == "sliding_attention" for one in types]
        if len(given) != count or (kind != "qwen2" and given != slides) or (window is None and any(given)):
            raise ValueError(
                f"config.json: layer_types={types!r} contradicts num_hidden_layers={count} or sliding_window={window!r}"
            )
        slides = given
    if len(set(slides)) > 1:
        raise ValueError(
            f"config.json: layer_types={types!r}, max_window_layers={first}: of the {count} layers {sum(slides)} have "
            "a sliding window; valid: all of them, or none"
        )
    return window if slides[0] else None


def to_hf(config: ModelConfig) -> dict[str, Any]:
    """The values of a config.json. A sliding window (shorter than the positions) needs Mistral or Qwen2."""
    slides = config.window_size != config.num_positions
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
    if config.rotary_scaling.kind != "none":
        found["rope_scaling"] = rope.rope_scaling(config.rotary_scaling)
    return found


def weight_table(config: ModelConfig) -> list[Weight]:
    """The tensors of each parameter."""
    heads = [count * config.attention_head_dim for count in (config.num_heads, config.kv_heads, config.kv_heads)]
    found = [Weight("embedding", ("model.embed_tokens.weight",))]
    for i in range(config.num_layers):
        block, layer = f"blocks/{i}", f"model.layers.{i}"
        found.append(Weight(f"{block}/attention_norm/scale", (f"{layer}.input_layernorm.weight",)))
        found.append(Weight(f"{block}/feed_forward_norm/scale", (f"{layer}.post_attention_layernorm.weight",)))
        projections = (f"{layer}.self_attn.{name}_proj" for name in "qkv")
        found += linear_weights(
            f"{block}/attention/query_key_value", *projections, widths=heads, bias=config.attention_bias != "none"
        )
        found += linear_weights(
            f"{block}/attention/output", f"{layer}.self_attn.o_proj", bias=config.attention_bias == "all"
        )
        gate_and_value = f"{layer}.mlp.gate_proj", f"{layer}.mlp.up_proj"
        found += linear_weights(f"{block}/feed_forward/input", *gate_and_value, widths=(config.feed_forward_dim,) * 2)
        found += linear_weights(f"{block}/feed_forward/output", f"{layer}.mlp.down_proj")
    found.append(Weight("final_norm/scale", ("model.norm.weight",)))
    if not config.tie_embeddings:
        found += linear_weights("output", "lm_head")
    return found


def tied_tensors(config: ModelConfig) -> dict[str, str]:
    """See `Family.tied_tensors`."""
    return {"lm_head.weight": "embed_tokens.weight"} if config.tie_embeddings else {}


LLAMA = Family(
    architectures={"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"},
    from_hf=from_hf,
    to_hf=to_hf,
    weight_table=weight_table,
    read_keys=settings.keys(*SETTINGS.values()),
    prefixes=("model.", "transformer."),  # "transformer.": models for question answering
    ignored=r"(layers\.\d+\.self_attn\.)?rotary_emb\.\w+",
    body=r"(embed_tokens|layers|norm)\.",
    tied_tensors=tied_tensors,
    fitted=untied,
)
