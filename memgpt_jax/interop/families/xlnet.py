"""XLNet: attention by distance, in two streams, with any number of positions.

Source: Yang et al., "XLNet: Generalized Autoregressive Pretraining for Language Understanding" (2019).
"""

import dataclasses

from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import XLNetConfig
from memgpt_jax.interop.families.base import ACTIVATIONS, Family, Weight, layer_norm, linear, word_of
from memgpt_jax.interop.families.settings import (
    UNSUPPORTED,
    architecture,
    check_divides,
    keys,
    layers,
    number,
    only,
    read,
    size,
    word,
)

OUTPUT_BIAS = {
    "XLNetLMHeadModel": True,
    "XLNetModel": False,
    "XLNetForSequenceClassification": False,
    "XLNetForTokenClassification": False,
    "XLNetForMultipleChoice": False,
    "XLNetForQuestionAnswering": False,
    "XLNetForQuestionAnsweringSimple": False,
}
"""Whether the output of each class of transformers has a bias; heads for a task are ignored."""
SETTINGS = UNSUPPORTED | {
    "attn_type": only("bi"),
    "same_length": only(False),
    "bi_data": only(False),
    "untie_r": only(True),
    "tie_word_embeddings": only(True),
    "vocab_size": size(also=("n_token",)),
    "d_model": size(also=("hidden_size",)),
    "n_layer": layers(also=("num_hidden_layers",)),
    "n_head": size(also=("num_attention_heads",)),
    "d_head": size(None, null=True),
    "d_inner": size(),
    "ff_activation": word(ACTIVATIONS, "gelu"),
    "layer_norm_eps": number(1e-12),
    "clamp_len": size(-1, low=-1),
}


def config(values):
    """See `Family`. Their `mems` (`mem_len` and the like) are left out: they change no call that is given none."""
    name = architecture(values, OUTPUT_BIAS, "XLNetModel")
    found = read(SETTINGS, values)
    check_divides(found, "n_head", "d_model")
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
    reads=keys(SETTINGS),
    prefixes=("transformer.",),
    body=r"(word_embedding|mask_emb|layer)\b",
    copies=lambda config: {"lm_loss.weight": "word_embedding.weight"} if config.output_bias else {},
    fitted=lambda config, names: dataclasses.replace(
        config, output_bias=config.output_bias and "lm_loss.bias" in names
    ),
)
