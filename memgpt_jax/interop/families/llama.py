"""Llama and its relatives: rotary positions, RMS norms, SwiGLU, grouped key-value heads.

`llama` (Llama, SmolLM, ...), `mistral` (a sliding window), `qwen2` (biases on queries, keys and values).

Source: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models" (2023).
"""

from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.interop.families import rope
from memgpt_jax.interop.families.base import Family, Weight, linear, untied
from memgpt_jax.interop.families.settings import (
    UNSUPPORTED,
    check_divides,
    flag,
    keys,
    layers,
    number,
    only,
    read,
    size,
    words,
)

ALL = (
    UNSUPPORTED
    | rope.SETTINGS
    | {
        "vocab_size": size(),
        "hidden_size": size(),
        "num_hidden_layers": layers(),
        "num_attention_heads": size(),
        "num_key_value_heads": size(None, null=True),
        "head_dim": size(None, null=True),
        "intermediate_size": size(),
        "max_position_embeddings": size(2048),
        "hidden_act": only("silu", "swish"),
        "rms_norm_eps": number(1e-6),
        "tie_word_embeddings": flag(False),
        "attention_bias": only(False, None),
        "mlp_bias": only(False, None),
        "is_causal": only(True),
        "layer_types": words("full_attention", "sliding_attention", "attention"),
    }
)
SETTINGS = {
    "llama": ALL | {"attention_bias": flag(False)},
    "mistral": ALL
    | {
        "num_key_value_heads": size(8, null=True),
        "max_position_embeddings": size(131072),
        "sliding_window": size(4096, null=True),
    },
    "qwen2": ALL
    | {
        "num_key_value_heads": size(32, null=True),
        "max_position_embeddings": size(32768),
        "attention_bias": only(True),
        "use_sliding_window": flag(False),
        "sliding_window": size(4096, null=True),
        "max_window_layers": size(28, low=0),
    },
}


def config(values):
    """See `Family`."""
    kind = values["model_type"]
    found = read(SETTINGS[kind], values)
    heads, positions = found["num_attention_heads"], found["max_position_embeddings"]
    if found["head_dim"] is None:
        check_divides(found, "num_attention_heads", "hidden_size")
    head_dim = found["head_dim"] or found["hidden_size"] // heads
    if head_dim % 2:
        raise ValueError(f"config.json: head_dim={head_dim} must be even (default: hidden_size / num_attention_heads)")
    found["num_key_value_heads"] = found["num_key_value_heads"] or heads
    check_divides(found, "num_key_value_heads", "num_attention_heads")
    window = _window(kind, found) or positions
    base, scaling = rope.rotary(found, positions)
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
        rotary_base=base,
        rotary_scaling=scaling,
        embedding_scale=1.0,
        norm="rmsnorm",
        norm_epsilon=found["rms_norm_eps"],
        activation="swiglu",
        attention_bias=biases[kind],
        tie_embeddings=found["tie_word_embeddings"],
    )


def _window(kind, found):
    """The window of all layers, `None` where none slides. Raises `ValueError` where only some of them do."""
    window, count = found["sliding_window"], found["num_hidden_layers"]
    first = 0  # layers from here on slide
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


def values(config):
    """See `Family`. A window other than all positions makes it a Mistral, or a Qwen2 that uses its window."""
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
    reads=keys(*SETTINGS.values()),
    prefixes=("model.", "transformer."),  # the second is that of models that answer questions
    ignored=r"(layers\.\d+\.self_attn\.)?rotary_emb\.\w+",
    body=r"(embed_tokens|layers|norm)\.",
    copies=lambda config: {"lm_head.weight": "embed_tokens.weight"} if config.tie_embeddings else {},
    fitted=untied,
)
