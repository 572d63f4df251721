"""Heads, one subject a file, behind the interface of `memgpt_jax.models.heads.base`.

The distribution over next tokens is part of decoders, encoder-decoders and XLNets themselves: their head `tokens`.
"""

from collections.abc import Iterable

from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.model import EncoderConfig
from memgpt_jax.config.registry import Registry
from memgpt_jax.models.heads.base import Head
from memgpt_jax.models.heads.masked import MaskedHead
from memgpt_jax.models.heads.pairs import NextSentenceHead, Pooler

HEADS: Registry[type[Head]] = Registry("head", Head)
"""The heads of encoders by name, as in `EncoderConfig.heads`."""
register_head = HEADS.register
"""`register_head(name, None, module)`: make a head available in `EncoderConfig.heads`."""

register_head("masked", None, MaskedHead)
register_head("pooler", None, Pooler)
register_head("next_sentence", None, NextSentenceHead)


def make_heads(config: EncoderConfig, *, rngs: nnx.Rngs) -> nnx.Dict:
    """The heads of a model by name; `ValueError` if one is not registered, or reads a head that the model lacks."""
    for name in config.heads:
        check(name in HEADS, f"heads must be of {', '.join(HEADS)}, got {name!r}")
        needed = HEADS[name].module.reads
        check(needed is None or needed in config.heads, f"heads={config.heads}: {name} needs {needed}")
    return nnx.Dict({name: HEADS[name].module(config, rngs=rngs) for name in config.heads})


def in_order(heads: Iterable[str]) -> list[str]:
    """The heads and those that they read, each after the one that it reads."""
    ordered: list[str] = []
    for name in heads:
        chain = [name]
        while (needed := HEADS[chain[-1]].module.reads) is not None:
            chain.append(needed)
        ordered += [head for head in reversed(chain) if head not in ordered]
    return ordered


__all__ = ["HEADS", "Head", "in_order", "make_heads", "register_head"]
