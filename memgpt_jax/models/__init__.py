"""The decoder and its layers."""

from memgpt_jax.models.decoder import (
    LayerState,
    MemGPT,
    ModelState,
    apply,
    diagnostics,
    init,
    init_state,
    merge,
    score_tokens,
    split,
)
from memgpt_jax.models.memory_layer import MemoryLayer

__all__ = [
    "LayerState",
    "MemGPT",
    "MemoryLayer",
    "ModelState",
    "apply",
    "diagnostics",
    "init",
    "init_state",
    "merge",
    "score_tokens",
    "split",
]
