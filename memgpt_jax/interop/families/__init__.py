"""Families of pretrained models, one file each. A new one is a file and a line here."""

from memgpt_jax.interop.families.base import Family, Weight
from memgpt_jax.interop.families.bert import BERT
from memgpt_jax.interop.families.gpt2 import GPT2
from memgpt_jax.interop.families.llama import LLAMA
from memgpt_jax.interop.families.t5 import T5
from memgpt_jax.interop.families.xlnet import XLNET

FAMILIES: tuple[Family, ...] = (BERT, GPT2, LLAMA, T5, XLNET)

__all__ = ["FAMILIES", "Family", "Weight"]
