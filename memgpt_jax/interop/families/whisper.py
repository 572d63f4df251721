"""Whisper: encoder-decoders from log-mel frames to text.

Source: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022). A token of the encoder is
two frames of 10 ms; transformers always gives it `max_source_positions` tokens, 30 s with silence at the end. Keys have
no bias, on which the softmax would not depend.
"""

from typing import Any

from memgpt_jax.config.features import FramesConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig, StackConfig
from memgpt_jax.interop.families import settings
from memgpt_jax.interop.families.base import (
    ACTIVATIONS,
    ZERO,
    Family,
    Weight,
    hf_name,
    layer_norm_weights,
    linear_weights,
)

SETTINGS = settings.UNSUPPORTED | {
    "is_encoder_decoder": settings.only(True),
    "vocab_size": settings.size(51865),
    "num_mel_bins": settings.size(80),
    "d_model": settings.size(384, also=("hidden_size",)),
    "encoder_layers": settings.layers(4, also=("num_hidden_layers",)),
    "encoder_attention_heads": settings.size(6, also=("num_attention_heads",)),
    "encoder_ffn_dim": settings.size(1536),
    "decoder_layers": settings.layers(4),
    "decoder_attention_heads": settings.size(6),
    "decoder_ffn_dim": settings.size(1536),
    "max_source_positions": settings.size(1500),
    "max_target_positions": settings.size(448),
    "activation_function": settings.word(ACTIVATIONS, "gelu"),
    "scale_embedding": settings.only(False),
    "tie_word_embeddings": settings.only(True),
    "use_weighted_layer_sum": settings.only(False),
}
EPSILON = 1e-5


def from_hf(values: dict[str, Any]) -> Seq2SeqConfig:
    """The config for the values of a config.json."""
    found = settings.read(SETTINGS, values)
    for stack in ("encoder", "decoder"):
        settings.check_divides(found, f"{stack}_attention_heads", "d_model")
    width, source, target = found["d_model"], found["max_source_positions"], found["max_target_positions"]
    both = {
        "vocab_size": found["vocab_size"],
        "d_model": width,
        "memory": NoMemoryConfig(),
        "position": "learned",
        "embedding_scale": 1.0,
        "norm": "layernorm",
        "norm_epsilon": EPSILON,
        "activation": found["activation_function"],
        "attention_bias": "all",
        "feed_forward_bias": True,
    }

    def sizes(stack: str) -> dict[str, Any]:
        heads = found[f"{stack}_attention_heads"]
        return {
            "num_layers": found[f"{stack}_layers"],
            "num_heads": heads,
            "num_kv_heads": heads,
            "head_dim": width // heads,
            "d_ff": found[f"{stack}_ffn_dim"],
        }

    frames = FramesConfig(num_mels=found["num_mel_bins"])
    return Seq2SeqConfig(
        encoder=EncoderConfig(**both, **sizes("encoder"), num_positions=source, features=frames, heads=()),
        decoder=ModelConfig(
            **both,
            **sizes("decoder"),
            num_positions=target,
            window_size=target,
            context_length=target,
            source_length=source,
        ),
    )


def to_hf(config: Seq2SeqConfig) -> dict[str, Any]:
    """The values of a config.json; {} for a config without frames."""
    encoder, decoder = config.encoder, config.decoder
    if not isinstance(encoder.features, FramesConfig):
        return {}
    return {
        "model_type": "whisper",
        "vocab_size": decoder.vocab_size,
        "num_mel_bins": encoder.features.num_mels,
        "d_model": decoder.d_model,
        "encoder_layers": encoder.num_layers,
        "encoder_attention_heads": encoder.num_heads,
        "encoder_ffn_dim": encoder.feed_forward_dim,
        "decoder_layers": decoder.num_layers,
        "decoder_attention_heads": decoder.num_heads,
        "decoder_ffn_dim": decoder.feed_forward_dim,
        "max_source_positions": encoder.num_positions,
        "max_target_positions": decoder.num_positions,
        "activation_function": hf_name(ACTIVATIONS, decoder.activation),
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "is_encoder_decoder": True,
    }


def weight_table(config: Seq2SeqConfig) -> list[Weight]:
    """The tensors of each parameter."""
    width, features = config.encoder.d_model, config.encoder.features
    assert isinstance(features, FramesConfig)
    found = [Weight("decoder/embedding", ("model.decoder.embed_tokens.weight",))]
    for ours, theirs, d_in in (("first", "conv1", features.num_mels), ("second", "conv2", width)):
        path, name = f"encoder/features/{ours}", f"model.encoder.{theirs}"
        found.append(Weight(f"{path}/kernel", (f"{name}.weight",), transposed=True, shape=(width, d_in, 3)))
        found.append(Weight(f"{path}/bias", (f"{name}.bias",)))
    for name, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        found.append(Weight(f"{name}/position_embedding", (f"model.{name}.embed_positions.weight",)))
        for i in range(stack.num_layers):
            found += _block(stack, f"{name}/blocks/{i}", f"model.{name}.layers.{i}")
        found += layer_norm_weights(f"{name}/final_norm", f"model.{name}.layer_norm")
    return found


def _block(stack: StackConfig, block: str, layer: str) -> list[Weight]:
    width, attention = stack.d_model, f"{layer}.self_attn"

    def joined(path: str, names: str) -> list[Weight]:
        """The projections of the letters `names`, of which keys have no bias."""
        projections = [f"{attention}.{letter}_proj" for letter in names]
        biases = tuple(ZERO if letter == "k" else f"{attention}.{letter}_proj.bias" for letter in names)
        widths = (width,) * len(names)
        return [*linear_weights(path, *projections, widths=widths), Weight(f"{path}/bias", biases, widths=widths)]

    found = joined(f"{block}/attention/query_key_value", "qkv")
    found += linear_weights(f"{block}/attention/output", f"{attention}.out_proj", bias=True)
    found += layer_norm_weights(f"{block}/attention_norm", f"{attention}_layer_norm")
    if stack.attends_to_source:
        attention = f"{layer}.encoder_attn"
        found += linear_weights(f"{block}/cross_attention/query", f"{attention}.q_proj", bias=True)
        found += joined(f"{block}/cross_attention/key_value", "kv")
        found += linear_weights(f"{block}/cross_attention/output", f"{attention}.out_proj", bias=True)
        found += layer_norm_weights(f"{block}/cross_attention_norm", f"{attention}_layer_norm")
    found += linear_weights(f"{block}/feed_forward/input", f"{layer}.fc1", bias=True)
    found += linear_weights(f"{block}/feed_forward/output", f"{layer}.fc2", bias=True)
    return found + layer_norm_weights(f"{block}/feed_forward_norm", f"{layer}.final_layer_norm")


def tied_tensors(config: Seq2SeqConfig) -> dict[str, str]:
    """See `Family.tied_tensors`."""
    return {"proj_out.weight": "decoder.embed_tokens.weight"}


WHISPER = Family(
    architectures={"whisper": "WhisperForConditionalGeneration"},
    from_hf=from_hf,
    to_hf=to_hf,
    weight_table=weight_table,
    config_class=Seq2SeqConfig,
    read_keys=settings.keys(SETTINGS),
    prefixes=("model.",),
    body=r"(encoder|decoder)\.",
    tied_tensors=tied_tensors,
)
