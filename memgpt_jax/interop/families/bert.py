"""BERT and RoBERTa: encoders with post-normalisation.

Sources: Devlin et al., "BERT" (2019); Liu et al., "RoBERTa" (2019), whose positions start after the padding id.
"""

import dataclasses
from collections.abc import Container
from typing import Any

from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig
from memgpt_jax.interop.families import settings
from memgpt_jax.interop.families.base import ACTIVATIONS, Family, Weight, hf_name, layer_norm_weights, linear_weights

SETTINGS = settings.UNSUPPORTED | {
    "vocab_size": settings.size(),
    "hidden_size": settings.size(),
    "num_hidden_layers": settings.layers(),
    "num_attention_heads": settings.size(),
    "intermediate_size": settings.size(),
    "max_position_embeddings": settings.size(512),
    "type_vocab_size": settings.size(2),
    "layer_norm_eps": settings.number(1e-12),
    "hidden_act": settings.word(ACTIVATIONS, "gelu"),
    "position_embedding_type": settings.only("absolute"),
    "is_decoder": settings.only(False),
    "tie_word_embeddings": settings.only(True),
}
ROBERTA = SETTINGS | {"pad_token_id": settings.size(1, low=0)}
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
"""The heads of this library in each class of transformers; other heads are ignored."""
HEAD_TENSORS = {
    "pooler": ("pooler.dense.weight",),
    "next_sentence": ("cls.seq_relationship.weight",),
    "masked": ("cls.predictions.transform.dense.weight", "lm_head.dense.weight"),
}
"""Tensors of each head: a file has the head if it has one of them."""


def from_hf(values: dict[str, Any]) -> EncoderConfig:
    """The config for the values of a config.json."""
    is_roberta = values["model_type"] == "roberta"
    name = settings.architecture(values, HEADS, "RobertaModel" if is_roberta else "BertModel")
    found = settings.read(ROBERTA if is_roberta else SETTINGS, values)
    settings.check_divides(found, "num_attention_heads", "hidden_size")
    offset = found["pad_token_id"] + 1 if is_roberta else 0
    positions = found["max_position_embeddings"] - offset
    if positions < 1:
        raise ValueError(
            f"config.json: max_position_embeddings={found['max_position_embeddings']} must be above {offset}, as "
            f"positions start after pad_token_id={offset - 1}"
        )
    if is_roberta and "masked" in HEADS[name] and found["hidden_act"] != "gelu_exact":
        raise ValueError(
            f"config.json: hidden_act={values['hidden_act']!r} is not supported; valid: 'gelu', which the head of "
            f"{name} always uses"
        )
    width, heads = found["hidden_size"], found["num_attention_heads"]
    return EncoderConfig(
        vocab_size=found["vocab_size"],
        d_model=width,
        num_layers=found["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        d_ff=found["intermediate_size"],
        num_positions=positions,
        position_offset=offset,
        memory=NoMemoryConfig(),
        position="learned",
        embedding_scale=1.0,
        embedding_norm=True,
        token_types=found["type_vocab_size"],
        norm="layernorm",
        norm_position="post",
        norm_epsilon=found["layer_norm_eps"],
        activation=found["hidden_act"],
        attention_bias="all",
        feed_forward_bias=True,
        heads=HEADS[name],
    )


def to_hf(config: EncoderConfig) -> dict[str, Any]:
    """The values of a config.json."""
    kind = "roberta" if config.position_offset else "bert"
    prefix = kind.capitalize()
    fitting = (name for name, heads in HEADS.items() if name.startswith(prefix) and {*config.heads} <= {*heads})
    name = next(fitting, None)  # reading omits heads of this class that the file lacks
    padding = {"pad_token_id": config.position_offset - 1} if config.position_offset else {}
    return padding | {
        "architectures": [name],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.feed_forward_dim,
        "max_position_embeddings": config.num_positions + (config.position_offset or 0),
        "type_vocab_size": config.token_types,
        "layer_norm_eps": config.norm_epsilon,
        "hidden_act": hf_name(ACTIVATIONS, config.activation),
        "tie_word_embeddings": True,
    }


def weight_table(config: EncoderConfig) -> list[Weight]:
    """The tensors of each parameter."""
    kind = "roberta." if config.position_offset else "bert."
    base = kind if {"masked", "next_sentence"} & {*config.heads} else ""
    found = [
        Weight("embedding", (f"{base}embeddings.word_embeddings.weight",)),
        Weight("position_embedding", (f"{base}embeddings.position_embeddings.weight",)),
        Weight("type_embedding", (f"{base}embeddings.token_type_embeddings.weight",)),
        *layer_norm_weights("embedding_norm", f"{base}embeddings.LayerNorm"),
    ]
    for i in range(config.num_layers):
        block, layer = f"blocks/{i}", f"{base}encoder.layer.{i}"
        parts = (f"{layer}.attention.self.{name}" for name in ("query", "key", "value"))
        found += linear_weights(f"{block}/attention/query_key_value", *parts, widths=(config.d_model,) * 3, bias=True)
        found += linear_weights(f"{block}/attention/output", f"{layer}.attention.output.dense", bias=True)
        found += layer_norm_weights(f"{block}/attention_norm", f"{layer}.attention.output.LayerNorm")
        found += linear_weights(f"{block}/feed_forward/input", f"{layer}.intermediate.dense", bias=True)
        found += linear_weights(f"{block}/feed_forward/output", f"{layer}.output.dense", bias=True)
        found += layer_norm_weights(f"{block}/feed_forward_norm", f"{layer}.output.LayerNorm")
    if "pooler" in config.heads:
        found += linear_weights("heads/pooler/dense", f"{base}pooler.dense", bias=True)
    if "next_sentence" in config.heads:
        found += linear_weights("heads/next_sentence/dense", "cls.seq_relationship", bias=True)
    if "masked" in config.heads:
        dense, norm, bias = (
            ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias")
            if config.position_offset
            else ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias")
        )
        found += linear_weights("heads/masked/transform", dense, bias=True)
        found += layer_norm_weights("heads/masked/norm", norm)
        found.append(Weight("heads/masked/bias", (bias,)))
    return found


def tied_tensors(config: EncoderConfig) -> dict[str, str]:
    """See `Family.tied_tensors`."""
    if "masked" not in config.heads:
        return {}
    head = "lm_head" if config.position_offset else "cls.predictions"
    return {f"{head}.decoder.weight": "embeddings.word_embeddings.weight", f"{head}.decoder.bias": f"{head}.bias"}


def fitted(config: EncoderConfig, names: Container[str]) -> EncoderConfig:
    """The config without the heads that the file lacks; without `next_sentence` also if the pooler is missing."""
    heads = [head for head in config.heads if any(name in names for name in HEAD_TENSORS[head])]
    if "pooler" not in heads and "next_sentence" in heads:
        heads.remove("next_sentence")
    return dataclasses.replace(config, heads=tuple(heads))


BERT = Family(
    architectures={"bert": "BertModel", "roberta": "RobertaModel"},
    from_hf=from_hf,
    to_hf=to_hf,
    weight_table=weight_table,
    config_class=EncoderConfig,
    read_keys=settings.keys(ROBERTA),
    prefixes=("bert.", "roberta."),
    renames=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
    ignored=r"embeddings\.(position_ids|token_type_ids)",
    body=r"(embeddings|encoder)\.",
    tied_tensors=tied_tensors,
    fitted=fitted,
)
