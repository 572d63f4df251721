"""Exchange with other code: pretrained weights, Linen modules, and a memory for any block of a Flax model."""

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
