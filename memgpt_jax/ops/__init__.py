"""Pure functions on arrays: everything the modules compute, usable without Flax."""

from memgpt_jax.ops.attention.dense import attend, attend_with_lse, attention_weights, map_rows, masked_bias, unit
from memgpt_jax.ops.attention.full import full_attention
from memgpt_jax.ops.attention.implementation import Implementation
from memgpt_jax.ops.attention.intervals import Interval, Recency, default_blocks, interval_attention
from memgpt_jax.ops.attention.positions import document_positions, rotate, sinusoidal
from memgpt_jax.ops.attention.relative import relative_bias, relative_bucket
from memgpt_jax.ops.attention.relative_shift import relative_logits, relative_shift
from memgpt_jax.ops.attention.segments import OwnEntries, Seen, Stored, own_visible, read_segments, source
from memgpt_jax.ops.attention.window import window_attention
from memgpt_jax.ops.fusion import gated_fusion, joint_softmax
from memgpt_jax.ops.linear import flat_dot_general
from memgpt_jax.ops.loss import Scores, cross_entropy, logit_scores
from memgpt_jax.ops.memory.addressing import (
    address_entropy,
    allocation,
    content_weights,
    erase_and_add,
    follow_links,
    free,
    interpolate,
    link_writes,
    read_slots,
    sharpen,
    shift,
    use,
)
from memgpt_jax.ops.memory.compression import compress, most_used
from memgpt_jax.ops.memory.fast_weights import Writes, fast_weights, fast_weights_of_heads, unit_features
from memgpt_jax.ops.memory.hops import Hops, multi_hop_read, multi_hop_weights, position_encoding
from memgpt_jax.ops.memory.inner_learning import Pairs, coefficients, learn, network
from memgpt_jax.ops.memory.nearest import nearest, nearest_of_groups, read_chosen
from memgpt_jax.ops.memory.reader import Source, read, read_mass, read_weights, read_with_lse
from memgpt_jax.ops.memory.writer import Entries, append, causal_conv, pool_entries, select_highest_gate, take
from memgpt_jax.ops.mesh import by_rows, entry_parts, everywhere, whole_vectors

__all__ = [
    "Entries",
    "Hops",
    "Implementation",
    "Interval",
    "OwnEntries",
    "Pairs",
    "Recency",
    "Scores",
    "Seen",
    "Source",
    "Stored",
    "Writes",
    "address_entropy",
    "allocation",
    "append",
    "attend",
    "attend_with_lse",
    "attention_weights",
    "by_rows",
    "causal_conv",
    "coefficients",
    "compress",
    "content_weights",
    "cross_entropy",
    "default_blocks",
    "document_positions",
    "entry_parts",
    "erase_and_add",
    "everywhere",
    "fast_weights",
    "fast_weights_of_heads",
    "flat_dot_general",
    "follow_links",
    "free",
    "full_attention",
    "gated_fusion",
    "interpolate",
    "interval_attention",
    "joint_softmax",
    "learn",
    "link_writes",
    "logit_scores",
    "map_rows",
    "masked_bias",
    "most_used",
    "multi_hop_read",
    "multi_hop_weights",
    "nearest",
    "nearest_of_groups",
    "network",
    "own_visible",
    "pool_entries",
    "position_encoding",
    "read",
    "read_chosen",
    "read_mass",
    "read_segments",
    "read_slots",
    "read_weights",
    "read_with_lse",
    "relative_bias",
    "relative_bucket",
    "relative_logits",
    "relative_shift",
    "rotate",
    "select_highest_gate",
    "sharpen",
    "shift",
    "sinusoidal",
    "source",
    "take",
    "unit",
    "unit_features",
    "use",
    "whole_vectors",
    "window_attention",
]
