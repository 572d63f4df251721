"""Memory in other people's code: Linen modules of ours, and a memory for any block of theirs."""

from memgpt_jax.interop.linen import to_linen
from memgpt_jax.interop.wrapping import wrap

__all__ = ["to_linen", "wrap"]
