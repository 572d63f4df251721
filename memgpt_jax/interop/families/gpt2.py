"""GPT-2: learned positions, layer norms, biases everywhere, full attention over `n_positions` tokens.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019).
"""

from memgpt_jax.config import ModelConfig
from memgpt_jax.config_memory import NoMemoryConfig
from memgpt_jax.interop.families.base import Family, Weight, layer_norm, one_of, required, untied, word_of

ACTIVATIONS = {
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu": "gelu_exact",
    "relu": "relu",
}


def config(values):
    """See `Family`."""
    required(
        values,
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        reorder_and_upcast_attn=False,
        add_cross_attention=False,
    )
    positions, width, heads = values.get("n_positions", 1024), values.get("n_embd", 768), values.get("n_head", 12)
    return ModelConfig(
        vocab_size=values.get("vocab_size", 50257),
        d_model=width,
        num_layers=values.get("n_layer", 12),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        d_ff=values.get("n_inner") or 4 * width,
        window_size=positions,
        num_positions=positions,
        memory=NoMemoryConfig(),
        position="learned",
        embedding_scale=1.0,
        norm="layernorm",
        norm_epsilon=values.get("layer_norm_epsilon", 1e-5),
        activation=one_of(values, "activation_function", ACTIVATIONS, "gelu_new"),
        attention_bias="all",
        feed_forward_bias=True,
        tie_embeddings=values.get("tie_word_embeddings", True),
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
    prefixes=("transformer.",),
    ignored=r"h\.\d+\.(attn|crossattention)\.(masked_)?bias",
    body=r"(wte|wpe|h|ln_f)\.",
    copies=lambda config: {"lm_head.weight": "wte.weight"} if config.tie_embeddings else {},
    fitted=untied,
)
