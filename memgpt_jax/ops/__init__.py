"""Pure functions on arrays: everything the modules compute, usable without Flax."""

from memgpt_jax.ops.attention import attend, attention_weights, map_rows, masked_bias, window_attention
from memgpt_jax.ops.compress import compress, most_used
from memgpt_jax.ops.fusion import gated_fusion
from memgpt_jax.ops.hops import Hops, multi_hop_read, position_encoding, unit
from memgpt_jax.ops.linear import flat_dot_general
from memgpt_jax.ops.loss import Scores, cross_entropy
from memgpt_jax.ops.nearest import nearest, read_chosen
from memgpt_jax.ops.positions import document_positions, rotate, sinusoidal
from memgpt_jax.ops.read import Source, read, read_mass
from memgpt_jax.ops.write import Entries, append, causal_conv, pool_entries, select_highest_gate, take

__all__ = [
    "Entries",
    "Hops",
    "Scores",
    "Source",
    "append",
    "attend",
    "attention_weights",
    "causal_conv",
    "compress",
    "cross_entropy",
    "document_positions",
    "flat_dot_general",
    "gated_fusion",
    "map_rows",
    "masked_bias",
    "most_used",
    "multi_hop_read",
    "nearest",
    "pool_entries",
    "position_encoding",
    "read",
    "read_chosen",
    "read_mass",
    "rotate",
    "select_highest_gate",
    "sinusoidal",
    "take",
    "unit",
    "window_attention",
]
