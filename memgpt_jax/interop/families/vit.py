"""ViT: encoders of the patches of a picture after a class token.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021). The token of id 1 is the class token; patches have
the id 0, whose embedding is the bias of their projection.
"""

import dataclasses
from collections.abc import Container
from typing import Any

from memgpt_jax.config.features import PatchesConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig
from memgpt_jax.interop.families import settings
from memgpt_jax.interop.families.base import ACTIVATIONS, Family, Weight, hf_name, layer_norm_weights, linear_weights

SETTINGS = settings.UNSUPPORTED | {
    "hidden_size": settings.size(768),
    "num_hidden_layers": settings.layers(12),
    "num_attention_heads": settings.size(12),
    "intermediate_size": settings.size(3072),
    "hidden_act": settings.word(ACTIVATIONS, "gelu"),
    "layer_norm_eps": settings.number(1e-12),
    "image_size": settings.size(224),
    "patch_size": settings.size(16),
    "num_channels": settings.size(3),
    "qkv_bias": settings.only(True),
    "pooler_output_size": settings.size(None, null=True),
    "pooler_act": settings.only("tanh"),
}
HEADS = {"ViTModel": ("pooler",), "ViTForImageClassification": ()}
"""The heads of this library in each class of transformers; that of labels is read with `task_head=True`."""


def from_hf(values: dict[str, Any]) -> EncoderConfig:
    """The config for the values of a config.json."""
    name = settings.architecture(values, HEADS, "ViTModel")
    found = settings.read(SETTINGS, values)
    settings.check_divides(found, "num_attention_heads", "hidden_size")
    settings.check_divides(found, "patch_size", "image_size")
    width, heads, size = found["hidden_size"], found["num_attention_heads"], found["image_size"]
    if found["pooler_output_size"] not in (None, width):
        raise ValueError(f"config.json: pooler_output_size={found['pooler_output_size']} must be hidden_size={width}")
    patches = PatchesConfig(height=size, width=size, patch_size=found["patch_size"], channels=found["num_channels"])
    return EncoderConfig(
        vocab_size=2,
        d_model=width,
        num_layers=found["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        d_ff=found["intermediate_size"],
        memory=NoMemoryConfig(),
        position="learned",
        num_positions=1 + (size // found["patch_size"]) ** 2,
        embedding_scale=1.0,
        norm="layernorm",
        norm_epsilon=found["layer_norm_eps"],
        activation=found["hidden_act"],
        attention_bias="all",
        feed_forward_bias=True,
        features=patches,
        heads=HEADS[name],
    )


def to_hf(config: EncoderConfig) -> dict[str, Any]:
    """The values of a config.json; {} for a config without patches."""
    patches = config.features
    if not isinstance(patches, PatchesConfig):
        return {}
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.feed_forward_dim,
        "hidden_act": hf_name(ACTIVATIONS, config.activation),
        "layer_norm_eps": config.norm_epsilon,
        "image_size": patches.height,
        "patch_size": patches.patch_size,
        "num_channels": patches.channels,
        "qkv_bias": True,
    }


def weight_table(config: EncoderConfig) -> list[Weight]:
    """The tensors of each parameter."""
    patches, width = config.features, config.d_model
    assert isinstance(patches, PatchesConfig)
    first, size = "embeddings.patch_embeddings.projection", patches.patch_size
    found = [
        Weight("embedding", (f"{first}.bias", "embeddings.cls_token"), rows=((width,), (1, 1, width))),
        Weight(
            "features/projection/kernel",
            (f"{first}.weight",),
            transposed=True,
            shape=(width, patches.channels, size, size),
        ),
        Weight("position_embedding", ("embeddings.position_embeddings",), shape=(1, config.num_positions, width)),
    ]
    for i in range(config.num_layers):
        block, layer = f"blocks/{i}", f"encoder.layer.{i}"
        parts = (f"{layer}.attention.attention.{name}" for name in ("query", "key", "value"))
        found += linear_weights(f"{block}/attention/query_key_value", *parts, widths=(width,) * 3, bias=True)
        found += linear_weights(f"{block}/attention/output", f"{layer}.attention.output.dense", bias=True)
        found += layer_norm_weights(f"{block}/attention_norm", f"{layer}.layernorm_before")
        found += linear_weights(f"{block}/feed_forward/input", f"{layer}.intermediate.dense", bias=True)
        found += linear_weights(f"{block}/feed_forward/output", f"{layer}.output.dense", bias=True)
        found += layer_norm_weights(f"{block}/feed_forward_norm", f"{layer}.layernorm_after")
    found += layer_norm_weights("final_norm", "layernorm")
    if "pooler" in config.heads:
        found += linear_weights("heads/pooler/dense", "pooler.dense", bias=True)
    return found


def fitted(config: EncoderConfig, names: Container[str]) -> EncoderConfig:
    """The config without the pooler if the file lacks it."""
    heads = config.heads if "pooler.dense.weight" in names else ()
    return dataclasses.replace(config, heads=heads)


VIT = Family(
    architectures={"vit": "ViTModel"},
    from_hf=from_hf,
    to_hf=to_hf,
    weight_table=weight_table,
    config_class=EncoderConfig,
    read_keys=settings.keys(SETTINGS),
    prefixes=("vit.",),
    body=r"(embeddings|encoder|layernorm)\.",
    fitted=fitted,
)
