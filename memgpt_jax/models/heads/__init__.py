"""Heads of encoders, behind the interface of `memgpt_jax.models.heads.base`.

The language-model head of decoders, encoder-decoders and XLNet is part of the model; its name is `tokens`.
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
    """The heads of a model by name. Raises `ValueError` if one is not registered or reads a head that is missing."""
    for name in config.heads:
        check(name in HEADS, f"unknown head {name!r}; valid: {', '.join(HEADS)}")
        needed = HEADS[name].module.reads
        check(needed is None or needed in config.heads, f"heads={config.heads}: {name} needs {needed}")
    return nnx.Dict({name: HEADS[name].module(config, rngs=rngs) for name in config.heads})


def in_order(heads: Iterable[str]) -> list[str]:
    """The given heads and the heads that they read, ordered so that each follows the one that it reads."""
    ordered: list[str] = []
    for name in heads:
        chain = [name]
        while (needed := HEADS[chain[-1]].module.reads) is not None:
            chain.append(needed)
        ordered += [head for head in reversed(chain) if head not in ordered]
    return ordered


__all__ = ["HEADS", "Head", "in_order", "make_heads", "register_head"]
