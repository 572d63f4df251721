"""GPT-2: learned positions, layer norms, biases everywhere, full attention over `n_positions` tokens.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019).
"""

from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.interop.families.base import ACTIVATIONS, Family, Weight, layer_norm, untied, word_of
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
    word,
)

SETTINGS = UNSUPPORTED | {
    "vocab_size": size(),
    "n_positions": size(1024, also=("max_position_embeddings",)),
    "n_embd": size(also=("hidden_size",)),
    "n_layer": layers(also=("num_hidden_layers",)),
    "n_head": size(also=("num_attention_heads",)),
    "n_inner": size(None, null=True),
    "activation_function": word(ACTIVATIONS, "gelu_new"),
    "layer_norm_epsilon": number(1e-5),
    "scale_attn_weights": only(True),
    "scale_attn_by_inverse_layer_idx": only(False),
    "tie_word_embeddings": flag(True),
    "is_causal": only(True),
}


def config(values):
    """See `Family`."""
    found = read(SETTINGS, values)
    check_divides(found, "n_head", "n_embd")
    return ModelConfig(
        vocab_size=found["vocab_size"],
        d_model=found["n_embd"],
        num_layers=found["n_layer"],
        num_heads=found["n_head"],
        num_kv_heads=found["n_head"],
        head_dim=found["n_embd"] // found["n_head"],
        d_ff=found["n_inner"] or 4 * found["n_embd"],
        window_size=found["n_positions"],
        num_positions=found["n_positions"],
        memory=NoMemoryConfig(),
        position="learned",
        embedding_scale=1.0,
        norm="layernorm",
        norm_epsilon=found["layer_norm_epsilon"],
        activation=found["activation_function"],
        attention_bias="all",
        feed_forward_bias=True,
        tie_embeddings=found["tie_word_embeddings"],
    )


def values(config):
    """See `Family`."""
    return {
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_embd": config.d_model,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.d_ff,
        "n_positions": config.num_positions,
        "layer_norm_epsilon": config.norm_epsilon,
        "activation_function": word_of(ACTIVATIONS, config.activation),
        "tie_word_embeddings": config.tie_embeddings,
    }


def weights(config):
    """See `Family`. Its matmuls are stored [in, out], queries, keys and values already side by side."""
    found = [
        Weight("embedding", ("transformer.wte.weight",)),
        Weight("position_embedding", ("transformer.wpe.weight",)),
    ]
    for i in range(config.num_layers):
        ours, theirs = f"blocks/{i}", f"transformer.h.{i}"
        found += layer_norm(f"{ours}/attention_norm", f"{theirs}.ln_1")
        found += layer_norm(f"{ours}/feed_forward_norm", f"{theirs}.ln_2")
        for one, other in (
            ("attention/query_key_value", "attn.c_attn"),
            ("attention/output", "attn.c_proj"),
            ("feed_forward/input", "mlp.c_fc"),
            ("feed_forward/output", "mlp.c_proj"),
        ):
            found.append(Weight(f"{ours}/{one}/kernel", (f"{theirs}.{other}.weight",)))
            found.append(Weight(f"{ours}/{one}/bias", (f"{theirs}.{other}.bias",)))
    found += layer_norm("final_norm", "transformer.ln_f")
    if not config.tie_embeddings:
        found.append(Weight("output/kernel", ("lm_head.weight",), transposed=True))
    return found


GPT2 = Family(
    architectures={"gpt2": "GPT2LMHeadModel"},
    config=config,
    values=values,
    weights=weights,
    reads=keys(SETTINGS),
    prefixes=("transformer.",),
    ignored=r"h\.\d+\.(attn|crossattention)\.(masked_)?bias",
    body=r"(wte|wpe|h|ln_f)\.",
    copies=lambda config: {"lm_head.weight": "wte.weight"} if config.tie_embeddings else {},
    fitted=untied,
)
