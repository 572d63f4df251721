"""XLNet: two-stream attention with relative positions, of any length.

Source: Yang et al., "XLNet: Generalized Autoregressive Pretraining for Language Understanding" (2019).
"""

import dataclasses
from collections.abc import Container
from typing import Any

from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import XLNetConfig
from memgpt_jax.interop.families import settings
from memgpt_jax.interop.families.base import ACTIVATIONS, Family, Weight, hf_name, layer_norm_weights, linear_weights

OUTPUT_BIAS = {
    "XLNetLMHeadModel": True,
    "XLNetModel": False,
    "XLNetForSequenceClassification": False,
    "XLNetForTokenClassification": False,
    "XLNetForMultipleChoice": False,
    "XLNetForQuestionAnswering": False,
    "XLNetForQuestionAnsweringSimple": False,
}
"""Whether each class of transformers has an output with a bias; heads for tasks are ignored."""
SETTINGS = settings.UNSUPPORTED | {
    "attn_type": settings.only("bi"),
    "same_length": settings.only(False),
    "bi_data": settings.only(False),
    "untie_r": settings.only(True),
    "tie_word_embeddings": settings.only(True),
    "vocab_size": settings.size(also=("n_token",)),
    "d_model": settings.size(also=("hidden_size",)),
    "n_layer": settings.layers(also=("num_hidden_layers",)),
    "n_head": settings.size(also=("num_attention_heads",)),
    "d_head": settings.size(None, null=True),
    "d_inner": settings.size(),
    "ff_activation": settings.word(ACTIVATIONS, "gelu"),
    "layer_norm_eps": settings.number(1e-12),
    "clamp_len": settings.size(-1, low=-1),
}


def from_hf(values: dict[str, Any]) -> XLNetConfig:
    """The config for the values of a config.json. The cache settings (`mem_len` and others) are not used."""
    name = settings.architecture(values, OUTPUT_BIAS, "XLNetModel")
    found = settings.read(SETTINGS, values)
    settings.check_divides(found, "n_head", "d_model")
    width, heads = found["d_model"], found["n_head"]
    if found["d_head"] not in (None, width // heads):
        raise ValueError(f"config.json: d_head={found['d_head']} must be d_model / n_head = {width // heads}")
    if width % 2:
        raise ValueError(f"config.json: d_model={width} must be even")
    return XLNetConfig(
        vocab_size=found["vocab_size"],
        d_model=width,
        num_layers=found["n_layer"],
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        d_ff=found["d_inner"],
        memory=NoMemoryConfig(),
        embedding_scale=1.0,
        norm_epsilon=found["layer_norm_eps"],
        activation=found["ff_activation"],
        max_distance=found["clamp_len"] if found["clamp_len"] > 0 else None,
        output_bias=OUTPUT_BIAS[name],
    )


def to_hf(config: XLNetConfig) -> dict[str, Any]:
    """The values of a config.json."""
    return {
        "architectures": [next(name for name, bias in OUTPUT_BIAS.items() if bias == config.output_bias)],
        "model_type": "xlnet",
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "d_head": config.attention_head_dim,
        "d_inner": config.feed_forward_dim,
        "ff_activation": hf_name(ACTIVATIONS, config.activation),
        "layer_norm_eps": config.norm_epsilon,
        "clamp_len": config.max_distance or -1,
        "attn_type": "bi",
        "untie_r": True,
        "tie_word_embeddings": True,
    }


def weight_table(config: XLNetConfig) -> list[Weight]:
    """The tensors of each parameter. All projections, including the output projection, are [D, H, K]."""
    heads = config.d_model, config.num_heads, config.attention_head_dim
    base = "transformer." if config.output_bias else ""
    found = [
        Weight("embedding", (f"{base}word_embedding.weight",)),
        Weight("query_embedding", (f"{base}mask_emb",), shape=(1, 1, config.d_model)),
    ]
    for i in range(config.num_layers):
        block, layer = f"blocks/{i}", f"{base}layer.{i}"
        attention, parts = f"{block}/attention", [f"{layer}.rel_attn.{name}" for name in "qkvor"]
        found += [
            Weight(
                f"{attention}/query_key_value/kernel", tuple(parts[:3]), widths=(heads[1] * heads[2],) * 3, shape=heads
            ),
            Weight(f"{attention}/output/kernel", (parts[3],), transposed=True, shape=heads),
            Weight(f"{attention}/position_key/kernel", (parts[4],), shape=heads),
            Weight(f"{attention}/content_bias", (f"{layer}.rel_attn.r_w_bias",)),
            Weight(f"{attention}/position_bias", (f"{layer}.rel_attn.r_r_bias",)),
            Weight(f"{attention}/type_bias", (f"{layer}.rel_attn.r_s_bias",)),
            Weight(f"{attention}/type_keys", (f"{layer}.rel_attn.seg_embed",)),
        ]
        found += layer_norm_weights(f"{block}/attention_norm", f"{layer}.rel_attn.layer_norm")
        found += linear_weights(f"{block}/feed_forward/input", f"{layer}.ff.layer_1", bias=True)
        found += linear_weights(f"{block}/feed_forward/output", f"{layer}.ff.layer_2", bias=True)
        found += layer_norm_weights(f"{block}/feed_forward_norm", f"{layer}.ff.layer_norm")
    if config.output_bias:
        found.append(Weight("output_bias", ("lm_loss.bias",)))
    return found


def tied_tensors(config: XLNetConfig) -> dict[str, str]:
    """See `Family.tied_tensors`."""
    return {"lm_loss.weight": "word_embedding.weight"} if config.output_bias else {}


def fitted(config: XLNetConfig, names: Container[str]) -> XLNetConfig:
    """The config without the output's bias if the file lacks it."""
    return dataclasses.replace(config, output_bias=config.output_bias and "lm_loss.bias" in names)


XLNET = Family(
    architectures={"xlnet": "XLNetModel"},
    from_hf=from_hf,
    to_hf=to_hf,
    weight_table=weight_table,
    config_class=XLNetConfig,
    read_keys=settings.keys(SETTINGS),
    prefixes=("transformer.",),
    body=r"(word_embedding|mask_emb|layer)\b",
    tied_tensors=tied_tensors,
    fitted=fitted,
)
