"""T5: encoder-decoders with relative positions, RMS norms and no biases; attention logits are not scaled.

Version 1.0 has a ReLU, and one embedding for input and output with scaled logits; version 1.1, which includes
Flan-T5, has a gated GELU and a separate output projection.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (2020).
"""

import dataclasses
from collections.abc import Container
from typing import Any

from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig
from memgpt_jax.interop.families import settings
from memgpt_jax.interop.families.base import Family, Weight, hf_name, linear_weights

ACTIVATIONS = {"relu": "relu", "gated-gelu": "geglu", "gated-gelu_new": "geglu"}
PARTS = {"relu": ("relu", False), "geglu": ("gelu_new", True)}
"""`dense_act_fn` and `is_gated_act` of each activation."""
POSITIONS = 512
"""Default of `n_positions`: the length of source and target in pretraining. T5 accepts any length."""
SETTINGS = settings.UNSUPPORTED | {
    "is_encoder_decoder": settings.only(True),
    "vocab_size": settings.size(),
    "d_model": settings.size(also=("hidden_size",)),
    "d_kv": settings.size(64, also=("head_dim",)),
    "d_ff": settings.size(),
    "num_layers": settings.layers(also=("num_hidden_layers",)),
    "num_decoder_layers": settings.layers(None, null=True),
    "num_heads": settings.size(also=("num_attention_heads",)),
    "n_positions": settings.size(POSITIONS),
    "relative_attention_num_buckets": settings.size(32, low=4),
    "relative_attention_max_distance": settings.size(128),
    "layer_norm_epsilon": settings.number(1e-6),
    "feed_forward_proj": settings.word(ACTIVATIONS, "relu"),
    "dense_act_fn": settings.word({"relu": "relu", "gelu_new": "gelu_new"}, None),
    "is_gated_act": settings.flag(None),
    "tie_word_embeddings": settings.flag(True, null=True),
    "scale_decoder_outputs": settings.flag(None),
}


def from_hf(values: dict[str, Any]) -> Seq2SeqConfig:
    """The config for the values of a config.json. No weight depends on `n_positions`, the window and source length.

    Transformers 5 writes `tie_word_embeddings=true` for every version, and `scale_decoder_outputs` has the meaning
    that `tie_word_embeddings` had before. The output is then untied if the file has an `lm_head`.
    """
    found = settings.read(SETTINGS, values)
    for name, part in zip(("dense_act_fn", "is_gated_act"), PARTS[found["feed_forward_proj"]], strict=True):
        if found[name] not in (None, part):
            raise ValueError(
                f"config.json: {name}={found[name]!r} contradicts feed_forward_proj; valid beside it: {part!r}"
            )
    buckets, distance = found["relative_attention_num_buckets"], found["relative_attention_max_distance"]
    if buckets >= 2 * distance:
        raise ValueError(
            f"config.json: relative_attention_num_buckets={buckets} must be below twice "
            f"relative_attention_max_distance={distance}"
        )
    width, positions = found["d_model"], found["n_positions"]
    scaled = found["scale_decoder_outputs"]
    scaled = found["tie_word_embeddings"] is not False if scaled is None else scaled
    both = {
        "vocab_size": found["vocab_size"],
        "d_model": width,
        "num_heads": found["num_heads"],
        "num_kv_heads": found["num_heads"],
        "head_dim": found["d_kv"],
        "d_ff": found["d_ff"],
        "memory": NoMemoryConfig(),
        "position": "relative",
        "relative_buckets": buckets,
        "relative_max_distance": distance,
        "attention_scale": 1.0,
        "embedding_scale": 1.0,
        "norm": "rmsnorm",
        "norm_epsilon": found["layer_norm_epsilon"],
        "activation": found["feed_forward_proj"],
    }
    return Seq2SeqConfig(
        encoder=EncoderConfig(**both, num_layers=found["num_layers"], heads=()),
        decoder=ModelConfig(
            **both,
            num_layers=found["num_decoder_layers"] or found["num_layers"],
            window_size=positions,
            source_length=positions,
            context_length=positions,
            tie_embeddings=scaled and found["tie_word_embeddings"] is not False,
            logit_scale=width**-0.5 if scaled else 1.0,
        ),
    )


