"""Heads, behind the interface of `memgpt_jax.models.heads.base`.

`EncoderConfig.heads` names heads that are part of an encoder; `HeadedConfig.head` is the configuration of a head over
any model. The language-model head of decoders, encoder-decoders and XLNet is part of the model; its name is `tokens`.
"""

from collections.abc import Iterable

from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.heads import HeadConfig
from memgpt_jax.config.model import EncoderConfig, StackConfig
from memgpt_jax.config.registry import Registry
from memgpt_jax.models.heads.base import Head
from memgpt_jax.models.heads.frames import FramesHead, FramesHeadConfig
from memgpt_jax.models.heads.fusion import FusionHead, FusionHeadConfig, GraphHead, GraphHeadConfig
from memgpt_jax.models.heads.labels import LabelHead, LabelHeadConfig
from memgpt_jax.models.heads.layers import HEAD_LAYERS, HeadLayer, register_head_layer
from memgpt_jax.models.heads.links import LinkHead, LinkHeadConfig
from memgpt_jax.models.heads.masked import MaskedHead, MaskedHeadConfig
from memgpt_jax.models.heads.pairs import NextSentenceHead, NextSentenceHeadConfig, Pooler, PoolerConfig
from memgpt_jax.models.heads.scalars import ScalarHead, ScalarHeadConfig
from memgpt_jax.models.heads.spans import SpanHead, SpanHeadConfig
from memgpt_jax.models.heads.streams import StreamHead
from memgpt_jax.models.heads.transcripts import CTCHead, CTCHeadConfig
from memgpt_jax.models.heads.vectors import VectorHead, VectorHeadConfig
from memgpt_jax.models.heads.walks import WalkHead, WalkHeadConfig

HEADS: Registry[type[Head]] = Registry("head", Head, HeadConfig)
"""The heads by name, as in `EncoderConfig.heads` and on the command line."""
register_head = HEADS.register
"""`register_head(name, config, module)`: make a head available."""

register_head("masked", MaskedHeadConfig, MaskedHead)
register_head("pooler", PoolerConfig, Pooler)
register_head("next_sentence", NextSentenceHeadConfig, NextSentenceHead)
register_head("labels", LabelHeadConfig, LabelHead)
register_head("numbers", ScalarHeadConfig, ScalarHead)
register_head("spans", SpanHeadConfig, SpanHead)
register_head("vectors", VectorHeadConfig, VectorHead)
register_head("links", LinkHeadConfig, LinkHead)
register_head("transcript", CTCHeadConfig, CTCHead)
register_head("frames", FramesHeadConfig, FramesHead)
register_head("walks", WalkHeadConfig, WalkHead)
register_head("fusion", FusionHeadConfig, FusionHead)
register_head("graph", GraphHeadConfig, GraphHead)


def make_heads(config: EncoderConfig, *, rngs: nnx.Rngs) -> nnx.Dict:
    """The heads of an encoder by name, with default settings.

    Raises `ValueError` if one is not registered, or reads a head that is missing.
    """
    for name in config.heads:
        own = [head for head, entry in HEADS.items() if not issubclass(entry.module, StreamHead)]
        check(name in HEADS, f"unknown head {name!r}; valid: {', '.join(own)}")
        check(name in own, f"the head {name!r} is not part of an encoder: give HeadedConfig(head=...); valid: {own}")
        needed = HEADS[name].module.reads
        check(needed is None or needed in config.heads, f"heads={config.heads}: {name} needs {needed}")
    return nnx.Dict({name: make_head(default_config(name), config, rngs=rngs) for name in config.heads})


def default_config(name: str) -> HeadConfig:
    """The default configuration of a head."""
    config = HEADS[name].config
    assert config is not None  # the registry has configurations
    return config()


def make_head(config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs) -> Head:
    """The head of a configuration over the stack. Raises `ValueError` if none is registered for it."""
    return HEADS.of(config)(config, stack, rngs=rngs)


def in_order(heads: Iterable[str]) -> list[str]:
    """The given heads and the heads that they read, ordered so that each follows the one that it reads."""
    ordered: list[str] = []
    for name in heads:
        chain = [name]
        while (needed := HEADS[chain[-1]].module.reads) is not None:
            chain.append(needed)
        ordered += [head for head in reversed(chain) if head not in ordered]
    return ordered


__all__ = [
    "HEADS",
    "HEAD_LAYERS",
    "CTCHead",
    "CTCHeadConfig",
    "FramesHead",
    "FramesHeadConfig",
    "FusionHead",
    "FusionHeadConfig",
    "GraphHead",
    "GraphHeadConfig",
    "Head",
    "HeadLayer",
    "LabelHead",
    "LabelHeadConfig",
    "LinkHead",
    "LinkHeadConfig",
    "ScalarHead",
    "ScalarHeadConfig",
    "SpanHead",
    "SpanHeadConfig",
    "StreamHead",
    "VectorHead",
    "VectorHeadConfig",
    "WalkHead",
    "WalkHeadConfig",
    "in_order",
    "make_head",
    "make_heads",
    "register_head",
    "register_head_layer",
]
