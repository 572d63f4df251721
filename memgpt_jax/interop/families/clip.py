"""CLIP: a decoder of texts and an encoder of pictures, whose vectors are compared.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021). Each tower is a
model of its own: `CLIPTextModelWithProjection` and `CLIPVisionModelWithProjection`, or a part of a `CLIPModel`. In that
of pictures the token of id 1 is the class token; patches, of id 0, have no bias.
"""

from collections.abc import Mapping
from typing import Any

from memgpt_jax.config.features import PatchesConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, StackConfig
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

PARTS = ("text", "vision")
"""The towers."""
TOWER = settings.UNSUPPORTED | {
    "intermediate_size": settings.size(2048),
    "num_hidden_layers": settings.layers(12),
    "hidden_act": settings.word(ACTIVATIONS | {"quick_gelu": "gelu_quick"}, "quick_gelu"),
    "layer_norm_eps": settings.number(1e-5),
    "projection_dim": settings.size(512),
}
TEXT = TOWER | {
    "vocab_size": settings.size(49408),
    "hidden_size": settings.size(512),
    "num_attention_heads": settings.size(8),
    "max_position_embeddings": settings.size(77),
}
VISION = TOWER | {
    "hidden_size": settings.size(768),
    "num_attention_heads": settings.size(12),
    "image_size": settings.size(224),
    "patch_size": settings.size(32),
    "num_channels": settings.size(3),
}


def part_of(values: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The config.json of one tower, from that of a `CLIPModel`. Raises `ValueError` if there is none."""
    own = values.get(f"{part}_config")
    if values.get("model_type") != "clip" or part not in PARTS or not isinstance(own, Mapping):
        raise ValueError(
            f"config.json: part={part!r} is for model_type='clip' with {part}_config; valid parts: {', '.join(PARTS)}; "
            f"got model_type={values.get('model_type')!r}"
        )
    kind = f"clip_{part}_model"
    projection = {"projection_dim": values["projection_dim"]} if "projection_dim" in values else {}
    named = {"model_type": kind, "architectures": [ARCHITECTURES[kind]]}
    return {**own} | projection | named


ARCHITECTURES = {
    "clip_text_model": "CLIPTextModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
}


def _both(found: dict[str, Any]) -> dict[str, Any]:
    """The fields that a config has in both towers."""
    settings.check_divides(found, "num_attention_heads", "hidden_size")
    width, heads = found["hidden_size"], found["num_attention_heads"]
    return {
        "d_model": width,
        "num_layers": found["num_hidden_layers"],
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": width // heads,
        "d_ff": found["intermediate_size"],
        "memory": NoMemoryConfig(),
        "position": "learned",
        "embedding_scale": 1.0,
        "norm": "layernorm",
        "norm_epsilon": found["layer_norm_eps"],
        "activation": found["hidden_act"],
        "attention_bias": "all",
        "feed_forward_bias": True,
    }


def text_from_hf(values: dict[str, Any]) -> ModelConfig:
    """The config for the values of a config.json. The logits of the decoder have no meaning."""
    found = settings.read(TEXT, values)
    positions = found["max_position_embeddings"]
    return ModelConfig(
        **_both(found),
        vocab_size=found["vocab_size"],
        num_positions=positions,
        window_size=positions,
        context_length=positions,
    )


def vision_from_hf(values: dict[str, Any]) -> EncoderConfig:
    """The config for the values of a config.json."""
    found = settings.read(VISION, values)
    settings.check_divides(found, "patch_size", "image_size")
    size, patch = found["image_size"], found["patch_size"]
    return EncoderConfig(
        **_both(found),
        vocab_size=2,
        num_positions=1 + (size // patch) ** 2,
        embedding_norm=True,
        features=PatchesConfig(height=size, width=size, patch_size=patch, channels=found["num_channels"]),
        heads=(),
    )


def _values(config: StackConfig, kind: str) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.feed_forward_dim,
        "hidden_act": hf_name(ACTIVATIONS | {"quick_gelu": "gelu_quick"}, config.activation),
        "layer_norm_eps": config.norm_epsilon,
    }


def text_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The values of a config.json."""
    sizes = {"vocab_size": config.vocab_size, "max_position_embeddings": config.num_positions}
    return _values(config, "clip_text_model") | sizes


def vision_to_hf(config: EncoderConfig) -> dict[str, Any]:
    """The values of a config.json; {} for a config without patches."""
    patches = config.features
    if not isinstance(patches, PatchesConfig):
        return {}
    sizes = {"image_size": patches.height, "patch_size": patches.patch_size, "num_channels": patches.channels}
    return _values(config, "clip_vision_model") | sizes


def _blocks(config: StackConfig, tower: str) -> list[Weight]:
    found, width = [], config.d_model
    for i in range(config.num_layers):
        block, layer = f"blocks/{i}", f"{tower}.encoder.layers.{i}"
        parts = (f"{layer}.self_attn.{name}_proj" for name in "qkv")
        found += linear_weights(f"{block}/attention/query_key_value", *parts, widths=(width,) * 3, bias=True)
        found += linear_weights(f"{block}/attention/output", f"{layer}.self_attn.out_proj", bias=True)
        found += layer_norm_weights(f"{block}/attention_norm", f"{layer}.layer_norm1")
        found += linear_weights(f"{block}/feed_forward/input", f"{layer}.mlp.fc1", bias=True)
        found += linear_weights(f"{block}/feed_forward/output", f"{layer}.mlp.fc2", bias=True)
        found += layer_norm_weights(f"{block}/feed_forward_norm", f"{layer}.layer_norm2")
    return found


def text_weight_table(config: ModelConfig) -> list[Weight]:
    """The tensors of each parameter."""
    first = "text_model.embeddings"
    return [
        Weight("embedding", (f"{first}.token_embedding.weight",)),
        Weight("position_embedding", (f"{first}.position_embedding.weight",)),
        *_blocks(config, "text_model"),
        *layer_norm_weights("final_norm", "text_model.final_layer_norm"),
    ]


def vision_weight_table(config: EncoderConfig) -> list[Weight]:
    """The tensors of each parameter."""
    patches, width, first = config.features, config.d_model, "vision_model.embeddings"
    assert isinstance(patches, PatchesConfig)
    shape = (width, patches.channels, patches.patch_size, patches.patch_size)
    kernel = f"{first}.patch_embedding.weight"
    return [
        Weight("embedding", (ZERO, f"{first}.class_embedding"), rows=((width,), (width,))),
        Weight("features/projection/kernel", (kernel,), transposed=True, shape=shape),
        Weight("position_embedding", (f"{first}.position_embedding.weight",)),
        *layer_norm_weights("embedding_norm", "vision_model.pre_layrnorm"),
        *_blocks(config, "vision_model"),
        *layer_norm_weights("final_norm", "vision_model.post_layernorm"),
    ]


BUFFERS = r".*\.position_ids"
CLIP_TEXT = Family(
    architectures={"clip_text_model": ARCHITECTURES["clip_text_model"]},
    from_hf=text_from_hf,
    to_hf=text_to_hf,
    weight_table=text_weight_table,
    read_keys=settings.keys(TEXT),
    ignored=BUFFERS,
    body=r"text_model\.",
)
CLIP_VISION = Family(
    architectures={"clip_vision_model": ARCHITECTURES["clip_vision_model"]},
    from_hf=vision_from_hf,
    to_hf=vision_to_hf,
    weight_table=vision_weight_table,
    config_class=EncoderConfig,
    read_keys=settings.keys(VISION),
    ignored=BUFFERS,
    body=r"vision_model\.",
)
