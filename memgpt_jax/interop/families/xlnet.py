"""XLNet: attention by distance, in two streams, with any number of positions.

Source: Yang et al., "XLNet: Generalized Autoregressive Pretraining for Language Understanding" (2019).
"""

import dataclasses

from memgpt_jax.config_memory import NoMemoryConfig
from memgpt_jax.config_model import XLNetConfig
from memgpt_jax.interop.families.base import Family, Weight, layer_norm, linear, one_of, required, word_of

ACTIVATIONS = {"gelu": "gelu_exact", "gelu_new": "gelu", "relu": "relu"}
OUTPUT_BIAS = {
    "XLNetLMHeadModel": True,
    "XLNetModel": False,
    "XLNetForSequenceClassification": False,
    "XLNetForTokenClassification": False,
    "XLNetForMultipleChoice": False,
    "XLNetForQuestionAnswering": False,
    "XLNetForQuestionAnsweringSimple": False,
}
"""The classes of transformers, and whether their output has a bias; heads for a task are left aside."""


def config(values):
    """See `Family`. Their `mems` (`mem_len` and the like) are left out: they change no call that is given none."""
    required(values, attn_type="bi", same_length=False, bi_data=False, untie_r=True, tie_word_embeddings=True)
    width, heads = values.get("d_model", 1024), values.get("n_head", 16)
    required(values, d_head=width // heads)
    (name, *_) = values.get("architectures") or ["XLNetModel"]
    if name not in OUTPUT_BIAS:
        raise ValueError(f"config.json: architecture {name!r} is not supported; valid: {', '.join(OUTPUT_BIAS)}")
    nearest = values.get("clamp_len", -1)
    return XLNetConfig(
        vocab_size=values.get("vocab_size", 32000),
        d_model=width,
        num_layers=values.get("n_layer", 24),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        d_ff=values.get("d_inner", 4096),
        memory=NoMemoryConfig(),
        embedding_scale=1.0,
        norm_epsilon=values.get("layer_norm_eps", 1e-12),
        activation=one_of(values, "ff_activation", ACTIVATIONS, "gelu"),
        max_distance=nearest if nearest > 0 else None,
        output_bias=OUTPUT_BIAS[name],
    )


def values(config):
    """See `Family`."""
    return {
        "architectures": [next(name for name, bias in OUTPUT_BIAS.items() if bias == config.output_bias)],
        "model_type": "xlnet",
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "d_head": config.attention_head_dim,
        "d_inner": config.feed_forward_dim,
        "ff_activation": word_of(ACTIVATIONS, config.activation),
        "layer_norm_eps": config.norm_epsilon,
        "clamp_len": config.max_distance or -1,
        "attn_type": "bi",
        "untie_r": True,
        "tie_word_embeddings": True,
    }


def weights(config):
    """See `Family`. Its projections have the heads as an axis, [D, H, K]; that of the output too."""
    heads = config.d_model, config.num_heads, config.attention_head_dim
    base = "transformer." if config.output_bias else ""
    found = [
        Weight("embedding", (f"{base}word_embedding.weight",)),
        Weight("query_embedding", (f"{base}mask_emb",), shape=(1, 1, config.d_model)),
    ]
    for i in range(config.num_layers):
        ours, theirs = f"blocks/{i}", f"{base}layer.{i}"
        attention, parts = f"{ours}/attention", [f"{theirs}.rel_attn.{name}" for name in "qkvor"]
        found += [
            Weight(
                f"{attention}/query_key_value/kernel", tuple(parts[:3]), widths=(heads[1] * heads[2],) * 3, shape=heads
            ),
            Weight(f"{attention}/output/kernel", (parts[3],), transposed=True, shape=heads),
            Weight(f"{attention}/position_key/kernel", (parts[4],), shape=heads),
            Weight(f"{attention}/content_bias", (f"{theirs}.rel_attn.r_w_bias",)),
            Weight(f"{attention}/position_bias", (f"{theirs}.rel_attn.r_r_bias",)),
            Weight(f"{attention}/type_bias", (f"{theirs}.rel_attn.r_s_bias",)),
            Weight(f"{attention}/type_keys", (f"{theirs}.rel_attn.seg_embed",)),
        ]
        found += layer_norm(f"{ours}/attention_norm", f"{theirs}.rel_attn.layer_norm")
        found += linear(f"{ours}/feed_forward/input", f"{theirs}.ff.layer_1", bias=True)
        found += linear(f"{ours}/feed_forward/output", f"{theirs}.ff.layer_2", bias=True)
        found += layer_norm(f"{ours}/feed_forward_norm", f"{theirs}.ff.layer_norm")
    if config.output_bias:
        found.append(Weight("output_bias", ("lm_loss.bias",)))
    return found


XLNET = Family(
    architectures={"xlnet": "XLNetModel"},
    config=config,
    values=values,
    weights=weights,
    kind=XLNetConfig,
    prefixes=("transformer.",),
    body=r"(word_embedding|mask_emb|layer)\b",
    copies=lambda config: {"lm_loss.weight": "word_embedding.weight"} if config.output_bias else {},
    fitted=lambda config, names: dataclasses.replace(
        config, output_bias=config.output_bias and "lm_loss.bias" in names
    ),
)
