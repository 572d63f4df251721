"""T5: encoder-decoders with relative positions, RMS norms and no biases; logits of attention are not scaled down.

Version 1.0 has a ReLU and one embedding for input and output, which scales the logits down; version 1.1, of
which Flan-T5 is one, has a gated GELU and an output projection of its own.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (2020).
"""

from memgpt_jax.config_memory import NoMemoryConfig
from memgpt_jax.config_model import EncoderConfig, ModelConfig, Seq2SeqConfig
from memgpt_jax.interop.families.base import Family, Weight, linear, one_of, required, word_of

ACTIVATIONS = {"relu": "relu", "gated-gelu": "geglu"}
POSITIONS = 512
"""Tokens of source and target that it was trained with: any number is possible."""


def config(values):
    """See `Family`. The window and the places for a source are `n_positions`, which nothing in the weights tells."""
    required(values, is_encoder_decoder=True)
    width, heads, layers = values.get("d_model", 512), values.get("num_heads", 8), values.get("num_layers", 6)
    positions = values.get("n_positions", POSITIONS)
    # Transformers 5 writes tie_word_embeddings=True for every version, and says by the other word which it is.
    tied = values.get("scale_decoder_outputs", values.get("tie_word_embeddings", True))
    both = {
        "vocab_size": values.get("vocab_size", 32128),
        "d_model": width,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": values.get("d_kv", 64),
        "d_ff": values.get("d_ff", 2048),
        "window_size": positions,
        "memory": NoMemoryConfig(),
        "position": "relative",
        "relative_buckets": values.get("relative_attention_num_buckets", 32),
        "relative_max_distance": values.get("relative_attention_max_distance", 128),
        "attention_scale": 1.0,
        "embedding_scale": 1.0,
        "norm": "rmsnorm",
        "norm_epsilon": values.get("layer_norm_epsilon", 1e-6),
        "activation": one_of(values, "feed_forward_proj", ACTIVATIONS, "relu"),
    }
    return Seq2SeqConfig(
        encoder=EncoderConfig(**both, num_layers=layers, heads=()),
        decoder=ModelConfig(
            **both,
            num_layers=values.get("num_decoder_layers") or layers,
            source_length=positions,
            context_length=positions,
            tie_embeddings=tied,
            logit_scale=width**-0.5 if tied else 1.0,
        ),
    )


def values(config):
    """See `Family`. Padding, which also begins a target, and the end of a text have the ids that T5 gives them."""
    decoder = config.decoder
    return {
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
        "feed_forward_proj": word_of(ACTIVATIONS, decoder.activation),
        "tie_word_embeddings": decoder.tie_embeddings,
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
    }


def weights(config):
    """See `Family`."""
    found = [Weight("decoder/embedding", ("shared.weight",))]
    for name, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        heads = stack.num_heads * stack.attention_head_dim
        table = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        found.append(Weight(f"{name}/relative_embedding", (table,)))
        for i in range(stack.num_layers):
            ours, theirs = f"{name}/blocks/{i}", f"{name}.block.{i}.layer"
            first = f"{theirs}.0.SelfAttention"
            found.append(Weight(f"{ours}/attention_norm/scale", (f"{theirs}.0.layer_norm.weight",)))
            found += linear(f"{ours}/attention/query_key_value", *(f"{first}.{x}" for x in "qkv"), widths=(heads,) * 3)
            found += linear(f"{ours}/attention/output", f"{first}.o")
            last = 1
            if stack.source_length is not None:
                second, last = f"{theirs}.1.EncDecAttention", 2
                found.append(Weight(f"{ours}/cross_attention_norm/scale", (f"{theirs}.1.layer_norm.weight",)))
                found += linear(f"{ours}/cross_attention/query", f"{second}.q")
                found += linear(
                    f"{ours}/cross_attention/key_value", *(f"{second}.{x}" for x in "kv"), widths=(heads,) * 2
                )
                found += linear(f"{ours}/cross_attention/output", f"{second}.o")
            dense = f"{theirs}.{last}.DenseReluDense"
            found.append(Weight(f"{ours}/feed_forward_norm/scale", (f"{theirs}.{last}.layer_norm.weight",)))
            inputs = (f"{dense}.wi_0", f"{dense}.wi_1") if stack.gated_activation else (f"{dense}.wi",)
            found += linear(f"{ours}/feed_forward/input", *inputs, widths=(stack.feed_forward_dim,) * len(inputs))
            found += linear(f"{ours}/feed_forward/output", f"{dense}.wo")
        found.append(Weight(f"{name}/final_norm/scale", (f"{name}.final_layer_norm.weight",)))
    if not config.decoder.tie_embeddings:
        found += linear("decoder/output", "lm_head")
    return found


T5 = Family(
    architectures={"t5": "T5ForConditionalGeneration"},
    config=config,
    values=values,
    weights=weights,
    kind=Seq2SeqConfig,
    ignored=r"(encoder|decoder)\.embed_tokens\.weight"
    r"|decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",  # in old files, and never used
)
