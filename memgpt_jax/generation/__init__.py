"""Generation: the memory is read and written while tokens are decoded one at a time."""

from memgpt_jax.generation.answers import Piece
from memgpt_jax.generation.completion import Generated, generate
from memgpt_jax.generation.sampling import (
    Sampling,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    repeats_ngram,
)
from memgpt_jax.generation.session import Session
from memgpt_jax.generation.streaming import stream_generate

__all__ = [
    "Generated",
    "Piece",
    "Sampling",
    "Session",
    "generate",
    "keep_min_p",
    "keep_top_k",
    "keep_top_p",
    "penalize_repetition",
    "repeats_ngram",
    "stream_generate",
]
