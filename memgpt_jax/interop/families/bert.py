"""BERT and RoBERTa: encoders that normalise behind attention and feed-forward.

Sources: Devlin et al., "BERT" (2019); Liu et al., "RoBERTa" (2019), whose positions begin behind the padding id.
"""

import dataclasses

from memgpt_jax.config_memory import NoMemoryConfig
from memgpt_jax.config_model import EncoderConfig
from memgpt_jax.interop.families.base import Family, Weight, layer_norm, linear, one_of, required, word_of

ACTIVATIONS = {"gelu": "gelu_exact", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "relu": "relu"}
HEADS = {
    "BertModel": ("pooler",),
    "BertForMaskedLM": ("masked",),
    "BertForPreTraining": ("masked", "pooler", "next_sentence"),
    "RobertaModel": ("pooler",),
    "RobertaForMaskedLM": ("masked",),
    "BertLMHeadModel": ("masked",),
    "BertForNextSentencePrediction": ("pooler", "next_sentence"),
    "BertForSequenceClassification": ("pooler",),
    "BertForMultipleChoice": ("pooler",),
    "BertForTokenClassification": (),
    "BertForQuestionAnswering": (),
    "RobertaForCausalLM": ("masked",),
    "RobertaForSequenceClassification": (),
    "RobertaForMultipleChoice": ("pooler",),
    "RobertaForTokenClassification": (),
    "RobertaForQuestionAnswering": (),
}
"""The heads of ours that each class of transformers has; all others are left aside."""
HEAD_TENSORS = {
    "pooler": ("pooler.dense.weight",),
    "next_sentence": ("cls.seq_relationship.weight",),
    "masked": ("cls.predictions.transform.dense.weight", "lm_head.dense.weight"),
}
"""The tensor by which a file shows that it holds a head."""


def config(values):
    """See `Family`."""
    required(values, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    required(values, tie_word_embeddings=True)
    offset = values.get("pad_token_id", 1) + 1 if values["model_type"] == "roberta" else None
    (name, *_) = values.get("architectures") or [f"{values['model_type'].capitalize()}Model"]
    if name not in HEADS:
        raise ValueError(f"config.json: architecture {name!r} is not supported; valid: {', '.join(HEADS)}")
    width, heads = values.get("hidden_size", 768), values.get("num_attention_heads", 12)
    positions = values.get("max_position_embeddings", 512) - (offset or 0)
    return EncoderConfig(
        vocab_size=values.get("vocab_size", 50265 if offset else 30522),
        d_model=width,
        num_layers=values.get("num_hidden_layers", 12),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        d_ff=values.get("intermediate_size", 3072),
        window_size=positions,
        num_positions=positions,
        position_offset=offset,
        memory=NoMemoryConfig(),
        position="learned",
        embedding_scale=1.0,
        embedding_norm=True,
        token_types=values.get("type_vocab_size", 2),
        norm="layernorm",
        norm_position="post",
        norm_epsilon=values.get("layer_norm_eps", 1e-12),
        activation=one_of(values, "hidden_act", ACTIVATIONS, "gelu"),
        attention_bias="all",
        feed_forward_bias=True,
        heads=HEADS[name],
    )


def values(config):
    """See `Family`."""
    kind = "roberta" if config.position_offset else "bert"
    prefix = kind.capitalize()
    fitting = (name for name, heads in HEADS.items() if name.startswith(prefix) and {*config.heads} <= {*heads})
    name = next(fitting, None)  # a head too many is left out when the file is read
    return {
        "architectures": [name],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.feed_forward_dim,
        "max_position_embeddings": config.num_positions + (config.position_offset or 0),
        "pad_token_id": (config.position_offset or 1) - 1,
        "type_vocab_size": config.token_types,
        "layer_norm_eps": config.norm_epsilon,
        "hidden_act": word_of(ACTIVATIONS, config.activation),
        "tie_word_embeddings": True,
    }


def weights(config):
    """See `Family`."""
    kind = "roberta." if config.position_offset else "bert."
    base = kind if {"masked", "next_sentence"} & {*config.heads} else ""
    found = [
        Weight("embedding", (f"{base}embeddings.word_embeddings.weight",)),
        Weight("position_embedding", (f"{base}embeddings.position_embeddings.weight",)),
        Weight("type_embedding", (f"{base}embeddings.token_type_embeddings.weight",)),
        *layer_norm("embedding_norm", f"{base}embeddings.LayerNorm"),
    ]
    for i in range(config.num_layers):
        ours, theirs = f"blocks/{i}", f"{base}encoder.layer.{i}"
        parts = (f"{theirs}.attention.self.{name}" for name in ("query", "key", "value"))
        found += linear(f"{ours}/attention/query_key_value", *parts, widths=(config.d_model,) * 3, bias=True)
        found += linear(f"{ours}/attention/output", f"{theirs}.attention.output.dense", bias=True)
        found += layer_norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm")
        found += linear(f"{ours}/feed_forward/input", f"{theirs}.intermediate.dense", bias=True)
        found += linear(f"{ours}/feed_forward/output", f"{theirs}.output.dense", bias=True)
        found += layer_norm(f"{ours}/feed_forward_norm", f"{theirs}.output.LayerNorm")
    if "pooler" in config.heads:
        found += linear("pooler", f"{base}pooler.dense", bias=True)
    if "next_sentence" in config.heads:
        found += linear("next_sentence", "cls.seq_relationship", bias=True)
    if "masked" in config.heads:
        dense, layer, bias = (
            ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias")
            if config.position_offset
            else ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias")
        )
        found += linear("masked_head/transform", dense, bias=True)
        found += layer_norm("masked_head/norm", layer)
        found.append(Weight("masked_head/bias", (bias,)))
    return found


def copies(config):
    """See `Family`."""
    if "masked" not in config.heads:
        return {}
    head = "lm_head" if config.position_offset else "cls.predictions"
    return {f"{head}.decoder.weight": "embeddings.word_embeddings.weight", f"{head}.decoder.bias": f"{head}.bias"}


def fitted(config, names):
    """See `Family`. The pooler may be missing, and then the head that reads it is left out too."""
    heads = [head for head in config.heads if any(name in names for name in HEAD_TENSORS[head])]
    if "pooler" not in heads and "next_sentence" in heads:
        heads.remove("next_sentence")
    return dataclasses.replace(config, heads=tuple(heads))


BERT = Family(
    architectures={"bert": "BertModel", "roberta": "RobertaModel"},
    config=config,
    values=values,
    weights=weights,
    kind=EncoderConfig,
    prefixes=("bert.", "roberta."),
    renames=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
    ignored=r"embeddings\.(position_ids|token_type_ids)",
    body=r"(embeddings|encoder)\.",
    copies=copies,
    fitted=fitted,
)