def to_hf(config: Seq2SeqConfig) -> dict[str, Any]:
    """The values of a config.json, with T5's ids of padding (also the start of a target) and of the end."""
    decoder = config.decoder
    scaled = decoder.logit_scale != 1
    return ({} if scaled == decoder.tie_embeddings else {"scale_decoder_outputs": scaled}) | {
        "model_type": "t5",
        "vocab_size": decoder.vocab_size,
        "d_model": decoder.d_model,
        "d_kv": decoder.attention_head_dim,
        "d_ff": decoder.feed_forward_dim,
        "num_layers": config.encoder.num_layers,
        "num_decoder_layers": decoder.num_layers,
        "num_heads": decoder.num_heads,
        "n_positions": decoder.window_size,
        "relative_attention_num_buckets": decoder.relative_buckets,
        "relative_attention_max_distance": decoder.relative_max_distance,
        "layer_norm_epsilon": decoder.norm_epsilon,
        "feed_forward_proj": hf_name(ACTIVATIONS, decoder.activation),
        "tie_word_embeddings": decoder.tie_embeddings,
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
    }


def weight_table(config: Seq2SeqConfig) -> list[Weight]:
    """The tensors of each parameter."""
    found = [Weight("decoder/embedding", ("shared.weight",))]
    for name, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        heads = stack.num_heads * stack.attention_head_dim
        table = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        found.append(Weight(f"{name}/relative_embedding", (table,)))
        for i in range(stack.num_layers):
            block, layer = f"{name}/blocks/{i}", f"{name}.block.{i}.layer"
            first = f"{layer}.0.SelfAttention"
            found.append(Weight(f"{block}/attention_norm/scale", (f"{layer}.0.layer_norm.weight",)))
            found += linear_weights(
                f"{block}/attention/query_key_value", *(f"{first}.{x}" for x in "qkv"), widths=(heads,) * 3
            )
            found += linear_weights(f"{block}/attention/output", f"{first}.o")
            last = 1
            if stack.attends_to_source:
                second, last = f"{layer}.1.EncDecAttention", 2
                found.append(Weight(f"{block}/cross_attention_norm/scale", (f"{layer}.1.layer_norm.weight",)))
                found += linear_weights(f"{block}/cross_attention/query", f"{second}.q")
                found += linear_weights(
                    f"{block}/cross_attention/key_value", *(f"{second}.{x}" for x in "kv"), widths=(heads,) * 2
                )
                found += linear_weights(f"{block}/cross_attention/output", f"{second}.o")
            dense = f"{layer}.{last}.DenseReluDense"
            found.append(Weight(f"{block}/feed_forward_norm/scale", (f"{layer}.{last}.layer_norm.weight",)))
            inputs = (f"{dense}.wi_0", f"{dense}.wi_1") if stack.gated_activation else (f"{dense}.wi",)
            found += linear_weights(
                f"{block}/feed_forward/input", *inputs, widths=(stack.feed_forward_dim,) * len(inputs)
            )
            found += linear_weights(f"{block}/feed_forward/output", f"{dense}.wo")
        found.append(Weight(f"{name}/final_norm/scale", (f"{name}.final_layer_norm.weight",)))
    if not config.decoder.tie_embeddings:
        found += linear_weights("decoder/output", "lm_head")
    return found


def tied_tensors(config: Seq2SeqConfig) -> dict[str, str]:
    """See `Family.tied_tensors`. An output equal to the embedding is always treated as a copy."""
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    return dict.fromkeys(names, "shared.weight")


def fitted(config: Seq2SeqConfig, names: Container[str]) -> Seq2SeqConfig:
    """The config whose output is tied to the embedding if the file has no output, as in transformers."""
    decoder = dataclasses.replace(config.decoder, tie_embeddings="lm_head.weight" not in names)
    return dataclasses.replace(config, decoder=decoder)


T5 = Family(
    architectures={"t5": "T5ForConditionalGeneration"},
    from_hf=from_hf,
    to_hf=to_hf,
    weight_table=weight_table,
    config_class=Seq2SeqConfig,
    read_keys=settings.keys(SETTINGS),
    prefixes=("transformer.",),  # classification models
    ignored=r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",  # in old files; unused
    body=r"(shared|encoder|decoder)\.",
    tied_tensors=tied_tensors,
    fitted=fitted,
)
