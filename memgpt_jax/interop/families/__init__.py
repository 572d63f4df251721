"""Families of pretrained models: one file and one registration each."""

from typing import Any

from memgpt_jax.config.registry import Registry
from memgpt_jax.interop.families.base import Family, Weight
from memgpt_jax.interop.families.bert import BERT
from memgpt_jax.interop.families.clip import CLIP_TEXT, CLIP_VISION
from memgpt_jax.interop.families.gpt2 import GPT2
from memgpt_jax.interop.families.llama import LLAMA
from memgpt_jax.interop.families.t5 import T5
from memgpt_jax.interop.families.vit import VIT
from memgpt_jax.interop.families.whisper import WHISPER
from memgpt_jax.interop.families.xlnet import XLNET

FAMILIES: Registry[Family[Any]] = Registry("family of pretrained models", Family, instances=True)
"""The families whose models are read and written, by name."""


def register_family(name: str, family: Family[Any]) -> None:
    """Add a family, whose models `from_pretrained` then reads.

    Args:
        name: a Python identifier that is not registered yet.
        family: the description of the family.

    Raises `ValueError` if the name or a `model_type` is registered already.
    """
    others = dict(FAMILIES)
    FAMILIES.register(name, None, family)
    for other, entry in others.items():
        taken = sorted(entry.module.architectures.keys() & family.architectures.keys())
        if taken:
            FAMILIES.unregister(name)
            raise ValueError(f"model_type {', '.join(map(repr, taken))} belongs to the family {other!r} already")


for _name, _family in (
    ("bert", BERT),
    ("gpt2", GPT2),
    ("llama", LLAMA),
    ("t5", T5),
    ("xlnet", XLNET),
    ("clip_text", CLIP_TEXT),
    ("clip_vision", CLIP_VISION),
    ("vit", VIT),
    ("whisper", WHISPER),
):
    register_family(_name, _family)

__all__ = ["FAMILIES", "Family", "Weight", "register_family"]
