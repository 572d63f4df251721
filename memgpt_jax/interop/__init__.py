"""To and from other people's code: pretrained weights, Linen modules of ours, a memory for any block of theirs."""

from memgpt_jax.interop.add_memory import add_memory
from memgpt_jax.interop.linen import to_linen
from memgpt_jax.interop.pretrained import from_pretrained, save_pretrained
from memgpt_jax.interop.wrap import wrap

__all__ = [
    "add_memory",
    "from_pretrained",
    "save_pretrained",
    "to_linen",
    "wrap",
]
