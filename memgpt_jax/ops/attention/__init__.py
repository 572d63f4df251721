"""Attention within a call: dense, windowed and full attention, kernels, and positions."""

from memgpt_jax.config.kernels import Implementation
from memgpt_jax.ops.attention.dense import (
    attend,
    attend_one_query,
    attend_with_lse,
    attention_weights,
    map_rows,
    masked_bias,
    normalize,
    weights_by_head,
)
from memgpt_jax.ops.attention.full import full_attention
from memgpt_jax.ops.attention.intervals import Interval, Recency, default_blocks, interval_attention
from memgpt_jax.ops.attention.relative import RelativeTerms, relative_bias, relative_bucket, relative_logits
from memgpt_jax.ops.attention.window import window_attention, window_attention_with_lse, window_weights

__all__ = [
    "Implementation",
    "Interval",
    "Recency",
    "RelativeTerms",
    "attend",
    "attend_one_query",
    "attend_with_lse",
    "attention_weights",
    "default_blocks",
    "full_attention",
    "interval_attention",
    "map_rows",
    "masked_bias",
    "normalize",
    "relative_bias",
    "relative_bucket",
    "relative_logits",
    "weights_by_head",
    "window_attention",
    "window_attention_with_lse",
    "window_weights",
]
