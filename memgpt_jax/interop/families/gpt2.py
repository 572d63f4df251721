"""GPT-2: learned positions, layer norms, biases everywhere, full attention over `n_positions` tokens.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019).
"""

from typing import Any

from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.interop.families import settings
from memgpt_jax.interop.families.base import ACTIVATIONS, Family, Weight, hf_name, layer_norm_weights, untied

SETTINGS = settings.UNSUPPORTED | {
    "vocab_size": settings.size(),
    "n_positions": settings.size(1024, also=("max_position_embeddings",)),
    "n_embd": settings.size(also=("hidden_size",)),
    "n_layer": settings.layers(also=("num_hidden_layers",)),
    "n_head": settings.size(also=("num_attention_heads",)),
    "n_inner": settings.size(None, null=True),
    "activation_function": settings.word(ACTIVATIONS, "gelu_new"),
    "layer_norm_epsilon": settings.number(1e-5),
    "scale_attn_weights": settings.only(True),
    "scale_attn_by_inverse_layer_idx": settings.only(False),
    "tie_word_embeddings": settings.flag(True),
    "is_causal": settings.only(True),
}


def from_hf(values: dict[str, Any]) -> ModelConfig:
    """The config for the values of a config.json."""
    found = settings.read(SETTINGS, values)
    settings.check_divides(found, "n_head", "n_embd")
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


def to_hf(config: ModelConfig) -> dict[str, Any]:
    """The values of a config.json."""
    return {
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_embd": config.d_model,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.d_ff,
        "n_positions": config.num_positions,
        "layer_norm_epsilon": config.norm_epsilon,
        "activation_function": hf_name(ACTIVATIONS, config.activation),
        "tie_word_embeddings": config.tie_embeddings,
    }


def weight_table(config: ModelConfig) -> list[Weight]:
    """The tensors of each parameter. Matmuls are [in, out]; queries, keys and values are one tensor."""
    found = [
        Weight("embedding", ("transformer.wte.weight",)),
        Weight("position_embedding", ("transformer.wpe.weight",)),
    ]
    for i in range(config.num_layers):
        block, layer = f"blocks/{i}", f"transformer.h.{i}"
        found += layer_norm_weights(f"{block}/attention_norm", f"{layer}.ln_1")
        found += layer_norm_weights(f"{block}/feed_forward_norm", f"{layer}.ln_2")
        for one, other in (
            ("attention/query_key_value", "attn.c_attn"),
            ("attention/output", "attn.c_proj"),
            ("feed_forward/input", "mlp.c_fc"),
            ("feed_forward/output", "mlp.c_proj"),
        ):
            found.append(Weight(f"{block}/{one}/kernel", (f"{layer}.{other}.weight",)))
            found.append(Weight(f"{block}/{one}/bias", (f"{layer}.{other}.bias",)))
    found += layer_norm_weights("final_norm", "transformer.ln_f")
    if not config.tie_embeddings:
        found.append(Weight("output/kernel", ("lm_head.weight",), transposed=True))
    return found


def tied_tensors(config: ModelConfig) -> dict[str, str]:
    """See `Family.tied_tensors`."""
    return {"lm_head.weight": "wte.weight"} if config.tie_embeddings else {}


GPT2 = Family(
    architectures={"gpt2": "GPT2LMHeadModel"},
    from_hf=from_hf,
    to_hf=to_hf,
    weight_table=weight_table,
    read_keys=settings.keys(SETTINGS),
    prefixes=("transformer.",),
    ignored=r"h\.\d+\.(attn|crossattention)\.(masked_)?bias",
    body=r"(wte|wpe|h|ln_f)\.",
    tied_tensors=tied_tensors,
    fitted=untied,
)
