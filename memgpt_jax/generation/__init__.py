"""Generation with live memory: the memory is read and written while decoding, token by token."""

from memgpt_jax.generation.api import generate
from memgpt_jax.generation.sampling import Sampling, keep_min_p, keep_top_k, keep_top_p, penalize_repetition
from memgpt_jax.generation.session import Session

__all__ = [
    "Sampling",
    "Session",
    "generate",
    "keep_min_p",
    "keep_top_k",
    "keep_top_p",
    "penalize_repetition",
]
